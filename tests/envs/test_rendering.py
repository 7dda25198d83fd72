"""Render modes of the three interfaces: Gymnasium's checks, videos, and steps that no display can break."""

import io
import pickle
import re
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import textgym
from textgym.envs.rendering import Rendering
from textgym.rewards import Potential


def number_of_as(text):
    return text.count("a") - 1.5


KEYWORDS = {"tokenizer": "char", "prompts": ["Hi "], "max_new_tokens": 4, "scorer": number_of_as}
A, B = (textgym.tokenizers.CharTokenizer().encode(c)[0] for c in "ab")
MODES = ("ansi", "human", "rgb_array")


def make(mode, **keywords):
    return gym.make("TextGen-v0", render_mode=mode, **KEYWORDS | keywords)


@pytest.fixture(autouse=True)
def _no_color(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_checker_passes_in_each_mode(mode, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(mode).unwrapped)


def test_ansi_colours_the_tokens_by_reward(monkeypatch):
    env = make("ansi", reward=Potential(every=1))
    env.reset(seed=0)
    env.step(A)
    assert env.render() == "Hi |a"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert env.render() == "\x1b[2mHi |\x1b[0m\x1b[38;5;15;48;5;34ma\x1b[0m"
    env.step(B)
    assert env.render() == "\x1b[2mHi |\x1b[0m\x1b[38;5;15;48;5;34ma\x1b[0mb"


def test_ansi_colours_improbable_tokens(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    env = make("ansi")
    env.reset(seed=0)
    env.unwrapped.set_log_probs(np.log(0.001))
    env.step(A)
    assert env.render() == "\x1b[2mHi |\x1b[0m\x1b[35ma\x1b[0m"


def test_human_writes_one_line_per_episode(capsys):
    env = make("human")
    env.reset(seed=0)
    for action in (A, A, B, A):
        env.step(action)
    assert env.render() is None
    updates = capsys.readouterr().out.split("\r")[1:]
    assert updates[0] == "step 0/4  reward +0.000  Hi |"
    assert updates[2].rstrip() == "step 2/4  reward +0.000  Hi |aa"
    assert updates[4] == "step 4/4  score +1.500  max_new_tokens  Hi |aaba\n"


@pytest.mark.parametrize(
    "stdout",
    [
        io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
        io.TextIOWrapper(io.BytesIO(), encoding="utf-16"),
        None,
    ],
)
def test_no_stdout_breaks_a_step(monkeypatch, stdout):
    monkeypatch.setattr(sys, "stdout", stdout)
    env = make("human", tokenizer="byte", prompts=["\ud83d\x1bé中"])
    env.reset(seed=0)
    for action in (0x1B, 0xC3, 0xA9):
        env.step(action)
    *_, terminated, _, info = env.step(7)
    assert terminated
    assert info["completion"] == "\x1bé\x07"


def test_a_closed_stdout_ends_the_display_with_a_warning_and_not_the_episode(monkeypatch):
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    env = make("human")
    env.reset(seed=0)
    stdout.close()
    with pytest.warns(UserWarning, match="shows no further step, as it failed: ValueError"):
        env.step(A)
    for action in (A, A):
        env.step(action)
    assert env.step(A)[1] == 2.5


@pytest.mark.parametrize("mode", MODES)
def test_rendering_changes_no_episode(mode, capsys):
    plain, shown = make(None), make(mode)
    for env in (plain, shown):
        env.reset(seed=3)
        env.action_space.seed(3)
    for _ in range(4):
        action = plain.action_space.sample()
        one, other = plain.step(action), shown.step(action)
        shown.render()
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]


def test_clones_pickles_and_snapshots_render_their_own_episodes(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    env = make("ansi", reward=Potential(every=1)).unwrapped
    env.reset(seed=0)
    env.step(A)
    before, snapshot = env.render(), env.get_state()
    copies = [env.clone(), pickle.loads(pickle.dumps(make("ansi").unwrapped))]
    copies[0].step(A)
    assert env.render() == before
    assert copies[0].render().count("48;5;34") == 2
    env.set_state(snapshot)  # whose rewards are unknown
    assert env.render() == "\x1b[2mHi |\x1b[0ma"


@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep", "Disabled"])
def test_vector_environments_render_each_episode(autoreset):
    envs = gym.make_vec("TextGen-v0", num_envs=2, render_mode="ansi", autoreset_mode=autoreset, **KEYWORDS)
    envs.reset(seed=0)
    eos = envs.unwrapped.eos_token_id
    envs.step(np.array([A, eos]))
    assert envs.render() == ("Hi |a", "Hi |")
    if autoreset != "Disabled":
        envs.step(np.array([B, B]))
        assert envs.render() == ("Hi |ab", "Hi |b" if autoreset == "SameStep" else "Hi |")
        states = [envs.unwrapped._rendering.state(envs.unwrapped.core, i) for i in range(2)]
        assert [state.last_score for state in states] == [None, -1.5]
        assert [state.total_reward for state in states] == [0.0, 0.0]


def test_ignored_invalid_actions_write_no_token_but_have_their_reward():
    envs = make("rgb_array", constraints="no_repeat_ngram", on_invalid_action="ignore", max_new_tokens=8).unwrapped
    envs.reset(seed=0)
    envs.render()
    for action in (A, A, A, A, A, A):
        envs.step(action)
    state = envs._rendering.state(envs.core, 0)
    assert len(state.tokens) == len(state.rewards) < 6
    assert state.total_reward < 0
    assert envs.render().shape == (240, 640, 3)


def test_steps_are_recorded_from_the_first_picture_on(monkeypatch):
    calls, record = [], Rendering.record
    monkeypatch.setattr(Rendering, "record", lambda *arguments: (calls.append(1), record(*arguments)))
    env = make("rgb_array", reward=Potential(every=1)).unwrapped
    env.reset(seed=0)
    for action in (A, B):
        env.step(action)
    assert not calls
    env.step(A)
    for one in (env.clone(), env):
        one.render()
        state = one._rendering.state(one.core, 0)
        assert state.completion == "aba"
        assert np.isnan(state.rewards).tolist() == [True, True, False]
        assert np.isnan(state.total_reward)
    assert len(calls) == 2
    env.step(A)
    assert len(calls) == 3
    env.reset()
    env.step(A)
    assert env._rendering.state(env.core, 0).total_reward == 1.0


def test_the_only_picture_of_an_episode_shows_its_end():
    env = make("rgb_array").unwrapped
    play(env)
    env.render()
    state = env._rendering.state(env.core, 0)
    assert (state.score, state.end_reason) == (1.5, "max_new_tokens")


def test_pictures_of_all_interfaces():
    env, envs = make("rgb_array"), gym.make_vec("TextGen-v0", num_envs=3, render_mode="rgb_array", **KEYWORDS)
    sb3 = textgym.TextGenVecEnv(3, render_mode="rgb_array", **KEYWORDS)
    for one in (env, envs, sb3):
        one.reset()
    pictures = [env.render(), *envs.render(), *sb3.get_images()]
    assert {(frame.shape, frame.dtype) for frame in pictures} == {((240, 640, 3), np.dtype(np.uint8))}
    assert sb3.render().ndim == 3
    assert textgym.TextGenVecEnv(2, **KEYWORDS).get_images() == [None, None]
    assert textgym.TextGenVecEnv(2, **KEYWORDS).render() is None


def play(env):
    env.reset(seed=0)
    for action in (A, B, A, A):
        env.step(action)
    env.close()


def frames_of(path):
    """Return the size of a picture and the number of pictures."""
    import imageio_ffmpeg

    with subprocess.Popen(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        video, log = process.communicate()
    width, height = map(int, re.search(rb", (\d{3,})x(\d{3,})", log).groups())
    return (width, height), len(video) // (3 * width * height)


def test_gymnasiums_record_video_writes_the_episode(tmp_path):
    pytest.importorskip("moviepy")
    env = gym.wrappers.RecordVideo(make("rgb_array"), str(tmp_path / "videos"), disable_logger=True)
    play(env)
    (video,) = tmp_path.rglob("*.mp4")
    assert frames_of(video) == ((640, 240), 5)


def test_sb3s_video_recorder_writes_the_episodes(tmp_path, capsys):
    pytest.importorskip("moviepy")
    from stable_baselines3.common.vec_env import VecVideoRecorder

    envs = VecVideoRecorder(
        textgym.TextGenVecEnv(2, render_mode="rgb_array", **KEYWORDS), str(tmp_path), lambda step: step == 0, 4
    )
    envs.reset()
    for _ in range(5):
        envs.step(np.array([A, B]))
    envs.close()
    (video,) = tmp_path.glob("*.mp4")
    assert frames_of(video) == ((640 * 1, 480), 5)


def test_gymnasiums_wrapper_observes_the_pictures():
    env = gym.wrappers.AddRenderObservation(make("rgb_array"), render_only=True)
    assert env.reset(seed=0)[0].shape == (240, 640, 3)


def test_an_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown render_mode 'rgb'; did you mean 'rgb_array'"):
        textgym.TextGenVectorEnv(2, render_mode="rgb", **KEYWORDS)
