"""Advantages of single tokens: by rollouts from some states, and only where the entropy is high."""

import numpy as np
import pytest
import torch

from fixtures import make_env, share_of_b, small_lm
from textgym_agents import GRPO, PPO, LMPolicy, collect
from textgym_agents.inspection import exact_values
from textgym_agents.losses import masked_mean


def agent_of(kind=PPO, env=None, **settings):
    env = make_env(8, group_size=4, max_new_tokens=3) if env is None else env
    settings = {"num_episodes": 16, "kl_coef": 0.0, "imitation_coef": 0.0, "branch_budget": 10**6} | settings
    return kind(LMPolicy(small_lm()), env, **settings)


def branched(agent, episodes, gamma=1.0):
    return agent.credit.branched(episodes, episodes.mask, gamma)


# By rollouts


SLOW_PAIRS = [pytest.param(*pair, marks=pytest.mark.slow) for pair in ((0.3, 1.0), (0.0, 0.8))]


@pytest.mark.parametrize(("kl_coef", "gamma"), [(0.3, 0.8), *SLOW_PAIRS])
def test_advantages_by_rollouts_are_the_exact_ones_within_their_error(kl_coef, gamma):
    agent = agent_of(env=make_env(8, max_new_tokens=2), branch_share=1.0, branch_rollouts=400, kl_coef=kl_coef)
    with torch.no_grad():  # away from the reference
        agent.policy.model.transformer.wte.weight.mul_(2.0)
    episodes = agent.collect()
    penalty = {"kl_penalty": kl_coef, "reference": agent.kl.reference.copy.model} if kl_coef else {}
    env = make_env(8, max_new_tokens=2, **penalty)
    exact = exact_values(env, agent.policy, episodes, gamma=gamma)["advantage_exact"]
    found = branched(agent, episodes, gamma)
    assert torch.equal(found.chosen, episodes.mask)
    errors = found.advantages.numpy() - exact
    assert np.abs(exact).max() > 0.1
    assert np.abs(errors).max() < 0.08  # returns have a deviation of about 0.2, the mean of 400 one of 0.01
    assert np.abs(errors[episodes.mask.numpy()].mean()) < 0.01


def test_no_rollouts_exceed_the_budget_and_their_tokens_count():
    agent = agent_of(branch_share=0.5, branch_rollouts=4, branch_budget=150, num_episodes=32)
    episodes = agent.collect()
    before = agent.num_timesteps
    metrics = agent.learn_from(episodes)
    assert 50 < metrics["train/branched_tokens"] <= 150
    assert agent.num_timesteps == before + metrics["train/branched_tokens"]
    assert 0 < metrics["train/branched_share"] < 0.25  # 150 tokens do not suffice for half of them
    whole = agent_of(branch_share=0.5, branch_rollouts=4, num_episodes=32)
    metrics = whole.learn_from(whole.collect())
    assert metrics["train/branched_share"] == pytest.approx(0.5, abs=0.02)


def test_a_budget_of_nothing_branches_nowhere():
    agent = agent_of(branch_share=1.0, branch_budget=1)
    metrics = agent.learn_from(agent.collect())
    assert agent.num_timesteps == int(agent.episodes.num_steps.sum())
    assert not any("branched" in name for name in metrics)


def test_rollouts_leave_no_trace_in_environment_and_episodes():
    agent = agent_of(branch_share=1.0, branch_rollouts=2)
    episodes = agent.collect()
    state, ids = agent.env.get_rng_states(), episodes.ids.clone()
    training = agent.env.get_training_state()
    branched(agent, episodes)
    assert agent.env.get_rng_states() == state
    assert agent.env.get_training_state() == training
    assert torch.equal(episodes.ids, ids)


