"""Alarms: each is raised by a real run that has its failure, and by no run that learns as it should."""

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.logger import configure

from fixtures import EPSILON_GREEDY, TOKENIZER, make_env, share_of_b, small_lm, small_q_policy
from textgym import TextGenVecEnv
from textgym.scorers import Scorer, WeightedSum
from textgym_agents import (
    DQN,
    GRPO,
    PPO,
    BehaviourCloning,
    EpisodeRecorder,
    Episodes,
    LMPolicy,
    Reinforce,
    RunFolder,
    read_episodes,
)
from textgym_agents.inspection import RULES, Alarms, find_alarms
from textgym_agents.inspection.statistics import (
    Update,
    component_share,
    copied,
    distinct_2,
    explained_variance,
    flat_groups,
    kl,
    longest_common_run,
    max_q,
    perplexity,
)
from textgym_agents.sb3 import EpisodeRolloutBuffer, LMActorCriticPolicy


class ShareOfB(Scorer):
    """``share_of_b``, whose range is known."""

    score_range = (0.0, 1.0)

    def __call__(self, batch):
        return [share_of_b(text) for text in batch.completions]


def share_of_c(completion):
    return completion.count("c") / 6


def without_g(completion):
    if "g" in completion:
        raise ValueError("no g, please")
    return share_of_b(completion)


def peaked_lm():
    """Return a language model that writes almost always the same: other texts have a high perplexity."""
    model = small_lm()
    with torch.no_grad():
        model.transformer.wte.weight.mul_(12)
    return model


def reinforce(lm=None, *, env=None, **settings):
    settings = {"num_episodes": 32, "learning_rate": 3e-3, "kl_coef": 0.0} | settings
    return Reinforce(LMPolicy(small_lm() if lm is None else lm), make_env(32, **env or {}), **settings)


def collapsing():
    return reinforce(peaked_lm(), env={"scorer": share_of_c}, learning_rate=1e-2)


def ppo(value_function="prefix", **settings):
    settings = {"num_episodes": 32, "kl_coef": 0.0} | settings
    return PPO(LMPolicy(small_lm(), value_function=value_function), make_env(32), **settings)


def grpo(scorer):
    env = make_env(32, group_size=8, scorer=scorer)
    return GRPO(LMPolicy(small_lm()), env, num_episodes=32, kl_coef=0.5, learning_rate=1e-3)


def two_components(weight):
    return WeightedSum({"b": (share_of_b, 1.0), "d": (lambda text: text.count("d") / 6, weight)})


def trained(agent, tokens, **settings):
    """Return the callback after a training, which may have ended in NaN."""
    alarms = Alarms(None, **settings)
    try:
        agent.learn(tokens, callback=alarms)
    except FloatingPointError:
        assert alarms.alarms
    return alarms


COLLAPSE = {"kl", "perplexity", "distinct_2", "entropy"}
FAILURES = {
    "a score that one letter maximises, no KL penalty": (
        COLLAPSE,
        lambda: collapsing(),
        1_300,
    ),
    "a score of the length": (
        {"length", "end_rate"},
        lambda: reinforce(env={"max_new_tokens": 12, "scorer": lambda text: len(text) / 12}, learning_rate=2e-2),
        3_500,
    ),
    "a score of brevity, whose texts all end": (
        {"length", "end_rate"},
        lambda: reinforce(env={"scorer": lambda text: -len(text) / 6}, learning_rate=1e-2),
        900,
    ),
    "equal scores in every group": ({"flat_groups"}, lambda: grpo(lambda text: 0.5), 500),
    "a critic with a far too large step": (
        {"explained_variance"},
        lambda: ppo("linear", learning_rate=1e-4, head_learning_rate=1.0, batch_size=None, n_epochs=1),
        1_800,
    ),
    "a step far beyond the clip range": ({"clip_fraction"}, lambda: ppo(learning_rate=0.1, batch_size=8), 200),
    "a component that outweighs the other": (
        {"component_share"},
        lambda: reinforce(env={"scorer": two_components(0.01)}),
        1_000,
    ),
    "a score that the prompt maximises": (
        {"copied"},
        lambda: reinforce(env={"prompts": ["bbbb"]}, learning_rate=2e-2),
        1_400,
    ),
    "steps of any size": ({"non_finite"}, lambda: reinforce(learning_rate=1e30), 2_000),
    "Q-learning that bootstraps from its own maximum": (
        {"max_q"},
        lambda: DQN(
            small_q_policy(), make_env(32, scorer=ShareOfB()), num_episodes=32, learning_rate=1e-2,
            head_learning_rate=0.1, double_q=False, q_lambda=0.0, exploration_initial_eps=0.5, tau=1.0,
            target_update_interval=1,
        ),
        400,
    ),
    "a scorer that fails": (
        {"scorer_failures"},
        lambda: reinforce(env={"scorer": without_g, "on_scorer_error": "invalid"}),
        200,
    ),
    "a scorer that fails, with a score in its place": (
        {"scorer_failures"},
        lambda: reinforce(env={"scorer": without_g, "on_scorer_error": 0.0}),
        200,
    ),
}  # fmt: skip


