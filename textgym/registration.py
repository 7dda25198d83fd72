"""Table of environment ids: id -> keywords of ``TextGenConfig``.

Every id is registered with Gymnasium when textgym is imported, and all three interfaces take one as ``id=``.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from textgym.errors import unknown_name

__all__ = ["IDS", "TASK_KEYWORDS", "describe", "expanded", "register_env", "register_envs"]

IDS: dict[str, dict[str, Any]] = {
    "TextGen-v0": {},
    "TextGenDialogue-v0": {"task": "dialogue"},
    "TextGenTranslation-v0": {"task": "translation"},
    "TextGenQA-v0": {"task": "qa"},
    "TextGenSummary-v0": {"task": "summary"},
    "TextGenQuality-v0": {"task": "quality"},
    "ProbeConstant-v0": {"probe": "ProbeConstant-v0"},
    "ProbeBandit-v0": {"probe": "ProbeBandit-v0"},
    "ProbePrompt-v0": {"probe": "ProbePrompt-v0"},
    "ProbeStop-v0": {"probe": "ProbeStop-v0"},
    "ProbeDelay-v0": {"probe": "ProbeDelay-v0"},
    "ProbeMemory-v0": {"probe": "ProbeMemory-v0"},
    "ProbeCopy-v0": {"probe": "ProbeCopy-v0"},
    "ProbeReverse-v0": {"probe": "ProbeReverse-v0"},
    "ProbeTrap-v0": {"probe": "ProbeTrap-v0"},
}
"""Tasks and probes are given by name, so that ``import textgym`` does not load them; ``register_env`` adds ids."""

ENTRY_POINT = "textgym.envs.single:TextGenEnv"

REGISTERED = "registered"
"""The keyword ``id`` in Gymnasium's registry, whose ``make`` has a parameter ``id`` of its own. It is the only keyword
there; the others are looked up in ``IDS``, and keywords passed to ``gym.make`` override them."""

EXPANSIONS = {
    "probe": "textgym.probes:probe_keywords",
    "task": "textgym.tasks:task_keywords",
}
"""Keyword that stands for others -> function that replaces it; imported when it is used."""

TASK_KEYWORDS = ("split", "level", "data", "columns", "chat")
"""Keywords of ``textgym.tasks.task_keywords`` that need a task."""


def register_envs() -> None:
    """Register every environment of the package; ``import textgym`` calls it."""
    for env_id in IDS:
        _register(env_id)


def register_env(env_id: str, **keywords: Any) -> None:
    """Register an id for ``gym.make``, ``gym.make_vec`` and ``id=`` of every interface.

    Args:
        env_id: Name and version, as in Gymnasium: ``"MyText-v0"``.
        **keywords: The fields of ``TextGenConfig``, ``task`` and its own keywords, ``max_episode_steps``; or ``id``,
            another id that this one extends. Keywords passed to ``gym.make`` override them.

    Raises:
        ValueError: If the id is taken, or the one that it extends is unknown.
    """
    if env_id in gym.registry or env_id in IDS:
        raise ValueError(f"the id {env_id!r} is registered already")
    if "id" in keywords:
        _keywords_of(str(keywords["id"]))  # raises if unknown, so that no id extends itself
    keywords = _with_budget(keywords)
    _register(env_id)
    IDS[env_id] = keywords


def _register(env_id: str) -> None:
    gym.register(
        id=env_id,
        entry_point=ENTRY_POINT,
        vector_entry_point="textgym.envs.vector:TextGenVectorEnv",
        kwargs={REGISTERED: env_id},
    )


def expanded(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords with ``id``, ``task``, ``probe`` and ``max_episode_steps`` expanded.

    Raises:
        ValueError: If the id, task or probe is unknown, or ``max_episode_steps`` and ``max_new_tokens`` differ.

    >>> expanded({"id": "textgym:ProbeCopy-v0", "max_prompt_tokens": 3})["max_prompt_tokens"]
    3
    """
    result = _with_budget(keywords)
    if REGISTERED in result:
        result["id"] = result.pop(REGISTERED)
    if "id" in result:
        result = {**_keywords_of(str(result.pop("id"))), **result}
    for name, function in EXPANSIONS.items():
        if name in result:
            expand: Any = load_env_creator(function)
            result = expand(**result)
    return result


def describe(env_id: str) -> str:
    """Return the documentation page of a registered id.

    Raises:
        ValueError: If the id is unknown.

    >>> import textgym
    >>> print(textgym.describe("TextGenQA-v0"))  # doctest: +ELLIPSIS
    Answer a question about a passage in a few words.
    ...
    ## Observation Space
    ``Box(0, V, (96,), int64)``, ...
    """
    keywords = _keywords_of(env_id)
    if "task" in keywords:
        tasks = import_module("textgym.tasks")
        page: str = tasks.task_page(tasks.find_task(keywords["task"]))
    elif "probe" in keywords:
        page = import_module("textgym.probes").probe_page(keywords["probe"])
    else:
        page = inspect.getdoc(load_env_creator(ENTRY_POINT)) or ""
    return page


def _with_budget(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords with ``max_episode_steps`` renamed to ``max_new_tokens``; None and -1 are dropped."""
    kwargs = dict(kwargs)
    limit = kwargs.pop("max_episode_steps", None)
    if limit is None or limit == -1:
        return kwargs
    if kwargs.setdefault("max_new_tokens", limit) != limit:
        raise ValueError(
            f"max_episode_steps={limit} and max_new_tokens={kwargs['max_new_tokens']} are two names of one budget "
            "(the spec of an environment has the former): give one of them, or the same value for both"
        )
    return kwargs


def _keywords_of(env_id: str) -> dict[str, Any]:
    """Return the keywords of an id, with those of the ids that it extends."""
    name = env_id.rpartition(":")[2]
    if name not in IDS:
        raise unknown_name("id", env_id, IDS)
    keywords = dict(IDS[name])
    return {**_keywords_of(str(keywords.pop("id"))), **keywords} if "id" in keywords else keywords
