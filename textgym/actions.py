"""Action spaces: which token an action writes."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.tokenizers import Tokenizer, token_ids

__all__ = ["Actions", "Subset", "Vocabulary", "as_actions"]


class Actions(ABC):
    """Mapping from ``Discrete(n)`` actions to token ids. An action space of your own fills in three methods."""

    def bind(self, tokenizer: Tokenizer) -> Self:
        """Return the action space of an environment with this tokenizer, by default ``self``; raise as ``size``."""
        return self

    @abstractmethod
    def size(self, tokenizer: Tokenizer) -> int:
        """Return n, the number of actions; raise ``ValueError`` if they do not fit the tokenizer."""

    @abstractmethod
    def token_ids(self, actions: npt.NDArray[np.int64], batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return the (B,) token ids that (B,) actions in ``0 .. n-1`` write."""

    @abstractmethod
    def mask(self, token_mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return the (B, n) action mask that belongs to a (B, V) token mask."""

    def token_mask(self, mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return the (B, V) tokens that the valid ones of (B, n) actions write; the KL penalty is normalised over them.

        The default calls ``token_ids`` with every valid action of every episode.
        """
        rows, actions = mask.nonzero()
        tokens = np.zeros((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        tokens[rows, self.token_ids(actions, batch.select(rows))] = True
        return tokens


class Vocabulary(Actions):
    """The full vocabulary: action i writes token i, so n = V."""

    def size(self, tokenizer: Tokenizer) -> int:
        """Return V."""
        return tokenizer.vocab_size

    def token_ids(self, actions: npt.NDArray[np.int64], batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return ``actions``."""
        return actions

    def mask(self, token_mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return ``token_mask``."""
        return token_mask

    def token_mask(self, mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return ``mask``."""
        return mask


class Subset(Actions):
    """A small action space over a large vocabulary: action i writes the i-th of the given tokens.

    A constraint masks tokens of the full space; this makes the space itself small, for agents without action masking,
    such as SB3's PPO with an MLP policy.

    Args:
        tokens: Token ids, or texts of single tokens as ``tokenizer.token_text`` returns them (``" good"``).
        eos: Whether EOS is appended as the last action, where the tokenizer has one and it is not given.

    Raises:
        TypeError: If ``tokens`` is one text.
        ValueError: If ``tokens`` is empty; from ``bind``, if one of them is not a token of the tokenizer.

    >>> from textgym.tokenizers import ByteTokenizer
    >>> Subset(["a", "b"]).size(ByteTokenizer())
    3
    """

    def __init__(self, tokens: Sequence[int | str], *, eos: bool = True) -> None:
        if isinstance(tokens, str):
            raise TypeError(f"expected a list of tokens, got one text; write [{tokens!r}]")
        if len(tokens) == 0:
            raise ValueError("actions need at least one token, got none")
        self.tokens = tuple(tokens)
        self.eos = eos
        self._ids: npt.NDArray[np.int64] | None = None

    def bind(self, tokenizer: Tokenizer) -> Self:
        """Return a copy with the ids of the tokens looked up in ``tokenizer``."""
        bound = copy.copy(self)
        bound._ids = self._look_up(tokenizer)
        return bound

    def size(self, tokenizer: Tokenizer) -> int:
        """Return the number of tokens, EOS included."""
        return len(self._look_up(tokenizer))

    def token_ids(self, actions: npt.NDArray[np.int64], batch: TextBatch) -> npt.NDArray[np.int64]:
        """Return the (B,) token ids of (B,) actions."""
        return self._token_ids(batch)[actions]

    def mask(self, token_mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return the (B, n) columns of the (B, V) mask that belong to the tokens."""
        return token_mask[:, self._token_ids(batch)]

    def token_mask(self, mask: npt.NDArray[np.bool_], batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, V) with the (B, n) mask in the columns of the tokens."""
        tokens = np.zeros((len(batch), batch.tokenizer.vocab_size), dtype=np.bool_)
        tokens[:, self._token_ids(batch)] = mask
        return tokens

    def _token_ids(self, batch: TextBatch) -> npt.NDArray[np.int64]:
        return self._look_up(batch.tokenizer) if self._ids is None else self._ids

    def _look_up(self, tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
        ids = token_ids(tokenizer, self.tokens)
        if self.eos and tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
            ids = np.append(ids, tokenizer.eos_token_id)
        return ids


def as_actions(spec: str | Actions) -> Actions:
    """Return the object that the ``actions`` keyword names: ``"vocabulary"``, or an object as it is.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is no ``Actions`` object.
    """
    if isinstance(spec, str):
        if spec != "vocabulary":
            raise unknown_name(
                "action space", spec, ["vocabulary"], also="Objects such as Subset([...]) are accepted too."
            )
        return Vocabulary()
    if not isinstance(spec, Actions):
        raise TypeError(f"actions must be a name or a textgym.actions.Actions object, got {spec!r}")
    return spec
