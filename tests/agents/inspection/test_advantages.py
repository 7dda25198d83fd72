"""Advantages by rollouts and by dynamic programming: equal on small MDPs, and episodes rebuilt exactly."""

import dataclasses
import math
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

from fixtures import TOKENIZER, make_env, small_lm
from textgym.constraints import MinNewTokens
from textgym.errors import ScorerError
from textgym.lm import random_lm
from textgym.prompts import Sample
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer
from textgym.users import Reply, User
from textgym_agents import PPO, EpisodeRecorder, LMPolicy, collect, read_episodes
from textgym_agents.decoding import RandomPolicy
from textgym_agents.inspection import TokenTable, inspect
from textgym_agents.inspection import advantages as module
from textgym_agents.inspection.advantages import advantage_mc, exact_values
from textgym_agents.inspection.branches import branch_views
from textgym_agents.intervals import mean_interval
from textgym_agents.state_replay import replay, samples_of

SMALL_MDP = {
    "tokenizer": CharTokenizer("ab"), "prompts": ["a", "ba"], "max_prompt_tokens": 2, "max_new_tokens": 3,
    "scorer": lambda text: math.sin(len(text) + 5 * text.count("a") + 9 * text.find("b")),
}  # fmt: skip
SETTINGS = {
    "terminal": ({}, 1.0),
    "discounted": ({}, 0.7),
    "potential": ({"reward": "potential"}, 1.0),
    "truncated": ({"time_limit": "truncated"}, 1.0),
    "masks": ({"constraints": [MinNewTokens(2)]}, 1.0),
    "k1": ({"kl_penalty": 0.3, "reference": random_lm(3, seed=5)}, 1.0),
}


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def sharp_policy(num_tokens):
    model = random_lm(num_tokens)
    with torch.no_grad():
        model.lm_head.weight *= 3
    return LMPolicy(model)


def played(env, policy, num_episodes=6, seed=1):
    return collect(env, policy, num_episodes, seed=seed, generator=torch.Generator().manual_seed(seed))


def small_mdp(name, num_episodes=6):
    keywords, gamma = SETTINGS[name]
    env = gym.make_vec("TextGen-v0", num_envs=4, autoreset_mode="SameStep", **SMALL_MDP | keywords)
    policy = sharp_policy(3)
    return env, policy, played(env, policy, num_episodes), gamma


# Against dynamic programming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_advantages_by_rollouts_are_those_of_dynamic_programming(name):
    env, policy, episodes, gamma = small_mdp(name)
    exact = exact_values(env, policy, episodes, gamma=gamma)
    estimate = advantage_mc(env, policy, episodes, num_rollouts=128, gamma=gamma)
    mask = episodes.mask.numpy()
    for ours, errors, column in (
        (estimate.values[:, :-1], estimate.value_standard_errors[:, :-1], "value_exact"),
        (estimate.advantages, estimate.standard_errors, "advantage_exact"),
    ):
        error = np.abs(ours - exact[column])[mask]
        assert (error <= 4.5 * errors[mask] + 1e-5).all()
        assert (errors[mask] > 1e-3).any()
    assert (estimate.advantages[~mask] == 0).all()
    assert np.abs(exact["q_exact"] - exact["value_exact"] - exact["advantage_exact"]).max() < 1e-12


def test_the_kl_penalty_of_an_agent_is_in_values_and_advantages():
    env, policy, episodes, _ = small_mdp("terminal")
    reference = random_lm(3, seed=5)
    penalised = gym.make_vec("TextGen-v0", num_envs=4, **SMALL_MDP, kl_penalty=0.3, reference=reference)
    exact = exact_values(penalised, policy, episodes)
    for given in (reference, LMPolicy(reference)):
        estimate = advantage_mc(env, policy, episodes, num_rollouts=64, kl_coef=0.3, reference=given)
        errors = np.abs(estimate.advantages - exact["advantage_exact"])
        assert (errors <= 4.5 * estimate.standard_errors + 1e-5).all()
        assert estimate.return_name == "score minus 0.3 x KL to the reference"
    assert env.unwrapped.core.components.kl is None
    assert advantage_mc(env, policy, episodes, num_rollouts=2).return_name == "score"


