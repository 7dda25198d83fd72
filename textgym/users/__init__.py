"""Simulated users, who reply between the agent's turns in dialogues.

FunctionUser  a function of the messages so far
ScriptedUser  a goal and a script
LMUser        a language model; imported on first use, since it needs torch
"""

from typing import TYPE_CHECKING, Any

from textgym.users.base import FunctionUser, Reply, ScriptedUser, User, as_user

if TYPE_CHECKING:
    from textgym.users.language_model import LMUser

__all__ = ["FunctionUser", "LMUser", "Reply", "ScriptedUser", "User", "as_user"]


def __getattr__(name: str) -> Any:
    if name == "LMUser":
        from textgym.users.language_model import LMUser

        return LMUser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