def test_the_states_of_highest_entropy_are_branched_first():
    agent = agent_of(branch_share=0.25, branch_rollouts=2, branch_states="entropy")
    episodes = agent.collect()
    with torch.no_grad():
        entropies = agent.policy.evaluate(episodes).entropies
    chosen = branched(agent, episodes).chosen
    count = -(-int(episodes.mask.sum()) // 4)
    assert int(chosen.sum()) == count
    assert entropies[chosen].min() >= entropies[episodes.mask & ~chosen].max() - 1e-6
    other = agent_of(branch_share=0.25, branch_rollouts=2)
    assert not torch.equal(branched(other, episodes).chosen, chosen)


def test_ppo_takes_the_advantages_by_rollouts_in_units_of_reward_before_it_normalizes():
    agent = agent_of(branch_share=1.0, branch_rollouts=8)
    episodes = agent.collect()
    generator = agent.generator.get_state()
    advantages = branched(agent, episodes).advantages
    agent.generator.set_state(generator)
    agent.update(episodes)
    mask = episodes.mask
    deviation = masked_mean((advantages - masked_mean(advantages, mask)).square(), mask).sqrt()
    expected = (advantages - masked_mean(advantages, mask)) / deviation
    torch.testing.assert_close(episodes.advantages[mask], expected[mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("variant", "divides"), [("dapo", True), ("rloo", False)])
def test_grpo_divides_the_advantages_by_rollouts_as_the_others(variant, divides):
    agent = agent_of(GRPO, branch_share=0.5, branch_rollouts=4, variant=variant)
    episodes = agent.collect()
    generator = agent.generator.get_state()
    candidates = ~agent._is_equal(episodes) if divides else torch.ones(16, dtype=torch.bool)
    found = agent.credit.branched(episodes, candidates[:, None], 1.0)
    agent.generator.set_state(generator)
    agent.update(episodes)
    plain = agent._advantages(episodes, episodes.rewards)
    checked = 0
    for group in episodes.groups().unique():
        rows = episodes.groups() == group
        deviation = float(episodes.returns[rows].std(correction=0))
        if deviation < 1e-3:
            continue
        chosen = found.chosen & rows[:, None]
        expected = found.advantages[chosen] / (deviation + 1e-4 if divides else 1.0)
        torch.testing.assert_close(episodes.advantages[chosen], expected, atol=1e-5, rtol=1e-4)
        others = episodes.mask & rows[:, None] & ~found.chosen
        torch.testing.assert_close(episodes.advantages[others], plain[others])
        checked += int(chosen.sum())
    assert checked > 0


def test_groups_that_agree_get_no_advantages_by_rollouts_where_the_deviation_divides():
    env = make_env(8, group_size=4, max_new_tokens=3, prompts=["a", "b"])
    agent = agent_of(GRPO, env, variant="grpo", branch_share=1.0, branch_rollouts=2, num_episodes=32)
    episodes = agent.collect()
    equal = [episodes.returns[episodes.groups() == group].std() < 1e-3 for group in episodes.groups().tolist()]
    equal = torch.tensor(equal)
    assert 0 < equal.sum() < 32
    agent.update(episodes)
    assert not episodes.advantages[equal].any()
    assert episodes.advantages[~equal].any()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (PPO, {"branch_share": 0.3, "branch_states": "entropy", "kl_coef": 0.1}),
        pytest.param(GRPO, {"branch_share": 0.3, "entropy_share": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_a_run_with_rollouts_resumes_exactly(kind, settings, tmp_path):
    straight = agent_of(kind, branch_rollouts=2, **settings).learn(100)
    straight.save(tmp_path / "agent")
    resumed = kind.load(tmp_path / "agent", make_env(8, group_size=4, max_new_tokens=3))
    for agent in (straight, resumed):
        agent.learn(100)
    assert resumed.num_timesteps == straight.num_timesteps
    for first, second in zip(straight.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(first, second)


def test_episodes_of_another_environment_are_refused():
    agent = agent_of(branch_share=1.0, branch_rollouts=2)
    other = make_env(8, max_new_tokens=3, scorer=lambda text: 1 - share_of_b(text))
    episodes = collect(other, agent.policy, 8, seed=0)
    with pytest.raises(ValueError, match=r"cannot be rebuilt: its return was .* that it was collected in"):
        agent.update(episodes)


# Where the entropy is high


@pytest.mark.parametrize("kind", [PPO, GRPO])
def test_only_the_tokens_of_highest_entropy_keep_their_advantage(kind):
    part, whole = agent_of(kind, entropy_share=0.25), agent_of(kind)
    episodes = part.collect()
    entropies = episodes.stats.entropies  # recorded by the rollouts of this agent
    part.update(episodes)
    again = whole.collect()
    assert torch.equal(again.ids, episodes.ids)
    assert again.stats is None
    whole.update(again)
    count = -(-int(episodes.mask.sum()) // 4)
    threshold = entropies[episodes.mask].sort(descending=True).values[count - 1]
    kept = episodes.mask & (entropies >= threshold)
    assert torch.equal(episodes.advantages[kept], again.advantages[kept])
    assert not episodes.advantages[~kept].any()


def test_entropies_that_were_not_recorded_are_computed():
    advantages = []
    for recorded in (True, False):
        agent = agent_of(entropy_share=0.25, micro_batch=5)
        episodes = agent.collect()
        if not recorded:
            episodes.stats = None
        agent.update(episodes)
        advantages.append(episodes.advantages)
    torch.testing.assert_close(*advantages)


def test_the_entropy_bonus_and_the_value_loss_stay_those_of_all_tokens():
    metrics = [
        agent.update(agent.collect())
        for agent in (agent_of(entropy_share=share, ent_coef=0.1, n_epochs=1, batch_size=None) for share in (1.0, 0.1))
    ]
    for name in ("entropy_loss", "value_loss"):
        assert metrics[0][f"train/{name}"] == pytest.approx(metrics[1][f"train/{name}"])
    assert metrics[0]["train/policy_gradient_loss"] != pytest.approx(metrics[1]["train/policy_gradient_loss"])


def test_groups_that_are_left_out_do_not_count_in_the_share():
    env = make_env(8, group_size=4, max_new_tokens=3, prompts=["a", "b"])
    agent = agent_of(GRPO, env, entropy_share=0.5, equal_groups="drop", num_episodes=32)
    episodes = agent.collect()
    used = agent._is_equal(episodes).logical_not()
    assert 0 < used.sum() < 32
    agent.update(episodes)
    count = -(-int(episodes.num_steps[used].sum()) // 2)
    assert abs(int((episodes.advantages[used] != 0).sum()) - count) <= 1  # an advantage may be 0 by itself