def test_the_reference_of_an_agent_with_adapters_is_the_model_without_them():
    pytest.importorskip("peft")
    env = make_env(4)
    agent = PPO(LMPolicy(small_lm(), lora=2), env, num_episodes=4, learning_rate=0.1)
    agent.learn(48)
    episodes = played(env, agent.policy, 4)
    assert agent.kl.reference.copy is None
    own = advantage_mc(env, agent.policy, episodes, num_rollouts=4, kl_coef=0.5, reference=agent.kl.reference)
    same = advantage_mc(env, agent.policy, episodes, num_rollouts=4, kl_coef=0.5, reference=small_lm())
    assert np.allclose(own.values, same.values, atol=1e-4)
    assert not np.allclose(own.values, advantage_mc(env, agent.policy, episodes, num_rollouts=4).values, atol=1e-2)


def test_advantages_of_an_episode_add_up_to_its_return_minus_the_first_value(policy):
    env = make_env(4, reward="potential")
    episodes = played(env, policy, 5)
    estimate = advantage_mc(env, policy, episodes, num_rollouts=4, gamma=0.8)
    discounts = 0.8 ** np.arange(estimate.rewards.shape[1])
    difference = (discounts * (estimate.advantages - estimate.rewards)).sum(axis=1) + estimate.values[:, 0]
    assert np.abs(difference).max() < 1e-9


# Budget ----------------------------------------------------------------------------------------------------------


def test_only_states_that_matter_and_are_unclear_get_more_rollouts(policy):
    env = make_env(4)
    episodes = played(env, policy, 8)
    estimate = advantage_mc(env, policy, episodes, num_rollouts=128)
    counts = estimate.value_num_rollouts[:, :-1][episodes.mask.numpy()]
    assert set(counts.tolist()) <= {32, 64, 128}
    assert len(set(counts.tolist())) > 1
    unclear = np.abs(estimate.advantages) < 2 * estimate.standard_errors
    small = estimate.standard_errors < np.median(estimate.standard_errors[episodes.mask.numpy()])
    small &= np.abs(estimate.advantages) < np.median(np.abs(estimate.advantages)[episodes.mask.numpy()])
    assert (estimate.num_rollouts[unclear & ~small & episodes.mask.numpy()] == 128).all()


def test_every_state_has_few_rollouts_before_any_has_many(policy, monkeypatch):
    env = make_env(4)
    episodes = played(env, policy, 8)
    size = int(episodes.num_steps.sum())
    monkeypatch.setattr(module, "ROLLOUTS_PER_ROUND", 8 * size)
    for num_rounds, expected in ((1, {8}), (2, {16}), (3, {16, 32})):
        estimate = advantage_mc(env, policy, episodes, num_rollouts=64, max_rounds=num_rounds)
        assert set(estimate.num_rollouts[episodes.mask.numpy()].tolist()) == expected
        assert not np.isnan(estimate.advantages).any()
    monkeypatch.setattr(module, "ROLLOUTS_PER_ROUND", 32 * size)
    estimate = advantage_mc(env, policy, episodes, num_rollouts=64, max_rounds=1)
    assert (estimate.num_rollouts[episodes.mask.numpy()] == 32).all()


def test_a_stopped_estimate_is_the_first_rounds_of_a_longer_one(policy, monkeypatch):
    monkeypatch.setattr(module, "ROLLOUTS_PER_ROUND", 64)
    env = make_env(4)
    episodes = played(env, policy, 6)

    def estimate(**budget):
        return advantage_mc(env, policy, episodes, num_rollouts=64, seed=3, **budget)

    one, three, all_ = estimate(max_rounds=1), estimate(max_rounds=3), estimate()
    assert one.num_rounds == 1 < three.num_rounds == 3 < all_.num_rounds
    assert np.isnan(one.values).any()
    assert not np.isnan(all_.values).any()
    sampled = one.value_num_rollouts == three.value_num_rollouts
    assert (sampled & (one.value_num_rollouts > 0)).any()
    check_same(one.values[sampled], three.values[sampled], "values")
    check_same(estimate(max_rounds=3), three, "estimate")
    assert estimate(seconds=1e-9).num_rounds == 1
    assert not np.allclose(advantage_mc(env, policy, episodes, num_rollouts=64, seed=4).values, all_.values)


# Intervals -------------------------------------------------------------------------------------------------------


def test_intervals_of_differing_returns_are_those_of_wilson_and_student():
    wilson = mean_interval([0.0] * 48 + [1.0] * 16)
    assert np.allclose(wilson, (0.1603, 0.3678), atol=1e-3)
    assert np.allclose(mean_interval([2.0] * 48 + [4.0] * 16), 2 + 2 * np.array(wilson))
    sample = np.arange(5.0)  # t(4) = 2.7764
    half = 2.7764 * sample.std(ddof=1) / math.sqrt(5)
    assert np.allclose(mean_interval(sample), (2 - half, 2 + half))
    sample = np.arange(31.0)  # t(30) = 2.0423
    half = 2.0423 * sample.std(ddof=1) / math.sqrt(31)
    assert np.allclose(mean_interval(sample), (15 - half, 15 + half), atol=1e-3)


