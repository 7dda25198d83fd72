"""Check that an incremental scorer gives the same scores token by token as for whole texts."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.prompts.base import Sample
from textgym.scorers import Scorer, score_batch
from textgym.scorers.base import FloatArray
from textgym.tokenizers import Tokenizer, as_tokenizer

__all__ = ["check_incremental"]

TOKENIZERS = ("byte", "char", "tiny")
WRITTEN = (
    "The happy dog ran home. The happy dog ran home, and sat!",
    "Ça alors 😀 猫, naïve - \u0301e",
    "great GREAT great",
)
"""Texts whose tokens are fed in order, and shuffled so that the bytes of characters are separated."""
NUM_RANDOM = 6
NUM_TOKENS = 24
"""Length of a random text, and greatest length of others."""

Rows = list[tuple[list[int], list[int]]]
"""Pairs of prompt ids and completion ids."""


def check_incremental(
    scorer: Scorer,
    texts: Sequence[str],
    prompt: str | None,
    references: Sequence[str],
    metadata: dict[str, Any],
    tolerance: tuple[float, float],
) -> str:
    """Extend texts token by token under several tokenizers; compare ``value`` of the states with the scorer itself.

    ``texts`` are completions besides the built-in and random ones; prompt, references and metadata are those of all
    texts. Returns a summary for the report; raises ``AssertionError`` for the first difference.
    """
    compared = 0
    for name in TOKENIZERS:
        tokenizer = as_tokenizer(name)
        rng = np.random.default_rng(0)
        rows = _rows(tokenizer, texts, prompt, rng)
        sample = Sample(prompt or "", tuple(references), metadata)
        compared += _TokenByToken(scorer, tokenizer, sample, rows, tolerance, f"with the tokenizer {name!r}").run(rng)
    return f"{compared} states of unfinished texts, tokenizers {', '.join(TOKENIZERS)}"


def _rows(tokenizer: Tokenizer, texts: Sequence[str], prompt: str | None, rng: np.random.Generator) -> Rows:
    prompts = [_encoded(tokenizer, text) for text in (("", "A prompt.", "Über") if prompt is None else (prompt,))]
    eos = tokenizer.eos_token_id
    usable = np.flatnonzero(tokenizer.token_mask)
    usable = usable[usable != eos]
    completions = []
    for text in (*WRITTEN, *texts):
        ids = _encoded(tokenizer, text)[:NUM_TOKENS]
        completions += [ids, rng.permutation(ids).tolist()] if ids else []
    completions += [rng.choice(usable, NUM_TOKENS).tolist() for _ in range(NUM_RANDOM)]
    if eos is not None:
        completions = [ids + [eos] * (i % 2) for i, ids in enumerate(completions)]
        completions.append([eos])
    return [(prompts[i % len(prompts)], ids) for i, ids in enumerate(completions)]


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        return list(tokenizer.encode(text))
    except ValueError:  # a character outside an alphabet
        return []


@dataclass(frozen=True)
class _TokenByToken:
    """Texts under one tokenizer, extended by one token at a time."""

    scorer: Scorer
    tokenizer: Tokenizer
    sample: Sample
    rows: Rows
    tolerance: tuple[float, float]
    where: str

    def run(self, rng: np.random.Generator) -> int:
        """Run the comparison; return the number of states compared."""
        usable = np.flatnonzero(self.tokenizer.token_mask)
        longest = max(len(ids) for _, ids in self.rows)
        alive = np.arange(len(self.rows))
        batch = self._batch(alive, 0)
        states = self._states(self.scorer.begin(batch), batch, "begin")
        compared = self._compare(states, batch, "begin and value")
        for length in range(1, longest + 1):
            kept = np.array([len(self.rows[i][1]) >= length for i in alive])
            states = [state for state, stays in zip(states, kept, strict=True) if stays]
            before = self._batch(alive[kept], length - 1)
            alive = alive[kept]
            if length == NUM_TOKENS // 2:
                states = _pickled(states, self.where)
            at_first = self._values(states, before)
            other = self._batch(alive, length, rng.choice(usable, len(alive)))
            others = self._states(self.scorer.advance(list(states), other), other, "advance")
            compared += self._compare(others, other, "advance and value")
            batch = self._batch(alive, length)
            extended = self._states(self.scorer.advance(list(states), batch), batch, "advance")
            compared += self._compare(extended, batch, "advance from states used before")
            self._same(
                at_first, self._values(states, before), before, "modifies states in place: value of an old state"
            )
            if length % 8 == 5:
                again = self._states(self.scorer.begin(batch), batch, "begin")
                compared += self._compare(again, batch, "begin in the middle")
            states = extended
        return compared

    def _batch(self, alive: npt.NDArray[np.int64], length: int, last: npt.NDArray[np.int64] | None = None) -> TextBatch:
        """Return the texts ``alive``, cut to ``length`` tokens, optionally with other last tokens."""
        chosen = [self.rows[i] for i in alive.tolist()]
        prompts = [prompt for prompt, _ in chosen]
        completions = [ids[:length] for _, ids in chosen]
        if last is not None:
            completions = [[*ids[:-1], int(token)] for ids, token in zip(completions, last, strict=True)]
        samples = [Sample(self.tokenizer.decode(p), self.sample.references, self.sample.metadata) for p in prompts]
        batch = TextBatch.from_ids(self.tokenizer, prompts, completions, samples)
        batch.done = np.array([len(ids) == length for _, ids in chosen], dtype=np.bool_)
        batch.slots = None if length % 4 == 3 else alive  # batches need not come from an environment
        return batch

    def _states(self, states: Any, batch: TextBatch, method: str) -> list[Any]:
        if not isinstance(states, list) or len(states) != len(batch):
            got = f"{len(states)} states" if isinstance(states, list) else f"a {type(states).__name__}"
            raise AssertionError(f"{method} gives {got} for {len(batch)} texts, expected a list of {len(batch)}")
        return states

    def _values(self, states: list[Any], batch: TextBatch) -> FloatArray:
        return np.array(self.scorer.value(list(states), batch), dtype=np.float64)

    def _compare(self, states: list[Any], batch: TextBatch, what: str) -> int:
        whole = score_batch(self.scorer, batch)
        if whole.error is not None:
            raise AssertionError(f"fails for an unfinished text, {self.where}: {whole.error}") from whole.cause
        self._same(whole.total, self._values(states, batch), batch, f"gives another score incrementally: {what}")
        return len(batch)

    def _same(self, expected: FloatArray, got: FloatArray, batch: TextBatch, what: str) -> None:
        if got.shape != expected.shape:
            raise AssertionError(f"{what}, {self.where}, gives shape {got.shape} for {len(batch)} texts")
        wrong = np.flatnonzero(~np.isclose(got, expected, *self.tolerance, equal_nan=True)).tolist()
        if wrong:
            i = wrong[0]
            text = batch.completions[i]
            raise AssertionError(
                f"{what}, {self.where}, gives {got[i]} instead of {expected[i]} for {text!r} "
                f"(ids {batch.completion_ids[i]})"
            )


def _pickled(states: list[Any], where: str) -> list[Any]:
    try:
        copied: list[Any] = pickle.loads(pickle.dumps(states))
    except Exception as error:  # a reducer is user code and may raise anything
        raise AssertionError(f"states cannot be pickled, {where}: {error}") from error
    return copied
