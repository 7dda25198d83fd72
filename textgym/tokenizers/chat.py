"""The chat template of a tokenizer: messages as the text that a chat model reads."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from textgym.tokenizers.resolve import transformers_tokenizer

__all__ = ["ChatTemplate", "find_chat_template"]

_AGENT, _USER = "\u2402agent\u2403", "\u2402user\u2403"
"""Stand-ins that no template changes, to find where the messages go."""


class ChatTemplate:
    """The chat template of a Hugging Face tokenizer.

    Args:
        tokenizer: A tokenizer of ``transformers`` that has a ``chat_template``.

    Raises:
        ValueError: If it has none; and from ``reply_format`` and ``tokenizer`` if no special token ends a turn.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError("the model's tokenizer has no chat template; chat=False takes the plain prompts")
        self._tokenizer = tokenizer

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Return messages as the text that a model reads, up to where it is to answer unless told otherwise."""
        text: str = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text

    def prompt(self, message: str) -> str:
        """Return the text with which a model is asked to answer a message."""
        return self.render([{"role": "user", "content": message}])

    @property
    def reply_format(self) -> str:
        """What goes between the agent's EOS and its next turn, with ``{reply}`` in it."""
        return self._between_turns[1]

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer with the token that ends a turn as its EOS, where it had another; else None."""
        end = self._between_turns[0]
        if end == self._tokenizer.eos_token:
            return None
        tokenizer = copy.deepcopy(self._tokenizer)
        tokenizer.eos_token = end
        return tokenizer

    @cached_property
    def _between_turns(self) -> tuple[str, str]:
        """Return the token that ends the agent's turn, and what follows it up to the agent's next turn."""
        messages = [("user", "Hello."), ("assistant", _AGENT), ("user", _USER)]
        text = self.render([{"role": role, "content": content} for role, content in messages])
        between = text.partition(_AGENT)[2].lstrip()
        special = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        ends = [token for token in special if between.startswith(token)]
        if not ends or _USER not in between:
            raise ValueError(
                f"no special token ends a turn in the model's chat template, where {between[:40]!r} does; give prompts "
                "of your own, with stop=..., or chat=False for the plain ones"
            )
        end = max(ends, key=len)
        return end, between.removeprefix(end).replace(_USER, "{reply}")


def find_chat_template(source: Any) -> ChatTemplate | None:
    """Return the chat template of a tokenizer of transformers, or of what a name leads to; None if it has none.

    Args:
        source: A tokenizer, or the name, folder or GGUF file of one.
    """
    if isinstance(source, str | Path):
        source = transformers_tokenizer(source)
    has_template = callable(getattr(source, "apply_chat_template", None)) and getattr(source, "chat_template", None)
    return ChatTemplate(source) if has_template else None
