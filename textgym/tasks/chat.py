"""Which chat template the environment of a task uses."""

from typing import Any

from textgym.tokenizers.chat import ChatTemplate, find_chat_template

__all__ = ["chat_template"]


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
    template = find_chat_template(model if tokenizer is None else tokenizer)
    if template is None and chat:
        raise ValueError("the model's tokenizer has no chat template; chat=False takes the plain prompts")
    return template
