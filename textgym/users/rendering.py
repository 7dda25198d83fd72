"""How a dialogue is shown to a language model that is to say what the user says next."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from textgym.batch import Turn
from textgym.tokenizers import transformers_tokenizer

__all__ = ["ExchangedRoles", "chat_template_of", "plain_dialogue"]


def plain_dialogue(instruction: str, messages: list[Turn]) -> str:
    r"""Return the instruction, a line for each message, and the beginning of the user's next one.

    >>> messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": " Hi!"}]
    >>> plain_dialogue("Two friends meet.", messages)
    'Two friends meet.\n\nUser: Hello.\nAssistant: Hi!\nUser:'
    """
    lines = [f"{message['role'].capitalize()}: {' '.join(message['content'].split())}" for message in messages]
    head = [instruction.strip(), ""] if instruction.strip() else []
    return "\n".join([*head, *lines, "User:"])


class ExchangedRoles:
    """The chat template of a tokenizer, with the roles exchanged: the model is the assistant, who plays the user.

    The instruction is the first message of the other side, since many templates want the roles to alternate and know
    no system message.

    Args:
        tokenizer: A tokenizer of transformers, with a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, instruction: str, messages: list[Turn]) -> str:
        """Return the text after which the model writes what the user says."""
        other = {"user": "assistant", "assistant": "user"}
        turns = [{"role": other[message["role"]], "content": message["content"].strip()} for message in messages]
        if instruction.strip():
            turns.insert(0, {"role": "user", "content": instruction.strip()})
        text: str = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text


def chat_template_of(source: Any) -> Callable[[str, list[Turn]], str] | None:
    """Return the chat template of a tokenizer of transformers, or of what lies under a name; None where there is none.

    Args:
        source: A tokenizer, or the name, folder or GGUF file of one.
    """
    if isinstance(source, str | Path):
        source = transformers_tokenizer(source)
    has_template = callable(getattr(source, "apply_chat_template", None)) and getattr(source, "chat_template", None)
    return ExchangedRoles(source) if has_template else None
