"""Value functions V(s) of ``LMPolicy``: of the whole text so far, or of the last hidden state."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from textgym_agents.episodes import Episodes

__all__ = [
    "FittedValueFunction",
    "LinearValue",
    "PastEpisodes",
    "PrefixValue",
    "ValueFunction",
    "ValueInputs",
    "ValueRegression",
]


class ValueInputs(NamedTuple):
    """M states, prefixes of B texts, with what the forward of the language model gives for them."""

    ids: torch.Tensor
    """(B, W) int64 texts, padded with any number from 0 to V."""
    rows: torch.Tensor
    """(M,) int64, text of each state."""
    columns: torch.Tensor
    """(M,) int64, position of each state's last token."""
    hidden: torch.Tensor
    """(M, H) last hidden states, with gradients only if ``value_gradient``."""
    logits: torch.Tensor
    """(M, V) float32 logits of pi(.|s), -inf where invalid, without gradients."""


class ValueFunction(nn.Module, ABC):
    """Interface of V(s); a subclass implements ``forward``, which must be a function of the state alone.

    It is trained by the gradient of the value loss, ``vf_coef * mean[(V(s_t) - G_t)^2 / 2]``.
    """

    @abstractmethod
    def forward(self, inputs: ValueInputs) -> torch.Tensor:
        """Return (M,) float32 V(s), in units of return."""


class FittedValueFunction(ValueFunction):
    """A V(s) that textgym's actor-critics fit to past episodes after each update, in place of the gradient."""

    @abstractmethod
    def fit(self, past: "PastEpisodes", gamma: float) -> None:
        """Fit V to the Monte-Carlo returns of past episodes."""


class LinearValue(ValueFunction):
    """V(s) = w . h(s) + b of the last hidden state h(s); it starts at 0.

    Args:
        hidden_size: H.
        device: Device of the weights.
    """

    def __init__(self, hidden_size: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden_size, device=device))
        self.bias = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, inputs: ValueInputs) -> torch.Tensor:
        """Return (M,) float32 V(s)."""
        return F.linear(inputs.hidden.to(self.weight.dtype), self.weight, self.bias)[:, 0].float()


class PastEpisodes(NamedTuple):
    """R past episodes of at most T steps, the oldest first, right-padded with 0: what ``PrefixValue`` is fitted on."""

    ids: torch.Tensor
    """(R, W) int32 texts."""
    positions: torch.Tensor
    """(R, T) int64, column of each action's token."""
    num_steps: torch.Tensor
    """(R,) int64."""
    log_probs: torch.Tensor
    """(R, T) float32 log pi(a_t|s_t) of the policy that acted, in nats."""
    returns: torch.Tensor
    """(R, T) float32 Monte-Carlo returns."""
    updates: torch.Tensor
    """(R,) int64, number of the update in which each was collected."""

    @classmethod
    def of(cls, episodes: Episodes, returns: torch.Tensor, update: int) -> "PastEpisodes":
        """Return B episodes with their (B, T) returns."""
        return cls(
            episodes.ids.int(),
            episodes.positions,
            episodes.num_steps,
            episodes.log_probs.float(),
            returns.float(),  # of a model in float64, too
            torch.full((len(episodes),), update),
        )

    def followed_by(self, new: "PastEpisodes", capacity: int) -> "PastEpisodes":
        """Return the last ``capacity`` of these and the new episodes."""
        columns = []
        for old, added in zip(self, new, strict=True):
            if old.ndim == 2:
                width = max(old.shape[1], added.shape[1])
                old, added = (F.pad(each, (0, width - each.shape[1])) for each in (old, added))
            columns.append(torch.cat([old, added])[-capacity:])
        return PastEpisodes(*columns)


