"""From what a caller writes as ``tokenizer=`` to a tokenizer: names, folders, files and objects."""

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from textgym.errors import foreign_code, install_hint, is_misspelt, unknown_name
from textgym.tokenizers.base import PaddedTokenizer, Tokenizer
from textgym.tokenizers.huggingface import TokenizersTokenizer, TransformersTokenizer
from textgym.tokenizers.plain import ByteTokenizer, CharTokenizer

__all__ = ["EMBEDDED_LMS", "as_tokenizer", "embedded_lm_path", "transformers_tokenizer"]

EMBEDDED_LMS = ("tiny",)
"""Names of the language models inside the package."""

ALSO = (
    "Also accepted: a folder with tokenizer.json, a Hugging Face name, a GGUF file, a tokenizers.Tokenizer, "
    "a Hugging Face tokenizer object, or any object of the tokenizer contract."
)
USUAL_EOS_TOKENS = ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "[EOS]")


def embedded_lm_path(name: str) -> Path:
    """Return the folder of a language model inside the package, laid out as Hugging Face folders are.

    Raises:
        ValueError: If there is no such model.

    >>> embedded_lm_path("tiny").name
    'tiny'
    """
    if name not in EMBEDDED_LMS:
        raise unknown_name("embedded language model", name, EMBEDDED_LMS)
    return Path(__file__).parent.parent / "lm" / name


def as_tokenizer(spec: Any, vocab_size: int | None = None) -> Tokenizer:
    """Return the tokenizer that ``spec`` means.

    Args:
        spec: ``"char"``, ``"byte"``, ``"tiny"`` (the embedded LM's); a folder or file in Hugging Face's layout; a
            Hugging Face name; a GGUF file; or a tokenizer object. A bare ``tokenizers.Tokenizer`` does not say
            which token ends a text: the special token with one of the usual names does.
        vocab_size: Width of the model's logits. A wider one than the tokenizer's is filled up with ids that are no
            tokens. By default what ``config.json`` beside the tokenizer says, else the tokenizer's own.

    Raises:
        ValueError: If no tokenizer has this name, or the tokenizer has ids beyond ``vocab_size``.
        TypeError: If ``spec`` is no name and no tokenizer.

    >>> as_tokenizer("byte", vocab_size=264).token_mask.sum()
    np.int64(257)
    """
    tokenizer = tokenizer_by_name(spec, vocab_size) if isinstance(spec, str | Path) else tokenizer_by_object(spec)
    if vocab_size is None or vocab_size == tokenizer.vocab_size:
        return tokenizer
    return PaddedTokenizer(tokenizer, vocab_size)


def tokenizer_by_object(spec: Any) -> Tokenizer:
    """Return ``spec`` itself, or the adapter for it."""
    if isinstance(spec, type):
        raise TypeError(f"a tokenizer is an object, not the class {spec.__name__}: write {spec.__name__}()")
    if isinstance(spec, Tokenizer):
        return spec
    from tokenizers import Tokenizer as LibraryTokenizer

    if isinstance(spec, LibraryTokenizer):
        return TokenizersTokenizer(spec, eos_token_id=usual_eos_id(spec))
    backend = getattr(spec, "backend_tokenizer", None)
    if isinstance(backend, LibraryTokenizer):
        return TokenizersTokenizer(backend, spec.eos_token_id, spec.bos_token_id)
    if hasattr(spec, "get_vocab") and hasattr(spec, "all_special_ids"):
        return TransformersTokenizer(spec)
    raise TypeError(f"expected a tokenizer or the name of one, got {type(spec).__name__}. {ALSO}")


def tokenizer_by_name(name: str | Path, vocab_size: int | None) -> Tokenizer:
    """Look for a tokenizer under its own name, then in the file system, then at Hugging Face."""
    if name == "char":
        return CharTokenizer()
    if name == "byte":
        return ByteTokenizer()
    if name in EMBEDDED_LMS:
        return tokenizer_from_folder(embedded_lm_path(str(name)), vocab_size)
    path = Path(name)
    folder = path.parent if path.name == "tokenizer.json" else path
    if (folder / "tokenizer.json").is_file():
        return tokenizer_from_folder(folder, vocab_size)
    return tokenizer_from_transformers(str(name), vocab_size)


