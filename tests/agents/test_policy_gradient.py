"""Policy-gradient agents: learning, reproducibility, exact resume, gradients of the formulas."""

import itertools

import numpy as np
import pytest
import torch

from fixtures import ONE_SEED_AND_TWO_SLOW, make_env, slow_but, small_lm, small_q_policy
from textgym.constraints import BanTokens
from textgym_agents import (
    A2C,
    GRPO,
    PPO,
    A2CConfig,
    GRPOConfig,
    LMPolicy,
    PPOConfig,
    Reinforce,
    ReinforceConfig,
    collect,
)

ONE_STEP = {"n_epochs": 1, "batch_size": None, "imitation_coef": 0.0}
VARIANTS = {
    "reinforce-value": (Reinforce, ReinforceConfig, {}),
    "reinforce-leave-one-out": (
        Reinforce, ReinforceConfig, {"baseline": "leave_one_out", "normalize_advantage": False, "learning_rate": 6e-3}
    ),
    "reinforce-moving-average": (
        Reinforce, ReinforceConfig, {"baseline": "moving_average", "normalize_advantage": False, "learning_rate": 6e-3}
    ),
    "reinforce-none": (Reinforce, ReinforceConfig, {"baseline": "none", "normalize_advantage": False}),
    "a2c": (A2C, A2CConfig, {}),
    "ppo": (PPO, PPOConfig, {}),
    "ppo-clipped-value": (PPO, PPOConfig, {"clip_range_vf": 0.2, "target_kl": 0.05, "batch_size": None}),
    "grpo": (GRPO, GRPOConfig, {}),
    "grpo-epochs": (GRPO, GRPOConfig, {"n_epochs": 2, "batch_size": 32, "clip_range_high": 0.3}),
    "rloo": (GRPO, GRPOConfig, {"variant": "rloo"}),
    "dr-grpo": (GRPO, GRPOConfig, {"variant": "dr_grpo"}),
    "grpo-return-to-go": (GRPO, GRPOConfig, {"return_to_go": True}),
    "gspo": (GRPO, GRPOConfig, {"variant": "gspo", "n_epochs": 2, "clip_range": 0.05}),
    "cispo": (GRPO, GRPOConfig, {"variant": "cispo", "n_epochs": 2, "equal_groups": "drop"}),
    "grpo-redraw": (GRPO, GRPOConfig, {"equal_groups": "redraw", "max_redraws": 2}),
    "grpo-imitation": (GRPO, GRPOConfig, {"imitation_coef": 0.5, "learning_rate_schedule": "linear"}),
    "grpo-entropy-share": (GRPO, GRPOConfig, {"variant": "dapo", "entropy_share": 0.5}),
    "grpo-branched": (GRPO, GRPOConfig, {"branch_share": 0.05, "branch_rollouts": 2, "branch_states": "entropy"}),
    "ppo-branched": (PPO, PPOConfig, {"branch_share": 0.1, "branch_rollouts": 2}),
    "ppo-imitation": (PPO, PPOConfig, {"imitation_coef": 0.5, "imitation_batch_size": 16}),
}  # fmt: skip
LEARNING = slow_but(
    [name for name in VARIANTS if name != "reinforce-none"], "reinforce-moving-average", "ppo", "grpo-epochs"
)
ONE_OF_EACH_AGENT = slow_but(VARIANTS, "reinforce-value", "a2c", "ppo", "grpo")


def agent_of(name, seed=0, env=None, value_function="prefix", **settings):
    agent, config, own = VARIANTS[name]
    plain = {PPO: {"imitation_coef": 0.0}, GRPO: {"variant": "grpo", **ONE_STEP}}.get(agent, {})
    settings = {"learning_rate": 3e-3, "kl_coef": 0.0, "seed": 1000 * seed} | plain | own | settings
    env = make_env(64, group_size=8 if agent is GRPO else 1) if env is None else env
    return agent(LMPolicy(small_lm(seed), value_function=value_function), env, config(**settings))


def parameters(agent):
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


@pytest.mark.parametrize("seed", ONE_SEED_AND_TWO_SLOW)
@pytest.mark.parametrize("name", LEARNING)
def test_reaches_ninety_percent_of_the_optimum_where_chance_gets_an_eighth(name, seed):
    agent = agent_of(name, seed)
    before = collect(make_env(64), agent.policy, 64, seed=9, generator=agent.generator).returns.mean()
    agent.learn(20_000, callback=lambda _, metrics: metrics["rollout/ep_rew_mean"] < 0.95)
    after = collect(make_env(64), agent.policy, 64, seed=9, generator=agent.generator).returns.mean()
    assert before < 0.25
    assert after > 0.9


