"""LMBackbone: trained layers, low-rank adapters, precision, files."""

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from fixtures import make_env, small_lm
from textgym_agents import GRPO, PPO, GRPOConfig, LMBackbone, LMPolicy, PPOConfig, SoftQ, SoftQConfig, collect

SETTINGS = [{}, {"lora": 4}, {"trainable_layers": 1}, {"autocast": torch.bfloat16}]
IDS = np.array([[0, 1, 2, 8], [3, 8, 8, 8]])


def moved(policy):
    """Return the policy with all that trains changed."""
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    return policy


@pytest.mark.parametrize("settings", SETTINGS)
def test_cached_steps_agree_with_one_forward(settings):
    policy = moved(LMPolicy(small_lm(), **settings))
    episodes = collect(make_env(8), policy, 16, seed=0, generator=torch.Generator().manual_seed(0))
    tolerance = 0.05 if "autocast" in settings else 1e-4
    torch.testing.assert_close(policy.evaluate(episodes).log_probs, episodes.log_probs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_loaded_policy_acts_and_trains_as_the_saved_one(settings, tmp_path):
    policy = moved(LMPolicy(small_lm(), **settings))
    policy.save_pretrained(tmp_path)
    loaded = LMPolicy.from_pretrained(tmp_path)
    assert torch.equal(loaded.backbone.step(IDS)[0], policy.backbone.step(IDS)[0])
    for (name, p), (_, q) in zip(loaded.named_parameters(), policy.named_parameters(), strict=True):
        assert torch.equal(p, q), name
        assert p.requires_grad == q.requires_grad, name
    assert loaded.backbone.autocast == policy.backbone.autocast


def test_the_stream_that_is_used_outlives_those_of_many_other_shapes():
    backbone = LMBackbone(small_lm())
    backbone.step(IDS)
    training = backbone._streams[IDS.shape]
    for width in range(5, 25):
        backbone.step(np.full((1, width), 0))
        backbone.step(IDS)
    assert backbone._streams[IDS.shape] is training
    assert len(backbone._streams) == 8


def test_only_the_top_layer_and_the_norm_above_it_train():
    policy = LMPolicy(small_lm(), trainable_layers=1)
    names = {name.split(".")[3] for name, p in policy.backbone.named_parameters(prefix="t") if p.requires_grad}
    assert names == {"h", "ln_f"}
    assert not any(p.requires_grad for p in policy.model.transformer.h[0].parameters())
    assert all(p.requires_grad for p in policy.model.transformer.h[1].parameters())


def test_the_reference_shares_the_frozen_backbone_and_nothing_that_trains():
    policy = LMPolicy(small_lm(), trainable_layers=1)
    twin = policy.frozen_copy()
    assert twin.model.transformer.wte.weight is policy.model.transformer.wte.weight
    before = twin.backbone.step(IDS)[0]
    moved(policy)
    torch.testing.assert_close(twin.backbone.step(IDS)[0], before)
    assert (policy.backbone.step(IDS)[0] - before).abs().max() > 0.01


def test_adapters_start_as_the_model_itself_and_are_the_only_thing_that_trains():
    policy = LMPolicy(small_lm(), lora=4)
    torch.testing.assert_close(policy.backbone.step(IDS)[0], LMBackbone(small_lm()).step(IDS)[0])
    assert all("lora_" in name for name, p in policy.backbone.named_parameters() if p.requires_grad)


def test_the_reference_of_new_adapters_is_the_policy_without_them():
    agent = PPO(LMPolicy(small_lm(), lora=4), make_env(8), PPOConfig(num_episodes=8))
    assert agent.kl.reference.copy is None
    moved(agent.policy)
    episodes = agent.collect()
    plain = LMPolicy(small_lm()).evaluate(episodes).log_probs
    torch.testing.assert_close(agent.kl.reference.evaluate(episodes).log_probs, plain.detach())
    with_adapters = agent.policy.evaluate(episodes).log_probs
    torch.testing.assert_close(with_adapters.detach(), episodes.log_probs, atol=1e-4, rtol=0)
    assert (with_adapters - plain).abs().max() > 0.01


def test_the_reference_of_trained_adapters_is_the_policy_with_them(tmp_path):
    """After a warm start, the KL is to the policy at construction."""
    policy = moved(LMPolicy(small_lm(), lora=4))
    episodes = collect(make_env(8), policy, 8, seed=0, generator=torch.Generator().manual_seed(0))
    start = policy.evaluate(episodes).log_probs.detach()
    agent = PPO(policy, make_env(8), PPOConfig(num_episodes=8, kl_coef=0.1, learning_rate=1e-2)).learn(200)
    assert (policy.evaluate(episodes).log_probs - start).abs().max() > 0.01
    assert agent.kl.reference.copy.model.transformer.wte.weight is policy.model.transformer.wte.weight
    agent.save(tmp_path)
    for one in (agent, PPO.load(tmp_path, make_env(8))):
        torch.testing.assert_close(one.kl.reference.evaluate(episodes).log_probs, start)


def test_where_more_than_adapters_trains_the_reference_is_a_copy():
    config = LoraConfig(r=4, target_modules="all-linear", bias="all")
    agent = PPO(LMPolicy(small_lm(), lora=config), make_env(8), PPOConfig(num_episodes=8))
    episodes = agent.collect()
    before = agent.kl.reference.evaluate(episodes).log_probs
    moved(agent.policy)
    torch.testing.assert_close(agent.kl.reference.evaluate(episodes).log_probs, before)


def test_adapters_that_change_the_model_under_them_come_back(tmp_path):
    policy = LMPolicy(small_lm(), lora=LoraConfig(r=4, target_modules="all-linear", init_lora_weights="pissa"))
    torch.testing.assert_close(policy.backbone.step(IDS)[0], LMBackbone(small_lm()).step(IDS)[0])
    moved(policy).save_pretrained(tmp_path)
    assert torch.equal(LMPolicy.from_pretrained(tmp_path).backbone.step(IDS)[0], policy.backbone.step(IDS)[0])


@pytest.mark.parametrize("relative_to_start", [True, False])
def test_soft_q_with_adapters_goes_on_where_it_was_saved(relative_to_start, tmp_path):
    config = SoftQConfig(num_episodes=8, batch_size=8, single_step_coef=1.0, relative_to_start=relative_to_start)
    straight = SoftQ(LMPolicy(small_lm(), lora=4), make_env(8), config).learn(100)
    straight.save(tmp_path)
    resumed = SoftQ.load(tmp_path, make_env(8)).learn(100)
    straight.learn(100)
    for (name, p), (_, q) in zip(straight.policy.named_parameters(), resumed.policy.named_parameters(), strict=True):
        assert torch.equal(p, q), name


def test_merged_adapters_make_a_plain_model(tmp_path):
    policy = moved(LMPolicy(small_lm(), lora=4))
    before = policy.backbone.step(IDS)[0]
    policy.merged().save_pretrained(tmp_path)
    plain = LMPolicy(AutoModelForCausalLM.from_pretrained(tmp_path))
    torch.testing.assert_close(plain.backbone.step(IDS)[0], before, atol=1e-5, rtol=0)
    torch.testing.assert_close(policy.backbone.step(IDS)[0], before)
    assert not (tmp_path / "lora").exists()


def test_a_saved_policy_with_adapters_is_the_trained_model_to_everyone(tmp_path):
    policy = moved(LMPolicy(small_lm(), lora=4))
    policy.save_pretrained(tmp_path)
    plain = LMPolicy(AutoModelForCausalLM.from_pretrained(tmp_path))
    torch.testing.assert_close(plain.backbone.step(IDS)[0], policy.backbone.step(IDS)[0], atol=1e-5, rtol=0)


def test_adapters_draw_from_no_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = LMPolicy(small := small_lm(), lora=4)
    del small
    torch.manual_seed(5)
    LMPolicy(small_lm(), lora=4)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), expected)
    again = LMPolicy(small_lm(), lora=4)
    for p, q in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_grpo_learns_with_whatever_trains(settings):
    model = small_lm()
    with torch.no_grad():  # a random head is so small that, frozen, it could prefer no token clearly
        model.transformer.wte.weight.mul_(6)
    agent = GRPO(
        LMPolicy(model, **settings),
        make_env(64, group_size=8),
        GRPOConfig(learning_rate=1e-2 if "autocast" not in settings else 3e-3, kl_coef=0.0),
    )
    agent.learn(25_000, callback=lambda _, metrics: metrics["rollout/ep_rew_mean"] < 0.9)
    assert collect(make_env(64), agent.policy, 64, seed=9, generator=agent.generator).returns.mean() > 0.8