def tokenizer_from_folder(folder: Path, vocab_size: int | None) -> Tokenizer:
    """Read ``tokenizer.json``, and what the files beside it say about EOS, BOS and the vocabulary's width.

    All who ask share one object, as long as the files stay as they are: a tokenizer has no state, and its library keeps
    about 0.1 MiB of each for ever.
    """
    files = [folder / name for name in ("tokenizer.json", "config.json", "tokenizer_config.json")]
    stamps = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())
    return _read_folder(folder.resolve(), stamps, vocab_size)


@lru_cache(maxsize=16)
def _read_folder(folder: Path, stamps: tuple[tuple[int, int], ...], vocab_size: int | None) -> Tokenizer:
    from tokenizers import Tokenizer as LibraryTokenizer

    library_tokenizer = LibraryTokenizer.from_file(str(folder / "tokenizer.json"))
    config = read_json(folder / "config.json")
    config |= config.get("text_config") or {}
    names = read_json(folder / "tokenizer_config.json")

    def special_id(kind: str) -> int | None:
        # The tokenizer's own word comes first: chat models often keep the base model's EOS in config.json.
        token = names.get(f"{kind}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token is not None:
            return library_tokenizer.token_to_id(token)
        ids = config.get(f"{kind}_token_id")
        return ids[0] if isinstance(ids, list) else ids

    eos_token_id = special_id("eos")
    eos_token_id = usual_eos_id(library_tokenizer) if eos_token_id is None else eos_token_id
    tokenizer = TokenizersTokenizer(library_tokenizer, eos_token_id, special_id("bos"))
    width = config.get("vocab_size", tokenizer.vocab_size) if vocab_size is None else vocab_size
    return tokenizer if width == tokenizer.vocab_size else PaddedTokenizer(tokenizer, width)


def tokenizer_from_transformers(name: str, vocab_size: int | None) -> Tokenizer:
    """Load through ``transformers``, which knows slow tokenizers, GGUF files and the Hugging Face hub."""
    known = ("byte", "char", *EMBEDDED_LMS)
    if not Path(name).exists() and is_misspelt(name, known):
        raise unknown_name("tokenizer", name, known, also=ALSO)
    try:
        from transformers import AutoConfig, AutoTokenizer
    except ImportError as error:
        also = f"{ALSO} Hugging Face names need transformers: {install_hint('agents')}."
        raise unknown_name("tokenizer", name, known, also=also) from error
    is_gguf = name.endswith(".gguf")
    folder, options = (str(Path(name).parent), {"gguf_file": Path(name).name}) if is_gguf else (name, {})
    try:
        tokenizer = tokenizer_by_object(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options))
    except (OSError, ValueError) as error:
        if (refused := foreign_code(error, name)) is not error:
            raise refused from None
        reason = str(error).partition("\n")[0]
        raise unknown_name("tokenizer", name, known, also=f"{ALSO} transformers says: {reason}") from error
    if vocab_size is None and not is_gguf:
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            vocab_size = config.get_text_config().vocab_size
        except (OSError, ValueError, AttributeError):  # a tokenizer without a model beside it
            return tokenizer
    width = tokenizer.vocab_size if vocab_size is None else vocab_size
    return tokenizer if width == tokenizer.vocab_size else PaddedTokenizer(tokenizer, width)


@cache
def transformers_tokenizer(name: str | Path) -> Any:
    """Return the tokenizer of ``transformers`` under a name, with its chat template; None where there is none.

    ``"char"``, ``"byte"`` and the embedded LM's are none of them.
    """
    path = Path(name)
    if str(name) in ("char", "byte", *EMBEDDED_LMS):
        return None
    folder, options = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (name, {})
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, **options)
    except (ImportError, OSError, ValueError):
        return None


def usual_eos_id(tokenizer: Any) -> int | None:
    """Return the id of the special token that is named as EOS usually is."""
    special = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return next((special[name] for name in USUAL_EOS_TOKENS if name in special), None)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
