"""Story continuation for its language: fluent, coherent, grammatical and complete."""

import math
from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.rewards import Redistributed
from textgym.rewards.base import ScoreFunction
from textgym.scorers import (
    Affine,
    Clip,
    Consistency,
    Fluency,
    Grammar,
    Product,
    Repetition,
    Scorer,
    find_inconsistencies,
)
from textgym.scorers.base import FloatArray
from textgym.scorers.text import cleaned, ends_with_mark, words
from textgym.tasks.base import Page, Task, data_file, register_task
from textgym.tokenizers import as_tokenizer

__all__ = ["Completeness", "StoryFluency", "quality_scorer", "surprises", "token_credit"]

MISTAKES = (
    "Agreement", "BoundaryError", "Capitalization", "Eggcorn", "Formatting", "Grammar", "Malapropism", "Miscellaneous",
    "Nonstandard", "Punctuation", "Repetition", "Typo", "Usage", "WordChoice", "WordOrder",
)  # fmt: skip
"""Kinds of findings of Harper that count: neither spelling, which is slow, nor matters of style and region."""
SURPRISE = math.log(0.001)
"""Log-probability in nats below which a token is a surprise; the world's continuations have one in 65 texts."""


class StoryFluency(Scorer):
    """Mean over the completion's sentences of 1 / (1 + surprises) under the embedded LM.

    A surprise is a token of probability below 0.001 under ``"tiny"``, given all before it; a chosen EOS counts, in the
    last sentence. The first surprise of a text is free. The world's own continuations score 1: text that is more
    probable gains nothing, and a memorised sentence that does not follow from the text before it costs as much as a
    short one. Sentences end with ``.``, ``!`` or ``?``. Range: [0, 1]. Empty completion: 0. Deterministic. Not
    incremental. Texts in the tokens of another model are encoded again, 2,000 characters.
    """

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> FloatArray:
        """Return (B,) float64."""
        own = batch if _fluency().reads_ids(batch) else _in_tokens_of_tiny(batch)
        pairs = zip(own.completion_ids, surprises(own), strict=True)
        return np.array([self._score(list(map(own.tokenizer.token_text, ids)), found) for ids, found in pairs])

    def _score(self, tokens: list[str], surprising: npt.NDArray[np.bool_]) -> float:
        if not tokens:
            return 0.0
        ends = np.array([token.strip() in (".", "!", "?") for token in tokens])
        sentence = np.cumsum(ends) - ends
        words_follow = any(token[-1:].isalpha() for token, at in zip(tokens, sentence, strict=True) if at == ends.sum())
        sentence = np.minimum(sentence, max(ends.sum() - (not words_follow), 0))
        counted = surprising & (np.cumsum(surprising) > 1)
        return float(np.mean(1 / (1 + np.bincount(sentence, weights=counted))))


def surprises(batch: TextBatch) -> list[npt.NDArray[np.bool_]]:
    """Return B arrays, True for the tokens of the completion that are a surprise; False beyond the last position."""
    found = [np.zeros(len(ids), dtype=np.bool_) for ids in batch.completion_ids]
    for surprising, log_probs in zip(found, _fluency().token_log_probs(batch), strict=True):
        surprising[: len(log_probs)] = log_probs < SURPRISE
    return found


def _in_tokens_of_tiny(batch: TextBatch) -> TextBatch:
    tokenizer = as_tokenizer("tiny")
    eos = batch.tokenizer.eos_token_id
    encoded = [tokenizer.encode(cleaned(text)) for text in batch.completions]
    for ids, old in zip(encoded, batch.completion_ids, strict=True):
        if old and old[-1] == eos and tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
    prompts = [tokenizer.encode(cleaned(prompt[-2_000:])) for prompt in batch.prompts]
    return TextBatch.from_ids(tokenizer, prompts, encoded, batch.samples)


@cache
def _fluency() -> Fluency:
    return Fluency("tiny")


class Completeness(Scorer):
    """Whether the completion is as long as the reference and ends with a sentence.

    Formula: with r the words of the completion per word of the first reference, ``r`` up to 1, 1 up to 2, ``3 - r`` up
    to 3 and 0 beyond; half of it if the text does not end with the mark of a sentence. Reads the first 2,000
    characters. Range: [0, 1]. Empty completion: 0; NaN without a reference that has words. Deterministic. Not
    incremental. It only counts words.

    >>> texts = ["He ran home.", "He ran", "It was a dog."]
    >>> Completeness()(TextBatch.from_texts(texts, references=[["She sat down."]] * 3)).round(2)
    array([1.  , 0.33, 1.  ])
    """

    score_range = (0.0, 1.0)

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.float64]:
        """Return (B,) float64."""
        pairs = zip(batch.derived(cleaned), batch.references, strict=True)
        return np.array([self._score(text, len(words(found[0] if found else ""))) for text, found in pairs], np.float64)

    def _score(self, text: str, num_expected: int) -> float:
        if num_expected == 0:
            return np.nan
        ratio = len(words(text)) / num_expected
        return min(1.0, ratio, max(0.0, 3 - ratio)) * (1.0 if ends_with_mark(text.rstrip()) else 0.5)


CREDIT = 3.0
"""Credit, times the number of tokens, that a token loses for each reason why it does not fit."""


