"""State that changes during training: progress, KL coefficients, learning scorers; redistributed rewards."""

import json

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.env_util import make_vec_env

from fixtures import TOKENIZER, make_env, share_of_b, small_lm
from textgym import TextGenEnv, TextGenVecEnv
from textgym.batch import TextBatch
from textgym.constraints import BanTokens
from textgym.rewards import AdaptiveCoefficient, Potential, Redistributed, kl_penalty
from textgym.scorers import Constrained, GroupPercentile, Novelty, RunningNormalization, Schedule, Scorer, SelfBLEU
from textgym.scorers.evaluation import get_states
from textgym_agents import (
    GRPO,
    ExpertIteration,
    ExpertIterationConfig,
    GRPOConfig,
    LMPolicy,
    Reinforce,
    ReinforceConfig,
    collect,
)
from textgym_agents.policy import ActionOutput
from textgym_agents.sb3 import ReportProgress

EOS, B, C = 7, 1, 2
KEYWORDS = {"tokenizer": TOKENIZER, "prompts": ["a"], "max_new_tokens": 4}


class Records(Scorer):
    """Records the progress that it receives."""

    def __init__(self):
        self.received = []

    def set_progress(self, progress):
        self.received.append(progress)

    def __call__(self, batch):
        return np.zeros(len(batch))


class Writes:
    """A policy that writes given tokens one after the other, valid or not."""

    vocab_size = 8

    def __init__(self, tokens):
        self.tokens = iter(tokens)

    def act(self, ids, action_masks=None, *, active=None, deterministic=False, generator=None):
        zeros = np.zeros(len(ids), dtype=np.float32)
        return ActionOutput(np.full(len(ids), next(self.tokens)), zeros, zeros)


class EqualReference:
    def log_probs(self, ids, lengths, actions, *, token_masks=None, active=None):
        return np.full(len(actions), np.log(0.25))


# Progress


