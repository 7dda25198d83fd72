"""The built-in constraints, and ``as_constraint``."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.constraints.base import AllOf, Constraint
from textgym.errors import unknown_name
from textgym.tokenizers import Tokenizer, token_ids

__all__ = ["CONSTRAINTS", "AllowTokens", "BanTokens", "MinNewTokens", "NoRepeatNGram", "as_constraint"]


class _StaticMask:
    """The same row for every state: the listed tokens are ``valid``, all others the opposite."""

    def __init__(self, tokens: Iterable[int | str], valid: bool, allow_eos: bool = False) -> None:
        if isinstance(tokens, str):
            raise TypeError(f"expected a list of tokens, got one text; write [{tokens!r}]")
        self.tokens = tuple(tokens)
        for token in self.tokens:
            if not isinstance(token, int | str | np.integer):
                raise TypeError(f"a token is given by its id or its text, got {type(token).__name__} {token!r}")
        self._valid = valid
        self._allow_eos = allow_eos
        self._tokenizer: Tokenizer | None = None
        self._row = np.zeros(0, dtype=np.bool_)

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, a read-only view of one row."""
        tokenizer = batch.tokenizer
        if tokenizer is not self._tokenizer:
            row = np.full(tokenizer.vocab_size, not self._valid, dtype=np.bool_)
            row[token_ids(tokenizer, self.tokens)] = self._valid
            if self._allow_eos and tokenizer.eos_token_id is not None:
                row[tokenizer.eos_token_id] = True
            self._tokenizer, self._row = tokenizer, row
        return np.broadcast_to(self._row, (len(batch), len(self._row)))


class AllowTokens(_StaticMask):
    """Allows the listed tokens and EOS only.

    Args:
        tokens: Ids, or texts of single tokens as in ``token_ids``, with which ``mask`` resolves
            them.
        allow_eos: Whether EOS is valid without being listed.

    >>> AllowTokens(["a", "b"]).mask(TextBatch.from_texts([""])).nonzero()[1]
    array([ 97,  98, 256])
    """

    def __init__(self, tokens: Iterable[int | str], allow_eos: bool = True) -> None:
        super().__init__(tokens, valid=True, allow_eos=allow_eos)


class BanTokens(_StaticMask):
    """Forbids the listed tokens.

    Args:
        tokens: Ids, or texts of single tokens as in ``token_ids``, with which ``mask`` resolves
            them.

    >>> (~BanTokens(["<eos>", 10]).mask(TextBatch.from_texts([""]))).nonzero()[1]
    array([ 10, 256])
    """

    def __init__(self, tokens: Iterable[int | str]) -> None:
        super().__init__(tokens, valid=False)


class MinNewTokens:
    """Forbids EOS until the completion has ``n`` tokens.

    Args:
        n: Tokens without EOS, at least 1.

    >>> MinNewTokens(2).mask(TextBatch.from_texts(["a", "ab"]))[:, 256]
    array([False,  True])
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"n, the minimum number of new tokens, must be at least 1, got {n}")
        self.n = n

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool, False at most for EOS."""
        mask = np.ones((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        if batch.tokenizer.eos_token_id is not None:
            mask[:, batch.tokenizer.eos_token_id] = batch.num_new_tokens >= self.n
        return mask


class NoRepeatNGram:
    """Forbids tokens that would repeat an n-gram of the prompt or completion.

    The same as ``no_repeat_ngram_size`` in Hugging Face's ``generate``, after Paulus et al., A Deep Reinforced Model
    for Abstractive Summarization, https://arxiv.org/abs/1705.04304.

    Args:
        n: Tokens of an n-gram, at least 1. With 1 no token occurs twice.

    >>> valid = NoRepeatNGram(2).mask(TextBatch.from_texts(["the th"]))[0]
    >>> [chr(i) for i in (~valid).nonzero()[0]]
    ['e']
    """

    def __init__(self, n: int = 3) -> None:
        if n < 1:
            raise ValueError(f"n, the tokens of an n-gram, must be at least 1, got {n}")
        self.n = n

    def mask(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) bool."""
        mask = np.ones((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        prefix = self.n - 1
        num_starts = int(batch.lengths.max(initial=0)) - prefix
        if num_starts < 1:
            return mask
        # repeats[b, i]: the n - 1 tokens from i on are the last n - 1 tokens, and another token follows them.
        repeats = np.arange(num_starts) < (batch.lengths - prefix)[:, None]
        rows = np.arange(len(batch))
        for k in range(prefix):
            # In a text shorter than the prefix the position is negative; there no start is valid.
            last = batch.ids[rows, batch.lengths - prefix + k]
            repeats &= batch.ids[:, k : k + num_starts] == last[:, None]
        row, start = repeats.nonzero()
        mask[row, batch.ids[row, start + prefix]] = False
        return mask


CONSTRAINTS: dict[str, Callable[[], Constraint]] = {"no_repeat_ngram": NoRepeatNGram}
"""Constraints that need no argument, by name."""


def as_constraint(spec: Constraint | str | Sequence[Constraint | str]) -> Constraint:
    """Return ``spec`` as one constraint.

    Args:
        spec: A constraint, a name (``"no_repeat_ngram"``: n = 3), or a sequence of these, all of which must allow a
            token.

    >>> as_constraint(["no_repeat_ngram"]).constraints[0].n
    3
    """
    if isinstance(spec, str):
        if spec not in CONSTRAINTS:
            raise unknown_name("constraint", spec, CONSTRAINTS, also="Also accepted: an object with mask(batch).")
        return CONSTRAINTS[spec]()
    if isinstance(spec, type):
        raise TypeError(f"a constraint is an object, not the class {spec.__name__}: write {spec.__name__}(...)")
    if isinstance(spec, Constraint):
        return spec
    if isinstance(spec, Sequence):
        return AllOf(*map(as_constraint, spec))
    raise TypeError(f"a constraint has a method mask(batch) -> (B, V) bool, {type(spec).__name__} has none")
