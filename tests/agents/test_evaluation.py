"""Evaluate: metrics worked out by hand, a training that is the same without it, best, stopping, resuming."""

import json
from itertools import combinations

import gymnasium as gym
import numpy as np
import pytest
import torch

from fixtures import TOKENIZER, make_env, share_of_b, slow_but, small_lm, small_q_policy
from textgym.prompts import PromptSource, Sample
from textgym.scorers import Scorer
from textgym_agents import (
    DQN,
    PPO,
    BehaviourCloning,
    Checkpoint,
    Evaluate,
    EvaluationConfig,
    LMPolicy,
    Reinforce,
    RunFolder,
    collect,
    pass_at_k,
)
from textgym_agents.decoding import RandomPolicy
from textgym_agents.intervals import mean_interval
from textgym_agents.policy import ActionOutput
from textgym_agents.run_folder import read_metrics

HELD_OUT = ["b", "dab", "gag", "fee"]


def held_out_env(num_envs=4, **keywords):
    return make_env(num_envs, **{"prompts": HELD_OUT} | keywords)


def reinforce(**settings):
    settings = {"num_episodes": 8, "kl_coef": 0.0, "learning_rate": 3e-3} | settings
    return Reinforce(LMPolicy(small_lm()), make_env(), **settings)


def parameters_of(agent):
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


class Alternates:
    """A policy that writes b in every text but those that start with the letter d, which it ends at once."""

    vocab_size, device = 8, torch.device("cpu")

    def act(self, ids, action_masks=None, **_):
        actions = np.where(ids[:, 0] == 3, 7, 1)
        return ActionOutput(actions, np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32))


def test_means_and_intervals_are_those_of_the_episodes():
    metrics = Evaluate(held_out_env(), 1, success_score=0.5).evaluate(Alternates())
    assert metrics["eval/mean_score"] == metrics["eval/mean_reward"] == metrics["eval/success_rate"] == 0.75
    low, high = mean_interval([1.0, 0.0, 1.0, 1.0])
    assert (metrics["eval/mean_score_low"], metrics["eval/mean_score_high"]) == (low, high)
    assert metrics["eval/mean_ep_length"] == (6 + 1 + 6 + 6) / 4


@pytest.mark.parametrize("num_envs", [1, 3, 4, 7])
def test_each_held_out_prompt_is_taken_once_whatever_the_number_of_sub_environments(num_envs):
    evaluate, seen = Evaluate(held_out_env(num_envs, scorer=share_of_b), 1), []
    act = Alternates.act

    class Watched(Alternates):
        def act(self, ids, action_masks=None, **keywords):
            rows = ids[keywords["active"]]
            seen.extend(tuple(row[row < 8].tolist()) for row in rows if (row < 8).sum() < 4)
            return act(self, ids, action_masks, **keywords)

    evaluate.evaluate(Watched())
    firsts = {tuple(TOKENIZER.encode(prompt)) for prompt in HELD_OUT}
    assert firsts <= set(seen)
    assert evaluate.evaluate(Alternates())["eval/mean_score"] == 0.75


def test_indices_choose_the_prompts():
    assert Evaluate(held_out_env(), 1, indices=[1, 1]).evaluate(Alternates())["eval/mean_score"] == 0.0
    assert Evaluate(held_out_env(), 1, indices=range(2, 4)).evaluate(Alternates())["eval/mean_score"] == 1.0
    assert Evaluate(held_out_env(), 1, num_episodes=2).evaluate(Alternates())["eval/mean_score"] == 0.5


def test_pass_at_k_is_the_share_of_subsets_with_a_success():
    for n, c in ((5, 0), (5, 1), (5, 2), (5, 5)):
        is_correct = np.arange(5) < c
        for k in (1, 2, 3, 5):
            subsets = [is_correct[list(subset)].any() for subset in combinations(range(n), k)]
            assert pass_at_k(n, c, k) == pytest.approx(np.mean(subsets))
    with pytest.raises(ValueError, match="must be at most num_samples=2, got 3 and 1"):
        pass_at_k(2, 1, 3)


def test_pass_at_k_of_a_policy_is_the_mean_over_prompts_and_intervals_are_between_prompts():
    env = held_out_env(8, prompts=["d", "b"])
    settings = {"samples_per_prompt": 8, "success_score": 0.2, "pass_at": (1, 4), "deterministic": False}
    metrics = Evaluate(env, 1, num_episodes=16, **settings).evaluate(RandomPolicy(8, seed=0))
    again = Evaluate(held_out_env(5, prompts=["d", "b"]), 1, num_episodes=16, **settings)
    assert metrics["eval/pass_at_1"] == pytest.approx(metrics["eval/success_rate"])
    assert metrics["eval/pass_at_4"] > metrics["eval/pass_at_1"] > 0
    scores = again._play(RandomPolicy(8, seed=0))[0].reshape(2, 8)
    metrics = again.evaluate(RandomPolicy(8, seed=0))
    low, high = mean_interval(scores.mean(axis=1))
    assert (metrics["eval/mean_score_low"], metrics["eval/mean_score_high"]) == (low, high)
    by_hand = np.mean([pass_at_k(8, int((row >= 0.2).sum()), 4) for row in scores])
    assert metrics["eval/pass_at_4"] == pytest.approx(by_hand)