def test_our_agents_tell_the_scorer_which_share_of_all_planned_tokens_is_done():
    scorer = Records()
    agent = Reinforce(LMPolicy(small_lm()), make_env(scorer=scorer), ReinforceConfig(num_episodes=8, kl_coef=0.0))
    agent.learn(100)
    assert scorer.received[0] == 0.0
    assert all(0 <= a < b < 1 for a, b in zip(scorer.received, scorer.received[1:], strict=False))
    done = agent.num_timesteps
    agent.learn(100)
    assert scorer.received.index(done / (done + 100)) > 1
    assert max(scorer.received) < 1


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_with_a_schedule_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, parts):
    def env():
        return make_env(scorer=Schedule(share_of_b, {0.0: 0.1, 1.0: 2.0}))

    settings = ReinforceConfig(num_episodes=8, kl_coef=0.0, normalize_advantage=False)
    straight = Reinforce(LMPolicy(small_lm()), env(), settings).learn(400)
    stopped = Reinforce(LMPolicy(small_lm()), env(), settings)
    stopped.learn(400, callback=lambda agent, _: agent.num_updates < 3).save(tmp_path / "run")
    resumed = Reinforce.load(tmp_path / "run", env())
    assert 0 < resumed.num_timesteps < 300
    for part in range(parts, 0, -1):
        resumed.learn((resumed.planned_timesteps - resumed.num_timesteps) // part)
    assert resumed.num_timesteps == straight.num_timesteps
    for (name, p), (_, q) in zip(straight.policy.named_parameters(), resumed.policy.named_parameters(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.parametrize(
    "make", [lambda **k: TextGenVecEnv(2, **k), lambda **k: make_vec_env(lambda: TextGenEnv(**k), 2)]
)
def test_a_stable_baselines_callback_reports_progress(make):
    scorer = Records()
    env = make(scorer=scorer, **KEYWORDS)
    sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=16, device="cpu").learn(64, callback=ReportProgress())
    assert sorted(set(scorer.received)) == [0.0, 0.25, 0.5, 0.75]


def test_stable_baselines_goes_on_from_the_progress_that_it_had():
    scorer = Records()
    model = sb3.PPO("MlpPolicy", TextGenVecEnv(2, scorer=scorer, **KEYWORDS), n_steps=8, batch_size=16, device="cpu")
    model.learn(32, callback=ReportProgress()).learn(32, callback=ReportProgress(), reset_num_timesteps=False)
    assert scorer.received == [0.0, 0.5, 0.5, 0.75]
    scorer.received.clear()
    model.learn(32, callback=ReportProgress())
    assert scorer.received == [0.0, 0.5]


def test_reporting_progress_needs_our_environment():
    callback = ReportProgress()
    with pytest.raises(AttributeError, match="needs an environment with set_progress"):
        sb3.PPO("MlpPolicy", make_vec_env("CartPole-v1"), n_steps=8, batch_size=8, device="cpu").learn(
            8, callback=callback
        )


def test_a_schedule_follows_the_environments_progress():
    env = TextGenEnv(scorer=Schedule(lambda text: 1.0, {0.0: 1.0, 1.0: 3.0}), **KEYWORDS)
    scores = []
    for progress in (0.0, 0.5, 1.0):
        env.set_progress(progress)
        env.reset(seed=0)
        scores.append(env.step(EOS)[1])
    assert scores == [1.0, 2.0, 3.0]


def test_a_potential_of_its_own_follows_the_environments_progress_too():
    scorer = Records()
    env = TextGenEnv(reward=Potential(potential=scorer), **KEYWORDS)
    env.set_progress(0.5)
    assert scorer.received == [0.5]


def test_progress_is_a_share():
    with pytest.raises(ValueError, match=r"progress must be between 0 and 1, got 1\.5"):
        TextGenEnv(**KEYWORDS).set_progress(1.5)


# The KL coefficient


def test_the_coefficient_rises_above_the_target_and_falls_below_it():
    coefficient = AdaptiveCoefficient(1.0, target=0.1, horizon=100)
    coefficient.update(0.2, num_steps=50)  # the error is cut to 0.2
    assert coefficient.coef == pytest.approx(1.1)
    coefficient.update(0.09, num_steps=100)
    assert coefficient.coef == pytest.approx(1.1 * 0.9)


def test_no_update_changes_the_coefficient_by_more_than_a_fifth():
    coefficient = AdaptiveCoefficient(1.0, target=0.1, horizon=100)
    coefficient.update(0.0, num_steps=100_000)
    assert coefficient.coef == pytest.approx(0.8)


def test_a_coefficient_without_a_target_is_constant():
    coefficient = AdaptiveCoefficient(1.0)
    coefficient.update(5.0, num_steps=1_000)
    assert coefficient.coef == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coef": -1.0}, "coef must be at least 0"),
        ({"coef": 1.0, "target": 0.0}, "KL target must be above 0"),
        ({"coef": 0.0, "target": 0.1}, "must be above 0"),
        ({"coef": 1.0, "horizon": 0}, "horizon must be above 0"),
    ],
)
def test_an_invalid_coefficient_raises(settings, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveCoefficient(**settings)


def test_the_environment_adapts_its_coefficient_when_episodes_end():
    env = TextGenEnv(
        scorer=len, kl_penalty=1.0, kl_penalty_target=0.1, kl_penalty_horizon=20, reference=EqualReference(), **KEYWORDS
    )
    env.reset(seed=0)
    rewards = []
    for action in (B, EOS):
        env.set_log_probs(np.log(0.5))  # log 2 nats from the reference
        rewards.append(env.step(action)[1])
    assert rewards == pytest.approx([-np.log(2), 1 - np.log(2)])
    env.reset()
    env.set_log_probs(np.log(0.5))
    assert env.step(B)[1] == pytest.approx(-(1 + 0.2 * 2 / 20) * np.log(2))


def test_a_clone_and_a_snapshot_have_their_own_coefficient():
    env = TextGenEnv(
        scorer=len, kl_penalty=1.0, kl_penalty_target=0.1, kl_penalty_horizon=20, reference=EqualReference(), **KEYWORDS
    )
    env.reset(seed=0)
    twin, state = env.clone(), env.get_state()
    twin.step(EOS)
    assert twin.get_training_state()["kl_penalty"] == pytest.approx(1.01)
    assert env.get_training_state()["kl_penalty"] == 1.0
    env.step(EOS)
    assert env.get_training_state()["kl_penalty"] == pytest.approx(1.01)
    env.set_state(state)
    assert env.get_training_state()["kl_penalty"] == 1.0


def test_k3_is_never_negative_and_needs_the_policys_log_probs():
    policy, reference = np.log([0.5, 0.25, 0.1]), np.log([0.25, 0.25, 0.4])
    ratios = np.array([0.5, 1.0, 4.0])
    np.testing.assert_allclose(kl_penalty(2.0, reference, policy, "k3"), 2 * (ratios - 1 - np.log(ratios)))
    env = TextGenEnv(kl_penalty=1.0, kl_penalty_estimator="k3", reference=EqualReference(), **KEYWORDS)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="estimator 'k3' needs the policy's log-probabilities"):
        env.step(B)


