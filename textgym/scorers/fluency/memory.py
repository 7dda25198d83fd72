"""What was written before: the n-grams of a bounded number of texts."""

from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Any

from textgym.scorers.text import cleaned, words_and_marks

__all__ = ["TextMemory", "ngrams", "units"]


class TextMemory:
    """The items of the last ``size`` texts, and how many of these texts have each.

    >>> memory = TextMemory(1)
    >>> memory.add({"a", "b"})
    >>> memory.add({"b"})
    >>> "a" in memory, "b" in memory
    (False, True)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._texts: deque[Collection[Hashable]] = deque()
        self._counts: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, item: Hashable) -> bool:
        return item in self._counts

    def __iter__(self) -> Iterator[Any]:
        return iter(self._counts)

    @property
    def texts(self) -> tuple[Collection[Any], ...]:
        """The items of each text, the oldest first."""
        return tuple(self._texts)

    def clear(self) -> None:
        """Forget all."""
        self._texts.clear()
        self._counts.clear()

    def add(self, items: Collection[Hashable]) -> None:
        """Remember a text by its items, each once; forget the oldest where there are too many."""
        self._texts.append(items)
        self._counts.update(items)
        while len(self._texts) > self.size:
            for item in self._texts.popleft():
                if self._counts[item] == 1:
                    del self._counts[item]
                else:
                    self._counts[item] -= 1


def units(text: str) -> list[str]:
    """Return the words and marks of the first 2,000 characters, in lower case.

    >>> units("Oh, no!")
    ['oh', ',', 'no', '!']
    """
    return words_and_marks(cleaned(text).lower())


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams in order, none of a text that is shorter.

    >>> ngrams(["a", "b", "c"], 2)
    [('a', 'b'), ('b', 'c')]
    """
    return list(zip(*(words[i:] for i in range(n)), strict=False))