class Drawn(PromptSource):
    def draw(self, rng):
        return Sample(HELD_OUT[int(rng.integers(4))])


def test_drawn_prompts_are_the_same_each_time_and_several_samples_need_groups():
    evaluate = Evaluate(held_out_env(prompts=Drawn()), 1, num_episodes=16)
    assert evaluate.evaluate(Alternates()) == evaluate.evaluate(Alternates())
    settings = {"samples_per_prompt": 4, "deterministic": False, "num_episodes": 16}
    with pytest.raises(ValueError, match="needs an environment of that group_size, got group_size=1"):
        Evaluate(held_out_env(prompts=Drawn()), 1, **settings)
    grouped = Evaluate(held_out_env(prompts=Drawn(), group_size=4), 1, **settings)
    assert np.unique(grouped._play(Alternates())[3], return_counts=True)[1].tolist() == [4] * 4


class Ranged(Scorer):
    score_range = (0.0, 1.0)

    def __call__(self, batch):
        return np.array([share_of_b(text) for text in batch.completions])


def test_the_range_of_the_scorer_gives_equal_scores_an_interval():
    metrics = Evaluate(held_out_env(scorer=Ranged()), 1, indices=[0, 2]).evaluate(Alternates())
    assert (metrics["eval/mean_score_low"], metrics["eval/mean_score_high"]) == mean_interval([1.0, 1.0], (0.0, 1.0))
    assert np.isnan(metrics["eval/mean_reward_low"])


class CountsEpisodes(Scorer):
    """A scorer whose score depends on the episodes that it has observed."""

    def __init__(self):
        self.count = 0

    def __call__(self, batch):
        return np.array([text.count("b") / 6 + self.count / 1000 for text in batch.completions])

    def observe(self, batch, scores):
        self.count += len(scores.total)

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


@pytest.mark.parametrize("kind", slow_but(["Reinforce", "PPO", "DQN", "BehaviourCloning"], "Reinforce"))
def test_a_training_is_bit_for_bit_the_same_without_it(kind):
    def agent():
        env = make_env(scorer=CountsEpisodes())
        if kind == "BehaviourCloning":
            return BehaviourCloning(LMPolicy(small_lm()), collect(env, LMPolicy(small_lm()), 8, seed=0), batch_size=4)
        policy = small_q_policy() if kind == "DQN" else LMPolicy(small_lm())
        return {"Reinforce": Reinforce, "PPO": PPO, "DQN": DQN}[kind](policy, env, num_episodes=8)

    plain, evaluated = agent(), agent()
    env = evaluated.env if hasattr(evaluated, "env") else held_out_env()  # even in the environment of the training
    evaluate = Evaluate(env, 1, num_episodes=6, samples_per_prompt=2, deterministic=False)
    rows, others = [], []
    plain.learn(150, callback=lambda _, metrics: rows.append(metrics))
    evaluated.learn(150, callback=[evaluate, lambda _, metrics: others.append(metrics)])
    assert len(evaluate.results) == len(rows) > 1
    assert torch.equal(parameters_of(plain), parameters_of(evaluated))
    for row, other in zip(rows, others, strict=True):
        same = {name: value for name, value in other.items() if not name.startswith(("eval/", "time/"))}
        assert same == {name: value for name, value in row.items() if not name.startswith("time/")}
    if kind != "BehaviourCloning":
        assert plain.env.unwrapped.get_rng_states() == evaluated.env.unwrapped.get_rng_states()


def test_it_evaluates_after_each_kth_update_or_multiple_of_tokens():
    by_updates, by_tokens = Evaluate(held_out_env(), 3), Evaluate(held_out_env(), 100, unit="tokens")
    tokens = []
    reinforce().learn(400, callback=[by_updates, by_tokens, lambda agent, _: tokens.append(agent.num_timesteps)])
    assert [row["time/total_timesteps"] for row in by_updates.results] == tokens[2::3]
    firsts = [next(n for n in tokens if n >= k) for k in range(100, tokens[-1] + 1, 100)]
    assert [row["time/total_timesteps"] for row in by_tokens.results] == list(dict.fromkeys(firsts))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_run_folder_logs_the_metrics_in_whatever_order_the_callbacks_are(tmp_path, is_first):
    callbacks = [Evaluate(held_out_env(), 2), RunFolder(tmp_path / "run")]
    reinforce().learn(150, callback=callbacks if is_first else callbacks[::-1])
    logged = [row["eval/mean_score"] for row in read_metrics(tmp_path / "run")]
    assert np.isnan(logged[::2]).all()
    assert logged[1::2] == [row["eval/mean_score"] for row in callbacks[0].results]


