"""Contract test of tasks."""

import itertools
from typing import Any

from textgym.envs import TextGenEnv
from textgym.tasks import TASKS, Task, find_task
from textgym.tasks.prompts import SPLITS, task_prompts
from textgym.testing.envs import check_text_env

__all__ = ["check_task", "play_optimal"]


def check_task(task: str | Task, *, num_envs: int = 2) -> None:
    """Check a task's rows, splits, optimum and environment, on every level.

    * Each split and level has rows, the same ones whenever they are read, and all of them have the required columns.
    * No prompt is in both splits.
    * The optimal turns, where ``target`` or ``expert`` gives them, reach ``optimum``. They are written after a space.
    * ``check_text_env`` passes on the hardest level and with ``level="auto"``.

    Args:
        task: A task, or the name or id of one.
        num_envs: Number of environments in the vector environments.

    Raises:
        AssertionError: If a check fails.
        ValueError: If a row lacks a column, or a prompt or reply does not fit the budgets.

    >>> check_task("sentiment")
    """
    task = find_task(task)
    _check_rows(task)
    if task.target is not None or task.expert is not None:
        for level in range(1, task.num_levels + 1):
            _check_optimum(task, level)
    is_registered = task.id is not None and TASKS.get(task.name) is task
    make = str(task.id) if is_registered else "TextGen-v0"
    keywords: dict[str, Any] = {"num_envs": num_envs} | ({} if is_registered else {"task": task})
    check_text_env(make, split="eval", level=task.num_levels, **keywords)
    check_text_env(make, level="auto", **keywords)


def _check_rows(task: Task) -> None:
    """Read the rows twice, and look for prompts in both splits."""
    prompts: dict[str, set[str]] = {}
    for split, level in itertools.product(SPLITS, range(1, task.num_levels + 1)):
        source, again = (task_prompts(task, split, level) for _ in range(2))
        samples = [source[i] for i in range(len(source))]
        if samples != [again[i] for i in range(len(again))]:
            raise AssertionError(f"data({split!r}, {level}) returns other rows when it is called again")
        prompts.setdefault(split, set()).update(sample.prompt for sample in samples)
    shared = prompts["train"] & prompts["eval"]
    if shared:
        raise AssertionError(f"{len(shared)} prompts are in both splits, such as {min(shared)!r}")


def _check_optimum(task: Task, level: int, num_episodes: int = 20) -> None:
    env = TextGenEnv(task=task, level=level, split="eval")
    for index in range(num_episodes):
        _, info = play_optimal(env, task, index=index)
        if abs(info["score"] - task.optimum) > 1e-6:
            raise AssertionError(
                f"level {level}, row {index}: the optimal turns score {info['score']}, expected the optimum "
                f"{task.optimum}; prompt {info['prompt']!r}, completion {info['completion']!r}"
            )


def play_optimal(env: TextGenEnv, task: Task, **options: Any) -> tuple[list[float], dict[str, Any]]:
    """Run an episode with the optimal turns; return the reward of each turn's last step, and the last ``info``."""
    env.reset(seed=0, options=options or None)
    turns: list[str] = []
    rewards, done = [], False
    while not done:
        turns.append(task.optimal_turn(env.core.samples[0], turns))
        for token in [*env.tokenizer.encode(" " + turns[-1]), env.eos_token_id]:
            _, reward, terminated, truncated, info = env.step(token)
            if done := terminated or truncated:
                break
        rewards.append(reward)
    return rewards, info
