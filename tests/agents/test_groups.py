"""Groups of GRPO: components normalised apart, groups that agree redrawn."""

import pytest
import torch

from fixtures import make_env, share_of_b, small_lm
from textgym.scorers import Cached, Clip
from textgym_agents import GRPO, GRPOConfig, LMPolicy, collect

ONE_STEP = {"variant": "grpo", "n_epochs": 1, "batch_size": None, "imitation_coef": 0.0, "kl_coef": 0.0}


def share_of_c(completion):
    return completion.count("c") / 600


COMPONENTS = {"b": (share_of_b, 1.0), "c": (share_of_c, 1.0)}
"""The second one varies a hundred times less."""


def agent_of(num_envs=16, scorer=COMPONENTS, **settings):
    env = make_env(num_envs, group_size=4, scorer=scorer)
    return GRPO(LMPolicy(small_lm()), env, **ONE_STEP | {"num_episodes": 16} | settings)


def test_advantages_with_normalized_components_by_hand():
    env = make_env(4, group_size=2, scorer=COMPONENTS)
    agent = GRPO(LMPolicy(small_lm()), env, num_episodes=4, kl_coef=0.1, normalize_components=True)
    episodes = collect(env, agent.policy, 4, seed=0, generator=agent.generator)
    for info, b, c in zip(episodes.infos, (0.0, 1.0, 0.5, 0.5), (0.2, 0.1, 0.1, 0.3), strict=True):
        info["scores"] = {"b": b, "c": c}
    rewards = torch.zeros_like(episodes.rewards)
    rewards[torch.arange(4), episodes.num_steps - 1] = torch.tensor([0.2, 1.1, 0.6, 0.8])  # b + c
    rewards[:, 0] -= torch.tensor([0.0, 2.0, 0.0, 1.0])  # a penalty, of mean 1 and 1/2
    # b: -1 1 0 0; c: 1 -1 -1 1; minus the penalty, centred: 1 -1 0.5 -0.5. The sums 1, -1, -0.5, 0.5 have mean 0.
    expected = torch.tensor([1.0, -1.0, -0.5, 0.5]) / (2.5 / 4) ** 0.5
    advantages = agent._advantages(episodes, rewards)
    torch.testing.assert_close(advantages[:, 0], expected, atol=2e-3, rtol=0)
    assert torch.equal(advantages, advantages[:, :1].expand_as(rewards))


@pytest.mark.slow
def test_a_component_of_a_hundredth_of_the_scale_is_learned_as_much_as_the_other():
    """Each component alone then is a reason to write its letter; without it, only b is."""
    gained = {}
    for normalizes in (True, False):
        agent = agent_of(64, num_episodes=64, learning_rate=3e-3, normalize_components=normalizes)
        rows = []
        agent.learn(6_000, callback=lambda _, metrics: rows.append(metrics))  # noqa: B023
        gained[normalizes] = 100 * (rows[-1]["rollout/score/c"] - rows[0]["rollout/score/c"])
    assert gained[True] > 0.2
    assert gained[False] < 0.1


def test_groups_that_agree_in_the_sum_and_not_in_the_components_are_not_equal():
    for normalizes in (True, False):
        agent = agent_of(normalize_components=normalizes)
        episodes = agent.collect()
        episodes.rewards[:] = 0.0
        for i, info in enumerate(episodes.infos):
            info["scores"] = {"b": float(i % 2), "c": -float(i % 2)}
        assert agent.update(episodes)["train/equal_groups"] == (not normalizes)


def test_the_sum_may_be_wrapped_where_its_score_is_kept():
    assert agent_of(scorer=Cached(COMPONENTS), normalize_components=True).collect()
    with pytest.raises(ValueError, match=r"needs a scorer that is a weighted sum of at least two.*got Clip"):
        agent_of(scorer=Clip(COMPONENTS, 0.0, 0.1), normalize_components=True)


