"""Chat templates of Hugging Face tokenizers."""

import copy
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from textgym.tokenizers.huggingface import load_transformers_tokenizer
from textgym.tokenizers.resolve import BUILTIN_TOKENIZERS

__all__ = ["ChatTemplate", "find_chat_template"]

_AGENT, _USER = "\u2402agent\u2403", "\u2402user\u2403"
"""Placeholders that no template changes, to locate the messages."""


class ChatTemplate:
    """The chat template of a Hugging Face tokenizer.

    Args:
        tokenizer: A ``transformers`` tokenizer with a ``chat_template``.

    Raises:
        ValueError: If it has none; from ``reply_format`` and ``tokenizer``, if no special token ends a turn.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError("the model's tokenizer has no chat template; chat=False uses plain prompts")
        self._tokenizer = tokenizer

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Render messages as the model's input, by default up to the start of its reply."""
        text: str = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text

    def prompt(self, message: str) -> str:
        """Render a single user message, up to the start of the model's reply."""
        return self.render([{"role": "user", "content": message}])

    @property
    def reply_format(self) -> str:
        """The text between the agent's EOS and its next turn, with the placeholder ``{reply}``."""
        return self._between_turns[1]

    @cached_property
    def tokenizer(self) -> Any:
        """A copy of the tokenizer whose EOS is the token that ends a turn; None if its EOS already is."""
        end = self._between_turns[0]
        if end == self._tokenizer.eos_token:
            return None
        tokenizer = copy.deepcopy(self._tokenizer)
        tokenizer.eos_token = end
        return tokenizer

    @cached_property
    def _between_turns(self) -> tuple[str, str]:
        """Return the token that ends the agent's turn, and the text from there to its next turn."""
        messages = [("user", "Hello."), ("assistant", _AGENT), ("user", _USER)]
        text = self.render([{"role": role, "content": content} for role, content in messages])
        between = text.partition(_AGENT)[2].lstrip()
        special = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        ends = [token for token in special if between.startswith(token)]
        if not ends or _USER not in between:
            raise ValueError(
                f"no special token ends a turn in the model's chat template, but {between[:40]!r}; pass your own "
                "prompts with stop=..., or chat=False for plain prompts"
            )
        end = max(ends, key=len)
        return end, between.removeprefix(end).replace(_USER, "{reply}")


def find_chat_template(source: Any) -> ChatTemplate | None:
    """Return the chat template of a ``transformers`` tokenizer, or None if it has none.

    Args:
        source: A tokenizer object, or a name, folder or GGUF file.
    """
    if isinstance(source, str | Path):
        source = _loaded(source)
    has_template = callable(getattr(source, "apply_chat_template", None)) and getattr(source, "chat_template", None)
    return ChatTemplate(source) if has_template else None


@cache
def _loaded(name: str | Path) -> Any:
    """Return the ``transformers`` tokenizer of a name; None if there is none."""
    if str(name) in BUILTIN_TOKENIZERS:
        return None
    try:
        return load_transformers_tokenizer(name)
    except (ImportError, OSError, ValueError):
        return None
