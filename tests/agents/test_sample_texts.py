"""Texts shown in the course of training, in the terminal and in TensorBoard."""

import io
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fixtures import make_env, small_lm
from textgym_agents import LMPolicy, Reinforce, ReinforceConfig, SampleTexts
from textgym_agents.episodes import Episodes

INFO = {"prompt": "Hi\x1b[2J", "completion": " *there*\n<b>\u202e\ud83d", "score": 0.5}


def learn(callback, updates=3):
    agent = Reinforce(LMPolicy(small_lm()), make_env(32), ReinforceConfig(num_episodes=32, kl_coef=0.0))

    def stop(agent, metrics):
        return metrics["train/n_updates"] < updates

    return agent.learn(10_000, callback=[callback, stop])


def show(callback, infos=(INFO,), tokens=7.0):
    episodes = Episodes.__new__(Episodes)
    episodes.infos = list(infos)
    callback.on_rollout_end(None, episodes)
    callback.on_update_end(None, {"time/total_timesteps": tokens})


def test_texts_of_every_second_update_are_printed(capsys):
    agent = learn(SampleTexts(every=2, num_texts=4))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 10
    assert [line for line in shown if line.startswith("After")][1] == f"After {agent.num_timesteps:,} tokens:"
    info = agent.episodes.infos[3]
    assert shown[-1] == f"  [{info['score']:+.2f}] {info['prompt']}|{info['completion']}"


def test_texts_are_written_for_tensorboard_in_the_folder_of_the_run(tmp_path, capsys):
    learn(SampleTexts(path=tmp_path, prints=False), updates=1)
    assert capsys.readouterr().out == ""
    events = EventAccumulator(str(tmp_path)).Reload()
    (event,) = events.Tensors("samples/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert len(text.splitlines()) == 3
    assert all(line.startswith("      [") for line in text.splitlines())


def test_model_text_cannot_command_the_terminal_or_tensorboard(tmp_path, capsys):
    callback = SampleTexts(path=tmp_path)
    callback.on_training_start(None)
    show(callback)
    callback.on_training_end(None)
    line = "  [+0.50] Hi␛[2J| *there*⏎<b><U+202E><U+D83D>"
    assert capsys.readouterr().out == f"After 7 tokens:\n{line}\n"
    (event,) = EventAccumulator(str(tmp_path)).Reload().Tensors("samples/text_summary")
    assert event.tensor_proto.string_val[0].decode() == f"    {line}"


def test_an_ascii_terminal_shows_escapes(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    show(SampleTexts())
    stdout.flush()
    assert b"Hi\\u241b[2J|" in stdout.buffer.getvalue()


def test_a_full_disk_ends_the_writing_and_not_the_training(tmp_path):
    callback = SampleTexts(path=tmp_path, prints=False, every=1)
    callback.on_training_start(None)

    def fail(*args):
        raise OSError(28, "No space left on device")

    callback._writer.add_text = fail
    with pytest.warns(UserWarning, match=r"no more texts are written to .*No space left"):
        show(callback)
    show(callback)


@pytest.mark.parametrize("keywords", [{"every": 0}, {"num_texts": 0}, {"every": 2.5}])
def test_counts_are_checked(keywords):
    with pytest.raises((ValueError, TypeError), match=next(iter(keywords))):
        SampleTexts(**keywords)
