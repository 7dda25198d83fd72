"""Checkpoints of another agent or version, or incomplete ones, are refused; existing files are not damaged."""

import json

import pytest
import torch

from fixtures import make_env, small_lm
from textgym_agents import A2C, PPO, A2CConfig, LMPolicy, PPOConfig


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "agent"
    PPO(LMPolicy(small_lm()), make_env(8), PPOConfig(num_episodes=8)).learn(50).save(path)
    return path


def test_a_checkpoint_of_another_agent_is_refused(saved):
    with pytest.raises(ValueError, match=r"is a checkpoint of PPO, not of A2C: call PPO\.load"):
        A2C.load(saved, make_env(8))


def test_a_checkpoint_of_another_version_is_refused(saved):
    index = json.loads((saved / "agent.json").read_text())
    (saved / "agent.json").write_text(json.dumps(index | {"format": 1}))
    with pytest.raises(ValueError, match="has checkpoint format 1, this version of textgym reads format 7"):
        PPO.load(saved, make_env(8))


@pytest.mark.parametrize("name", ["policy/model.safetensors", "optimizer.safetensors", "policy/heads.safetensors"])
def test_a_checkpoint_that_was_cut_off_is_refused(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"is incomplete: {name} has {len(content) // 2} bytes of {len(content)}"):
        PPO.load(saved, make_env(8))


def test_a_checkpoint_without_one_of_its_files_is_refused(saved):
    (saved / "optimizer.safetensors").unlink()
    with pytest.raises(ValueError, match=r"optimizer\.safetensors is missing"):
        PPO.load(saved, make_env(8))


def test_an_index_that_was_cut_off_is_refused(saved):
    text = (saved / "agent.json").read_text()
    (saved / "agent.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"agent\.json is damaged"):
        PPO.load(saved, make_env(8))


def test_a_folder_that_is_no_checkpoint_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    agent = A2C(LMPolicy(small_lm()), make_env(8), A2CConfig(num_episodes=8))
    with pytest.raises(FileExistsError, match="is not a checkpoint, so it is not replaced"):
        agent.save(tmp_path)
    with pytest.raises(FileExistsError, match="is not a checkpoint, so it is not replaced"):
        agent.save(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_save_that_fails_leaves_the_older_checkpoint_whole(saved):
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    agent = PPO.load(saved, make_env(8))
    agent.num_updates = object()  # what JSON cannot hold
    with pytest.raises(TypeError):
        agent.save(saved)
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["agent"]
    loaded = PPO.load(saved, make_env(8)).policy.value_head
    assert torch.equal(loaded.token_values, agent.policy.value_head.token_values)


def test_what_was_frozen_by_hand_stays_frozen(tmp_path):
    policy = LMPolicy(small_lm())
    policy.model.transformer.wpe.weight.requires_grad_(False)
    straight = PPO(policy, make_env(8), PPOConfig(num_episodes=8)).learn(50)
    straight.save(tmp_path)
    resumed = PPO.load(tmp_path, make_env(8)).learn(50)
    straight.learn(50)
    assert not resumed.policy.model.transformer.wpe.weight.requires_grad
    for (name, p), (_, q) in zip(straight.policy.named_parameters(), resumed.policy.named_parameters(), strict=True):
        assert torch.equal(p, q), name


def test_a_failed_load_changes_neither_file_nor_environment(saved):
    env = make_env(8)
    rngs = env.unwrapped.get_rng_states()
    (saved / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is incomplete"):
        PPO.load(saved, env)
    assert env.unwrapped.get_rng_states() == rngs
