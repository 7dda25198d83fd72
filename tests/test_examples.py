"""Every example, and every Python block of the READMEs, runs as a user would run it, at reduced size."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import ROOT
from textgym_agents import PPO

pytestmark = pytest.mark.slow

ARGUMENTS = {
    "compare_agents.py": ["--timesteps", "1024", "--seeds", "1", "--out"],
    "custom_scorer.py": ["--timesteps", "2000"],
    "custom_task.py": ["--timesteps", "2000"],
    "reward_hacking.py": ["--timesteps", "2048", "--out"],
    "sb3_ppo_lm.py": ["--timesteps", "4096"],
    "sb3_ppo_mlp.py": ["--timesteps", "1024"],
    "why_this_token.py": ["--timesteps", "2000", "--seconds", "3", "--no-open", "--out"],
}


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *command], capture_output=True, text=True, timeout=300, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "example", sorted({path.name for path in (ROOT / "examples").glob("*.py")} - {"quickstart.py", "train_task.py"})
)
def test_example_runs(example, tmp_path):
    arguments = ARGUMENTS.get(example, [])
    if "--out" in arguments:
        arguments = [*arguments, str(tmp_path / "run")]
    assert run(str(ROOT / "examples" / example), *arguments).strip()


@pytest.mark.parametrize("task", ["dialogue", "qa", "quality", "summary", "translation"])
def test_train_task_shows_held_out_samples_before_and_after(task):
    printed = run(str(ROOT / "examples/train_task.py"), task, "--timesteps", "500")
    assert "before" in printed
    assert "held-out samples" in printed


def test_quickstart_leaves_a_run_folder_and_shows_eight_prompts(tmp_path):
    printed = run(str(ROOT / "examples/quickstart.py"), "--timesteps", "2000", "--out", str(tmp_path / "run"))
    assert printed.count("\n> ") == 8
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "config.json", "learning_curve.png", "lm", "metrics.csv",
    }  # fmt: skip


@pytest.mark.parametrize("readme", ["README.md", "agents/README.md"])
def test_readme_blocks_run(readme, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        script = tmp_path / f"block_{number}.py"
        script.write_text(block, encoding="utf-8")
        run(str(script), cwd=tmp_path)


def test_the_benchmark_of_updates_runs_at_reduced_size(monkeypatch):
    benchmark = runpy.run_path(str(ROOT / "benchmarks/updates.py"))
    sizes = {"NUM_EPISODES": 8, "NUM_TOKENS": 2}
    for name in ("make_env", "update_ratio", "iteration_ratio"):
        for size, value in sizes.items():
            monkeypatch.setitem(benchmark[name].__globals__, size, value)
    assert benchmark["update_ratio"](0.1, 1) > 0
    agent = PPO("tiny", benchmark["make_env"](1), num_episodes=8, n_epochs=1, kl_coef=0.0)
    assert benchmark["iteration_ratio"](agent, 1) > 0