def test_k1_and_k3_agree_with_the_exact_kl_on_average():
    rng = np.random.default_rng(0)
    policy, reference = np.array([0.7, 0.2, 0.1]), np.array([0.4, 0.4, 0.2])
    exact = np.sum(policy * np.log(policy / reference))
    actions = rng.choice(3, size=200_000, p=policy)
    for estimator in ("k1", "k3"):
        mean = kl_penalty(1.0, np.log(reference)[actions], np.log(policy)[actions], estimator).mean()
        assert mean == pytest.approx(exact, abs=5e-3)


# Scorers that learn, and checkpoints


def moving_scorer():
    return {"normal": (RunningNormalization(share_of_b), 1.0), "kept": (Constrained(len, share_of_b, 0.5, 0.5, 4), 0.1)}


def test_a_checkpoint_continues_with_what_the_scorer_had_learned(tmp_path):
    def agent():
        env = make_env(scorer=moving_scorer(), kl_penalty=0.1, kl_penalty_target=0.01, reference=small_lm())
        return Reinforce(LMPolicy(small_lm()), env, ReinforceConfig(num_episodes=8, kl_coef=0.0))

    whole = agent().learn(150)
    half = agent().learn(75)
    half.save(tmp_path / "half")
    fresh = make_env(scorer=moving_scorer(), kl_penalty=0.1, kl_penalty_target=0.01, reference=small_lm())
    resumed = Reinforce.load(tmp_path / "half", fresh)
    saved, loaded = (env.unwrapped.get_training_state() for env in (half.env, fresh))
    assert saved == loaded
    assert saved["kl_penalty"] != 0.1
    assert any(state is not None for state in saved["scorers"])
    while resumed.num_timesteps < whole.num_timesteps:
        resumed.learn(1)
    assert resumed.num_timesteps == whole.num_timesteps
    for first, second in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "num_episodes", [8, pytest.param(12, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_checkpoint_continues_exactly_under_a_kl_penalty_of_the_environment(tmp_path, num_episodes):
    def env():  # of the embedded LM, in whose width rounding shows
        settings = {"prompts": ["Once upon a time there was", "The dog", "A sad king who"], "max_new_tokens": 12}
        return gym.make_vec("TextGen-v0", num_envs=8, autoreset_mode="SameStep", kl_penalty=0.1, **settings)

    straight = Reinforce("tiny", env(), ReinforceConfig(num_episodes=num_episodes, kl_coef=0.0))
    straight.learn(1).learn(1).save(tmp_path)
    resumed = Reinforce.load(tmp_path, env())
    for _ in range(4):
        assert torch.equal(straight.learn(1).episodes.rewards, resumed.learn(1).episodes.rewards)
    for first, second in zip(straight.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "make", [lambda: GroupPercentile(len, memory_size=3), lambda: Novelty(["past"], n=2), SelfBLEU]
)
def test_a_scorer_that_remembers_texts_goes_on_from_its_saved_state(make):
    def batch(*texts):
        return TextBatch.from_texts(texts, prompts=["p", "q", "p"][: len(texts)])

    first, second = make(), make()
    second(batch("is to be forgotten"))
    first(batch("the cat sat", "a dog", "no cat sat there"))
    (state,) = json.loads(json.dumps(get_states(first)[:1]))
    second.set_state(state)
    assert second.get_state() == first.get_state() == state
    for text in ("the cat", "the cat sat", "the cat sat still"):
        assert second(batch(text)) == first(batch(text))


def test_the_state_of_another_scorer_is_refused():
    state = make_env(scorer=moving_scorer()).unwrapped.get_training_state()
    with pytest.raises(ValueError, match="another scorer: they are of 6 scorers"):
        make_env(scorer="length_band").unwrapped.set_training_state(state)


# Credit


def test_collected_episodes_hold_the_shares_in_the_place_of_the_score():
    plain = collect(make_env(), LMPolicy(small_lm()), 16, seed=0, generator=torch.Generator().manual_seed(0))
    shared = make_env(reward="redistributed", kl_penalty=0.0)
    episodes = collect(shared, LMPolicy(small_lm()), 16, seed=0, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(episodes.returns, plain.returns)
    expected = (plain.returns / plain.num_steps)[:, None] * plain.mask
    torch.testing.assert_close(episodes.rewards, expected)


def test_what_a_prefix_earned_stays_at_the_end():
    env, options = make_env(reward="redistributed"), {"prefix": "b"}
    episodes = collect(env, LMPolicy(small_lm()), env.num_envs, seed=0, options=options)
    for rewards, info, num_steps in zip(episodes.rewards, episodes.infos, episodes.num_steps.tolist(), strict=True):
        own = info["token_rewards"][1:]
        expected = torch.zeros(len(rewards))
        expected[:num_steps] = torch.tensor(own)
        expected[num_steps - 1] += info["token_rewards"][0]
        torch.testing.assert_close(rewards, expected)


def rising(score, texts, final_scores):
    """A credit that grows from token to token."""
    return [np.arange(length, dtype=np.float64) for length in texts.num_new_tokens.tolist()]


@pytest.mark.parametrize(
    ("on_invalid_action", "actions", "expected"),
    [("ignore", [B, C, B, C], [0.0, 1.5, 0.0, 2.5]), ("terminate", [C, B], [2.0, 1.0])],
)
def test_an_invalid_action_has_no_share_in_the_score(on_invalid_action, actions, expected):
    env = make_env(
        reward=Redistributed(rising), constraints=BanTokens([B]), on_invalid_action=on_invalid_action,
        invalid_action_penalty=0.0, scorer=lambda text: text.count("c"),
    )  # fmt: skip
    episodes = collect(env, Writes(actions), 8, seed=0, options={"prefix": "cc"})
    for rewards, info in zip(episodes.rewards, episodes.infos, strict=True):
        assert info["score"] == sum(expected)
        assert rewards.tolist() == pytest.approx(expected)


# Scorers that fail


def fails_for_a(completion):
    if completion.startswith("a"):
        raise RuntimeError("no")
    return -1.0


@pytest.mark.parametrize(
    ("agent_class", "config_class", "group_size"),
    [(Reinforce, ReinforceConfig, 1), (ExpertIteration, ExpertIterationConfig, 2), (GRPO, GRPOConfig, 2)],
)
def test_an_episode_whose_scorer_failed_is_not_learned_from(agent_class, config_class, group_size):
    env = make_env(8, scorer=fails_for_a, on_scorer_error="invalid", group_size=group_size)
    agent = agent_class(LMPolicy(small_lm()), env, config_class(num_episodes=32))
    seen = []
    update = agent.update
    agent.update = lambda episodes: seen.append(episodes) or update(episodes)
    metrics = agent.learn_from(agent.collect())
    failed = [info["completion"].startswith("a") for info in agent.episodes.infos]
    assert metrics["rollout/scorer_failures"] == sum(failed) > 0
    assert len(seen[0]) == 32 - sum(failed) > 0
    assert seen[0].scored.all()
    assert all(parameter.isfinite().all() for parameter in agent.policy.parameters())


def test_where_every_scorer_failed_nothing_is_learned():
    def fails(completion):
        raise RuntimeError("no")

    env = make_env(8, scorer=fails, on_scorer_error="invalid")
    agent = Reinforce(LMPolicy(small_lm()), env, ReinforceConfig(num_episodes=8))
    metrics = agent.learn_from(agent.collect())
    assert metrics["rollout/scorer_failures"] == 8
    assert agent.num_updates == 0


def test_the_mean_of_every_part_is_a_metric():
    env = make_env(8, scorer={"b": (share_of_b, 1.0), "length": ("length_band", -1.0)})
    agent = Reinforce(LMPolicy(small_lm()), env, ReinforceConfig(num_episodes=16))
    metrics = agent.learn_from(agent.collect())
    for name in ("b", "length"):
        expected = np.mean([info["scores"][name] for info in agent.episodes.infos])
        assert metrics[f"rollout/score/{name}"] == pytest.approx(expected)
    agent = Reinforce(LMPolicy(small_lm()), make_env(8), ReinforceConfig(num_episodes=16))
    plain = agent.learn_from(agent.collect())
    assert not [name for name in plain if name.startswith("rollout/score/")]


# Rewards by part

PARTS = {"b": (share_of_b, 1.0), "length": ("length_band", -1.0)}


def test_the_reward_vector_holds_the_parts_before_their_weights_at_the_end_and_zeros_before():
    env = TextGenEnv(scorer=PARTS, step_info=("reward_vector",), **KEYWORDS)
    assert env.reward_names == ("b", "length")
    env.reset(seed=0)
    assert env.step(B)[4]["reward_vector"].tolist() == [0.0, 0.0]
    info = env.step(EOS)[4]
    assert info["reward_vector"].tolist() == pytest.approx([1 / 6, 0.25])
    assert list(info["scores"].values()) == pytest.approx([1 / 6, 0.25])


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_the_vector_environment_has_one_row_per_episode(mode):
    env = make_env(2, mode, scorer=PARTS, step_info=["reward_vector"])
    env.reset(seed=0)
    first = env.step(np.array([B, EOS]))[4]
    last = first["final_info"] if mode == "SameStep" else first
    assert (first["reward_vector"][0].tolist(), last["reward_vector"][1].tolist()) == ([0.0, 0.0], [0.0, 0.125])
    assert first["_reward_vector"].tolist() == [True, mode != "SameStep"]
    if mode == "SameStep":
        assert last["_reward_vector"].tolist() == [False, True]
    if mode == "NextStep":
        second = env.step(np.array([EOS, B]))[4]
        assert second["reward_vector"].tolist() == [pytest.approx([1 / 6, 0.25]), [0.0, 0.0]]
        assert second["_reward_vector"].tolist() == [True, False]


def test_all_environments_may_wait_for_their_reset():
    env = make_env(2, "NextStep", scorer=PARTS, step_info=["reward_vector"])
    env.reset(seed=0)
    env.step(np.array([EOS, EOS]))
    assert "reward_vector" not in env.step(np.array([B, B]))[4]  # as in the info of a reset


def test_stable_baselines_has_it_in_each_info():
    env = TextGenVecEnv(2, scorer=PARTS, step_info=["reward_vector"], **KEYWORDS)
    env.reset()
    infos = env.step(np.array([EOS, B]))[3]
    assert [info["reward_vector"].tolist() for info in infos] == [[0.0, 0.125], [0.0, 0.0]]


def test_a_part_that_failed_is_nan_in_the_vector():
    def fails(completion):
        raise RuntimeError("no")

    parts = {"good": (share_of_b, 1.0), "bad": (fails, 1.0)}
    env = TextGenEnv(scorer=parts, step_info=["reward_vector"], on_scorer_error="invalid", **KEYWORDS)
    env.reset(seed=0)
    good, bad = env.step(EOS)[4]["reward_vector"]
    assert good == 0.0
    assert np.isnan(bad)