@pytest.mark.slow
def test_without_a_baseline_the_gradient_is_noisier():
    """Positive rewards raise every sampled token; a baseline removes that noise."""
    spreads = {}
    for baseline in ("none", "moving_average", "leave_one_out", "value"):
        agent = agent_of("reinforce-value", baseline=baseline, normalize_advantage=False, max_grad_norm=float("inf"))
        agent.moving_average = 0.125
        torch.nn.init.constant_(agent.policy.value_head.length_values, 0.125)
        gradients = []
        for seed in range(12):
            episodes = collect(agent.env, agent.policy, 64, seed=1000 * seed, generator=agent.generator)
            agent.optimizer.param_groups[0]["lr"] = 0.0
            agent.update(episodes)
            gradients.append(agent.policy.model.transformer.h[0].mlp.c_fc.weight.grad.flatten().clone())
        spreads[baseline] = torch.stack(gradients).var(0).sum().item()
    assert all(spreads[name] < 0.9 * spreads["none"] for name in spreads if name != "none")


@pytest.mark.parametrize("name", slow_but(VARIANTS, "reinforce-value", "grpo"))
def test_the_same_seed_gives_the_same_parameters_and_another_does_not(name):
    first, again = agent_of(name, kl_coef=0.1).learn(600), agent_of(name, kl_coef=0.1).learn(600)
    other = agent_of(name, kl_coef=0.1)
    other.generator.manual_seed(1)
    other.learn(600)
    assert torch.equal(parameters(first), parameters(again))
    assert not torch.equal(parameters(first), parameters(other))


@pytest.mark.parametrize("name", ONE_OF_EACH_AGENT)
def test_saving_and_loading_in_the_middle_changes_nothing(name, tmp_path):
    straight = agent_of(name, kl_coef=0.1, kl_target=0.02).learn(500)
    straight.save(tmp_path / "agent")
    straight.learn(500)
    resumed = type(straight).load(tmp_path / "agent", make_env(64, group_size=8 if VARIANTS[name][0] is GRPO else 1))
    assert resumed.num_timesteps < straight.num_timesteps
    resumed.learn(500)
    assert resumed.num_timesteps == straight.num_timesteps
    assert resumed.kl.coef == straight.kl.coef
    assert torch.equal(parameters(resumed), parameters(straight))


