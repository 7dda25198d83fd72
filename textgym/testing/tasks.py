"""Contract test of tasks."""

import copy
from typing import Any

from textgym.envs import TextGenEnv
from textgym.tasks import TASKS, Task, find_task
from textgym.tasks.prompts import SEEDS, TaskPrompts, split_of
from textgym.testing.envs import check_text_env

__all__ = ["check_task", "play_optimal"]


def check_task(task: str | Task, *, num_samples: int = 500, num_envs: int = 2) -> None:
    """Check a task's rows, splits, optimum and environment, on every level.

    * ``rows`` is a pure function of seed, index and level, and its rows have the required columns.
    * No prompt is in both splits.
    * The optimal turns, where ``target`` or ``expert`` gives them, reach ``optimum``. They are written after a space.
    * ``check_text_env`` passes on the hardest level and with ``level="auto"``.

    Args:
        task: A task, or the name or id of one.
        num_samples: Samples of each level and split whose prompts are compared.
        num_envs: Number of environments in the vector environments.

    Raises:
        AssertionError: If a check fails.
        ValueError: If a row lacks a column, or a prompt or reply does not fit the budgets.

    >>> check_task("qa", num_samples=100)
    """
    task = find_task(task)
    for level in range(1, task.num_levels + 1):
        _check_rows(task, level)
        _check_splits(task, level, num_samples)
        if task.target is not None or task.expert is not None:
            _check_optimum(task, level)
    is_registered = task.id is not None and TASKS.get(task.name) is task
    make = str(task.id) if is_registered else "TextGen-v0"
    keywords: dict[str, Any] = {"num_envs": num_envs} | ({} if is_registered else {"task": task})
    check_text_env(make, split="eval", level=task.num_levels, **keywords)
    check_text_env(make, level="auto", **keywords)


def _check_rows(task: Task, level: int) -> None:
    """Compare rows with those of a second pass in reverse order."""
    calls = [(seed, index, level) for seed in SEEDS.values() for index in (0, 1, 2, 3, 2**20, 2**25)]
    first = {call: copy.deepcopy(task.rows(*call)) for call in calls}
    for call in reversed(calls):
        if task.rows(*call) != first[call]:
            raise AssertionError(
                f"rows{call} returns another row when it is called again; seed its generator with them"
            )
        task.sample(first[call])


def _check_splits(task: Task, level: int, num_samples: int) -> None:
    prompts = {}
    for split in SEEDS:
        source = TaskPrompts(task, task.sample, level, split)
        prompts[split] = {source[i].prompt for i in range(min(num_samples, len(source)))}
    shared = prompts["train"] & prompts["eval"]
    shared |= {prompt for split in SEEDS for prompt in prompts[split] if split_of(prompt) != split}
    if shared:
        raise AssertionError(
            f"level {level}: {len(shared)} prompts are in both splits, such as {min(shared)!r}; rows must give more "
            "distinct prompts"
        )


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