def test_the_best_agent_is_kept(tmp_path):
    evaluate = Evaluate(held_out_env(), 1, best=tmp_path / "best")
    agent = reinforce(learning_rate=3e-2).learn(300, callback=evaluate)
    scores = [row["eval/mean_score"] for row in evaluate.results]
    best = int(np.argmax(scores))
    loaded = Reinforce.load(tmp_path / "best", make_env())
    assert loaded.num_timesteps == evaluate.results[best]["time/total_timesteps"]
    assert evaluate.best_value == max(scores) > scores[0]
    assert Evaluate(held_out_env(), 1).evaluate(loaded.policy)["eval/mean_score"] == scores[best]
    assert agent.num_timesteps >= loaded.num_timesteps


def test_training_stops_at_the_target_or_when_patience_is_exhausted():
    reached = Evaluate(held_out_env(), 1, target=-1.0)
    assert reinforce().learn(10_000, callback=reached).num_updates == 1
    flat = Evaluate(held_out_env(scorer=lambda completion: 0.5), 1, patience=3)
    assert reinforce().learn(10_000, callback=flat).num_updates == 4  # the first is the best


@pytest.mark.parametrize("is_first", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_resumed_training_goes_on_with_schedule_results_and_best_value(tmp_path, is_first):
    def callbacks(folder):
        evaluate = Evaluate(held_out_env(scorer=Ranged()), 3, best=tmp_path / folder / "best", patience=50)
        checkpoint = Checkpoint(tmp_path / folder / "checkpoints", 4, keep=100)
        return evaluate, [evaluate, checkpoint] if is_first else [checkpoint, evaluate]

    straight, both = callbacks("straight")
    agent = reinforce().learn(350, callback=both)
    expected = straight.get_state()
    for path in sorted((tmp_path / "straight" / "checkpoints").iterdir())[:-1]:
        resumed, both = callbacks(f"from-{path.name}")
        again = Reinforce.load(path, make_env())
        again.learn(again.planned_timesteps - again.num_timesteps, callback=both)
        assert json.dumps(resumed.get_state()) == json.dumps(expected)  # NaN is not equal to itself
        assert torch.equal(parameters_of(again), parameters_of(agent))
    assert len(expected["results"]) > 1


def test_a_best_value_of_another_metric_is_not_restored():
    old = Evaluate(held_out_env(), 1)
    old.best_value, old.results = 0.5, [{"time/total_timesteps": 1}]
    new = Evaluate(held_out_env(), 1, monitor="mean_ep_length")
    new.set_state(old.get_state())
    assert new.best_value is None
    assert new.results == old.results


def test_episodes_whose_scorer_failed_are_left_out():
    class Fails(Scorer):
        def __call__(self, batch):
            return np.where([prompt == "dab" for prompt in batch.prompts], np.nan, 1.0)

    env = held_out_env(scorer=Fails(), on_scorer_error="invalid")
    metrics = Evaluate(env, 1, success_score=1.0).evaluate(Alternates())
    assert metrics["eval/scorer_failures"] == 1
    assert metrics["eval/mean_score"] == metrics["eval/success_rate"] == 1.0
    assert metrics["eval/mean_ep_length"] == 6


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_episode": 4}, TypeError, "num_episodes"),
        ({"num_episodes": 5, "samples_per_prompt": 2, "deterministic": False}, ValueError, "a multiple of"),
        ({"samples_per_prompt": 2}, ValueError, "needs deterministic=False"),
        ({"pass_at": (2,), "success_score": 1.0}, ValueError, "pass@2 needs samples_per_prompt of at least 2, got 1"),
        ({"pass_at": (1,)}, ValueError, "pass_at needs success_score"),
        ({"monitor": "success_rate"}, ValueError, "mean_score"),
        ({"num_episodes": 5}, ValueError, "has 4 prompts, from 0 to 3; the evaluation needs that of index 4"),
        ({"indices": [0, 9]}, ValueError, "needs that of index 9"),
        ({"indices": []}, ValueError, "needs one at least"),
        ({"indices": [0], "num_episodes": 1}, ValueError, "mutually exclusive"),
        ({"patience": 0}, ValueError, "patience must be at least 1"),
        ({"unit": "episodes"}, ValueError, "unit"),
        ({"config": EvaluationConfig(), "num_episodes": 2}, TypeError, "as keywords or as one config"),
    ],
)
def test_contradictory_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Evaluate(held_out_env(), 1, **settings)


def test_it_needs_an_environment_of_the_family():
    with pytest.raises(TypeError, match="batched environment"):
        Evaluate(gym.make_vec("CartPole-v1", num_envs=2), 1)
