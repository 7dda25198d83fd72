"""Value functions V(s) of ``LMPolicy``: of the whole text so far, or of the last hidden state."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from textgym_agents.episodes import Episodes

__all__ = ["LinearValue", "PastEpisodes", "PrefixValue", "ValueFunction", "ValueInputs", "ValueRegression"]


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
    log_probs: torch.Tensor
    """(M, V) float32 log pi(.|s) in nats, -inf where invalid, without gradients."""


class ValueFunction(nn.Module, ABC):
    """Interface of V(s); a subclass implements ``forward``, which must be a function of the state alone.

    It is trained by the gradient of the value loss, ``vf_coef * mean[(V(s_t) - G_t)^2 / 2]``, unless ``is_fitted``.
    """

    is_fitted: ClassVar[bool] = False
    """Whether textgym's actor-critics call ``fit`` after each update, in place of the gradient of the value loss."""

    @abstractmethod
    def forward(self, inputs: ValueInputs) -> torch.Tensor:
        """Return (M,) float32 V(s), in units of return."""

    def fit(self, past: "PastEpisodes", gamma: float) -> None:
        """Fit V to the returns of past episodes, if ``is_fitted``."""
        raise NotImplementedError(f"{type(self).__name__} has is_fitted=True but no method fit")


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


class PrefixValue(ValueFunction):
    """V(s) of the whole text so far, linear in its tokens.

    Of a text of n_t tokens x_1, x_2, ...

        V(s_t) = b(n_t) + sum over i <= n_t of w[x_i] + p_t^4 w[a_t],  a_t = argmax pi(.|s_t),  p_t = pi(a_t|s_t)

    w holds a weight per token, b is piecewise linear in log n. The last term is a look-ahead: a token that is as good
    as certain counts already, so that V does not jump when it is written. The hidden state is left out: on the embedded
    LM's tasks it added nothing to the explained variance, and noise to V.

    ``fit`` is a ridge regression on the Monte-Carlo returns G of past episodes, the minimum over w and b of

        sum of weight_t (V(s_t) - G_t)^2 + CONSISTENCY * sum of (V(s_t) - r_t - gamma V(s_{t+1}))^2 / T
        + RIDGE |w|^2 + LENGTH_RIDGE |b|^2

    The weight rises with the step, as (t + 1)^4, because less of the return is still random; an episode weighs 1 on
    average. The second sum is over the steps whose token had a probability above 0.9: V must not change there but by
    the reward. The minimum is approached from the last solution by conjugate gradients (Hestenes and Stiefel 1952);
    their steps cost additions over the tokens of the past episodes, no forward of the language model.

    What tokens are worth hardly changes while the policy learns, but the mean of the returns does, and their variance.
    Therefore w is multiplied by a scale and b replaced by those that fit the newest episodes best, whose returns the
    solution has not seen.

    Where ``fit`` is not called, as in stock Stable-Baselines3, w and b are trained by gradient. Memory: 2 numbers per
    token of the vocabulary.

    Args:
        vocab_size: V.
        device: Device of the weights.

    Attributes:
        solution: (V + KNOTS,) float32, the minimum that is approached, before the scale.
        moments: Moments of the newest episodes, from which the scale and b are computed.

    Source: regression of V on Monte-Carlo returns, Sutton and Barto 2018, Reinforcement Learning, section 9.4.
    """

    is_fitted = True
    solution: torch.Tensor
    moments: torch.Tensor
    RIDGE: ClassVar[float] = 3.0
    """Coefficient of |w|^2, in episodes: a token's weight is halved if so many episodes hold it."""
    LENGTH_RIDGE: ClassVar[float] = 0.3
    """Coefficient of |b|^2, in episodes."""
    CONSISTENCY: ClassVar[float] = 30.0
    """Coefficient of the squared inconsistency at steps of a certain token."""
    NUM_STEPS: ClassVar[int] = 10
    """Steps of conjugate gradients per fit."""
    HALF_LIFE: ClassVar[float] = 32.0
    """Updates after which an episode counts half, since the policy changes."""
    CALIBRATION_HALF_LIFE: ClassVar[float] = 1.0
    """Updates after which an episode counts half in the calibration."""
    CALIBRATION_RIDGE: ClassVar[float] = 1.0
    """Coefficient of the squared distance of the calibration from scale 1 and the fitted b, in episodes."""
    KNOTS: ClassVar[int] = 32
    """Knots of b, two an octave."""

    def __init__(self, vocab_size: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.token_values = nn.Parameter(torch.zeros(vocab_size, device=device))
        self.length_values = nn.Parameter(torch.zeros(self.KNOTS, device=device))
        self.register_buffer("solution", torch.zeros(vocab_size + self.KNOTS, device=device))
        size = 1 + self.KNOTS
        self.register_buffer("moments", torch.zeros(size, size + 1, device=device))

    def forward(self, inputs: ValueInputs) -> torch.Tensor:
        """Return (M,) float32 V(s)."""
        device = self.token_values.device
        rows, columns = inputs.rows.to(device), inputs.columns.to(device)
        tokens = inputs.ids.to(device).clamp(max=len(self.token_values) - 1)
        log_probs, likeliest = inputs.log_probs.max(dim=-1)
        # The gradient of an embedding is faster than that of an index.
        written = F.embedding(tokens, self.token_values[:, None])[..., 0].cumsum(dim=1)[rows, columns]
        ahead = (4 * log_probs).exp() * self.token_values[likeliest]
        below, fractions = _knots(columns + 1)
        at_length = torch.lerp(self.length_values[below], self.length_values[below + 1], fractions)
        return (written + ahead + at_length).float()

    @torch.no_grad()
    def fit(self, past: PastEpisodes, gamma: float) -> None:
        """Approach the minimum of the regression on R past episodes; the newest count most."""
        problem = _Regression(self, past, gamma)
        self._calibrate(problem, past.updates)
        solution = self.solution
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
        self._apply_calibration()

    def _calibrate(self, problem: "_Regression", updates: torch.Tensor) -> None:
        """Add the newest episodes, which the solution has not seen, to the moments of the calibration."""
        newest = updates == updates[-1]
        features, targets = problem.calibration(self.solution, newest.to(self.solution.device))
        self.moments.mul_(0.5 ** (1 / self.CALIBRATION_HALF_LIFE))
        self.moments += features.T @ torch.cat([features, targets[:, None]], dim=1)

    def _apply_calibration(self) -> None:
        """Set w and b to the calibrated solution."""
        vocab_size = len(self.token_values)
        start = torch.cat([torch.ones(1, device=self.solution.device), self.solution[vocab_size:]])
        ridge = torch.full_like(start, self.CALIBRATION_RIDGE)
        matrix = self.moments[:, :-1] + torch.diag(ridge)
        calibration = torch.linalg.solve(matrix, self.moments[:, -1] + ridge * start)
        self.token_values.copy_(calibration[0] * self.solution[:vocab_size])
        self.length_values.copy_(calibration[1:])


class _Regression:
    """The normal equations of ``PrefixValue.fit`` for the vector (w, b), without their matrix.

    X is the design matrix: X (w, b) are the (R, T) values. There the written token is in the look-ahead, not the
    likeliest: they are the same wherever p^4 counts.
    """

    def __init__(self, value: PrefixValue, past: PastEpisodes, gamma: float) -> None:
        device = value.token_values.device
        ids, positions, num_steps, log_probs, self.returns, updates = (column.to(device) for column in past)
        self.gamma, self.vocab_size = gamma, len(value.token_values)
        self.ids, self.actions, self.columns = ids, ids.gather(1, positions), (positions - 1).clamp(min=0)
        self.below, self.fractions = _knots(positions)
        steps = torch.arange(positions.shape[1], device=device)
        self.inside = inside = steps < num_steps[:, None]
        ages = (0.5 ** ((updates.max() - updates) / value.HALF_LIFE))[:, None]
        weights = ((steps + 1) / len(steps)) ** 4 * inside
        self.weights = ages * weights * (len(weights) / weights.sum())
        self.certainty = (4 * log_probs).exp() * inside
        is_certain = (log_probs[:, :-1].exp() > 0.9) & inside[:, 1:] & (positions.diff(dim=1) == 1)
        self.consistency = value.CONSISTENCY / len(steps) * ages * is_certain
        self.ridge = torch.full((self.vocab_size + value.KNOTS,), value.RIDGE, device=device)
        self.ridge[self.vocab_size :] = value.LENGTH_RIDGE

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the matrix of the normal equations times a vector."""
        values = self._values(vector)
        jumps = self.consistency * self._jumps(values)
        return self._transposed(self.weights * values, jumps) + self.ridge * vector

    def right_side(self) -> torch.Tensor:
        """Return the right side of the normal equations; a reward is the jump of the returns."""
        return self._transposed(self.weights * self.returns, self.consistency * self._jumps(self.returns))

    def diagonal(self) -> torch.Tensor:
        """Return the diagonal of the matrix without consistency, as if no text held a token twice."""
        return self._transposed(self.weights, torch.zeros_like(self.consistency)) + self.ridge

    def calibration(self, vector: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (M, 1 + KNOTS) X w, and the knots' share in each state, of some episodes, and their (M,) returns.

        They are divided by sqrt(T), so that an episode of T steps counts 1.
        """
        inside = self.inside & rows[:, None]
        only_tokens = vector.clone()
        only_tokens[self.vocab_size :] = 0.0
        below, fractions = self.below[inside][:, None], self.fractions[inside][:, None]
        features = torch.zeros(len(below), 1 + len(vector) - self.vocab_size, device=vector.device)
        features[:, 0] = self._values(only_tokens)[inside]
        features.scatter_(1, below + 1, 1 - fractions)
        features.scatter_(1, below + 2, fractions)
        size = self.returns.shape[1] ** 0.5
        return features / size, self.returns[inside] / size

    def _jumps(self, values: torch.Tensor) -> torch.Tensor:
        return values[:, :-1] - self.gamma * values[:, 1:]

    def _values(self, vector: torch.Tensor) -> torch.Tensor:
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
        return bool(getattr(self._value, "is_fitted", False))

    def update(self, episodes: Episodes, returns: torch.Tensor, gamma: float) -> None:
        """Add B episodes with their (B, T) Monte-Carlo returns, and fit V."""
        if not self.is_fitted:
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


def _knots(lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the knots below lengths of at least 1, two an octave, and the fraction of the way to the next."""
    places = (2 * lengths.clamp(min=1).float().log2()).clamp(max=PrefixValue.KNOTS - 1.001)
    below = places.long()
    return below, places - below