@pytest.mark.parametrize("name", ONE_OF_EACH_AGENT)
def test_micro_batches_add_up_to_the_gradient_of_the_whole(name):
    gradients = []
    for micro_batch in (None, 5):
        settings = {"kl_coef": 0.1, "ent_coef": 0.01, "micro_batch": micro_batch, "max_grad_norm": float("inf")}
        agent = agent_of(name, **settings)
        agent.optimizer.param_groups[0]["lr"] = 0.0
        episodes = collect(agent.env, agent.policy, 64, seed=0, generator=torch.Generator().manual_seed(0))
        agent.update(episodes)
        gradients.append(torch.cat([p.grad.flatten() for p in agent.policy.model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("constraints", [(), [BanTokens(["c"])]])
def test_the_whole_episode_gradient_of_ppo_is_that_of_one_forward_per_transition(constraints):
    """The loss, as Schulman et al. write it, from a forward over every prefix."""
    env = make_env(8, constraints=constraints)
    settings = {"num_episodes": 8, "n_epochs": 1, "batch_size": None, "max_grad_norm": float("inf")}
    agent = agent_of("ppo", env=env, value_function="linear", **settings)
    agent.optimizer.param_groups[0]["lr"] = agent.optimizer.param_groups[1]["lr"] = 0.0
    head = agent.policy.value_head
    torch.nn.init.normal_(head.weight)
    episodes = collect(env, agent.policy, 8, seed=0, generator=agent.generator)
    episodes.log_probs += 0.3 * torch.randn(episodes.log_probs.shape, generator=agent.generator)
    agent.update(episodes)
    whole = {name: p.grad.clone() for name, p in agent.policy.named_parameters()}

    agent.policy.zero_grad()
    valid = torch.arange(8) != ("abcdefg".index("c") if constraints else -1)
    steps = [(b, t) for b in range(8) for t in range(int(episodes.num_steps[b]))]
    values, log_probs = {}, {}
    for b, t in steps:
        end = episodes.prompt_lengths[b] + t
        output = agent.policy.model(episodes.ids[b, :end][None], output_hidden_states=True)
        masked = output.logits[0, -1].masked_fill(~valid, -torch.inf)
        log_probs[b, t] = masked.log_softmax(-1)[episodes.ids[b, end]]
        values[b, t] = head.weight[0] @ output.hidden_states[-1][0, -1].detach() + head.bias[0]
    advantages, following = {}, 0.0
    for b, t in reversed(steps):
        is_last = t + 1 == episodes.num_steps[b]
        after = 0.0 if is_last else values[b, t + 1].item()
        delta = episodes.rewards[b, t].item() + after - values[b, t].item()
        following = delta + (0.0 if is_last else 0.95 * following)
        advantages[b, t] = following
    spread = np.array([advantages[step] for step in steps])
    loss = 0.0
    for b, t in steps:
        ratio = (log_probs[b, t] - episodes.log_probs[b, t]).exp()
        advantage = (advantages[b, t] - spread.mean()) / spread.std()
        clipped = ratio.clamp(0.8, 1.2)
        loss = loss - torch.minimum(ratio * advantage, clipped * advantage)
        loss = loss + 0.5 * (values[b, t] - (values[b, t].item() + advantages[b, t])) ** 2 / 2
    (loss / len(steps)).backward()
    for name, p in agent.policy.named_parameters():
        torch.testing.assert_close(p.grad, whole[name], atol=1e-5, rtol=1e-4)


def test_the_reference_too_reads_a_micro_batch_at_a_time():
    agent = agent_of("a2c", kl_coef=0.1, micro_batch=5)
    sizes = []
    agent.kl.reference.copy.model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    agent.update(agent.collect())
    assert max(sizes) <= 5
    assert sum(sizes) == 64


@pytest.mark.parametrize(
    ("variant", "first", "second", "weights"),
    [
        # returns 1 and 3, of 1 and 2 tokens: mean 2, deviation 1; the others' means are 3 and 1; the budget is 6 tokens
        ("grpo", -1.0, 1.0, (1 / 2, 1 / 4)),
        ("rloo", -2.0, 2.0, (1 / 3, 1 / 3)),
        ("dr_grpo", -1.0, 1.0, (1 / 12, 1 / 12)),
        ("dapo", -1.0, 1.0, (1 / 3, 1 / 3)),
    ],
)
def test_the_loss_of_each_variant_by_hand(variant, first, second, weights):
    env = make_env(2, group_size=2)
    agent = GRPO(LMPolicy(small_lm()), env, GRPOConfig(num_episodes=2, kl_coef=0.0, variant=variant, **ONE_STEP))
    episodes = collect(env, agent.policy, 2, seed=0, generator=agent.generator)
    episodes.num_steps = torch.tensor([1, 2])
    episodes.rewards = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    episodes.log_probs = agent.policy.evaluate(episodes).log_probs.detach() + torch.tensor([[0.05, 0.0], [0.0, -0.05]])
    # w = exp(-0.05), 1, exp(0.05): inside the clip range
    expected = -(first * np.exp(-0.05) * weights[0] + second * (1 + np.exp(0.05)) * weights[1])
    assert agent.update(episodes)["train/loss"] == pytest.approx(expected, abs=2e-4)


def test_groups_that_agree_are_counted_and_left_out_by_choice():
    env = make_env(8, group_size=2)
    episodes = collect(env, LMPolicy(small_lm()), 8, seed=0, generator=torch.Generator().manual_seed(0))
    numbers = episodes.groups().unique().tolist()
    rewards = torch.zeros_like(episodes.rewards)
    rewards[:, 0] = torch.tensor([float(group != numbers[0]) * b for b, group in enumerate(episodes.groups().tolist())])
    gradients = {}
    for choice in ("keep", "drop"):
        agent = GRPO(
            LMPolicy(small_lm()), env, num_episodes=8, kl_coef=0.0, variant="rloo", equal_groups=choice,
            max_grad_norm=1e9, **ONE_STEP,
        )  # fmt: skip
        episodes.rewards = rewards.clone()
        assert agent.update(episodes)["train/equal_groups"] == 0.25
        gradients[choice] = torch.cat([p.grad.flatten() for p in agent.policy.model.parameters()])
    left = episodes.groups() != numbers[0]
    share = float(episodes.num_steps[left].sum() / episodes.num_steps.sum())  # a mean over fewer tokens
    torch.testing.assert_close(gradients["keep"], gradients["drop"] * share, atol=1e-6, rtol=1e-3)
    agent = GRPO(LMPolicy(small_lm()), env, num_episodes=8, kl_coef=0.0, equal_groups="drop")
    episodes.rewards = torch.zeros_like(rewards)
    metrics = agent.update(episodes)
    assert metrics["train/equal_groups"] == 1.0
    assert metrics["train/grad_norm"] == 0.0


def test_grpo_advantages_by_hand():
    env = make_env(4, group_size=2)
    agent = GRPO(LMPolicy(small_lm()), env, GRPOConfig(num_episodes=4, kl_coef=0.0, variant="grpo"))
    episodes = collect(env, agent.policy, 4, seed=0, generator=agent.generator)
    first, second, third, fourth = episodes.groups().tolist()
    assert first == second != third == fourth
    rewards = torch.zeros(4, episodes.rewards.shape[1])
    rewards[torch.arange(4), episodes.num_steps - 1] = torch.tensor([1.0, 3.0, 2.0, 2.0])
    ones = torch.ones_like(rewards[0])
    advantages = agent._advantages(episodes, rewards)
    for row, expected in zip(advantages, (-1.0, 1.0, 0.0, 0.0), strict=True):  # (1 - 2) / 1, (3 - 2) / 1, 0, 0
        torch.testing.assert_close(row, expected * ones, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        # Rewards 1; 0 and 3; 2, 1 and 1. To go, an ended text keeping its last: 1 1 1; 3 3 3; 4 2 1. Their means are
        # 8/3, 2 and 5/3, those of the others (7/2, 5/2, 2), (5/2, 3/2, 1), (2, 2, 2).
        ("dr_grpo", [[-5 / 3, 0, 0], [1 / 3, 1, 0], [4 / 3, 0, -2 / 3]]),
        ("rloo", [[-5 / 2, 0, 0], [1 / 2, 3 / 2, 0], [2, 0, -1]]),
        ("grpo", [[-1.336306, 0, 0], [0.267261, 1.224745, 0], [1.069045, 0, -0.707107]]),
        ("dapo", [[-1.336306, 0, 0], [0.267261, 1.224745, 0], [1.069045, 0, -0.707107]]),
    ],
)
def test_the_last_text_of_a_group_is_compared_with_those_that_have_ended(variant, expected):
    env = make_env(3, group_size=3)
    config = GRPOConfig(num_episodes=3, kl_coef=0.0, variant=variant, return_to_go=True)
    agent = GRPO(LMPolicy(small_lm()), env, config)
    episodes = collect(env, agent.policy, 3, seed=0, generator=agent.generator)
    episodes.num_steps = torch.tensor([1, 2, 3])
    episodes.rewards = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [2.0, 1.0, 1.0]])
    advantages = agent._advantages(episodes, episodes.rewards)
    torch.testing.assert_close(advantages * episodes.mask, torch.tensor(expected), atol=2e-4, rtol=0)