def token_credit(score: ScoreFunction, texts: TextBatch, final_scores: FloatArray) -> list[FloatArray]:
    """Return the credit of each token of K finished texts: less for those that do not fit.

    Formula: ``-CREDIT / tokens`` times the number of reasons: the token is a surprise (see ``StoryFluency``), it
    contradicts the text before it (``find_inconsistencies``), it is the last one of four that have occurred before. The
    remainder to the final score is spread evenly, so that the return of a text is its score, and only the differences
    between its tokens matter. Texts in the tokens of another model get equal credit.
    """
    lengths = texts.num_new_tokens.tolist()
    if not _fluency().reads_ids(texts):
        return [np.zeros(length) for length in lengths]
    credit = []
    for i, surprising in enumerate(surprises(texts)):
        repeated = _repeated(texts.ids[i, : texts.lengths[i]].tolist())[texts.prompt_lengths[i] :]
        reasons = surprising.astype(np.float64) + _contradicts(texts, i) + np.array(repeated, dtype=np.float64)
        credit.append(-CREDIT * reasons / max(lengths[i], 1))
    return credit


def _contradicts(texts: TextBatch, i: int) -> npt.NDArray[np.bool_]:
    """Return (T,) bool, the tokens of completion i at which a finding of ``find_inconsistencies`` ends."""
    prompt, ids = texts.prompts[i], texts.completion_ids[i]
    ends = len(prompt) + np.cumsum([len(texts.tokenizer.token_text(token)) for token in ids])
    found = np.zeros(len(ids), dtype=np.bool_)
    for one in find_inconsistencies(prompt + texts.completions[i], len(prompt)):
        found[np.searchsorted(ends, one.end)] = True
    return found


def _repeated(ids: Sequence[int], n: int = 4) -> list[bool]:
    """Return for each token whether the n tokens up to it have occurred before."""
    seen: set[tuple[int, ...]] = set()
    found = []
    for end in range(1, len(ids) + 1):
        gram = tuple(ids[max(end - n, 0) : end])
        found.append(len(gram) == n and gram in seen)
        seen.add(gram)
    return found


def quality_scorer() -> Scorer:
    """Return grammar x coherence x fluency x novelty x completeness."""
    return Product(
        {
            "grammar": Clip(Affine(Grammar(MISTAKES), 10.0, -9.0), 0.0, 1.0),
            "coherence": Consistency(),
            "fluency": StoryFluency(),
            "novelty": Clip(Affine(Repetition(4, after_prompt=True), -3.0, 1.0), 0.0, 1.0),
            "completeness": Completeness(),
        }
    )


register_task(
    Task(
        name="quality",
        id="TextGenQuality-v0",
        data=partial(data_file, "quality"),
        num_levels=3,
        columns={"opening": "the beginning of a story, up to the end of a sentence", "continuation": "the rest of it"},
        target="continuation",
        prompt="{opening}",
        instruction="Continue this story to its end in a few simple sentences. Write nothing but the continuation."
        "\n\n{opening}",
        scorer=quality_scorer,
        keywords={
            "max_prompt_tokens": 112,
            "max_new_tokens": 96,
            "suggested_kl_coef": 0.01,
            "reward": Redistributed(token_credit),
        },
        chat_keywords={"max_prompt_tokens": 192, "max_new_tokens": 128},
        success_score=0.8,
        model="tiny-early",
        page=Page(
            title="Continue a story to its end in fluent, coherent and grammatical English.",
            description="The beginnings are those of stories of the world, cut between two sentences; the optimum is "
            'the rest of the story. Meant for ``PPO("tiny-early", "TextGenQuality-v0")``: that small model was stopped '
            "early and makes many mistakes, whereas the stories of its training text have none. Both embedded LMs have "
            "the same tokenizer, so that the environment needs no ``model``. The scorer needs the extras ``agents`` "
            "and ``scorers``.",
            levels=(
                "18 to 30 words remain to be written",
                "34 to 46 words",
                "50 to 62 words",
            ),
            rewards="The score is ``grammar x coherence x fluency x novelty x completeness``, in [0, 1]; the world's "
            "own continuation scores 1. Grammar is 1 minus ten times the mistakes per word that Harper finds. "
            "Coherence is the share of sentences in which persons, pronouns and things agree with the text before "
            "them (``Consistency``). Fluency is the mean over sentences of 1 / (1 + surprises), tokens of "
            "probability below 0.001 under the embedded LM ``tiny``; the first surprise of a text is free, and "
            "more probable text gains nothing. Novelty is 1 minus three times the share of word 4-grams that "
            "occurred before, in the prompt or the text. Completeness is 1 from one to two times the words of the "
            "world's continuation, proportionally less for shorter texts, 0 from three times on, and half of that "
            "for a text that does not end with a sentence. The reward of the last step is the score; "
            "``info['token_rewards']`` redistributes it, with less for tokens that surprise, contradict or "
            "repeat.",
            references="Welleck et al. 2020, Neural text generation with unlikelihood training (arXiv:1908.04319), for "
            "novelty; Arjona-Medina et al. 2019, RUDDER: return decomposition for delayed rewards (arXiv:1806.07857), "
            "for the redistribution.",
        ),
    )
)
