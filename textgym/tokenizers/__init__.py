"""Tokenizers, which map text to token ids and back."""

from textgym.tokenizers.base import PaddedTokenizer, Tokenizer, fingerprint
from textgym.tokenizers.chat import ChatTemplate, find_chat_template
from textgym.tokenizers.huggingface import TokenizersTokenizer, TransformersTokenizer
from textgym.tokenizers.plain import ByteTokenizer, CharTokenizer, WordTokenizer
from textgym.tokenizers.resolve import EMBEDDED_LMS, as_tokenizer, embedded_lm_path, token_ids

__all__ = [
    "EMBEDDED_LMS",
    "ByteTokenizer",
    "CharTokenizer",
    "ChatTemplate",
    "PaddedTokenizer",
    "Tokenizer",
    "TokenizersTokenizer",
    "TransformersTokenizer",
    "WordTokenizer",
    "as_tokenizer",
    "embedded_lm_path",
    "find_chat_template",
    "fingerprint",
    "token_ids",
]
