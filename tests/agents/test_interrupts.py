"""Ctrl-C takes effect between updates, a second one at once, and only Python's own handler is replaced."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

from fixtures import ROOT, make_env, small_lm
from textgym_agents import Callback, LMPolicy, Reinforce


def make_agent():
    return Reinforce(LMPolicy(small_lm()), make_env(), num_episodes=8, kl_coef=0.0, learning_rate=3e-3)


class SignalsWithin(Callback):
    """Sends SIGINT to this process before the update of a number, once or twice."""

    def __init__(self, number, times=1):
        self.number, self.times = number, times
        self.completed = []

    def on_rollout_end(self, agent, episodes):
        if agent.num_updates + 1 == self.number:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)

    def on_update_complete(self, agent, metrics):
        self.completed.append(agent.num_updates)


def test_the_update_is_finished_and_the_training_resumes_exactly(tmp_path, capsys):
    straight, agent, signals = make_agent().learn(300), make_agent(), SignalsWithin(2)
    with pytest.raises(KeyboardInterrupt, match=r"of 300 tokens are done; to go on, call agent\.learn"):
        agent.learn(300, callback=signals)
    assert signals.completed == [1, 2]
    assert not agent.is_in_update
    assert "stops after this update" in capsys.readouterr().err
    agent.learn(agent.planned_timesteps - agent.num_timesteps)
    assert all(torch.equal(a, b) for a, b in zip(agent.policy.parameters(), straight.policy.parameters(), strict=True))


def test_the_second_signal_interrupts_at_once():
    agent, signals = make_agent(), SignalsWithin(2, times=2)
    with pytest.raises(KeyboardInterrupt):
        agent.learn(300, callback=signals)
    assert signals.completed == [1]
    assert agent.is_in_update


def test_a_signal_while_training_ends_takes_effect_after_the_other_callbacks():
    class Ends(Callback):
        ended = False

        def on_training_end(self, agent):
            signal.raise_signal(signal.SIGINT)
            self.ended = True

    ends = Ends()
    with pytest.raises(KeyboardInterrupt):
        make_agent().learn(1, callback=ends)
    assert ends.ended


@pytest.mark.parametrize("total", [1, 300])
def test_the_handler_is_restored(total):
    before = signal.getsignal(signal.SIGINT)
    if total == 1:
        make_agent().learn(1)
    else:
        with pytest.raises(KeyboardInterrupt):
            make_agent().learn(total, callback=SignalsWithin(1))
    assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler


def test_a_handler_of_the_program_is_left_alone():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        agent = make_agent().learn(100, callback=SignalsWithin(1))
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]
    assert agent.num_timesteps >= 100


def test_in_another_thread_no_handler_is_installed():
    handlers, agent = [], make_agent()
    arguments = {"callback": lambda *_: handlers.append(signal.getsignal(signal.SIGINT))}
    thread = threading.Thread(target=agent.learn, args=(50,), kwargs=arguments)
    thread.start()
    thread.join()
    assert handlers
    assert set(handlers) == {signal.default_int_handler}


PROGRAM = """
import os, sys, time
from fixtures import make_env, small_lm
from textgym_agents import Callback, Checkpoint, LMPolicy, Reinforce

class Slow(Reinforce):
    def optimizer_step(self):
        print("in the step", flush=True)
        time.sleep(0.3)
        return super().optimizer_step()

class Says(Callback):
    def on_update_complete(self, agent, metrics):
        print("update", agent.num_updates, flush=True)

agent = Slow(LMPolicy(small_lm()), make_env(), num_episodes=8, kl_coef=0.0)
agent.learn(100_000, callback=[Checkpoint(sys.argv[1]), Says()])
"""


@pytest.mark.slow
def test_a_real_signal_in_an_optimizer_step_saves_after_the_update_and_says_how_to_go_on(tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "agents", ROOT / "tests")))}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        line = next(line for line in process.stdout if line == "in the step\n")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert line
    assert output == "update 1\n"
    assert process.returncode != 0
    assert "KeyboardInterrupt: " in errors
    assert f"agent = Slow.load('{tmp_path}', env)\nagent.learn(agent.planned_timesteps - agent.num_timesteps)" in errors
    (saved,) = tmp_path.iterdir()
    assert f"{saved} holds {int(saved.name):,} of 100,000 tokens" in errors
    assert '"num_updates": 1' in (saved / "agent.json").read_text()
