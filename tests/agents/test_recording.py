"""Episodes on disk are read as they were written; damaged rows are named in errors."""

import builtins
import gc
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixtures import full_disk, make_env, small_lm
from textgym.constraints import BanTokens
from textgym_agents import Episodes, LMPolicy, Reinforce, ReinforceConfig, collect
from textgym_agents.recording import EpisodeRecorder, read_episodes

SUFFIXES = (".jsonl", ".parquet")
TENSORS = (
    "ids", "prompt_lengths", "num_steps", "rewards", "log_probs", "values", "truncated", "positions", "text_lengths"
)  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def sampled(policy, num_episodes=12, **keywords):
    return collect(make_env(**keywords), policy, num_episodes, seed=3, generator=torch.Generator().manual_seed(0))


def written(path, *batches):
    with EpisodeRecorder(path) as recorder:
        for episodes in batches:
            recorder.write(episodes)
    return path


def assert_same(first, second):
    for name in TENSORS:
        one, other = getattr(first, name), getattr(second, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    if first.action_masks is None:
        assert second.action_masks is None
    else:
        assert (first.action_masks == second.action_masks).all()


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"group_size": 4},
        {"constraints": [BanTokens(["c"])]},
        {"reward": "potential", "time_limit": "truncated"},
        {"kl_penalty": 0.1, "reference": small_lm(1)},
        {"scorer": {"length_band": 0.1, "repetition": -1.0}},
    ],
    ids=lambda keywords: next(iter(keywords), "plain"),
)
def test_reading_returns_what_was_written(policy, tmp_path, suffix, keywords):
    episodes = sampled(policy, **keywords)
    again = read_episodes(written(tmp_path / f"episodes{suffix}", episodes))
    assert_same(episodes, again)
    assert again.infos == episodes.infos


