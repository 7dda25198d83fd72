"""A score at the end, and afterwards which token was worth how much of it."""

from collections.abc import Callable

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.rewards.base import FloatArray, Reward, RewardState, ScoreFunction

__all__ = ["CREDITS", "Redistributed", "discounted", "leave_one_out", "uniform"]

Credit = Callable[[ScoreFunction, TextBatch, FloatArray], list[FloatArray]]
"""``(score, texts, final_scores)`` to K arrays, what each token of K finished texts earned. They need not sum to the
final scores: what is missing is spread evenly."""


def uniform(score: ScoreFunction, texts: TextBatch, final_scores: FloatArray) -> list[FloatArray]:
    """Give every token the same share."""
    return [np.full(length, final / max(length, 1)) for final, length in _each(texts, final_scores)]


def discounted(
    score: ScoreFunction, texts: TextBatch, final_scores: FloatArray, gamma: float = 0.95
) -> list[FloatArray]:
    """Give a token that stands k tokens before the last one ``gamma**k`` times the share of the last."""
    shares = []
    for final, length in _each(texts, final_scores):
        weights = gamma ** np.arange(length - 1, -1, -1.0)
        shares.append(final * weights / max(weights.sum(), 1.0))
    return shares


def leave_one_out(score: ScoreFunction, texts: TextBatch, final_scores: FloatArray) -> list[FloatArray]:
    """Give each token what the score falls by when that token alone is left out.

    Costs one call of the scorer for all K texts without each of their T tokens, K * T texts. They are passed as
    unfinished (``~batch.done``), so that a scorer that normalises by the finished texts of the batch leaves them out. A
    failure falls under the environment's policy; under ``"invalid"`` the token without which the text has no score gets
    only its part of the rest.

    Source: the occlusion of Zeiler and Fergus 2014 (arXiv:1311.2901); Li, Monroe, Jurafsky 2016, Understanding neural
    networks through representation erasure (arXiv:1612.08220).
    """
    lengths = texts.num_new_tokens
    rows = np.repeat(np.arange(len(texts)), lengths)
    shorter = texts.select(rows)
    left_out = np.concatenate([np.arange(length) for length in lengths.tolist()]) + texts.prompt_lengths[rows]
    positions = np.arange(texts.ids.shape[1] - 1)
    source = positions + (positions >= left_out[:, None])
    without = TextBatch(
        texts.tokenizer,
        np.take_along_axis(shorter.ids, source, axis=1),
        shorter.lengths - 1,
        shorter.prompt_lengths,
        shorter.samples,
        np.zeros_like(shorter.done),
        shorter.slots,
    )
    falls = final_scores[rows] - score(without)
    return np.split(np.where(np.isnan(falls), 0.0, falls), np.cumsum(lengths)[:-1])


CREDITS: dict[str, Credit] = {"discounted": discounted, "leave_one_out": leave_one_out, "uniform": uniform}


class Redistributed(Reward):
    """The final score at the end of an episode, as :class:`Terminal`, and its shares by token once it is known.

    No environment can give a token its share of a score that is not known yet. The last step's
    ``info["token_rewards"]`` holds the shares: one number per token of the completion, which sum to the score (where
    there is a token at all). ``textgym_agents.collect`` puts them in the place of the terminal reward, as
    ``textgym_agents.sb3.RedistributeRewards`` does for Stable-Baselines3, so that the advantage of a token comes from
    its own share; any other agent still sees a terminal reward.

    Args:
        credit: ``"uniform"``, ``"discounted"``, ``"leave_one_out"``, or a function of the same signature as those.

    Raises:
        ValueError: If the name is unknown.

    >>> import gymnasium, textgym
    >>> keywords = {"tokenizer": "char", "prompts": ["Hi"], "scorer": len, "max_new_tokens": 2}
    >>> env = gymnasium.make("TextGen-v0", reward=Redistributed("uniform"), **keywords)
    >>> _ = env.reset(seed=0)
    >>> env.step(0)[1], env.step(1)[4]["token_rewards"]
    (0.0, [1.0, 1.0])
    """

    per_token = True

    def __init__(self, credit: str | Credit = "uniform") -> None:
        if isinstance(credit, str) and credit not in CREDITS:
            raise unknown_name("credit", credit, CREDITS, also="A function is accepted too.")
        self.credit = CREDITS[credit] if isinstance(credit, str) else credit

    def __call__(
        self, score: ScoreFunction, batch: TextBatch, final_scores: FloatArray, state: RewardState
    ) -> tuple[FloatArray, RewardState]:
        """Return ``final_scores`` and ``state`` as they are."""
        return final_scores, state

    def on_episode_end(self, score: ScoreFunction, texts: TextBatch, final_scores: FloatArray) -> list[FloatArray]:
        """Return K arrays, one entry per token of K finished texts; those of a text without a score are 0.

        Raises:
            ValueError: If the credit function does not give a finite number for every token.
        """
        finals = np.nan_to_num(final_scores, nan=0.0)
        earned = [np.asarray(values, dtype=np.float64) for values in self.credit(score, texts, finals)]
        lengths = [values.size for values in earned]
        if lengths != texts.num_new_tokens.tolist():
            raise ValueError(f"the credit function gave {lengths} numbers for texts of {texts.num_new_tokens} tokens")
        if not all(np.isfinite(values).all() for values in earned):
            raise ValueError(f"the credit function gave a number that is not finite: {earned!r:.200}")
        return [
            np.zeros(values.size) if np.isnan(final) else values + (final - values.sum()) / max(values.size, 1)
            for values, final in zip(earned, final_scores.tolist(), strict=True)
        ]


def _each(texts: TextBatch, final_scores: FloatArray) -> list[tuple[float, int]]:
    return list(zip(final_scores.tolist(), texts.num_new_tokens.tolist(), strict=True))