def test_intervals_of_equal_returns_allow_for_outcomes_that_have_not_occurred():
    low, high = mean_interval(np.full(64, 0.25), (0.0, 1.0))
    unseen = 1 - (high - 0.25) / 0.75
    assert np.isclose(unseen**64, 0.025)
    assert np.isclose(low, 0.25 * unseen)
    assert np.isnan(mean_interval(np.full(64, 0.25))).all()


def test_an_advantage_whose_rollouts_all_agree_has_an_interval_where_the_scorer_has_a_range():
    env = gym.make_vec("ProbeCopy-v0", num_envs=4, autoreset_mode="SameStep")
    policy = sharp_policy(5)
    episodes = played(env, policy, 4)
    estimate = advantage_mc(env, policy, episodes, num_rollouts=32)
    mask = episodes.mask.numpy()
    assert np.isfinite(estimate.intervals).all()
    exact = exact_values(env, policy, episodes)["advantage_exact"]
    inside = (estimate.intervals[..., 0] - 1e-9 <= exact) & (exact <= estimate.intervals[..., 1] + 1e-9)
    assert inside[mask].mean() > 0.8
    assert (estimate.value_intervals[:, -1] == 0).all()


# Rebuilt states --------------------------------------------------------------------------------------------------


def scored_by_answer(prompts, completions, answer, **columns):
    return [float(text.count(letter)) for text, letter in zip(completions, answer, strict=True)]


def answers(metadata):
    return make_env(
        4, prompts=[{"prompt": "a", "answer": "b"}, {"prompt": "cab", "answer": metadata}], scorer=scored_by_answer
    )


def test_start_states_have_the_metadata_of_the_episodes(policy):
    env = answers("d")
    episodes = played(env, policy, 8)
    assert {sample.metadata["answer"] for sample in samples_of(env, episodes)} == {"b", "d"}
    states, index, rewards = replay(env.unwrapped, episodes)
    assert np.allclose(rewards.sum(axis=1), episodes.returns)
    for b in range(len(episodes)):
        assert index[b, int(episodes.num_steps[b])] == -1
        for t in range(int(episodes.num_steps[b])):
            length = int(episodes.positions[b, t])
            assert (states["ids"][index[b, t], :length] == episodes.ids[b, :length].numpy()).all()
            assert states["lengths"][index[b, t]] == length
            assert states["steps"][index[b, t]] == t


def test_states_of_a_file_are_those_of_the_episodes_in_memory(policy, tmp_path):
    env = answers("d")
    episodes = played(env, policy, 8)
    EpisodeRecorder(tmp_path / "episodes.jsonl").write(episodes)
    first, again = (replay(env.unwrapped, e) for e in (episodes, read_episodes(tmp_path / "episodes.jsonl")))
    assert (first.states["ids"] == again.states["ids"]).all()
    assert first.states["samples"] == again.states["samples"]
    assert (first.rewards == again.rewards).all()


def test_a_prompt_of_several_samples_needs_the_metadata(policy):
    env = make_env(4, prompts=[{"prompt": "a", "answer": "b"}, {"prompt": "a", "answer": "c"}], scorer=scored_by_answer)
    episodes = played(env, policy, 8)
    episodes.starts = None
    with pytest.raises(ValueError, match=r"one of 2 samples with the prompt 'a'.*episodes\.starts does not tell"):
        advantage_mc(env, policy, episodes, num_rollouts=2)
    answers = [
        "b" if info["completion"].count("b") == score else "c"
        for info, score in zip(episodes.infos, episodes.returns.tolist(), strict=True)
    ]
    episodes.starts = [SimpleNamespace(sample=Sample("a", (), {"answer": x}), prefix_length=0) for x in answers]
    assert np.allclose(replay(env.unwrapped, episodes).rewards.sum(axis=1), episodes.returns)


def test_a_prefix_is_part_of_the_completion(policy):
    env = make_env(2, max_new_tokens=6)
    options = {"prompt": ["a", "cab"], "prefix": ["bb", "bc"]}
    episodes = collect(env, policy, 2, options=options, generator=torch.Generator().manual_seed(0))
    states, _, rewards = replay(env.unwrapped, episodes)
    assert states["steps"][:2].tolist() == [2, 2]
    assert np.allclose(rewards.sum(axis=1), episodes.returns)


