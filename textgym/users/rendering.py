"""How a dialogue is shown to a language model that is to say what the user says next."""

from textgym.batch import Turn
from textgym.tokenizers.chat import ChatTemplate

__all__ = ["exchanged_roles", "plain_dialogue"]


def plain_dialogue(instruction: str, messages: list[Turn]) -> str:
    r"""Return the instruction, a line for each message, and the beginning of the user's next one.

    >>> messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": " Hi!"}]
    >>> plain_dialogue("Two friends meet.", messages)
    'Two friends meet.\n\nUser: Hello.\nAssistant: Hi!\nUser:'
    """
    lines = [f"{message['role'].capitalize()}: {' '.join(message['content'].split())}" for message in messages]
    head = [instruction.strip(), ""] if instruction.strip() else []
    return "\n".join([*head, *lines, "User:"])


def exchanged_roles(template: ChatTemplate, instruction: str, messages: list[Turn]) -> str:
    """Return the text after which a chat model writes what the user says: it is the assistant, who plays the user.

    The instruction is the first message of the other side, since many templates want the roles to alternate and know
    no system message.
    """
    other = {"user": "assistant", "assistant": "user"}
    turns = [{"role": other[message["role"]], "content": message["content"].strip()} for message in messages]
    if instruction.strip():
        turns.insert(0, {"role": "user", "content": instruction.strip()})
    return template.render(turns)
