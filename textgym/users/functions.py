"""Users made of plain functions, and what the keyword ``user`` may be."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from textgym.batch import TextBatch, Turn
from textgym.users.base import Reply, User

__all__ = ["FunctionUser", "ScriptedUser", "as_user"]


class FunctionUser:
    """A user that is a function of the messages so far.

    Args:
        function: ``f(messages) -> str | Reply | None``. The messages are those of chat programs, a list of
            ``{"role": "user" | "assistant", "content": str}`` that begins with the prompt. A text is a reply after
            which the dialogue goes on; None ends it, as ``"user_left"``.

    Raises:
        TypeError: If the function answers with something else.

    >>> user = FunctionUser(lambda messages: None if "bye" in messages[-1]["content"] else "Tell me more.")
    >>> user(TextBatch.from_texts(["Good bye!", "Hello!"]), [])
    [Reply(text='', outcome='user_left'), Reply(text='Tell me more.', outcome=None)]
    """

    def __init__(self, function: Callable[[list[Turn]], str | Reply | None]) -> None:
        self.function = function

    def __call__(self, batch: TextBatch, rngs: Sequence[np.random.Generator]) -> list[Reply]:
        """Return B replies."""
        replies = []
        for prompt, turns in zip(batch.prompts, batch.turns, strict=True):
            answer = self.function([{"role": "user", "content": prompt}, *turns])
            if isinstance(answer, Reply):
                replies.append(answer)
            elif answer is None or isinstance(answer, str):
                replies.append(Reply("", "user_left") if answer is None else Reply(answer))
            else:
                raise TypeError(f"a user answers with a text, a Reply or None, got {type(answer).__name__} {answer!r}")
        return replies


class ScriptedUser:
    """A user with a goal, who follows a script.

    Args:
        script: ``f(metadata, agent_turns) -> Reply``. The metadata are those of the sample that the episode started
            from, which hold the goal; the turns are the agent's texts so far, without the user's.

    >>> def script(goal, agent_turns):
    ...     return Reply("Thank you!", "success") if goal["wants"] in agent_turns[-1] else Reply("No, thank you.")
    >>> user = ScriptedUser(script)
    >>> user(TextBatch.from_texts(["Here are two pears."], metadata=[{"wants": "pears"}]), [])
    [Reply(text='Thank you!', outcome='success')]
    """

    def __init__(self, script: Callable[[Mapping[str, Any], Sequence[str]], Reply]) -> None:
        self.script = script

    def __call__(self, batch: TextBatch, rngs: Sequence[np.random.Generator]) -> list[Reply]:
        """Return B replies."""
        return [self.script(*episode) for episode in zip(batch.metadata, batch.agent_turns, strict=True)]


def as_user(spec: Any) -> User:
    """Return the user that ``spec`` means: a :class:`User`, or ``f(messages) -> str | Reply | None``.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(spec, type) or not callable(spec):
        raise TypeError(
            f"user is {spec!r:.60} of type {type(spec).__name__}; expected f(messages) -> text or None, or a User, "
            "such as ScriptedUser(script) or LMUser(model)"
        )
    if not inspect.isroutine(spec) and _takes_batch(spec):
        user: User = spec
        return user
    return FunctionUser(spec)


def _takes_batch(spec: Any) -> bool:
    """Whether an object is called with a batch and generators, and not with messages."""
    parameters = inspect.signature(spec).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) == 2
