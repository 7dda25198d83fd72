"""Cheaper answers than rollouts to what a token contributed to a score, and to what a decision depended on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.batch import TextBatch
from textgym.lm import log_prob
from textgym.lm.model import lm_head_hook
from textgym.prompts import Sample
from textgym.scorers import Scorer, as_scorer, evaluate
from textgym.tokenizers import Tokenizer
from textgym_agents.episodes import Episodes
from textgym_agents.policy import LMPolicy, masked

__all__ = ["leave_one_out", "occlusion", "prefix_credit"]

Floats = npt.NDArray[np.float64]

_TEXTS = 2048
"""Texts that are scored at once."""
_TOKENS = 16_384
"""Tokens of one forward."""


def leave_one_out(
    scorer: Any, episodes: Episodes, tokenizer: Tokenizer, *, samples: Sequence[Sample] | None = None
) -> Floats:
    """Return the score of each text minus its score without one of its tokens, for every action.

    It asks what the score of the text at hand owes to the token, where the advantage asks what writing the token
    changed in the expected score: a text that would have become good anyway owes its token less than this.

    Args:
        scorer: A scorer, or what ``textgym.scorers.as_scorer`` takes.
        episodes: B episodes.
        tokenizer: Their tokenizer.
        samples: B samples with the references and metadata that the scorer needs, see ``state_replay.samples_of``;
            by default bare prompts.

    Returns:
        (B, T) float64, 0 after the end.

    Raises:
        ScorerError: If the scorer fails on one of the texts.
        ValueError: If there is not one sample per episode.

    >>> import gymnasium, textgym, torch
    >>> from textgym_agents import LMPolicy, collect
    >>> env = gymnasium.make_vec("ProbeCopy-v0", num_envs=1)
    >>> policy, generator = LMPolicy(textgym.lm.random_lm(5)), torch.Generator().manual_seed(0)
    >>> episodes = collect(env, policy, 1, seed=0, generator=generator)
    >>> credit = leave_one_out(lambda text: float(len(text)), episodes, env.unwrapped.tokenizer)
    >>> credit[0, 0] == float(len(env.unwrapped.tokenizer.decode(episodes.ids[0, 3:4].tolist())))
    np.True_
    """
    texts = _Texts(episodes, tokenizer, samples)
    rows, steps = (x.numpy() for x in episodes.mask.nonzero(as_tuple=True))
    left_out = episodes.positions.numpy()[rows, steps]
    whole = texts.scores(as_scorer(scorer), np.arange(len(episodes)), episodes.text_lengths.numpy())
    without = texts.scores(as_scorer(scorer), rows, episodes.text_lengths.numpy()[rows], left_out)
    credit = np.zeros(tuple(episodes.mask.shape))
    credit[rows, steps] = whole[rows] - without
    return credit


def prefix_credit(
    scorer: Any, episodes: Episodes, tokenizer: Tokenizer, *, samples: Sequence[Sample] | None = None
) -> Floats:
    """Return the score of the text up to and with each action minus that of the text before it.

    A simulated user's reply counts with the action that it follows. The numbers of an episode add up to the score of
    the whole text minus that of the text that it started with. Unfinished texts are scored as they are.

    Args:
        scorer: As in ``leave_one_out``.
        episodes: B episodes.
        tokenizer: Their tokenizer.
        samples: As in ``leave_one_out``.

    Returns:
        (B, T) float64, 0 after the end.

    Raises:
        ScorerError: If the scorer fails on one of the texts, such as an empty one.
        ValueError: If there is not one sample per episode.

    >>> import gymnasium, textgym
    >>> from textgym_agents import LMPolicy, collect
    >>> env = gymnasium.make_vec("ProbeCopy-v0", num_envs=1)
    >>> episodes = collect(env, LMPolicy(textgym.lm.random_lm(5)), 1, seed=0)
    >>> credit = prefix_credit(lambda text: float(len(text)), episodes, env.unwrapped.tokenizer)
    >>> credit.sum() == len(episodes.infos[0]["completion"])
    np.True_
    """
    texts = _Texts(episodes, tokenizer, samples)
    size, width = episodes.mask.shape
    num_steps = episodes.num_steps.numpy()
    ends = np.concatenate([episodes.positions.numpy(), np.zeros((size, 1), dtype=np.int64)], axis=1)
    ends[np.arange(size), num_steps] = episodes.text_lengths.numpy()
    rows, columns = np.nonzero(np.arange(width + 1) <= num_steps[:, None])
    scores = np.zeros((size, width + 1))
    scores[rows, columns] = texts.scores(as_scorer(scorer), rows, ends[rows, columns])
    return np.where(episodes.mask.numpy(), np.diff(scores, axis=1), 0.0)


@torch.no_grad()
def occlusion(
    policy: LMPolicy, episodes: Episodes, positions: Sequence[tuple[int, int]] | None = None
) -> npt.NDArray[np.float32]:
    """Return how much each token of the context supported the actions taken in some states.

    The number of token i is log pi(a_t|s_t) - log pi(a_t|s_t with token i masked): the same forward where no position
    attends to position i, its own included (``attention_mask[i] = 0``), and all others keep their positions and their
    values. Above 0, the token made the action likelier. The last token of the context still enters as the input of the
    position that predicts the action: its number tells only what attending to itself did. pi is the distribution over
    the tokens that were valid.

    Args:
        policy: The policy, whose language model attends through an attention mask.
        episodes: B episodes of at most W tokens.
        positions: Pairs of an episode and a step; by default all steps.

    Returns:
        (B, T, W) float32 in nats, by column of ``episodes.ids``; NaN after the state, and in steps that are not asked
        for. The column ``occlusion`` of a ``TokenTable``.

    Raises:
        TypeError: If the policy is not an ``LMPolicy``.
        ValueError: If a position is not a step of the episodes, or the model ignores the mask.

    >>> import gymnasium, textgym
    >>> from textgym_agents import LMPolicy, collect
    >>> env, policy = gymnasium.make_vec("TextGen-v0", num_envs=1, max_new_tokens=4), LMPolicy("tiny")
    >>> episodes = collect(env, policy, 1, seed=0)
    >>> values = occlusion(policy, episodes, [(0, 1)])
    >>> int(np.isfinite(values[0, 1]).sum()) == int(episodes.positions[0, 1]), bool(np.isnan(values[0, 0]).all())
    (True, True)
    """
    if not isinstance(policy, LMPolicy):
        raise TypeError(f"occlusion needs an LMPolicy, got {type(policy).__name__}")
    pairs = _checked_positions(episodes, positions)
    result = np.full((*episodes.mask.shape, episodes.ids.shape[1]), np.nan, dtype=np.float32)
    lengths = np.array([int(episodes.positions[b, t]) for b, t in pairs], dtype=np.int64)
    has_changed = False
    for chosen in _batches(lengths):
        log_probs = _occluded(policy, episodes, [pairs[i] for i in chosen], lengths[chosen])
        for (b, t), length, own in zip([pairs[i] for i in chosen], lengths[chosen], log_probs, strict=True):
            result[b, t, :length] = own[0] - own[1 : length + 1]
        has_changed = has_changed or bool((np.nan_to_num(result) != 0).any())
    if not has_changed and (lengths > 1).any():
        raise ValueError(
            f"{type(policy.model).__name__} ignores the attention mask: no token of any context changed a probability"
        )
    return result


class _Texts:
    """The texts of B episodes, to be scored in part.

    Raises:
        ValueError: If there is not one sample per episode.
    """

    def __init__(self, episodes: Episodes, tokenizer: Tokenizer, samples: Sequence[Sample] | None) -> None:
        if samples is None:
            samples = [Sample(info.get("prompt", "")) for info in episodes.infos]
        if len(samples) != len(episodes):
            raise ValueError(f"{len(samples)} samples for {len(episodes)} episodes: give one per episode")
        self.episodes, self.tokenizer, self.samples = episodes, tokenizer, samples
        self.replies = None
        if any("turns" in info for info in episodes.infos):
            self.replies = [
                [turn["content"] for turn in info.get("turns", ()) if turn["role"] == "user"] for info in episodes.infos
            ]
            self.is_action = np.zeros(tuple(episodes.ids.shape), dtype=np.bool_)
            rows, steps = episodes.mask.nonzero(as_tuple=True)
            self.is_action[rows, episodes.positions[rows, steps]] = True

    def scores(
        self, scorer: Scorer, rows: npt.NDArray[Any], ends: npt.NDArray[Any], left_out: npt.NDArray[Any] | None = None
    ) -> Floats:
        """Return the (M,) scores of the first ``ends`` tokens of texts ``rows``, without the columns ``left_out``."""
        parts = []
        for start in range(0, len(rows), _TEXTS):
            part = slice(start, start + _TEXTS)
            batch = self._batch(rows[part], ends[part], None if left_out is None else left_out[part])
            parts.append(evaluate(scorer, batch, "raise").total)
        return np.concatenate(parts)

    def _batch(self, rows: npt.NDArray[Any], ends: npt.NDArray[Any], left_out: npt.NDArray[Any] | None) -> TextBatch:
        pad, lengths = self.tokenizer.vocab_size, ends
        columns = np.tile(np.arange(self.episodes.ids.shape[1]), (len(rows), 1))
        if left_out is not None:
            columns += columns >= left_out[:, None]
            columns, lengths = np.minimum(columns, self.episodes.ids.shape[1] - 1), ends - 1
        inside = np.arange(columns.shape[1]) < lengths[:, None]
        ids = np.where(inside, self.episodes.ids.numpy()[rows[:, None], columns], pad)
        is_action = None if self.replies is None else self.is_action[rows[:, None], columns] & inside
        replies = None if self.replies is None else [self.replies[b] for b in rows.tolist()]
        if replies is not None and left_out is None:
            assert is_action is not None
            # Replies are those whose tokens are in the text: one after each run of actions that others follow.
            runs = (is_action[:, :-1] & ~is_action[:, 1:] & inside[:, 1:]).sum(axis=1)
            replies = [own[:count] for own, count in zip(replies, runs.tolist(), strict=True)]
        return TextBatch(
            self.tokenizer,
            ids,
            lengths,
            self.episodes.prompt_lengths.numpy()[rows],
            [self.samples[b] for b in rows.tolist()],
            ends == self.episodes.text_lengths.numpy()[rows],
            None,
            is_action,
            replies,
        )


def _checked_positions(episodes: Episodes, positions: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    mask = episodes.mask
    if positions is None:
        return [(int(b), int(t)) for b, t in mask.nonzero()]
    pairs = [(int(b), int(t)) for b, t in positions]
    for b, t in pairs:
        if not (0 <= b < len(episodes) and 0 <= t < mask.shape[1] and mask[b, t]):
            raise ValueError(f"({b}, {t}) is not an episode and a step of {len(episodes)} episodes")
    return pairs


def _batches(lengths: npt.NDArray[np.int64]) -> list[list[int]]:
    """Return the states of each forward, those of similar lengths together."""
    batches: list[list[int]] = []
    size = 0
    for i in np.argsort(lengths, kind="stable").tolist():
        tokens = int(lengths[i]) * (int(lengths[i]) + 1)
        if not batches or size + tokens > _TOKENS:
            batches.append([])
            size = 0
        batches[-1].append(i)
        size += tokens
    return batches


def _occluded(
    policy: LMPolicy, episodes: Episodes, pairs: list[tuple[int, int]], lengths: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.float32]]:
    """Return (L + 1,) log pi of the action in each state of L tokens: of the whole context, then without each token."""
    width, device = int(lengths.max()), policy.device
    rows = np.repeat(np.arange(len(pairs)), lengths + 1)
    masked_column = np.concatenate([np.arange(-1, length) for length in lengths])
    texts = torch.stack([episodes.ids[b, :width] for b, _ in pairs])
    ids = texts[torch.from_numpy(rows)].to(device)
    columns = torch.arange(width)
    ends, masked_columns = torch.from_numpy(lengths[rows]), torch.from_numpy(masked_column)
    attends = (columns < ends[:, None]) & (columns != masked_columns[:, None])
    row, last = torch.arange(len(rows), device=device), ends.to(device) - 1
    with policy.backbone._precision(), lm_head_hook(policy.model, lambda hidden: hidden[row, last][:, None]):
        logits = policy.model(
            input_ids=ids,
            attention_mask=attends.long().to(device),
            position_ids=columns.expand(len(rows), -1).to(device),
            use_cache=False,
        ).logits[:, 0]
    actions = torch.tensor([int(episodes.ids[b, episodes.positions[b, t]]) for b, t in pairs])[rows]
    valid = None
    if episodes.action_masks is not None:
        bits = np.stack([episodes.action_masks[b, t] for b, t in pairs])
        valid = np.unpackbits(bits, axis=1, count=policy.vocab_size).view(np.bool_)[rows]
    values = log_prob(masked(logits.float(), valid), actions.to(device)).cpu().numpy()
    return np.split(values, np.cumsum(lengths + 1)[:-1])
