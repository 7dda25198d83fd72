"""How a chat model is asked: its own template around the task's instruction."""

import copy
from pathlib import Path
from typing import Any

from textgym.tokenizers import transformers_tokenizer

__all__ = ["ChatTemplate", "chat_template"]

_AGENT, _USER = "\u2402agent\u2403", "\u2402user\u2403"
"""Stand-ins that no template changes, to find where the messages go."""


class ChatTemplate:
    """The chat template of a Hugging Face tokenizer.

    Args:
        tokenizer: A tokenizer of ``transformers`` that has a ``chat_template``.

    Attributes:
        reply_format: What goes between the agent's EOS and its next turn, with ``{reply}`` in it.
        tokenizer: The tokenizer with the token that ends a turn as its EOS, where it had another; else None.

    Raises:
        ValueError: If it has none, or no special token ends a turn.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError("the model's tokenizer has no chat template; chat=False takes the plain prompts")
        self._tokenizer = tokenizer
        end, self.reply_format = self._between_turns()
        self.tokenizer = None
        if end != tokenizer.eos_token:
            self.tokenizer = copy.deepcopy(tokenizer)
            self.tokenizer.eos_token = end

    def prompt(self, message: str) -> str:
        """Return the text with which a model is asked to answer a message."""
        return self._render([{"role": "user", "content": message}])

    def _between_turns(self) -> tuple[str, str]:
        """Return the token that ends the agent's turn, and what follows it up to the agent's next turn."""
        messages = [("user", "Hello."), ("assistant", _AGENT), ("user", _USER)]
        text = self._render([{"role": role, "content": content} for role, content in messages])
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

    def _render(self, messages: list[dict[str, str]]) -> str:
        text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text


def chat_template(model: Any, tokenizer: Any, chat: bool | None) -> ChatTemplate | None:
    """Return the template to use, or None for plain prompts.

    The agent ends what it writes with the environment's EOS, which has to be the token that ends a turn in the
    template, because that is the one which the model has learned to write. Often it is the tokenizer's EOS too
    (``<|im_end|>`` of SmolLM2 and Qwen, ``<|eot_id|>`` of Llama 3). Where it is another one (``<end_of_turn>`` of
    Gemma, whose EOS is ``<eos>``), the environment is given a copy of the tokenizer with that one as EOS; the old one
    is then a token like others, and adds nothing to the text. Since special tokens are no part of a completion's text,
    a ``stop`` string cannot stand in for it: stop strings are for templates that end turns in plain words.

    Args:
        model: The environment's ``model``.
        tokenizer: The environment's ``tokenizer``, the model's where it is None.
        chat: Whether a template is wanted; None takes one where there is one.

    Raises:
        ValueError: If one is wanted and there is none, or no special token ends a turn in it.
    """
    if chat is False:
        return None
    source = model if tokenizer is None else tokenizer
    if isinstance(source, str | Path):
        source = transformers_tokenizer(source)
    if not chat and not getattr(source, "chat_template", None):
        return None
    return ChatTemplate(source)
