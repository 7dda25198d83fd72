"""Simulated users: the contract, adapters for plain functions, and ``as_user``."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from textgym.batch import TextBatch, Turn

__all__ = ["FunctionUser", "Reply", "ScriptedUser", "User", "as_user"]


class Reply(NamedTuple):
    """A user's reply to one turn of the agent."""

    text: str
    """Written into the episode's text, inside the environment's ``reply_format``."""
    outcome: str | None = None
    """End reason of the dialogue, such as ``"success"`` or ``"failure"``; None if it continues."""


@runtime_checkable
class User(Protocol):
    """Replies to the turns of the agent.

    A user is stateless: its replies depend only on the text so far (``batch.turns``) and on the episodes' generators,
    so snapshots and seeds reproduce them.
    """

    def __call__(self, batch: TextBatch, rngs: Sequence[np.random.Generator]) -> Sequence[Reply]:
        """Return one reply for each of the B episodes of ``batch``, given their B generators."""
        ...


class FunctionUser:
    """User given by a function of the messages so far.

    Args:
        function: ``f(messages) -> str | Reply | None``, where the messages are a list of
            ``{"role": "user" | "assistant", "content": str}`` that starts with the prompt. A string is a reply after
            which the dialogue continues; None ends it with the reason ``"user_left"``.

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
            reply = self.function([{"role": "user", "content": prompt}, *turns])
            if isinstance(reply, Reply):
                replies.append(reply)
            elif reply is None or isinstance(reply, str):
                replies.append(Reply("", "user_left") if reply is None else Reply(reply))
            else:
                raise TypeError(f"a user must return a str, a Reply or None, got {type(reply).__name__} {reply!r}")
        return replies


class ScriptedUser:
    """User with a goal, given by a function of the sample's metadata and the agent's turns.

    Args:
        script: ``f(metadata, agent_turns) -> Reply``. ``metadata`` belongs to the episode's sample and holds the goal;
            ``agent_turns`` are the agent's texts so far, without the user's replies.

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
    """Return ``spec`` as a user: a ``User`` itself, or ``f(messages) -> str | Reply | None`` wrapped."""
    if isinstance(spec, type) or not callable(spec):
        raise TypeError(
            f"user is {spec!r:.60} of type {type(spec).__name__}; expected f(messages) -> str or None, or a User, "
            "such as ScriptedUser(script) or LMUser(model)"
        )
    if not inspect.isroutine(spec) and _takes_batch(spec):
        user: User = spec
        return user
    return FunctionUser(spec)


def _takes_batch(spec: Any) -> bool:
    """Return whether a callable takes (batch, generators) rather than (messages)."""
    parameters = inspect.signature(spec).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) == 2
