"""A task that a user writes: the one of examples/custom_task.py, in every interface, and trained."""

import importlib.util
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym
from fixtures import ROOT
from textgym.registration import IDS
from textgym.tasks import TASKS
from textgym.testing import check_task, check_text_env
from textgym_agents import Reinforce, ReinforceConfig

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task():
    """The example's task; it is taken off the registries again."""
    path = ROOT / "examples/custom_task.py"
    spec = importlib.util.spec_from_file_location("custom_task", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom_task"] = module  # by which its functions are pickled
    spec.loader.exec_module(module)
    yield module.ALLITERATION
    del sys.modules["custom_task"], TASKS["alliteration"], gym.registry["Alliteration-v0"], IDS["Alliteration-v0"]


def test_the_example_is_short_enough_to_copy():
    path = ROOT / "examples/custom_task.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100


def test_the_task_satisfies_the_contract(task):
    check_task(task.name)
    check_text_env("TextGen-v0", num_envs=2, task="alliteration", split="eval")


def test_every_interface_finds_it_by_id_and_by_name(task):
    single = gym.make(task.id, level=2)
    vector = gym.make_vec(task.id, num_envs=2, level=2)
    ours = textgym.TextGenVecEnv(2, task="alliteration", level=2)
    ours.seed(4)
    first = single.reset(seed=4)[0]
    np.testing.assert_array_equal(vector.reset(seed=4)[0][0], first)
    np.testing.assert_array_equal(ours.reset()[0], first)
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(single.spec.to_json()))
    np.testing.assert_array_equal(twin.reset(seed=4)[0], first)


@pytest.mark.parametrize(
    ("completion", "score"), [(" took his ten tins to town.", 5 / 6), (" took a tin.", 2 / 5), ("", 0.0)]
)
def test_the_score_reads_the_rows_column(task, completion, score):
    env = textgym.TextGenEnv(task=task, data=[{"name": "Tom", "when": "Today", "letter": "T"}])
    env.reset(seed=0)
    for token in [*env.tokenizer.encode(completion), env.eos_token_id]:
        *_, terminated, _, info = env.step(token)
        if terminated:
            break
    assert (info["prompt"], info["completion"]) == ("Today, Tom", completion)
    assert info["score"] == pytest.approx(score)


def test_an_agent_learns_on_it(task):
    env = gym.make_vec(task.id, num_envs=8, level="auto", autoreset_mode="SameStep")
    agent = Reinforce("tiny", env, ReinforceConfig(num_episodes=8))
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    metrics = agent.learn_from(agent.collect())
    assert np.isfinite(metrics["train/loss"])
    assert any(not torch.equal(*pair) for pair in zip(before, agent.policy.parameters(), strict=True))