@pytest.mark.parametrize("scorer", [share_of_b, {"b": (share_of_b, 1.0), "c": (share_of_c, 0.0)}])
def test_one_component_cannot_be_normalized_apart(scorer):
    with pytest.raises(ValueError, match="normalize_components needs a scorer that is a weighted sum of at least two"):
        agent_of(scorer=scorer, normalize_components=True)


def test_episodes_without_components_are_refused():
    agent = agent_of(normalize_components=True)
    episodes = agent.collect()
    for info in episodes.infos:
        info["scores"] = {"share_of_b": 0.0}
    with pytest.raises(ValueError, match=r"needs episodes with the components b, c in info.*got share_of_b"):
        agent.update(episodes)


def test_components_are_those_of_the_score_of_the_whole_text():
    with pytest.raises(ValueError, match=r"normalize_components=True .* needs return_to_go=False"):
        GRPOConfig(normalize_components=True, return_to_go=True)


# Groups that agree


def env_with_equal_groups(prompts):
    """Return an environment in which all texts after "a" score the same."""

    def scorer(prompts, completions, **_):
        pairs = zip(prompts, completions, strict=True)
        return [1.0 if prompt == "a" else 2 + share_of_b(text) + len(text) for prompt, text in pairs]

    return make_env(8, group_size=4, prompts=prompts, scorer=scorer)


def agent_that_redraws(prompts, num_episodes=16, **settings):
    settings = ONE_STEP | {"equal_groups": "redraw"} | settings
    return GRPO(LMPolicy(small_lm()), env_with_equal_groups(prompts), num_episodes=num_episodes, **settings)


def num_without_spread(episodes):
    equal = [episodes.returns[episodes.groups() == group].std() < 1e-3 for group in episodes.groups().unique()]
    return sum(equal), len(equal)


def test_groups_that_agree_are_replaced_by_others_whose_tokens_count():
    agent = agent_that_redraws(["a", "c", "d"], num_episodes=32)
    episodes = agent.collect()
    num_equal, num_groups = num_without_spread(episodes)
    assert num_equal > 0
    assert num_groups - num_equal == 8  # the batch is full
    assert agent.num_timesteps == int(episodes.num_steps.sum())
    metrics = agent.learn_from(episodes)
    assert metrics["train/equal_groups"] == pytest.approx(num_equal / num_groups)
    assert metrics["rollout/ep_rew_mean"] == pytest.approx(float(episodes.returns.mean()))  # of all texts
    only = episodes[(episodes.returns != 1.0).numpy()]
    other = agent_that_redraws(["c"], num_episodes=32)
    assert other.update(only)["train/loss"] == pytest.approx(metrics["train/loss"], abs=1e-6)


def test_redrawing_has_an_end():
    agent = agent_that_redraws(["a"], max_redraws=2)
    assert len(agent.collect()) == 3 * 16
    assert agent.learn_from(agent.episodes)["train/grad_norm"] == 0.0
    few = agent_that_redraws(["a", "c"], max_redraws=1)
    episodes = few.collect()
    num_equal, num_groups = num_without_spread(episodes)
    first, _ = num_without_spread(episodes[:16])
    assert num_groups == 4 + first
    assert num_equal > 0


def test_without_groups_that_agree_nothing_is_redrawn():
    drawn = agent_that_redraws(["c"]).collect()
    assert len(drawn) == 16
    assert torch.equal(drawn.ids, agent_that_redraws(["c"], equal_groups="keep").collect().ids)


def test_a_run_that_redraws_resumes_exactly(tmp_path):
    straight = agent_that_redraws(["a", "c"], kl_coef=0.1).learn(100)
    straight.save(tmp_path / "agent")
    resumed = GRPO.load(tmp_path / "agent", env_with_equal_groups(["a", "c"]))
    for agent in (straight, resumed):
        agent.learn(100)
        assert len(agent.episodes) > 16
    assert resumed.num_timesteps == straight.num_timesteps
    for first, second in zip(straight.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(first, second)
