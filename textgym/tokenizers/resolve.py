"""``as_tokenizer`` and ``token_ids``: tokenizers and single tokens from what a caller passes."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.errors import foreign_code, install_hint, is_misspelt, unknown_name
from textgym.tokenizers.base import PaddedTokenizer, Tokenizer
from textgym.tokenizers.huggingface import TokenizersTokenizer, TransformersTokenizer, load_transformers_tokenizer
from textgym.tokenizers.plain import ByteTokenizer, CharTokenizer

__all__ = ["BUILTIN_TOKENIZERS", "EMBEDDED_LMS", "as_tokenizer", "embedded_lm_path", "token_ids"]

EMBEDDED_LMS = ("tiny", "tiny-early")
"""Names of the language models inside the package."""
BUILTIN_TOKENIZERS = ("byte", "char", *EMBEDDED_LMS)
"""Names that ``as_tokenizer`` accepts besides files and Hugging Face names."""

_ALSO = (
    "Also accepted: a folder with tokenizer.json, a Hugging Face name, a GGUF file, a tokenizers.Tokenizer, "
    "a Hugging Face tokenizer object, or any object of the tokenizer contract."
)
_EOS_TOKENS = ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "[EOS]")


def embedded_lm_path(name: str) -> Path:
    """Return the folder of a language model inside the package, in Hugging Face's layout.

    >>> embedded_lm_path("tiny").name
    'tiny'
    """
    if name not in EMBEDDED_LMS:
        raise unknown_name("embedded language model", name, EMBEDDED_LMS)
    return Path(__file__).parent.parent / "lm" / name


def as_tokenizer(spec: Any, vocab_size: int | None = None) -> Tokenizer:
    """Return ``spec`` as a tokenizer.

    Args:
        spec: ``"char"``, ``"byte"``, ``"tiny"`` or ``"tiny-early"`` (the embedded LMs', which are equal); a folder
            or file in Hugging Face's layout; a Hugging Face name; a GGUF file; or a tokenizer object. EOS of a bare
            ``tokenizers.Tokenizer`` is its special token with one of the usual names.
        vocab_size: Width of the model's logits, to which the vocabulary is padded; by default that of the
            ``config.json`` beside the tokenizer, else the tokenizer's own.

    Raises:
        ValueError: If the name is unknown, or the tokenizer has ids beyond ``vocab_size``.
        TypeError: If ``spec`` is neither a name nor a tokenizer.

    >>> as_tokenizer("byte", vocab_size=264).token_mask.sum()
    np.int64(257)
    """
    tokenizer = _by_name(spec, vocab_size) if isinstance(spec, str | Path) else _by_object(spec)
    return _padded(tokenizer, vocab_size)


def token_ids(tokenizer: Tokenizer, tokens: Iterable[int | str]) -> npt.NDArray[np.int64]:
    """Return the ids of single tokens, (n,) int64, in order and without duplicates.

    Args:
        tokenizer: The tokenizer.
        tokens: Ids, or texts as ``token_text`` shows them, such as ``" good"`` with the token's leading space, or
            ``"<eos>"``. A text that several tokens share gives all of them.

    >>> from textgym.tokenizers import ByteTokenizer
    >>> token_ids(ByteTokenizer(), ["a", "<eos>", 98])
    array([ 97, 256,  98])
    """
    if isinstance(tokens, str):
        raise TypeError(f"expected a list of tokens, got one text; write [{tokens!r}]")
    tokens = list(tokens)
    ids_by_text: dict[str, list[int]] = {}
    if any(isinstance(token, str) for token in tokens):
        for token_id in np.flatnonzero(tokenizer.token_mask).tolist():
            ids_by_text.setdefault(tokenizer.token_text(token_id), []).append(token_id)
    mask = tokenizer.token_mask
    found: dict[int, None] = {}
    for token in tokens:
        if isinstance(token, str):
            if token not in ids_by_text:
                raise ValueError(_not_a_token(tokenizer, token))
            found |= dict.fromkeys(ids_by_text[token])
        elif isinstance(token, int | np.integer) and not isinstance(token, bool):
            if not (0 <= token < len(mask) and mask[token]):
                raise ValueError(f"id {token} is not a token of the vocabulary of {len(mask)} ids")
            found[int(token)] = None
        else:
            raise TypeError(f"a token is given by its id or its text, got {type(token).__name__} {token!r}")
    return np.array(list(found), dtype=np.int64)


def _not_a_token(tokenizer: Tokenizer, text: str) -> str:
    try:
        parts = [tokenizer.token_text(token_id) for token_id in tokenizer.encode(text)]
    except ValueError:
        parts = []
    return f"{text!r} is not a single token" + (f"; it is encoded as {parts}" if parts else " of this tokenizer")


def _padded(tokenizer: Tokenizer, vocab_size: int | None) -> Tokenizer:
    if vocab_size is None or vocab_size == tokenizer.vocab_size:
        return tokenizer
    return PaddedTokenizer(tokenizer, vocab_size)


def _by_object(spec: Any) -> Tokenizer:
    """Return ``spec`` itself, or the adapter for it."""
    if isinstance(spec, type):
        raise TypeError(f"a tokenizer is an object, not the class {spec.__name__}: write {spec.__name__}()")
    if isinstance(spec, Tokenizer):
        return spec
    from tokenizers import Tokenizer as LibraryTokenizer

    if isinstance(spec, LibraryTokenizer):
        return TokenizersTokenizer(spec, eos_token_id=_usual_eos_id(spec))
    backend = getattr(spec, "backend_tokenizer", None)
    if isinstance(backend, LibraryTokenizer):
        return TokenizersTokenizer(backend, spec.eos_token_id, spec.bos_token_id)
    if hasattr(spec, "get_vocab") and hasattr(spec, "all_special_ids"):
        return TransformersTokenizer(spec)
    raise TypeError(f"expected a tokenizer or the name of one, got {type(spec).__name__}. {_ALSO}")


def _by_name(name: str | Path, vocab_size: int | None) -> Tokenizer:
    """Look up a built-in name, then a folder, then Hugging Face."""
    if name == "char":
        return CharTokenizer()
    if name == "byte":
        return ByteTokenizer()
    if name in EMBEDDED_LMS:
        return _from_folder(embedded_lm_path(str(name)), vocab_size)
    path = Path(name)
    folder = path.parent if path.name == "tokenizer.json" else path
    if (folder / "tokenizer.json").is_file():
        return _from_folder(folder, vocab_size)
    return _from_transformers(str(name), vocab_size)


def _from_folder(folder: Path, vocab_size: int | None) -> Tokenizer:
    """Read ``tokenizer.json``, and EOS, BOS and the vocabulary's width from the files beside it.

    One object is shared while the files do not change: the library never frees about 0.1 MiB of each.
    """
    files = [folder / name for name in ("tokenizer.json", "config.json", "tokenizer_config.json")]
    stamps = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())
    return _read_folder(folder.resolve(), stamps, vocab_size)


@lru_cache(maxsize=16)
def _read_folder(folder: Path, stamps: tuple[tuple[int, int], ...], vocab_size: int | None) -> Tokenizer:
    from tokenizers import Tokenizer as LibraryTokenizer

    library_tokenizer = LibraryTokenizer.from_file(str(folder / "tokenizer.json"))
    config = _read_json(folder / "config.json")
    config |= config.get("text_config") or {}
    names = _read_json(folder / "tokenizer_config.json")

    def special_id(kind: str) -> int | None:
        # The tokenizer's config has priority: chat models often keep the base model's EOS in config.json.
        token = names.get(f"{kind}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token is not None:
            return library_tokenizer.token_to_id(token)
        ids = config.get(f"{kind}_token_id")
        return ids[0] if isinstance(ids, list) else ids

    eos_token_id = special_id("eos")
    eos_token_id = _usual_eos_id(library_tokenizer) if eos_token_id is None else eos_token_id
    tokenizer = TokenizersTokenizer(library_tokenizer, eos_token_id, special_id("bos"))
    return _padded(tokenizer, config.get("vocab_size") if vocab_size is None else vocab_size)


def _from_transformers(name: str, vocab_size: int | None) -> Tokenizer:
    """Load with ``transformers``: slow tokenizers, GGUF files and the Hugging Face hub."""
    if not Path(name).exists() and is_misspelt(name, BUILTIN_TOKENIZERS):
        raise unknown_name("tokenizer", name, BUILTIN_TOKENIZERS, also=_ALSO)
    try:
        from transformers import AutoConfig
    except ImportError as error:
        also = f"{_ALSO} Hugging Face names need transformers: {install_hint('agents')}."
        raise unknown_name("tokenizer", name, BUILTIN_TOKENIZERS, also=also) from error
    try:
        tokenizer = _by_object(load_transformers_tokenizer(name))
    except (OSError, ValueError) as error:
        if (rejection := foreign_code(error, name)) is not error:
            raise rejection from None
        reason = str(error).partition("\n")[0]
        also = f"{_ALSO} transformers raised: {reason}"
        raise unknown_name("tokenizer", name, BUILTIN_TOKENIZERS, also=also) from error
    if vocab_size is None and not name.endswith(".gguf"):
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            vocab_size = config.get_text_config().vocab_size
        except (OSError, ValueError, AttributeError):  # a tokenizer without a model beside it
            return tokenizer
    return _padded(tokenizer, vocab_size)


def _usual_eos_id(tokenizer: Any) -> int | None:
    """Return the id of the special token with one of the usual names of EOS."""
    special = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return next((special[name] for name in _EOS_TOKENS if name in special), None)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