def test_prompts_given_as_ids_are_rebuilt(policy):
    env = make_env(2)
    episodes = collect(env, policy, 2, options={"prompt_ids": [[0, 1], [3]]})
    assert replay(env.unwrapped, episodes).states["ids"][0, :2].tolist() == [0, 1]


class CoinUser(User):
    """Replies a or b with equal probability."""

    def __call__(self, batch, rngs):
        return [Reply("ab"[rng.integers(2)]) for rng in rngs]


def test_recorded_replies_of_a_random_user_are_repeated(policy):
    env = make_env(
        4, user=CoinUser(), max_turns=3, max_reply_tokens=4, reply_format="{reply}",
        scorer=lambda prompts, completions, **_: [float(text.count("b")) for text in completions],
    )  # fmt: skip
    episodes = played(env, policy, 8)
    _, index, rewards = replay(env.unwrapped, episodes)
    assert np.allclose(rewards.sum(axis=1), episodes.returns)
    assert (index >= 0).sum() == episodes.num_steps.sum()
    for info in episodes.infos:
        del info["turns"]
    with pytest.raises(ValueError, match=r"random user|ends after|does not end"):
        replay(env.unwrapped, episodes)  # 8 episodes with several random replies each


def test_episodes_of_another_environment_raise(policy):
    env = make_env(4)
    episodes = played(env, policy, 12)
    for other, message in (
        (make_env(4, scorer=lambda text: text.count("c") - 9.0), r"its return was .* and is .* here, so scorer"),
        (make_env(4, max_new_tokens=5, max_prompt_tokens=5), "ends after 5 of 6 actions"),
        (make_env(4, max_new_tokens=9), "does not end after its"),
        (make_env(4, tokenizer=CharTokenizer("gfedcba")), "has other token ids"),
        (make_env(4, max_prompt_tokens=1, max_new_tokens=2, prompts=["a"]), "window of 3"),
    ):
        with pytest.raises(ValueError, match=message):
            advantage_mc(other, policy, episodes, num_rollouts=2)


# Branches --------------------------------------------------------------------------------------------------------


def test_branches_show_the_likeliest_actions_and_the_one_that_was_taken(policy):
    env = make_env(4)
    episodes = played(env, policy, 3)
    weights = np.arange(episodes.mask.shape[1]) * episodes.mask.numpy()
    branches = branch_views(env, policy, episodes, num_positions=2, num_actions=3, num_rollouts=8, advantages=weights)
    log_probs = policy.evaluate(episodes).log_probs.exp()
    for branch in branches:
        b, t = branch.episode, branch.token
        assert t >= int(episodes.num_steps[b]) - 2
        token = int(episodes.ids[b, episodes.positions[b, t]])
        assert token in branch.actions
        assert list(branch.probs[:3]) == sorted(branch.probs[:3], reverse=True)
        assert np.isclose(branch.probs[branch.actions.index(token)], log_probs[b, t].item(), atol=1e-5)
        assert len(branch.actions) == len(branch.q_values) == len(branch.standard_errors) == len(branch.samples)
        assert {len(texts) for texts in branch.samples} == {2}
        end = TOKENIZER.eos_token_id
        if end in branch.actions:  # EOS ends the episode, whose score is then known
            place = branch.actions.index(end)
            text = TOKENIZER.decode(episodes.ids[b, int(episodes.prompt_lengths[b]) :][:t].tolist())
            assert np.isclose(branch.q_values[place], text.count("b") / 6)
            assert branch.standard_errors[place] == 0
            assert branch.samples[place] == ("", "")
    assert len(branches) == sum(min(2, int(n)) for n in episodes.num_steps)
    by_entropy = branch_views(env, policy, episodes, num_positions=1, num_actions=1, num_rollouts=2)
    assert [branch.episode for branch in by_entropy] == [0, 1, 2]


# Columns, traces and errors --------------------------------------------------------------------------------------


def test_columns_stand_in_the_table_and_nothing_else_has_changed(policy):
    env = make_env(4)
    episodes = played(env, policy, 4)
    copies = {field.name: getattr(episodes, field.name) for field in dataclasses.fields(episodes)}
    before, torch_state = env.unwrapped.get_state(), torch.get_rng_state()
    estimate = advantage_mc(env, policy, episodes, num_rollouts=4)
    check_same(before, env.unwrapped.get_state(), "state")
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(getattr(episodes, name) is value for name, value in copies.items())
    table = TokenTable.of(episodes, TOKENIZER)
    for name, values in estimate.columns().items():
        table.put(name, values)
    assert np.allclose(table.by_step("advantage_mc")[0, 0], estimate.advantages[0, 0])


