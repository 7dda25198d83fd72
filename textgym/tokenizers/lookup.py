"""Which ids are meant where a caller names single tokens, by id or by text."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from textgym.tokenizers.base import Tokenizer

__all__ = ["token_ids"]


def token_ids(tokenizer: Tokenizer, tokens: Iterable[int | str]) -> npt.NDArray[np.int64]:
    """Return the ids of single tokens, (n,) int64, in order and each once.

    Args:
        tokenizer: The tokenizer.
        tokens: Ids, or texts as ``token_text`` shows them: ``" good"`` with the space before the word where the token
            has it, ``"<eos>"``. A text that several tokens have means all of them.

    Raises:
        ValueError: If an id is not a token or a text is not the text of one single token.
        TypeError: If ``tokens`` is one text, or an entry is neither int nor str.

    >>> from textgym.tokenizers import ByteTokenizer
    >>> token_ids(ByteTokenizer(), ["a", "<eos>", 98])
    array([ 97, 256,  98])
    """
    if isinstance(tokens, str):
        raise TypeError(f"expected a list of tokens, got one text; write [{tokens!r}]")
    tokens = list(tokens)
    ids_by_text = texts_of_tokens(tokenizer) if any(isinstance(token, str) for token in tokens) else {}
    mask = tokenizer.token_mask
    found: dict[int, None] = {}
    for token in tokens:
        if isinstance(token, str):
            if token not in ids_by_text:
                raise ValueError(no_single_token(tokenizer, token))
            found |= dict.fromkeys(ids_by_text[token])
        elif isinstance(token, int | np.integer) and not isinstance(token, bool):
            if not (0 <= token < len(mask) and mask[token]):
                raise ValueError(f"id {token} is not a token of the vocabulary of {len(mask)} ids")
            found[int(token)] = None
        else:
            raise TypeError(f"a token is named by its id or its text, got {type(token).__name__} {token!r}")
    return np.array(list(found), dtype=np.int64)


def texts_of_tokens(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Map what a token is shown as to the ids of the tokens."""
    ids_by_text: dict[str, list[int]] = {}
    for token_id in np.flatnonzero(tokenizer.token_mask).tolist():
        ids_by_text.setdefault(tokenizer.token_text(token_id), []).append(token_id)
    return ids_by_text


def no_single_token(tokenizer: Tokenizer, text: str) -> str:
    """Say how a text that is not one token is written in tokens."""
    try:
        parts = [tokenizer.token_text(token_id) for token_id in tokenizer.encode(text)]
    except ValueError:
        parts = []
    return f"{text!r} is not a single token" + (f"; it is encoded as {parts}" if parts else " of this tokenizer")
