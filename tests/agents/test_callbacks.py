"""Callbacks of learn: when hooks are called, accepted types, errors before training starts."""

import re
import threading

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import EveryNTimesteps, StopTrainingOnMaxEpisodes

from fixtures import make_env, small_lm
from textgym_agents import BehaviourCloning, BehaviourCloningConfig, Callback, LMPolicy, Reinforce, ReinforceConfig
from textgym_agents.inspection import inspect_update


def agent_of(**settings):
    return Reinforce(LMPolicy(small_lm()), make_env(), ReinforceConfig(num_episodes=8, kl_coef=0.0, **settings))


class Calls(Callback):
    """Records the hooks that were called."""

    def __init__(self, calls=None, name=""):
        self.calls, self.name = [] if calls is None else calls, name

    def on_training_start(self, agent):
        self.calls.append((self.name, "start", agent.num_updates))

    def on_rollout_end(self, agent, episodes):
        assert len(episodes) == 8
        assert episodes is agent.episodes
        self.calls.append((self.name, "rollout", agent.num_updates))

    def on_update_end(self, agent, metrics):
        assert metrics["train/n_updates"] == agent.num_updates
        self.calls.append((self.name, "update", agent.num_updates))
        return agent.num_updates < 2

    def on_training_end(self, agent):
        self.calls.append((self.name, "end", agent.num_updates))


IN_ORDER = [
    ("", "start", 0),
    ("", "rollout", 0),
    ("", "update", 1),
    ("", "rollout", 1),
    ("", "update", 2),
    ("", "end", 2),
]


def test_the_hooks_are_called_in_order_and_false_stops():
    callback = Calls()
    agent_of().learn(100_000, callback=callback)
    assert callback.calls == IN_ORDER


def test_an_offline_agent_calls_the_same_hooks():
    callback = Calls()
    data = agent_of().collect()
    BehaviourCloning(LMPolicy(small_lm()), data, BehaviourCloningConfig(batch_size=8)).learn(10_000, callback)
    assert callback.calls == IN_ORDER


def test_an_object_with_some_of_the_hooks_is_enough():
    class Ends:
        ended = False

        def on_training_end(self, agent):
            self.ended = True

    callback = Ends()
    agent_of().learn(1, callback=callback)
    assert callback.ended


def test_an_update_is_complete_when_all_callbacks_have_added_their_metrics():
    class Completes(Callback):
        def on_update_complete(self, agent, metrics):
            assert metrics["theirs"] == agent.num_updates
            self.num_complete = agent.num_updates

    callback = Completes()
    agent = agent_of().learn(100, callback=[callback, lambda agent, metrics: metrics.update(theirs=agent.num_updates)])
    assert callback.num_complete == agent.num_updates > 1


def test_an_update_is_inspected_in_a_callback_beside_others_that_cannot_be_copied():
    class Holds(Callback):
        def __init__(self):
            self.own = threading.Lock()  # which copy.deepcopy refuses

    reports = []
    agent_of().learn(1, [Holds(), lambda agent, _: reports.append(inspect_update(agent, agent.episodes))])
    assert len(reports) == 1


@pytest.mark.parametrize("answer", [False, np.False_])
def test_every_callback_of_a_list_is_called_before_one_of_them_stops(answer):
    seen = []
    agent = agent_of().learn(100_000, callback=[lambda *_: answer, [lambda _, metrics: seen.append(metrics)]])
    assert len(seen) == agent.num_updates == 1


@pytest.mark.parametrize("answer", [None, 0, "", [], True])
def test_only_false_stops(answer):
    calls = []
    agent_of().learn(100, callback=lambda *_: calls.append(1) or answer)
    assert len(calls) > 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("hook", ["on_rollout_end", "on_update_end"])
def test_the_end_is_called_after_an_exception_too(error, hook):
    class Fails(Callback):
        pass

    def fail(*_):
        raise error("no")

    setattr(Fails, hook, fail)
    callback = Calls()
    with pytest.raises(error, match="no"):
        agent_of().learn(100, callback=[callback, Fails()])
    assert callback.calls[-1][1] == "end"


def test_an_end_that_fails_does_not_keep_others_from_ending():
    class FailsAtTheEnd(Callback):
        def on_training_end(self, agent):
            raise OSError("no space left")

    first, last = Calls(), Calls()
    with pytest.raises(OSError, match="no space left"):
        agent_of().learn(1, callback=[first, FailsAtTheEnd(), last])
    assert first.calls[-1] == last.calls[-1] == ("", "end", 1)


def test_only_what_started_is_ended():
    class CannotStart(Callback):
        def on_training_start(self, agent):
            raise FileExistsError("there")

    calls = []
    with pytest.raises(FileExistsError):
        agent_of().learn(1, callback=[Calls(calls, "first"), CannotStart(), Calls(calls, "last")])
    assert calls == [("first", "start", 0), ("first", "end", 0)]


class TakesMetricsOnly:
    def on_update_end(self, metrics):
        pass


class OverridesWrongly(Callback):
    def on_rollout_end(self, episodes):
        pass


@pytest.mark.parametrize(
    ("wrong", "hook"),
    [
        (TakesMetricsOnly(), "on_update_end(agent, metrics)"),
        (OverridesWrongly(), "on_rollout_end(agent, episodes)"),
        (EveryNTimesteps(10, StopTrainingOnMaxEpisodes(1)), "on_training_start(agent)"),
    ],
)
def test_a_hook_of_another_signature_raises_before_training(wrong, hook):
    agent = agent_of()
    with pytest.raises(TypeError, match=rf"{type(wrong).__name__} must take its hook as {re.escape(hook)}, got \("):
        agent.learn(100, callback=[None, wrong])
    assert agent.num_timesteps == agent.num_updates == 0


@pytest.mark.parametrize(
    "wrong", [3, "log", Callback, Calls, {}, [print, 3], lambda metrics: None, [].append, object()]
)
def test_another_object_than_a_callback_raises_before_training(wrong):
    agent = agent_of()
    before = torch.get_rng_state(), agent.generator.get_state()
    with pytest.raises(TypeError, match=r"callback must be a function f\(agent, metrics\), an object with one of"):
        agent.learn(100, callback=wrong)
    assert agent.num_timesteps == agent.num_updates == 0
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], agent.generator.get_state())