def test_a_scorer_that_fails_while_branching_raises_one_message():
    calls = []

    def scorer(text):
        calls.append(text)
        if len(calls) > 40:
            raise RuntimeError("the judge is away")
        return 0.0

    env, policy = make_env(4, scorer=scorer), LMPolicy(small_lm())
    episodes = played(env, policy, 4)
    before = env.unwrapped.get_state()
    with pytest.raises(ScorerError, match="raised RuntimeError: the judge is away"):
        advantage_mc(env, policy, episodes, num_rollouts=64)
    check_same(before, env.unwrapped.get_state(), "state")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_rollouts": 1}, ValueError, "num_rollouts must be at least 2, got 1"),
        ({"num_rollouts": 0}, ValueError, "num_rollouts must be at least 1, got 0"),
        ({"seconds": 0}, ValueError, "seconds must be above 0, got 0; None sets no limit"),
        ({"seconds": math.nan}, ValueError, "seconds must be above 0, got nan"),
        ({"max_rounds": 0}, ValueError, "max_rounds must be at least 1, got 0"),
        ({"gamma": 1.5}, ValueError, "gamma must be from 0 to 1, got 1.5"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0, got -1"),
        ({"kl_coef": -1.0}, ValueError, "kl_coef must be at least 0"),
        ({"kl_coef": 0.1, "reference": 3}, TypeError, "reference must be a policy.* got int"),
        ({"policy": "tiny"}, TypeError, "policy must have a method act, got str"),
        ({"policy": RandomPolicy(9)}, ValueError, "the environment has 8 actions, the model a vocabulary of 9"),
        ({"env": 3}, TypeError, "needs an environment of the TextGen family, got int"),
        (
            {"env": make_env(2, kl_penalty=0.1, reference=small_lm(1)), "kl_coef": 0.1, "reference": small_lm(1)},
            ValueError,
            "has a KL penalty already",
        ),
    ],
)
def test_wrong_arguments_raise(policy, arguments, error, message):
    env = make_env(2)
    episodes = played(env, policy, 2)
    with pytest.raises(error, match=message):
        advantage_mc(**{"env": env, "policy": policy, "episodes": episodes} | arguments)


def test_exact_values_need_episodes_of_an_environment_that_can_be_enumerated(policy):
    env, small, episodes, _ = small_mdp("terminal")
    with pytest.raises(ValueError, match="max_transitions=3"):
        exact_values(env, small, episodes, max_transitions=3)
    other = gym.make_vec("TextGen-v0", num_envs=2, **SMALL_MDP | {"prompts": ["b"]})
    with pytest.raises(ValueError, match="not exactly one of the environment's"):
        exact_values(other, small, episodes)


def test_branches_need_the_probabilities_of_all_tokens(policy):
    env = make_env(2)
    episodes = played(env, policy, 2)
    with pytest.raises(TypeError, match="probabilities of all tokens, which RandomPolicy lacks"):
        branch_views(env, RandomPolicy(8), episodes)


# In a report -----------------------------------------------------------------------------------------------------


def test_a_report_with_branches_holds_values_by_rollouts_and_exact_ones():
    env, policy, episodes, _ = small_mdp("terminal")
    report = inspect(policy, episodes, env=env, branches=16)
    token = report.episodes[0].tokens[0]
    assert abs(token.advantage_mc - token.advantage_exact) < 4.5 * token.advantage_mc_se + 1e-5
    assert {branch.episode for branch in report.branches} == set(range(len(episodes)))
    assert report.about["return"] == "score"


def test_a_report_of_an_agent_has_its_kl_penalty_in_the_values_by_rollouts():
    env = make_env(4)
    agent = PPO(LMPolicy(small_lm()), env, num_episodes=4, kl_coef=0.5, learning_rate=0.1)
    agent.learn(48)
    episodes = played(env, agent.policy, 4)
    report = inspect(agent, episodes, branches=4)
    assert report.about["return"] == "score minus 0.5 x KL to the reference"
    own = advantage_mc(env, agent.policy, episodes, num_rollouts=4, kl_coef=0.5, reference=small_lm())
    assert np.allclose(report.table.by_step("advantage_mc")[0, 0], own.advantages[0, 0], atol=1e-3)
    assert not report.table.columns.keys() & {"value_exact"}
    with pytest.raises(ValueError, match="seconds"):
        inspect(agent, episodes, branches=4, seconds=0)
