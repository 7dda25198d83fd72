"""How token ids are viewed as text, and where tokenizers come from."""

from textgym.tokenizers.base import PaddedTokenizer, Tokenizer
from textgym.tokenizers.huggingface import TokenizersTokenizer, TransformersTokenizer
from textgym.tokenizers.lookup import token_ids
from textgym.tokenizers.plain import ByteTokenizer, CharTokenizer, WordTokenizer
from textgym.tokenizers.resolve import EMBEDDED_LMS, as_tokenizer, embedded_lm_path, transformers_tokenizer

__all__ = [
    "EMBEDDED_LMS",
    "ByteTokenizer",
    "CharTokenizer",
    "PaddedTokenizer",
    "Tokenizer",
    "TokenizersTokenizer",
    "TransformersTokenizer",
    "WordTokenizer",
    "as_tokenizer",
    "embedded_lm_path",
    "token_ids",
    "transformers_tokenizer",
]
