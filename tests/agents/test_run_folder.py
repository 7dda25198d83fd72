"""RunFolder: the files of a run, and failures to write them."""

import contextlib
import json
from dataclasses import asdict

import pandas
import pytest
import torch
from transformers import AutoModelForCausalLM

from fixtures import full_disk, make_env, small_lm
from textgym_agents import Callback, LMPolicy, Reinforce, ReinforceConfig, RunFolder


def make_agent(**env):
    return Reinforce(LMPolicy(small_lm()), make_env(32, **env), ReinforceConfig(num_episodes=32, kl_coef=0.0))


def update(number, **metrics):
    return {"time/total_timesteps": float(number)} | metrics


def test_a_run_folder_contains_settings_logs_and_checkpoints(tmp_path):
    run = RunFolder(tmp_path / "run", {"why": "test"})
    agent = make_agent().learn(300, callback=run)
    table = pandas.read_csv(run.path / "metrics.csv")
    assert len(table) == agent.num_updates
    assert table.to_dict("records")[-1] == pytest.approx(run.rows[-1])
    config = json.loads((run.path / "config.json").read_text())
    assert config == {"why": "test", "algorithm": "Reinforce", "settings": asdict(agent.config)}
    assert (run.path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list(run.path.glob("events.out.tfevents.*"))
    lm = AutoModelForCausalLM.from_pretrained(run.path / "lm")
    assert torch.equal(lm.transformer.wte.weight, agent.policy.model.transformer.wte.weight)
    assert Reinforce.load(run.path, make_env(32)).num_timesteps == agent.num_timesteps


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_ends_with_an_exception_is_saved(tmp_path, stop):
    def fail(agent, metrics):
        if agent.num_updates == 2:
            raise stop

    run = RunFolder(tmp_path)
    agent = make_agent()
    with pytest.raises(stop):
        agent.learn(1_000, callback=[run, fail])
    assert len(pandas.read_csv(tmp_path / "metrics.csv")) == 2
    assert Reinforce.load(tmp_path, make_env(32)).num_updates == 2
    AutoModelForCausalLM.from_pretrained(tmp_path / "lm")


def test_a_failure_to_save_the_language_model_skips_nothing_else(tmp_path):
    (tmp_path / "lm").touch()  # where a folder is needed
    with pytest.raises(NotADirectoryError, match="lm"):
        make_agent().learn(50, callback=RunFolder(tmp_path))
    assert Reinforce.load(tmp_path, make_env(32)).num_updates == 1
    assert (tmp_path / "learning_curve.png").exists()


def test_a_second_training_continues_the_folder(tmp_path):
    run = RunFolder(tmp_path)
    agent = make_agent().learn(50, callback=run).learn(50, callback=run)
    assert len(pandas.read_csv(tmp_path / "metrics.csv")) == agent.num_updates == 2
    assert Reinforce.load(tmp_path, make_env(32)).num_updates == 2


def test_a_run_folder_is_not_overwritten(tmp_path):
    make_agent().learn(50, callback=RunFolder(tmp_path))
    with pytest.raises(FileExistsError, match="already contains a run"):
        RunFolder(tmp_path)


def test_a_run_without_updates_is_not_overwritten(tmp_path):
    RunFolder(tmp_path).on_training_start(make_agent())
    assert not (tmp_path / "metrics.csv").exists()
    with pytest.raises(FileExistsError, match="already contains a run"):
        RunFolder(tmp_path)


def test_a_config_that_is_not_serialisable_raises_before_the_folder_exists(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        RunFolder(tmp_path / "run", {"scorer": print})
    assert not (tmp_path / "run").exists()


def test_new_metrics_become_columns(tmp_path):
    run = RunFolder(tmp_path)
    agent = make_agent()
    run.on_training_start(agent)
    for metrics in (
        update(1, **{"train/loss": 2.0}),
        update(2, **{"train/loss": 1.0, "rollout/scorer_failures": 3.0}),
        update(3, **{"train/loss": 0.5}),
    ):
        run.on_update_end(agent, metrics)
        run.on_update_complete(agent, metrics)
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

    agent = make_agent(scorer=fails_once, on_scorer_error="invalid").learn(700, callback=RunFolder(tmp_path))
    failures = pandas.read_csv(tmp_path / "metrics.csv")["rollout/scorer_failures"]
    assert failures.first_valid_index() > 0
    assert failures.sum() == 1
    assert len(failures) == agent.num_updates > 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer, a thread
def test_a_full_disk_ends_neither_the_training_nor_the_run(tmp_path):
    class LooksAtTheTable(Callback):
        def on_training_end(self, agent):
            table = pandas.read_csv(tmp_path / "metrics.csv")
            assert 0 < len(table) < agent.num_updates
            assert table.to_dict("records")[-1] == pytest.approx(run.rows[len(table) - 1])
            disk.close()

    agent, run = make_agent(), RunFolder(tmp_path)
    with contextlib.ExitStack() as disk:
        disk.enter_context(full_disk(3_000))
        with pytest.warns(UserWarning, match=r"is incomplete.*File too large") as caught:
            agent.learn(3_000, callback=[run, LooksAtTheTable()])
    assert len(caught) == 1
    AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    run.on_update_end(agent, run.rows[-1])
    run.on_update_complete(agent, run.rows[-1])
    assert len(pandas.read_csv(tmp_path / "metrics.csv")) == agent.num_updates + 1


def test_model_and_agent_are_saved_before_a_learning_curve_that_fails(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / "learning_curve.png").symlink_to("/dev/full")
    with pytest.warns(UserWarning, match=r"is incomplete.*No space left"):
        make_agent().learn(50, callback=run)
    AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    Reinforce.load(tmp_path, make_env(32))
