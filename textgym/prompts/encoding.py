"""Encoding of prompts, and truncation or rejection of those that are too long."""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.prompts.base import IndexedPrompts, PromptSource, Sample
from textgym.prompts.sources import SubsetPrompts
from textgym.tokenizers import Tokenizer

__all__ = ["PromptEncoder"]

CACHE_SIZE = 65_536
NUM_CHECKED = 1024


class PromptEncoder:
    """Encodes prompts, with a cache, and enforces their maximum length.

    Args:
        tokenizer: The tokenizer.
        max_prompt_tokens: Maximum tokens of a prompt.
        truncation: None rejects a longer prompt, ``"left"`` drops tokens at its start, ``"right"`` at its end.

    >>> from textgym.tokenizers import ByteTokenizer
    >>> PromptEncoder(ByteTokenizer(), max_prompt_tokens=2, truncation="left")(Sample("abc"))
    array([98, 99])
    """

    def __init__(
        self, tokenizer: Tokenizer, max_prompt_tokens: int, truncation: Literal["left", "right"] | None = None
    ) -> None:
        if max_prompt_tokens < 1:
            raise ValueError(f"max_prompt_tokens must be at least 1, got {max_prompt_tokens}")
        if truncation not in (None, "left", "right"):
            raise ValueError(f"prompt_truncation must be None, 'left' or 'right', got {truncation!r}")
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self.truncation = truncation
        self._cache: dict[str, npt.NDArray[np.int64]] = {}

    def __call__(self, sample: Sample) -> npt.NDArray[np.int64]:
        """Return the ids of a sample's prompt, (n,) int64, 1 <= n <= max_prompt_tokens, read-only.

        An empty prompt is encoded as the tokenizer's BOS.

        Raises:
            ValueError: If the prompt is too long without truncation, or is empty and there is no BOS.
        """
        ids = self._cache.get(sample.prompt)
        if ids is None:
            ids = self._fit(self.tokenizer.encode(sample.prompt), repr(sample.prompt))
            if len(self._cache) == CACHE_SIZE:
                self._cache.clear()
            self._cache[sample.prompt] = ids
        return ids

    def encode_ids(self, ids: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return a prompt given as token ids, checked and truncated like a text."""
        array = np.asarray(ids)
        if array.ndim != 1:
            raise ValueError(f"prompt ids must have one axis, got shape {array.shape}")
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"prompt ids must be integers, got {array.dtype}")
        array = array.astype(np.int64)
        mask = self.tokenizer.token_mask
        for token_id in array.tolist():
            if not (0 <= token_id < len(mask) and mask[token_id]):
                raise ValueError(f"prompt id {token_id} is not a token of the vocabulary of {len(mask)} ids")
        return self._fit(array.tolist(), repr(array.tolist()))

    def check(self, source: PromptSource) -> None:
        """Raise ``ValueError`` for the first invalid prompt among 1024 of an indexed source, with its index."""
        if isinstance(source, IndexedPrompts):
            for i in range(min(len(source), NUM_CHECKED)):
                try:
                    self(source[i])
                except ValueError as error:
                    raise ValueError(f"prompt {i}: {error}") from None

    def select_valid(self, source: IndexedPrompts) -> IndexedPrompts:
        """Return the subset of a source whose prompts are valid; the source itself if none or all of them are."""
        valid = []
        for i in range(len(source)):
            with contextlib.suppress(ValueError):
                self(source[i])
                valid.append(i)
        return source if len(valid) in (0, len(source)) else SubsetPrompts(source, valid)

    def _fit(self, ids: list[int], shown: str) -> npt.NDArray[np.int64]:
        if not ids:
            bos_token_id: int | None = getattr(self.tokenizer, "bos_token_id", None)
            if bos_token_id is None:
                raise ValueError(
                    f"the prompt {shown} has no tokens, and the tokenizer has no BOS: pass a non-empty prompt"
                )
            ids = [bos_token_id]
        limit = self.max_prompt_tokens
        if len(ids) > limit and self.truncation is None:
            raise ValueError(
                f"the prompt {shown if len(shown) <= 60 else shown[:57] + '...'} has {len(ids)} tokens, "
                f"max_prompt_tokens is {limit}; set prompt_truncation='left' or a larger max_prompt_tokens"
            )
        array = np.array(ids[-limit:] if self.truncation == "left" else ids[:limit], dtype=np.int64)
        array.setflags(write=False)
        return array
