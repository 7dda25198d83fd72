"""Size of the packages, and the number of files that a step, an update and a save execute.

    python benchmarks/code_paths.py

Counted are files of textgym and textgym_agents with at least one executed function. A transition is a call or a return
from one of these files to another. ``sys.setprofile`` counts both, so the table does not depend on the machine.
"""

import ast
import io
import sys
import tempfile
import tokenize
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np

import textgym
import textgym_agents
from textgym_agents import PPO

TOKEN = 300
"""A token that does not end an episode."""
ROOTS = [Path(package.__file__).parent for package in (textgym, textgym_agents)]


def main() -> None:
    sizes = [line_counts(path) for root in ROOTS for path in sorted(root.rglob("*.py"))]
    code = [len(counts[0]) for counts in sizes]
    print(f"files                          {len(sizes):6d}")
    print(f"files under 25 lines of code   {sum(lines < 25 for lines in code):6d}")
    print(f"lines                          {sum(counts[2] for counts in sizes):6d}")
    print(f"lines of code                  {sum(code):6d}")
    print(f"lines of docstrings            {sum(len(counts[1]) for counts in sizes):6d}")
    print("\noperation                       files  in textgym_agents  transitions  lines of code in these files")
    for name, call in paths().items():
        files, transitions = trace(call)
        own = sum(ROOTS[1] in path.parents for path in files)
        lines = sum(len(line_counts(path)[0]) for path in files)
        print(f"{name:30s} {len(files):6d} {own:19d} {transitions:12d} {lines:29d}")


def line_counts(path: Path) -> tuple[set[int], set[int], int]:
    """Return the line numbers of code and of docstrings, and the total number of lines."""
    text = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        for child in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and type(child.value.value) is str:
                docstrings |= set(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    code: set[int] = set()
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            code |= set(range(token.start[0], token.end[0] + 1))
    return code - docstrings, docstrings, len(text.splitlines())


def paths() -> dict[str, Callable[[], Any]]:
    """Return the traced operations by name, warmed up."""
    keywords = {"max_new_tokens": 4, "scorer": len}
    single = gym.make("TextGen-v0", **keywords).unwrapped
    vector = gym.make_vec("TextGen-v0", num_envs=4, autoreset_mode="SameStep", **keywords)
    one, four = TOKEN, np.full(4, TOKEN)
    before_end = {}
    for env, action in ((single, one), (vector, four)):
        env.reset(seed=0)
        for _ in range(3):
            env.step(action)
        before_end[env] = env.unwrapped.clone()
        env.step(action)
        env.reset(seed=0)
    agent = PPO("tiny", "TextGen-v0", num_episodes=8, num_envs=4, batch_size=4, env_kwargs={"max_new_tokens": 4})
    agent.learn(1)
    episodes = agent.collect()
    folder = tempfile.TemporaryDirectory()
    return {
        "plain step, one env": lambda: single.step(one),
        "plain step, 4 envs": lambda: vector.step(four),
        "ending step, one env": lambda: before_end[single].step(one),
        "ending step, 4 envs, restarted": lambda: before_end[vector].step(four),
        "PPO: collect": agent.collect,
        "PPO: update": lambda: agent.update(episodes),
        "PPO: learn": lambda: agent.learn(1),
        "PPO: save": lambda: agent.save(Path(folder.name) / "agent"),
    }


def trace(call: Callable[[], Any]) -> tuple[set[Path], int]:
    """Return the files of the packages that ``call`` executes, and the number of transitions between them."""
    files: set[Path] = set()
    stack: list[Path] = []
    transitions = 0

    def on_event(frame: FrameType, event: str, _: Any) -> None:
        nonlocal transitions
        if event not in ("call", "return"):
            return
        path = Path(frame.f_code.co_filename)
        if not any(root in path.parents for root in ROOTS):
            return
        if event == "call":
            transitions += bool(stack) and stack[-1] != path
            files.add(path)
            stack.append(path)
        elif stack:
            stack.pop()
            transitions += bool(stack) and stack[-1] != path

    sys.setprofile(on_event)
    try:
        call()
    finally:
        sys.setprofile(None)
    return files, transitions


if __name__ == "__main__":
    main()
