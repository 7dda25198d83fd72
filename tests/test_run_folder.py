"""RunFolder: what it leaves on disk, and what happens where the disk takes no more."""

import contextlib
import json
import resource
from pathlib import Path

import pandas
import pytest
import torch
from lm_fixtures import make_env, small_lm
from transformers import AutoModelForCausalLM

from textgym_agents import LMPolicy, Reinforce, ReinforceConfig, RunFolder


def make_agent(**env):
    return Reinforce(LMPolicy(small_lm()), make_env(32, **env), ReinforceConfig(num_episodes=32, kl_coef=0.0))


def update(number, **metrics):
    return {"time/total_timesteps": float(number)} | metrics


@contextlib.contextmanager
def full_disk(size):
    """No file can grow past ``size`` bytes: every write that tries fails with an OSError of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_run_folder_holds_all_that_a_run_leaves(tmp_path):
    agent = make_agent()
    run = RunFolder(tmp_path / "run", {"why": "test"})
    agent.learn(300, callback=run)
    run.finish(agent.policy)
    table = pandas.read_csv(run.path / "metrics.csv")
    assert len(table) == agent.num_updates
    assert table.to_dict("records")[-1] == pytest.approx(run.rows[-1])
    assert json.loads((run.path / "config.json").read_text()) == {"why": "test"}
    assert (run.path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list(run.path.glob("events.out.tfevents.*"))
    lm = AutoModelForCausalLM.from_pretrained(run.path / "lm")
    assert torch.equal(lm.transformer.wte.weight, agent.policy.model.transformer.wte.weight)


def test_a_run_folder_is_not_written_over(tmp_path):
    run = RunFolder(tmp_path, {})
    make_agent().learn(50, callback=run)
    with pytest.raises(FileExistsError, match="already holds a run"):
        RunFolder(tmp_path, {})


def test_metrics_that_come_later_become_columns(tmp_path):
    run = RunFolder(tmp_path, {})
    for metrics in (
        update(1, **{"train/loss": 2.0}),
        update(2, **{"train/loss": 1.0, "rollout/scorer_failures": 3.0}),
        update(3, **{"train/loss": 0.5}),
    ):
        run(None, metrics)
    table = pandas.read_csv(tmp_path / "metrics.csv")
    assert table["train/loss"].tolist() == [2.0, 1.0, 0.5]
    assert table["rollout/scorer_failures"].isna().tolist() == [True, False, True]


def test_a_scorer_that_first_fails_in_a_later_update_does_not_end_the_run(tmp_path):
    calls = []

    def fails_once(completion):
        calls.append(completion)
        if len(calls) == 70:
            raise RuntimeError("once")
        return 1.0

    agent, run = make_agent(scorer=fails_once, on_scorer_error="invalid"), RunFolder(tmp_path, {})
    agent.learn(700, callback=run)
    failures = pandas.read_csv(tmp_path / "metrics.csv")["rollout/scorer_failures"]
    assert failures.first_valid_index() > 0
    assert failures.sum() == 1
    assert len(failures) == agent.num_updates > 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer, a thread
def test_a_full_disk_ends_neither_the_training_nor_the_run(tmp_path):
    agent, run = make_agent(), RunFolder(tmp_path, {})
    with full_disk(3_000), pytest.warns(UserWarning, match="is incomplete, training goes on: .*File too large") as said:
        agent.learn(3_000, callback=run)
    assert len(said) == 1
    table = pandas.read_csv(tmp_path / "metrics.csv")
    assert 0 < len(table) < agent.num_updates
    assert table.to_dict("records")[-1] == pytest.approx(run.rows[len(table) - 1])
    run(agent, run.rows[-1])
    assert len(pandas.read_csv(tmp_path / "metrics.csv")) == agent.num_updates + 1
    run.finish(agent.policy)
    AutoModelForCausalLM.from_pretrained(tmp_path / "lm")


def test_the_language_model_is_saved_before_a_learning_curve_that_fails(tmp_path):
    agent, run = make_agent(), RunFolder(tmp_path, {})
    agent.learn(50, callback=run)
    (tmp_path / "learning_curve.png").symlink_to(Path("/dev/full"))
    with pytest.warns(UserWarning, match="is incomplete.*No space left"):
        run.finish(agent.policy)
    AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