@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_saving_and_loading_in_the_middle_changes_nothing(settings, tmp_path):
    config = PPOConfig(num_episodes=16, kl_coef=0.1)
    straight = PPO(LMPolicy(small_lm(), **settings), make_env(16), config).learn(200)
    straight.save(tmp_path / "agent")
    straight.learn(200)
    resumed = PPO.load(tmp_path / "agent", make_env(16)).learn(200)
    for (name, p), (_, q) in zip(straight.policy.named_parameters(), resumed.policy.named_parameters(), strict=True):
        assert torch.equal(p, q), name


def test_trainable_layers_and_lora_are_mutually_exclusive():
    with pytest.raises(ValueError, match="give one of them"):
        LMBackbone(small_lm(), lora=4, trainable_layers=1)


@pytest.mark.parametrize("num_layers", [0, 3])
def test_more_layers_than_the_model_has_are_refused(num_layers):
    with pytest.raises(ValueError, match=f"from 1 to 2, the model's layers, got {num_layers}"):
        LMBackbone(small_lm(), trainable_layers=num_layers)


def test_another_object_than_a_rank_or_a_lora_config_raises():
    with pytest.raises(TypeError, match=r"a rank or a peft\.LoraConfig, got 'small'"):
        LMBackbone(small_lm(), lora="small")