SLOW = {"a score of brevity, whose texts all end", "a critic with a far too large step", "Reinforce", "DQN"}


def named(names):
    """Return parameters of a test, some of them slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


@pytest.mark.parametrize("failure", named(FAILURES))
def test_a_failing_run_raises_its_alarms_with_the_episodes_that_show_it(failure):
    expected, make, tokens = FAILURES[failure]
    agent = make()
    callback = trained(agent, tokens)
    found = {alarm.name: alarm for alarm in callback.alarms}
    assert expected <= found.keys()
    for name in expected - {"non_finite"}:
        alarm = found[name]
        assert 1 <= alarm.update <= agent.num_updates
        assert 1 <= len(alarm.episodes) == len(alarm.texts) <= 5
        assert (alarm.update - 1) * 32 <= min(alarm.episodes) <= max(alarm.episodes) < alarm.update * 32
        outside = alarm.value > alarm.threshold if "above" in alarm.message else alarm.value < alarm.threshold
        assert outside, alarm
        assert str(alarm).startswith(f"alarm {name} at update {alarm.update}: ")


HEALTHY = {
    "Reinforce": lambda: reinforce(env={"scorer": two_components(1.0)}, kl_coef=0.1),
    "PPO": lambda: ppo(kl_coef=0.1),
    "GRPO": lambda: grpo(share_of_b),
    "DQN": lambda: DQN(
        small_q_policy(), make_env(32, scorer=ShareOfB()), num_episodes=32, gradient_steps=2, **EPSILON_GREEDY
    ),
}


@pytest.mark.parametrize("algorithm", named(HEALTHY))
def test_a_run_that_learns_raises_no_alarm(algorithm):
    assert trained(HEALTHY[algorithm](), 1_000).alarms == []


def test_every_rule_has_a_failure_that_raises_it():
    assert {rule.name for rule in RULES} == set().union(*(names for names, _, _ in FAILURES.values()))
    assert len(RULES) == 14


def test_the_alarms_of_a_nan_name_the_update_and_the_exception():
    agent = reinforce(learning_rate=1e30)
    callback = Alarms(None)
    with pytest.raises(FloatingPointError, match="NaN") as error:
        agent.learn(2_000, callback=callback)
    (alarm,) = callback.alarms
    assert (alarm.name, alarm.update, alarm.message) == ("non_finite", 2, f"{error.value}.")


def test_a_critic_of_nan_counts_as_not_finite():
    agent = ppo("linear")
    callback = Alarms(None)
    with torch.no_grad():
        next(agent.policy.value_head.parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError):
        agent.learn(100, callback=callback)
    assert [alarm.name for alarm in callback.alarms] == ["non_finite"]


def test_alarms_do_not_change_the_training():
    plain = reinforce(env={"scorer": share_of_c}).learn(600)
    watched = reinforce(env={"scorer": share_of_c}).learn(600, callback=Alarms(None))
    assert all(torch.equal(a, b) for a, b in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True))


def test_alarms_are_passed_on_once_and_can_stop_the_training():
    seen = []
    agent = grpo(lambda text: 0.5).learn(5_000, callback=Alarms(seen.append, stop=True))
    assert [alarm.name for alarm in seen] == ["flat_groups"]
    assert agent.num_updates == 3 * agent.config.n_epochs
    seen.clear()
    grpo(lambda text: 0.5).learn(1_500, callback=Alarms(seen.append))
    assert len(seen) == 1


def test_alarms_are_printed_without_control_characters(capsys):
    reinforce(env={"scorer": without_g, "on_scorer_error": 0.0}).learn(30, callback=Alarms())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("alarm scorer_failures at update 1: Number of episodes whose scorer failed is")
    alarm = dataclasses.replace(find_alarms([{"train/kl_reference": 2.0}])[0], texts=("\x1b[2Ja\u202eb\n",))
    assert str(alarm).splitlines()[1:] == ["    ␛[2Ja<U+202E>b⏎"]


def test_an_offline_agent_is_judged_by_its_metrics_only():
    data = reinforce().collect()
    rows = []
    agent = BehaviourCloning(LMPolicy(small_lm()), data, batch_size=8, learning_rate=0.3)
    agent.learn(400, callback=[Alarms(None), lambda agent, metrics: rows.append(metrics)])
    assert {"alarms/entropy", "alarms/non_finite"} <= rows[0].keys()
    assert not {"alarms/distinct_2", "alarms/kl", "alarms/copied"} & rows[0].keys()


@pytest.mark.parametrize("kl_coef", [0.0, 1e-9])
def test_the_reference_is_that_of_the_agent_whether_it_computes_its_log_probabilities_or_not(kl_coef):
    rows = []
    agent = reinforce(learning_rate=1e-2, kl_coef=kl_coef)
    agent.learn(600, callback=[Alarms(None, num_sampled=32), lambda agent, metrics: rows.append(dict(metrics))])
    with torch.no_grad():
        expected = agent.kl.reference.evaluate(agent.episodes).log_probs
    ratio = (agent.episodes.log_probs - expected).sum() / agent.episodes.num_steps.sum()
    assert rows[0]["alarms/kl"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["alarms/kl"] == pytest.approx(float(ratio), abs=1e-4)
    mean = float(expected.sum() / agent.episodes.num_steps.sum())
    assert rows[-1]["alarms/perplexity"] == pytest.approx(math.exp(-mean), rel=1e-4)


def test_a_finished_run_raises_the_alarms_that_it_raised_while_it_ran(tmp_path):
    callback, recorder = Alarms(None), EpisodeRecorder(tmp_path / "episodes.jsonl")
    agent = collapsing()
    agent.learn(1_300, callback=[callback, RunFolder(tmp_path / "run"), recorder])
    assert len(callback.alarms) >= 4
    names = [(alarm.name, alarm.update) for alarm in callback.alarms]
    assert [(alarm.name, alarm.update) for alarm in find_alarms(tmp_path / "run")] == names
    with_episodes = find_alarms(tmp_path / "run" / "metrics.csv", tmp_path / "episodes.jsonl")
    assert [(alarm.name, alarm.update) for alarm in with_episodes] == names
    of_texts = {"distinct_2", "flat_groups", "entropy"}
    for after, before in zip(with_episodes, callback.alarms, strict=True):
        assert after.value == pytest.approx(before.value)
        if after.name in of_texts:
            assert (after.episodes, after.texts) == (before.episodes, before.texts)

    # The run as it would have been logged without the callback.
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]
    plain = [{name: value for name, value in row.items() if not name.startswith("alarms/")} for row in rows]
    metrics_only = {alarm.name for alarm in find_alarms(plain)}
    both = {alarm.name for alarm in find_alarms(plain, read_episodes(tmp_path / "episodes.jsonl"))}
    assert "distinct_2" in both - metrics_only
    assert "entropy" in metrics_only


def test_the_log_of_stable_baselines3_is_read(tmp_path):
    env = TextGenVecEnv(16, tokenizer=TOKENIZER, prompts=["a", "cab"], scorer=share_of_b, max_new_tokens=6)
    model = SB3PPO(
        LMActorCriticPolicy, env, n_steps=6, batch_size=24, learning_rate=0.1, seed=0,
        policy_kwargs={"model": small_lm()}, rollout_buffer_class=EpisodeRolloutBuffer,
    )  # fmt: skip
    logger = configure(str(tmp_path), ["csv"])
    model.set_logger(logger)
    model.learn(400)
    logger.close()
    found = {alarm.name: alarm for alarm in find_alarms(tmp_path / "progress.csv")}
    assert "clip_fraction" in found
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    alarm = found["clip_fraction"]
    assert alarm.value == float(rows[alarm.update - 1]["train/clip_fraction"])


# Statistics by hand -----------------------------------------------------------------------------------------------


def episodes_of(texts, prompt="abc", **columns):
    """Return episodes with the given completions."""
    tokens = [torch.tensor(TOKENIZER.encode(prompt + text)) for text in texts]
    steps = torch.tensor([len(text) for text in texts])
    zeros = torch.zeros((len(texts), int(steps.max())))
    settings = {
        "ids": torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
        "prompt_lengths": torch.full((len(texts),), len(prompt)), "num_steps": steps, "rewards": zeros,
        "log_probs": zeros, "values": zeros, "truncated": torch.zeros(len(texts), dtype=torch.bool),
        "action_masks": None, "infos": [{"completion": text, "score": 0.0} for text in texts],
    }  # fmt: skip
    return Episodes(**settings | columns)


def test_distinct_pairs_are_counted_over_all_texts():
    measured = distinct_2(Update({}, episodes_of(["abab", "ab", "cd"])))
    assert measured.value == 3 / 5  # ab ba ab, ab, cd
    assert measured.by_episode == pytest.approx([(1 / 3 + 1 + 1 / 3) / 3, 1 / 3, 1])


def test_kl_and_perplexity_are_means_over_the_tokens_of_the_evaluated_episodes():
    log_probs = torch.tensor([[-1.0, -1.0], [-2.0, 0.0], [-9.0, -9.0]])
    reference = torch.tensor([[-2.0, -1.0], [-5.0, 0.0], [math.nan, math.nan]])
    update = Update({}, episodes_of(["ab", "a", "bb"], log_probs=log_probs), reference)
    assert kl(update).value == pytest.approx((1 + 0 + 3) / 3)
    assert kl(update).by_episode == pytest.approx([0.5, 3, math.nan], nan_ok=True)
    assert perplexity(update).value == pytest.approx(math.exp((2 + 1 + 5) / 3))


def test_groups_of_one_episode_have_no_spread_and_do_not_count():
    infos = [{"score": 0.0, "group": group} for group in (0, 0, 1, 1, 2)]
    rewards = torch.tensor([[1.0], [1.0], [0.0], [1.0], [5.0]])
    measured = flat_groups(Update({}, episodes_of(["a"] * 5, rewards=rewards, infos=infos)))
    assert measured.value == 0.5
    assert measured.by_episode == pytest.approx([1, 1, 0, 0, math.nan], nan_ok=True)


def test_the_copied_share_is_of_the_shorter_of_prompt_and_text():
    measured = copied(Update({}, episodes_of(["ggabcd", "abcdefg", "gbcdg", "ge"], prompt="abcdef")))
    assert measured.by_episode == pytest.approx([4 / 6, 1, 0, 0])  # runs of less than four tokens do not count
    pairs = [np.array([1, 2, 3]), np.array([5])], [np.array([2, 3, 1, 2]), np.array([6, 7])]
    assert longest_common_run(*pairs).tolist() == [2, 0]


def test_the_share_of_a_component_is_its_squared_correlation_with_the_score():
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, -1.0, -1.0, 1.0])
    infos = [{"score": a + 2 * b, "scores": {"x": a, "y": b, "y/inner": 7.0}} for a, b in zip(x, y, strict=True)]
    value = component_share(Update({}, episodes_of(["a"] * 4, infos=infos))).value
    assert value == pytest.approx(np.corrcoef(y, x + 2 * y)[0, 1] ** 2)


def test_the_explained_variance_of_returns_is_preferred_to_that_of_the_targets():
    metrics = {"train/explained_variance": 0.9, "train/explained_variance_mc": -0.5}
    assert explained_variance(Update(metrics)).value == -0.5
    assert explained_variance(Update({"train/explained_variance": math.nan})) is None


def test_max_q_is_unknown_without_bounds_of_the_return():
    assert max_q(Update({})) is None
    rows = []
    agent = DQN(small_q_policy(), make_env(32), num_episodes=32, gradient_steps=1)  # a plain function has no range
    agent.learn(100, callback=[Alarms(None), lambda agent, metrics: rows.append(metrics)])
    assert "alarms/max_q" not in rows[0]


# Rules ------------------------------------------------------------------------------------------------------------


def test_a_relative_rule_waits_for_its_baseline_and_its_patience():
    rows = [{"train/entropy_loss": -entropy} for entropy in (2.0, 1.0, 0.5, 2.0, 0.5, 0.5, 0.1)]
    (alarm,) = find_alarms(rows)
    assert (alarm.name, alarm.update, alarm.value, alarm.threshold, alarm.baseline) == ("entropy", 6, 0.5, 0.6, 2.0)
    rows = [{"train/entropy_loss": -entropy} for entropy in (2.0, 1.0) * 5 + (0.4,) * 15]
    (alarm,) = find_alarms(rows)
    assert (alarm.baseline, alarm.update) == (1.5, 12)  # the baseline is the first 10 % of 25 updates, two


def test_a_longer_text_counts_only_where_the_score_has_risen():
    rows = [{"rollout/ep_len_mean": length, "rollout/score_mean": 0.5} for length in (10, 20, 20, 20, 20)]
    assert find_alarms(rows) == []
    rows[-1]["rollout/score_mean"] = 0.6
    assert [(alarm.name, alarm.update) for alarm in find_alarms(rows)] == [("length", 5)]


def test_rules_can_be_left_out_and_changed():
    rows = [{"train/kl_reference": 0.8, "train/clip_fraction": 0.9}]
    assert [alarm.name for alarm in find_alarms(rows)] == ["clip_fraction"]
    stricter = [dataclasses.replace(rule, high=0.5) for rule in RULES if rule.name == "kl"]
    assert [(alarm.name, alarm.threshold) for alarm in find_alarms(rows, rules=stricter)] == [("kl", 0.5)]
    with pytest.raises(ValueError, match="each rule needs a name of its own"):
        Alarms(rules=[*RULES, RULES[0]])
    with pytest.raises(ValueError, match="num_sampled must be at least 1, got 0"):
        Alarms(num_sampled=0)


def test_what_is_no_finished_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_alarms(tmp_path / "none")
    (tmp_path / "metrics.csv").write_text("train/loss\n")
    with pytest.raises(ValueError, match="no row: the run has no finished update"):
        find_alarms(tmp_path)
    (tmp_path / "metrics.csv").write_text("train/loss\n1.0\nhigh\n")
    with pytest.raises(ValueError, match="line 3: expected numbers"):
        find_alarms(tmp_path)
    (tmp_path / "metrics.csv").write_text("train/loss\n1.0,2.0\n")
    with pytest.raises(ValueError, match="line 2: expected numbers"):
        find_alarms(tmp_path)


def test_episodes_of_another_run_are_an_error(tmp_path):
    agent = reinforce().learn(300, callback=RunFolder(tmp_path / "run"))
    with pytest.raises(ValueError, match="tokens that do not add up to the"):
        find_alarms(tmp_path / "run", agent.episodes)
