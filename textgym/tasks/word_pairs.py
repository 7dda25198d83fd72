"""Fluency of translations and naturalness of a shop assistant: whether adjacent words may stand side by side."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.prompts.data import read_rows
from textgym.scorers.base import Scorer
from textgym.scorers.text import cleaned, lower_words_and_marks, sentences
from textgym.tasks.base import data_file
from textgym.tasks.shop import Item, hand_over
from textgym.tasks.words import NUMBERS, colours, things

__all__ = ["WordPairs", "french_sentences", "shop_sentences"]

Pair = tuple[str, str]


class WordPairs(Scorer):
    """Share of the adjacent words of the agent's sentences that are adjacent in a corpus.

    Formula: ``known / all`` pairs of adjacent words and punctuation marks in lower case, in which the start and the end
    of a sentence count as words; those of a sentence that occurs a second time in the episode are not known. Reads the
    first 2,000 characters of each turn. Range: [0, 1]. Empty completion: 0. NaN where a reference has a word that the
    corpus lacks, as in data of another vocabulary. Deterministic. Not incremental.

    It sees wrong agreement, order and elision of two adjacent words, and fragments; it does not see whether the text
    is a right translation or answer.

    Args:
        corpus: Module-level function that returns the sentences; called at the first score of a process.

    >>> scorer = WordPairs(french_sentences)
    >>> scorer(TextBatch.from_texts(["Tom a mangé la pomme.", "Tom a mangé le pomme.", ""])).round(2)
    array([1.  , 0.86, 0.  ])
    """

    score_range = (0.0, 1.0)

    def __init__(self, corpus: Callable[[], Iterable[str]]) -> None:
        self.corpus = corpus

    def __call__(self, batch: TextBatch) -> npt.NDArray[np.float64]:
        """Return (B,) float64."""
        known, vocabulary = _pairs_of_corpus(self.corpus)
        scores = [
            _share(turns, known) if vocabulary.issuperset(lower_words_and_marks(" ".join(references))) else np.nan
            for turns, references in zip(batch.agent_turns, batch.references, strict=True)
        ]
        return np.array(scores, dtype=np.float64)


@cache
def _pairs_of_corpus(corpus: Callable[[], Iterable[str]]) -> tuple[frozenset[Pair], frozenset[str]]:
    """Return the pairs and the words of a corpus."""
    pairs = frozenset(pair for sentence in corpus() for pair in _pairs(sentence))
    return pairs, frozenset(word for pair in pairs for word in pair)


def _pairs(sentence: str) -> Iterator[Pair]:
    return pairwise(["", *lower_words_and_marks(sentence), ""])


def _share(turns: Iterable[str], known: frozenset[Pair]) -> float:
    num_known, num_pairs, seen = 0, 0, set[str]()
    for turn in turns:
        for sentence in sentences(cleaned(turn)):
            pairs = list(_pairs(sentence))
            num_pairs += len(pairs)
            num_known += 0 if sentence in seen else sum(pair in known for pair in pairs)
            seen.add(sentence)
    return num_known / num_pairs if num_pairs else 0.0


def french_sentences() -> Iterator[str]:
    """Yield the references of the translation task's training rows, of all levels."""
    for level in (1, 2, 3):
        for _, row in read_rows(data_file("translation", "train", level)):
            yield row["target"]


_HANDING_OVER = (
    "Sure, here {be} {item}.", "Sure! Here {be} {item} for you.", "Here you are: {item}.", "Here you go, {item}.",
    "There you go, {item}.", "I have {item} for you.", "I will get you {item}.", "So, {item} for you!",
    "Yes, {item}, here you are!",
)  # fmt: skip
_PHRASES = (
    "Hello!", "Hello.", "Hi!", "Good morning!", "Good morning.", "Good day!", "Good day.", "Sure!", "Sure.",
    "Of course!", "Of course.", "Yes, of course.", "Certainly!", "Certainly.", "Gladly.", "Sorry.", "I am sorry.",
    "Sorry about that.", "Thank you!", "Thank you.", "Goodbye!", "Goodbye.", "Have a nice day!", "Have a lovely day!",
    "You are welcome.", "Here you are.", "Here you go!", "There you go.", "How can I help you?", "Enjoy!",
    "What would you like?", "How many would you like?", "How many do you want?", "How many, please?",
    "Which colour would you like?", "Which kind would you like?", "Which colour do you want?",
    "Which kind do you want?", "Which colour, please?", "Which kind, please?", "Anything else?",
    "Would you like anything else?", "Is that all?", "What a lovely day it is!", "How are you today?",
    "Hello! Nice to see you.", "Have you seen the weather?",
)  # fmt: skip
"""Common phrases of an assistant in a shop, with small talk."""


def shop_sentences() -> Iterator[str]:
    """Yield sentences of an assistant in the shop of the dialogue task: items handed over, questions, courtesies."""
    for phrase in _PHRASES:
        yield from sentences(phrase)
    for item in _items():
        yield hand_over(item)
        if not item.quality:
            for phrase in _HANDING_OVER:
                yield from sentences(phrase.format(item=item, be="is" if item.count == 1 else "are"))


def _items() -> Iterator[Item]:
    """Yield items in which each number, quality and thing has all its neighbours."""
    for thing in things().values():
        for quality in ("", *(thing.kinds or colours())):
            yield from (Item(count, quality, thing.singular) for count in (1, 2))
    one_of_each = {quality: thing.singular for thing in things().values() for quality in thing.kinds}
    one_of_each |= dict.fromkeys(colours(), next(thing.singular for thing in things().values() if not thing.kinds))
    for count in range(3, len(NUMBERS)):
        yield from (Item(count, "", thing) for thing in things())
        yield from (Item(count, quality, thing) for quality, thing in one_of_each.items())