def test_texts_of_one_group_share_their_prompt():
    agent = agent_of("grpo")
    episodes = agent.collect()
    for group in episodes.groups().unique():
        prompts = {episodes.infos[i]["prompt"] for i in (episodes.groups() == group).nonzero()[:, 0].tolist()}
        assert len(prompts) == 1


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_every_kl_penalty_keeps_the_policy_near_the_reference(estimator):
    kls = []
    for kl_coef in (0.001, 2.0):
        rows = []
        agent = agent_of("ppo", kl_coef=kl_coef, kl_estimator=estimator)
        agent.learn(4_000, callback=lambda _, metrics: rows.append(metrics))  # noqa: B023
        kls.append(rows[-1]["train/kl_reference"])
    assert kls[1] < 0.3 * kls[0]


def test_the_kl_coefficient_is_adapted_to_its_target():
    coefs = {}
    for target in (1e-4, 10.0):
        agent = agent_of("a2c", kl_coef=0.1, kl_target=target).learn(4_000)
        coefs[target] = agent.kl.coef
    assert coefs[1e-4] > 0.1 > coefs[10.0]


def test_ppo_stops_its_epochs_at_the_target_kl():
    many = agent_of("ppo", n_epochs=20, batch_size=None, target_kl=1e-4)
    many.update(many.collect())
    assert 1 <= many.num_updates < 20