class PrefixValue(FittedValueFunction):
    """V(s) of the whole text so far, a saturating function of a sum over its tokens.

    Of a text of n_t tokens x_1, x_2, ...

        V(s_t) = c + z_t / sqrt(1 + (z_t / r)^2)
        z_t = b(n_t) + sum over i <= n_t of w[x_i] + p_t^4 w[a_t],  a_t = argmax pi(.|s_t),  p_t = pi(a_t|s_t)

    w holds a weight per token, b is piecewise linear in log n. The last term is a look-ahead: a token that is as good
    as certain counts already, so that V does not jump when it is written. c and r are the middle and half the range of
    the past returns: most scores are bounded, and more of the same words changes them less and less. The hidden state
    is not used; a linear function of it alone explains less of the sentiment of the embedded LM's stories.

    ``fit`` minimizes over w and b, with y_t = G_t - c of the Monte-Carlo returns G of past episodes,

        sum of weight_t (2 r sqrt(r^2 + z_t^2) - 2 z_t y_t)
        + CONSISTENCY * sum of (z_t - y_t - gamma (z_{t+1} - y_{t+1}))^2 / T + RIDGE |w|^2 + LENGTH_RIDGE |b|^2

    The first term is the matching loss of V: its derivative by z_t is 2 (V(s_t) - G_t), it is convex, and for a large r
    it is (z_t - y_t)^2 and a constant. The weight is the fourth power of the fraction of the episode's steps taken,
    because less and less of the return is still random; an episode weighs 1 on average. The second sum is over the
    steps whose token had a probability above 0.9: z must not change there but by the reward. A fit takes a few steps of
    conjugate gradients (Hestenes and Stiefel 1952), from the last solution, on the quadratic bound that touches the
    objective there; none raises the objective.
    They cost additions over the tokens of the past episodes, no forward of the language model.

    What tokens are worth hardly changes while the policy learns, but the mean of the returns does. Therefore b is
    replaced by the one that fits the newest episodes best, given w before it was fitted to them.

    A sum over tokens does not compare the completion with the prompt. Where that decides the score, as in question
    answering, ``"linear"`` explains more (``benchmarks/value_function.py --tasks``).

    Where ``fit`` is not called, as in stock Stable-Baselines3, w and b are trained by gradient, and V = z. Memory:
    a number per token of the vocabulary.

    Args:
        vocab_size: V.
        device: Device of the weights.

    Attributes:
        center: c, 0 before the first fit.
        radius: r, infinite before the first fit.
        fitted_length_values: (KNOTS,) float32, b of the minimum, before it is replaced.
        moments: (KNOTS, KNOTS + 1) float32, normal equations of the newest episodes, from which b is computed.

    Source: regression of V on Monte-Carlo returns, Sutton and Barto 2018, Reinforcement Learning, section 9.4; matching
    loss, Auer, Herbster and Warmuth 1995, Exponentially many local minima for single neurons; the bound, Charbonnier et
    al. 1997, Deterministic edge-preserving regularization in computed imaging.
    """

    center: torch.Tensor
    radius: torch.Tensor
    fitted_length_values: torch.Tensor
    moments: torch.Tensor
    RIDGE: ClassVar[float] = 1.0
    """Coefficient of |w|^2, in episodes: a token's weight is halved if so many episodes hold it."""
    LENGTH_RIDGE: ClassVar[float] = 0.3
    """Coefficient of |b|^2, in episodes."""
    CONSISTENCY: ClassVar[float] = 10.0
    """Coefficient of the squared inconsistency at steps of a certain token."""
    NUM_STEPS: ClassVar[int] = 5
    """Steps of conjugate gradients per fit."""
    HALF_LIFE: ClassVar[float] = 32.0
    """Updates after which an episode counts half, since the policy changes."""
    CALIBRATION_HALF_LIFE: ClassVar[float] = 1.0
    """Updates after which an episode counts half in b."""
    CALIBRATION_RIDGE: ClassVar[float] = 0.1
    """Coefficient of the squared distance of b from the fitted one, in episodes."""
    KNOTS: ClassVar[int] = 32
    """Knots of b, two an octave."""

    def __init__(self, vocab_size: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.token_values = nn.Parameter(torch.zeros(vocab_size, device=device))
        self.length_values = nn.Parameter(torch.zeros(self.KNOTS, device=device))
        self.register_buffer("center", torch.zeros((), device=device))
        self.register_buffer("radius", torch.full((), torch.inf, device=device))
        self.register_buffer("fitted_length_values", torch.zeros(self.KNOTS, device=device))
        self.register_buffer("moments", torch.zeros(self.KNOTS, self.KNOTS + 1, device=device))

    def forward(self, inputs: ValueInputs) -> torch.Tensor:
        """Return (M,) float32 V(s)."""
        device = self.token_values.device
        rows, columns = inputs.rows.to(device), inputs.columns.to(device)
        tokens = inputs.ids.to(device).clamp(max=len(self.token_values) - 1)
        largest, likeliest = inputs.logits.max(dim=-1)
        log_probs = largest - inputs.logits.logsumexp(dim=-1)
        # The gradient of an embedding is faster than that of an index.
        written = F.embedding(tokens, self.token_values[:, None])[..., 0].cumsum(dim=1)[rows, columns]
        ahead = (4 * log_probs).exp() * self.token_values[likeliest]
        below, fractions = _knots(columns + 1)
        at_length = torch.lerp(self.length_values[below], self.length_values[below + 1], fractions)
        sums = (written + ahead + at_length).float()
        return self.center + sums * _chord(sums, self.radius)

    @torch.no_grad()
    def fit(self, past: PastEpisodes, gamma: float) -> None:
        """Approach the minimum of the regression on R past episodes; the newest count most."""
        returns = past.returns[torch.arange(past.returns.shape[1]) < past.num_steps[:, None]]
        self.center.copy_((returns.min() + returns.max()) / 2)
        self.radius.copy_(((returns.max() - returns.min()) / 2).clamp(min=1e-6))
        problem = _Regression(self, past, gamma)
        # Before the fit sees the newest episodes.
        self.moments.mul_(0.5 ** (1 / self.CALIBRATION_HALF_LIFE))
        self.moments += problem.length_moments(self, (past.updates == past.updates[-1]).to(self.moments.device))

        solution = torch.cat([self.token_values, self.fitted_length_values])
        residual = problem.right_side() - problem.product(solution)
        scale = problem.diagonal()
        direction = residual / scale
        product = residual @ direction
        for _ in range(self.NUM_STEPS):
            if product <= 0:
                break
            image = problem.product(direction)
            length = product / (direction @ image)
            solution += length * direction
            residual -= length * image
            preconditioned = residual / scale
            before, product = product, residual @ preconditioned
            direction = preconditioned + product / before * direction

        self.token_values.copy_(solution[: len(self.token_values)])
        self.fitted_length_values.copy_(solution[len(self.token_values) :])
        matrix = self.moments[:, :-1] + self.CALIBRATION_RIDGE * torch.eye(self.KNOTS, device=self.moments.device)
        right_side = self.moments[:, -1] + self.CALIBRATION_RIDGE * self.fitted_length_values
        self.length_values.copy_(torch.linalg.solve(matrix, right_side))


class _Regression:
    """The normal equations of one ``PrefixValue.fit`` for the vector (w, b), without their matrix.

    The bound replaces 2 r sqrt(r^2 + z^2) by z^2 / sqrt(1 + (z_0 / r)^2) and a constant, z_0 of the last solution.
    X is the design matrix: X (w, b) are the (R, T) sums z. There the written token is in the look-ahead, not the
    likeliest: they are the same wherever p^4 counts.
    """

    def __init__(self, value: PrefixValue, past: PastEpisodes, gamma: float) -> None:
        device = value.token_values.device
        ids, positions, num_steps, log_probs, returns, updates = (column.to(device) for column in past)
        self.gamma, self.vocab_size = gamma, len(value.token_values)
        self.ids, self.actions, self.columns = ids, ids.gather(1, positions), (positions - 1).clamp(min=0)
        self.below, self.fractions = _knots(positions)
        steps = torch.arange(positions.shape[1], device=device)
        self.inside = inside = steps < num_steps[:, None]
        ages = (0.5 ** ((updates.max() - updates) / value.HALF_LIFE))[:, None]
        weights = ((steps + 1) / num_steps[:, None]) ** 4 * inside
        self.weights = ages * weights * (len(weights) / weights.sum())
        self.certainty = (4 * log_probs).exp() * inside
        is_certain = (log_probs[:, :-1].exp() > 0.9) & inside[:, 1:] & (positions.diff(dim=1) == 1)
        self.consistency = value.CONSISTENCY / len(steps) * ages * is_certain
        self.ridge = torch.full((self.vocab_size + value.KNOTS,), value.RIDGE, device=device)
        self.ridge[self.vocab_size :] = value.LENGTH_RIDGE
        self.targets = (returns - value.center) * inside
        solution = torch.cat([value.token_values, value.fitted_length_values])
        self.chords = _chord(self._sums(solution), value.radius)

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the matrix of the normal equations times a vector."""
        sums = self._sums(vector)
        jumps = self.consistency * self._jumps(sums)
        return self._transposed(self.weights * self.chords * sums, jumps) + self.ridge * vector

    def right_side(self) -> torch.Tensor:
        """Return the right side of the normal equations; a reward is the jump of the returns."""
        return self._transposed(self.weights * self.targets, self.consistency * self._jumps(self.targets))

    def diagonal(self) -> torch.Tensor:
        """Return the diagonal of the matrix without consistency, as if no text held a token twice."""
        return self._transposed(self.weights * self.chords, torch.zeros_like(self.consistency)) + self.ridge

    def length_moments(self, value: PrefixValue, rows: torch.Tensor) -> torch.Tensor:
        """Return (KNOTS, KNOTS + 1) normal equations of b, given w, on some episodes; each counts 1 if of T steps."""
        inside = self.inside & rows[:, None]
        below, fractions = self.below[inside][:, None], self.fractions[inside][:, None]
        shares = torch.zeros(len(below), value.KNOTS, device=fractions.device)
        shares.scatter_(1, below, 1 - fractions).scatter_(1, below + 1, fractions)
        tokens = self._sums(torch.cat([value.token_values, torch.zeros_like(value.length_values)]))[inside]
        chords = _chord(tokens + shares @ value.length_values, value.radius)
        targets = self.targets[inside] - chords * tokens
        return shares.T @ torch.cat([chords[:, None] * shares, targets[:, None]], dim=1) / inside.shape[1]

    def _jumps(self, sums: torch.Tensor) -> torch.Tensor:
        return sums[:, :-1] - self.gamma * sums[:, 1:]

    def _sums(self, vector: torch.Tensor) -> torch.Tensor:
        """Return X vector, (R, T)."""
        token_values, length_values = vector[: self.vocab_size], vector[self.vocab_size :]
        written = token_values[self.ids].cumsum(dim=1).gather(1, self.columns)
        ahead = self.certainty * token_values[self.actions]
        return written + ahead + torch.lerp(length_values[self.below], length_values[self.below + 1], self.fractions)

    def _transposed(self, values: torch.Tensor, jumps: torch.Tensor) -> torch.Tensor:
        """Return X' (values + the transpose of _jumps times jumps)."""
        values = values.clone()
        values[:, :-1] += jumps
        values[:, 1:] -= self.gamma * jumps
        at_columns = torch.zeros_like(self.ids, dtype=values.dtype).scatter_add_(1, self.columns, values)
        after = at_columns.sum(dim=1, keepdim=True) - at_columns.cumsum(dim=1) + at_columns
        upper = values * self.fractions
        knots = self.below + self.vocab_size
        indices = torch.cat([each.flatten() for each in (self.ids, self.actions, knots, knots + 1)])
        amounts = torch.cat([each.flatten() for each in (after, self.certainty * values, values - upper, upper)])
        return torch.bincount(indices, amounts, len(self.ridge))


class ValueRegression:
    """What an actor-critic keeps of past episodes to fit V on; nothing, if V is trained by gradient.

    Args:
        value: V.
        capacity: Episodes to keep.

    Attributes:
        past: The episodes, or None.
    """

    def __init__(self, value: Any, capacity: int) -> None:
        self._value = value
        self._capacity = capacity
        self.past: PastEpisodes | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether V is fitted to past episodes, not trained by the gradient of the loss."""
        return isinstance(self._value, FittedValueFunction)

    def update(self, episodes: Episodes, returns: torch.Tensor, gamma: float) -> None:
        """Add B episodes with their (B, T) Monte-Carlo returns, and fit V."""
        if not isinstance(self._value, FittedValueFunction):
            return
        number = 0 if self.past is None else int(self.past.updates[-1]) + 1
        new = PastEpisodes.of(episodes, returns, number)
        self.past = new if self.past is None else self.past.followed_by(new, self._capacity)
        self._value.fit(self.past, gamma)

    def save(self, folder: Path) -> None:
        """Write the past episodes into the folder."""
        if self.past is not None:
            save_file(self.past._asdict(), folder / "past.safetensors")

    def load(self, folder: Path, state: None = None) -> None:
        """Restore what ``save`` wrote."""
        path = folder / "past.safetensors"
        self.past = PastEpisodes(**load_file(path)) if path.exists() else None


def _chord(sums: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Return (V(s) - c) / z of sums z, which is also the curvature of the quadratic bound at z."""
    return (1 + (sums / radius) ** 2).rsqrt()


def _knots(lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the knots below lengths of at least 1, two an octave, and the fraction of the way to the next."""
    places = (2 * lengths.clamp(min=1).float().log2()).clamp(max=PrefixValue.KNOTS - 1.001)
    below = places.long()
    return below, places - below
