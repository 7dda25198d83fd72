"""Temporal credit assignment: the final score, redistributed to its tokens once it is known."""

from collections.abc import Callable

import numpy as np

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.rewards.base import ScoreFunction, Terminal
from textgym.scorers.base import FloatArray

__all__ = ["CREDITS", "Redistributed", "discounted", "leave_one_out", "uniform"]

Credit = Callable[[ScoreFunction, TextBatch, FloatArray], list[FloatArray]]
"""``(score, texts, final_scores)`` -> K arrays, the credit of each token of K finished texts.

They need not sum to the final scores: the remainder is spread evenly."""


def uniform(score: ScoreFunction, texts: TextBatch, final_scores: FloatArray) -> list[FloatArray]:
    """Give every token the same credit."""
    pairs = zip(final_scores.tolist(), texts.num_new_tokens.tolist(), strict=True)
    return [np.full(length, final / max(length, 1)) for final, length in pairs]


def discounted(
    score: ScoreFunction, texts: TextBatch, final_scores: FloatArray, gamma: float = 0.95
) -> list[FloatArray]:
    """Give the token k places before the last ``gamma**k`` times the credit of the last."""
    shares = []
    for final, length in zip(final_scores.tolist(), texts.num_new_tokens.tolist(), strict=True):
        weights = gamma ** np.arange(length - 1, -1, -1.0)
        shares.append(final * weights / max(weights.sum(), 1.0))
    return shares


def leave_one_out(score: ScoreFunction, texts: TextBatch, final_scores: FloatArray) -> list[FloatArray]:
    """Give each token the drop of the score when that token alone is left out.

    Costs one call of the scorer with K * T texts. They are passed as unfinished (``~batch.done``), so that a scorer
    that normalises over the finished texts of a batch ignores them. With
    ``on_scorer_error="invalid"``, a token without which the text has no score gets only its part of the remainder.

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
    drops = final_scores[rows] - score(without)
    return np.split(np.where(np.isnan(drops), 0.0, drops), np.cumsum(lengths)[:-1])


CREDITS: dict[str, Credit] = {"discounted": discounted, "leave_one_out": leave_one_out, "uniform": uniform}


class Redistributed(Terminal):
    """The final score at the end of an episode, and its redistribution to the tokens in ``info["token_rewards"]``.

    The last step's ``info["token_rewards"]`` has one number per token of the completion; they sum to the score (if
    there is a token). ``textgym_agents.collect`` substitutes them for the terminal reward, as does
    ``textgym_agents.sb3.RedistributeRewards`` for Stable-Baselines3; any other agent receives a terminal reward.

    Args:
        credit: ``"uniform"``, ``"discounted"``, ``"leave_one_out"``, or a function with their signature.

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

    def on_episode_end(self, score: ScoreFunction, texts: TextBatch, final_scores: FloatArray) -> list[FloatArray]:
        """Return K arrays with one entry per token; 0 for a text without a score.

        Raises:
            ValueError: If the credit function does not return a finite number for every token.
        """
        finals = np.nan_to_num(final_scores, nan=0.0)
        shares = [np.asarray(values, dtype=np.float64) for values in self.credit(score, texts, finals)]
        lengths = [values.size for values in shares]
        if lengths != texts.num_new_tokens.tolist():
            raise ValueError(
                f"the credit function returned {lengths} numbers for texts of {texts.num_new_tokens} tokens"
            )
        if not all(np.isfinite(values).all() for values in shares):
            raise ValueError(f"the credit function returned a number that is not finite: {shares!r:.200}")
        return [
            np.zeros(values.size) if np.isnan(final) else values + (final - values.sum()) / max(values.size, 1)
            for values, final in zip(shares, final_scores.tolist(), strict=True)
        ]