@pytest.mark.parametrize("group_size", [1, 3])
def test_grpo_needs_groups_that_divide_the_batch(group_size):
    with pytest.raises(ValueError, match=f"divides num_episodes=64, got group_size={group_size}"):
        agent_of("grpo", env=make_env(8, group_size=group_size))


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (PPOConfig, {"n_epochs": 0}, "n_epochs must be at least 1"),
        (PPOConfig, {"gae_lambda": 1.1}, "gae_lambda must be from 0 to 1, got 1.1"),
        (GRPOConfig, {"variant": "rlo"}, "rloo"),
        (ReinforceConfig, {"baseline": "values"}, "value"),
        (A2CConfig, {"kl_estimator": "k4"}, "k3"),
        (A2CConfig, {"kl_coef": 0.0, "kl_target": 0.1}, "must be above 0"),
        (A2CConfig, {"kl_target": 0.0}, "KL target must be above 0, got 0.0"),
        (A2CConfig, {"micro_batch": 0}, "micro_batch must be at least 1"),
        (ReinforceConfig, {"bootstrap_truncated": True, "baseline": "none"}, "baseline='value', got 'none'"),
        (PPOConfig, {"entropy_share": 0.0}, "entropy_share must be above 0"),
        (PPOConfig, {"entropy_share": 1.1}, "entropy_share must be from 0 to 1, got 1.1"),
        (PPOConfig, {"branch_share": 0.1, "bootstrap_truncated": True}, "needs bootstrap_truncated=False"),
        (GRPOConfig, {"branch_rollouts": 0}, "branch_rollouts must be at least 1"),
        (GRPOConfig, {"branch_share": 0.1, "normalize_components": True}, "needs normalize_components=False"),
        (
            GRPOConfig,
            {"branch_share": 0.1, "variant": "gspo"},
            "branch_share=0, got 1.0 and 0.1",
        ),
        (
            GRPOConfig,
            {"entropy_share": 0.5, "variant": "gspo"},
            "entropy_share=1 and branch_share=0, got 0.5",
        ),
    ],
)
def test_incompatible_settings_raise(config, settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_the_settings_and_the_policy_of_another_agent_are_refused():
    with pytest.raises(TypeError, match="PPO takes a PPOConfig, got A2CConfig"):
        PPO(LMPolicy(small_lm()), make_env(8), A2CConfig())
    with pytest.raises(TypeError, match=r"the kind LMPolicy, got QPolicy; .* give LMPolicy\(policy\.backbone\)"):
        PPO(small_q_policy(), make_env(8))


def test_the_kl_penalty_is_not_applied_twice():
    env = make_env(8, kl_penalty=0.1, reference=small_lm())
    with pytest.raises(
        ValueError, match=r"twice: kl_penalty is 0\.1 in the environment and kl_coef 0\.05 in the PPOConfig"
    ):
        PPO(LMPolicy(small_lm()), env, kl_coef=0.05)
    assert PPO(LMPolicy(small_lm()), env, kl_coef=0.0).kl.coef == 0.0
    assert PPO(LMPolicy(small_lm()), env).kl.coef == 0.0


def test_where_the_agent_has_no_kl_coefficient_it_takes_the_one_that_the_task_suggests():
    policy = LMPolicy("tiny")
    assert PPO(policy, "TextGenTranslation-v0", num_envs=1).kl.coef == 0.0
    assert GRPO(policy, "TextGen-v0", num_envs=4, env_kwargs={"task": "sentiment"}).kl.coef == 0.015
    assert A2C(policy, "TextGen-v0", num_envs=1).kl.coef == 0.05  # no task
    env_kwargs = {"task": "sentiment", "suggested_kl_coef": 0.2}
    assert Reinforce(policy, "TextGen-v0", num_envs=1, env_kwargs=env_kwargs).kl.coef == 0.2
    assert Reinforce(policy, "TextGen-v0", num_envs=1, env_kwargs=env_kwargs, kl_coef=0.1).kl.coef == 0.1


def test_a_linear_learning_rate_falls_to_zero_over_the_planned_tokens():
    rates = []
    agent = agent_of("ppo", learning_rate_schedule="linear", num_episodes=32)
    agent.learn(600, callback=lambda agent, _: rates.append([g["lr"] for g in agent.optimizer.param_groups]))
    progress = torch.arange(len(rates)) / len(rates)  # all texts have 6 tokens or EOS: updates are of similar length
    assert rates[0] == [3e-3, agent.config.head_learning_rate]
    assert all(later[0] < earlier[0] for earlier, later in itertools.pairwise(rates))
    torch.testing.assert_close(torch.tensor(rates)[:, 0], 3e-3 * (1 - progress).float(), atol=6e-4, rtol=0)


def test_a_setting_that_is_not_a_number_is_named():
    with pytest.raises(TypeError, match="learning_rate must be a number, got '3e-4'"):
        PPOConfig(learning_rate="3e-4")