@st.composite
def any_episodes(draw):
    size, longest = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    steps = np.array(draw(st.lists(st.integers(1, longest), min_size=size, max_size=size)))
    prompts = np.array(draw(st.lists(st.integers(1, 4), min_size=size, max_size=size)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps[0] = longest
    mask = np.arange(longest) < steps[:, None]
    text = np.arange((prompts + steps).max()) < (prompts + steps)[:, None]

    def floats():
        bits = rng.integers(0, 2**32, mask.shape, dtype=np.uint32).view(np.float32)
        return torch.from_numpy(np.where(mask & np.isfinite(bits), bits, 0).astype(np.float32))

    masks = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8) * mask[..., None].astype(np.uint8)
    return Episodes(
        ids=torch.from_numpy(np.where(text, rng.integers(0, 20, text.shape), 0)),
        prompt_lengths=torch.from_numpy(prompts),
        num_steps=torch.from_numpy(steps),
        rewards=floats(),
        log_probs=floats(),
        values=floats(),
        truncated=torch.from_numpy(rng.random(size) < 0.5),
        action_masks=masks if draw(st.booleans()) else None,
        infos=[{"score": 0.5, "completion": draw(st.text(st.characters(codec="utf-8")))} for _ in range(size)],
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(episodes=any_episodes())
def test_any_float_mask_and_text_survives(tmp_path_factory, suffix, episodes):
    again = read_episodes(written(tmp_path_factory.mktemp("episodes") / f"any{suffix}", episodes))
    assert_same(episodes, again)
    assert [info["completion"] for info in again.infos] == [info["completion"] for info in episodes.infos]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_nan_score_is_read_as_nan(policy, tmp_path, suffix):
    def score(completion):
        raise RuntimeError

    episodes = sampled(policy, 4, scorer=score, on_scorer_error="invalid")
    path = written(tmp_path / f"episodes{suffix}", episodes)
    again = read_episodes(path)
    assert all(math.isnan(info["score"]) for info in again.infos)
    assert [info["scorer_error"] for info in again.infos] == [info["scorer_error"] for info in episodes.infos]
    if suffix == ".jsonl":
        assert b"NaN" not in path.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_writes_are_appended(policy, tmp_path, suffix):
    episodes = sampled(policy)
    assert_same(episodes, read_episodes(written(tmp_path / f"parts{suffix}", episodes[:5], episodes[5:])))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_as_a_callback_it_writes_the_episodes_of_each_update(tmp_path, suffix):
    agent = Reinforce(LMPolicy(small_lm()), make_env(), ReinforceConfig(num_episodes=8))
    recorder = EpisodeRecorder(tmp_path / f"run{suffix}")
    agent.learn(100, callback=recorder)
    episodes = read_episodes(recorder.path)
    assert len(episodes) == 8 * agent.num_updates
    assert int(episodes.num_steps.sum()) == agent.num_timesteps


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_the_file_is_readable_after_an_exception(tmp_path, suffix, stop):
    def fail(agent, metrics):
        raise stop

    agent = Reinforce(LMPolicy(small_lm()), make_env(), ReinforceConfig(num_episodes=8))
    with pytest.raises(stop):
        agent.learn(100, callback=[EpisodeRecorder(tmp_path / f"run{suffix}"), fail])
    assert len(read_episodes(tmp_path / f"run{suffix}")) == 8


def test_a_parquet_file_is_complete_when_its_recorder_is_collected(policy, tmp_path):
    EpisodeRecorder(tmp_path / "gone.parquet").write(sampled(policy))
    gc.collect()
    assert len(read_episodes(tmp_path / "gone.parquet")) == 12


def test_json_lines_are_readable_immediately(policy, tmp_path):
    recorder = EpisodeRecorder(tmp_path / "open.jsonl")
    recorder.write(sampled(policy))
    assert len(read_episodes(recorder.path)) == 12


def test_a_second_training_appends_to_json_lines_and_raises_for_parquet(tmp_path):
    agent = Reinforce(LMPolicy(small_lm()), make_env(), ReinforceConfig(num_episodes=8))
    lines, parquet = EpisodeRecorder(tmp_path / "run.jsonl"), EpisodeRecorder(tmp_path / "run.parquet")
    agent.learn(1, callback=[lines, parquet])
    agent.learn(1, callback=lines)
    assert len(read_episodes(lines.path)) == 16
    with pytest.raises(ValueError, match=r"closed.*\.jsonl"):
        agent.learn(1, callback=parquet)
    assert agent.num_updates == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_lone_surrogate_is_escaped(policy, tmp_path, suffix):
    episodes = sampled(policy, 2)
    episodes.infos[1] |= {"prompt": "half \ud83d", "turns": [{"role": "user", "content": "\udc80"}]}
    again = read_episodes(written(tmp_path / f"episodes{suffix}", episodes))
    assert again.infos[1]["prompt"] == "half \\ud83d"
    assert again.infos[1]["turns"] == [{"role": "user", "content": "\\udc80"}]


def test_the_required_columns_suffice(tmp_path):
    path = tmp_path / "theirs.jsonl"
    path.write_text(json.dumps({"prompt_ids": [1], "completion_ids": [2, 3], "rewards": [0, 1]}) + "\n")
    episodes = read_episodes(path)
    assert episodes.returns.tolist() == [1.0]
    assert episodes.log_probs.isnan().all()
    assert episodes.values.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unknown_log_probs_stay_unknown_and_the_file_stays_json(policy, tmp_path, suffix):
    episodes = sampled(policy, 3)
    episodes.log_probs[1] = math.nan
    path = written(tmp_path / f"episodes{suffix}", episodes)
    assert read_episodes(path).log_probs.isnan().any(dim=1).tolist() == [False, True, False]
    if suffix == ".jsonl":
        assert b"NaN" not in path.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_exists_is_not_overwritten(policy, tmp_path, suffix):
    path = written(tmp_path / f"episodes{suffix}", sampled(policy))
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        EpisodeRecorder(path)
    assert path.read_bytes() == before


def test_json_lines_are_appended_to_with_append(policy, tmp_path):
    path = written(tmp_path / "episodes.jsonl", sampled(policy))
    with EpisodeRecorder(path, append=True) as recorder:
        recorder.write(sampled(policy))
    assert len(read_episodes(path)) == 24


def test_a_file_with_half_a_line_is_not_appended_to(policy, tmp_path):
    path = cut(written(tmp_path / "episodes.jsonl", sampled(policy)), -20)
    with pytest.raises(ValueError, match=r"last line.*cut off"):
        EpisodeRecorder(path, append=True)


def test_parquet_cannot_be_appended_to(tmp_path):
    with pytest.raises(ValueError, match=r"append=True.*\.jsonl"):
        EpisodeRecorder(tmp_path / "episodes.parquet", append=True)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_whole_lines(policy, tmp_path):
    recorder = EpisodeRecorder(tmp_path / "episodes.jsonl")
    recorder.write(sampled(policy, 3))
    with full_disk(recorder.path.stat().st_size + 100), pytest.raises(OSError, match="File too large"):
        recorder.write(sampled(policy))
    assert len(read_episodes(recorder.path)) == 3


def test_an_unknown_suffix_raises(tmp_path):
    with pytest.raises(ValueError, match=r"written to \.jsonl or \.parquet, got 'episodes\.csv'"):
        EpisodeRecorder(tmp_path / "episodes.csv")
    with pytest.raises(ValueError, match=r"read from \.jsonl or \.parquet, got 'episodes\.csv'"):
        read_episodes(tmp_path / "episodes.csv")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_and_an_empty_file_raise_different_errors(tmp_path, suffix):
    with pytest.raises(FileNotFoundError):
        read_episodes(tmp_path / f"none{suffix}")
    with pytest.raises(ValueError, match="contains no episodes"):
        read_episodes(written(tmp_path / f"empty{suffix}"))


def test_a_cut_off_line_is_named(policy, tmp_path):
    path = cut(written(tmp_path / "episodes.jsonl", sampled(policy, 3)), -20)
    with pytest.raises(ValueError, match="line 3 is damaged or cut off"):
        read_episodes(path)


def test_a_parquet_file_that_was_not_closed_raises(policy, tmp_path):
    path = cut(written(tmp_path / "episodes.parquet", sampled(policy, 3)), -20)
    with pytest.raises(ValueError, match="not a complete Parquet file"):
        read_episodes(path)


GOOD = {"prompt_ids": [1], "completion_ids": [2, 3], "rewards": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": None}, "line 2 has no column 'rewards'"),
        ({"prompt_ids": []}, "line 2: 'prompt_ids' must be a non-empty list of token ids"),
        ({"completion_ids": [2.5, 3.0]}, "line 2: 'completion_ids' must be a non-empty list of token ids"),
        ({"completion_ids": [-1, 3]}, "line 2: 'completion_ids' must be a non-empty list of token ids"),
        ({"completion_ids": "ab"}, "line 2: 'completion_ids' must be a non-empty list of token ids"),
        ({"rewards": [1.0]}, "line 2: 'rewards' has 1 entries, but there are 2 tokens in 'completion_ids'"),
        ({"rewards": [1.0, None]}, "line 2: 'rewards' must be a non-empty list of numbers"),
        ({"rewards": [[1.0], [1.0, 2.0]]}, "line 2: 'rewards' must be a non-empty list of numbers"),
        ({"rewards": [1.0, math.nan]}, "line 2: 'rewards' must be finite"),
        ({"rewards": [1.0, 1e300]}, "line 2: 'rewards' must be finite"),
        ({"values": [math.inf, 1.0]}, "line 2: 'values' must be finite"),
        ({"action_masks": "?"}, "line 2 is damaged or cut off"),
        ({"action_masks": "AAAA"}, "differ in width, or only some episodes have them"),
    ],
)
def test_an_invalid_row_is_named(tmp_path, change, message):
    path = tmp_path / "episodes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (GOOD, GOOD | change)))
    with pytest.raises(ValueError, match=message):
        read_episodes(path)


def test_a_line_that_is_not_an_object_is_named(tmp_path):
    path = tmp_path / "episodes.jsonl"
    path.write_text("[1, 2]\n")
    with pytest.raises(ValueError, match="line 1 is damaged or cut off: expected a JSON object, got list"):
        read_episodes(path)


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"need pyarrow.*pip install .textgym\[parquet\]"):
        EpisodeRecorder(tmp_path / "episodes.parquet")
    assert not list(tmp_path.iterdir())
