"""Episodes on disk are read as they were written; damaged rows are named in errors."""

import builtins
import gc
import json
import math
import shutil
import subprocess
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import TOKENIZER, full_disk, make_env, small_lm
from textgym.constraints import BanTokens
from textgym.prompts import Sample
from textgym.tokenizers import CharTokenizer, fingerprint
from textgym_agents import (
    BehaviourCloning,
    EpisodeRecorder,
    Episodes,
    LMPolicy,
    Reinforce,
    ReinforceConfig,
    collect,
    read_episodes,
)
from textgym_agents.decoding import RandomPolicy
from textgym_agents.token_stats import EpisodeStats

SUFFIXES = (".jsonl", ".parquet")
TENSORS = (
    "ids", "prompt_lengths", "num_steps", "rewards", "log_probs", "values", "truncated", "positions", "text_lengths"
)  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def sampled(policy, num_episodes=12, num_alternatives=None, **keywords):
    generator = torch.Generator().manual_seed(0)
    return collect(
        make_env(**keywords), policy, num_episodes, seed=3, generator=generator, num_alternatives=num_alternatives
    )


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
    assert (first.stats is None) is (second.stats is None)
    for one, other in zip(first.stats or (), second.stats or (), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.nan_to_num(nan=9e9), other.nan_to_num(nan=9e9))
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
    episodes = sampled(policy, num_alternatives=7, **keywords)
    again = read_episodes(written(tmp_path / f"episodes{suffix}", episodes))
    assert_same(episodes, again)
    assert again.infos == episodes.infos
    assert again.starts == episodes.starts
    assert again.vocabulary == fingerprint(TOKENIZER)
    assert all(TOKENIZER.token_text(i) == text for i, text in again.texts.items())
    twice = read_episodes(written(tmp_path / f"again{suffix}", again))
    assert_same(again, twice)
    assert (twice.infos, twice.texts, twice.starts) == (again.infos, again.texts, again.starts)


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
    stats = None
    if draw(st.booleans()):
        shape = (*mask.shape, draw(st.integers(0, 3)))
        integers = [torch.from_numpy(rng.integers(0, 2**40, mask.shape) * mask) for _ in range(2)]
        ids = torch.from_numpy(rng.integers(-1, 9, shape) * mask[..., None])
        log_probs = torch.stack([floats() for _ in range(shape[2])], dim=2) if shape[2] else torch.zeros(shape)
        log_probs = log_probs.clamp(max=0).masked_fill(ids == -1, -torch.inf)
        stats = EpisodeStats(floats(), *integers, ids, log_probs)
        if size > 1 and draw(st.booleans()):  # one episode without records
            stats.entropies[1, : steps[1]] = math.nan
            stats.ranks[1], stats.mask_sizes[1] = 0, 0
            stats.alternative_ids[1, : steps[1]], stats.alternative_log_probs[1, : steps[1]] = -1, -math.inf
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
        stats=stats,
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


def make_agent():
    return Reinforce(LMPolicy(small_lm()), make_env(), ReinforceConfig(num_episodes=8))


def test_as_a_callback_it_writes_the_episodes_of_each_update(tmp_path):
    agent, recorder = make_agent(), EpisodeRecorder(tmp_path / "run.jsonl", num_alternatives=3)
    agent.learn(100, callback=recorder)
    episodes = read_episodes(recorder.path)
    assert len(episodes) == 8 * agent.num_updates
    assert int(episodes.num_steps.sum()) == agent.num_timesteps
    assert [info["update"] for info in episodes.infos] == np.repeat(1 + np.arange(agent.num_updates), 8).tolist()
    assert episodes.stats.alternative_ids.shape[2] == 3
    assert agent.num_alternatives is None
    agent.learn(1, callback=EpisodeRecorder(recorder.path, append=True, num_alternatives=None))
    assert read_episodes(recorder.path).infos[-1]["update"] == agent.num_updates
    assert agent.episodes.stats is None


def test_recorders_of_one_training_record_what_the_largest_asks_for(tmp_path):
    agent = make_agent()
    recorders = [EpisodeRecorder(tmp_path / f"{k}.jsonl", num_alternatives=k) for k in (2, 4, 0)]
    agent.learn(1, callback=recorders)
    for recorder in recorders:
        assert read_episodes(recorder.path).stats.alternative_ids.shape[2] == 4
    assert agent.num_alternatives is None


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_the_file_is_readable_after_an_exception(tmp_path, stop):
    def fail(agent, metrics):
        raise stop

    agent = make_agent()
    with pytest.raises(stop):
        agent.learn(100, callback=[EpisodeRecorder(tmp_path / "run.jsonl"), fail])
    assert len(read_episodes(tmp_path / "run.jsonl")) == 8
    assert agent.num_alternatives is None


def test_training_is_not_recorded_in_parquet_but_a_recording_is_converted(tmp_path):
    agent = make_agent()
    with pytest.raises(ValueError, match=r"run\.parquet.*only once it is complete.*\.jsonl.*convert"):
        agent.learn(1, callback=EpisodeRecorder(tmp_path / "run.parquet"))
    assert (agent.num_timesteps, agent.num_alternatives) == (0, None)
    agent.learn(1, callback=EpisodeRecorder(tmp_path / "run.jsonl", num_alternatives=2))
    episodes = read_episodes(tmp_path / "run.jsonl")
    again = read_episodes(written(tmp_path / "converted.parquet", episodes))
    assert_same(episodes, again)
    assert (again.infos, again.texts, again.vocabulary) == (episodes.infos, episodes.texts, episodes.vocabulary)


def test_a_parquet_file_is_complete_when_its_recorder_is_collected(policy, tmp_path):
    EpisodeRecorder(tmp_path / "gone.parquet").write(sampled(policy))
    gc.collect()
    assert len(read_episodes(tmp_path / "gone.parquet")) == 12


def test_json_lines_are_readable_immediately(policy, tmp_path):
    recorder = EpisodeRecorder(tmp_path / "open.jsonl")
    recorder.write(sampled(policy))
    assert len(read_episodes(recorder.path)) == 12


def test_a_second_training_appends_to_json_lines(tmp_path):
    agent, recorder = make_agent(), EpisodeRecorder(tmp_path / "run.jsonl")
    agent.learn(1, callback=recorder)
    agent.learn(1, callback=recorder)
    assert [info["update"] for info in read_episodes(recorder.path).infos] == [1] * 8 + [2] * 8


def test_a_closed_parquet_file_is_not_written_to(policy, tmp_path):
    with EpisodeRecorder(tmp_path / "closed.parquet") as recorder:
        recorder.write(sampled(policy, 2))
    with pytest.raises(ValueError, match=r"closed.*\.jsonl"):
        recorder.write(sampled(policy, 2))


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


@pytest.mark.parametrize("keep", [-20, -2, 40])
def test_half_a_line_is_removed_before_appending(policy, tmp_path, keep):
    path = cut(written(tmp_path / "episodes.jsonl", sampled(policy)), keep)
    with pytest.warns(UserWarning, match="last line of .*episodes.jsonl is cut off and is removed"):
        recorder = EpisodeRecorder(path, append=True)
    recorder.write(sampled(policy, 3))
    assert len(read_episodes(path)) == (3 if keep == 40 else 14)


def test_a_last_line_without_an_end_is_completed_before_appending(policy, tmp_path):
    path = cut(written(tmp_path / "episodes.jsonl", sampled(policy)), -1)
    EpisodeRecorder(path, append=True).write(sampled(policy))
    assert len(read_episodes(path)) == 24


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


def test_a_last_line_cut_off_by_a_kill_is_skipped_with_one_warning(policy, tmp_path):
    path = cut(written(tmp_path / "episodes.jsonl", sampled(policy, 3)), -20)
    with pytest.warns(UserWarning, match="line 3, the last one, is cut off and is skipped") as caught:
        assert len(read_episodes(path)) == 2
    assert [warning.filename for warning in caught] == [__file__]


def test_a_line_cut_off_before_others_is_named(policy, tmp_path):
    path = cut(written(tmp_path / "episodes.jsonl", sampled(policy, 3)), -20)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ValueError, match="line 3 is damaged or cut off"):
        read_episodes(path)


def test_a_killed_program_loses_only_the_update_under_way(tmp_path):
    path = tmp_path / "run.jsonl"
    agent = make_agent()
    agent.learn(1, callback=EpisodeRecorder(path))
    first = path.read_bytes()
    for half in range(1, 100, 7):
        path.write_bytes(first + first[:half])
        with pytest.warns(UserWarning, match="skipped"):
            assert len(read_episodes(path)) == 8


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
        ({"completion_ids": [2**63, 3]}, "line 2: 'completion_ids' must be a non-empty list of token ids"),
        ({"completion_ids": [10**400, 3.5]}, "line 2: 'completion_ids' must be a non-empty list of token ids"),
        ({"schema": "textgym.episode/2"}, "line 2 is of the schema 'textgym.episode/2', this version"),
        ({"schema": 1}, "line 2 is of the schema 1, this version"),
        ({"score": "high"}, "line 2: 'score' must be a finite number, got 'high'"),
        ({"score": 10**400}, "line 2: 'score' must be a finite number"),
        ({"scores": {"a": [1]}}, "line 2: 'scores' must be an object of numbers"),
        ({"turns": [{"role": 1}]}, "line 2: 'turns' must be a list of objects of texts"),
        ({"truncated": "no"}, "line 2: 'truncated' must be true or false"),
        ({"update": -1}, "line 2: 'update' must be an integer of at least 0"),
        ({"tokens": ["a"]}, "line 2: 'tokens' has 1 entries, 'completion_ids' has 2"),
        ({"tokens": ["a", 1]}, "line 2: 'tokens' must be a list of texts"),
        ({"entropies": [0.5]}, "line 2: 'entropies' has 1 entries"),
        ({"entropies": [0.5, 1], "ranks": [1, 1.5]}, "line 2: 'ranks' must be a non-empty list of integers"),
        (
            {"entropies": [0.5, 1], "alternative_ids": [[1], [1, 2]], "alternative_log_probs": [[0], [0]]},
            "line 2: 'alternative_ids' must hold a list of token ids or null for each of 2 steps, all of one length",
        ),
        (
            {"entropies": [0.5, 1], "alternative_ids": [[1], [1]], "alternative_log_probs": [[0, 0], [0, 0]]},
            "line 2: 'alternative_ids' and 'alternative_log_probs' differ in shape",
        ),
        ({"rng": "["} | {"prompt": "", "references": [], "metadata": {}, "prefix_length": 0}, "line 2: 'rng' is not J"),
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


def test_a_deeply_nested_line_is_named(tmp_path):
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"prompt_ids": ' + "[" * 100_000 + "\n")
    with pytest.raises(ValueError, match="line 1 is damaged or cut off: lists or objects are nested too deeply"):
        read_episodes(path)


def test_a_file_of_two_vocabularies_is_refused(policy, tmp_path):
    path = written(tmp_path / "episodes.jsonl", sampled(policy, 2))
    other = make_env(tokenizer=CharTokenizer("gfedcba"))
    EpisodeRecorder(path, append=True).write(collect(other, policy, 2, seed=0))
    with pytest.raises(ValueError, match=r"line 3 is of another vocabulary \(\w{16}\) than .*line 1"):
        read_episodes(path)


def test_an_agent_refuses_episodes_of_another_vocabulary(policy, tmp_path):
    env = gym.make_vec("TextGen-v0", num_envs=2, tokenizer="byte", prompts=["a"], max_new_tokens=4)
    path = written(tmp_path / "bytes.jsonl", collect(env, RandomPolicy(257), 2, seed=0))
    with pytest.raises(ValueError, match="recorded with another vocabulary"):
        BehaviourCloning("tiny", path)


def test_what_an_episode_started_from_is_read_exactly_or_not_at_all(policy, tmp_path):
    known = Sample("a", ("b", "\u00e9"), {"answer": 42, "parts": [1.5, None, "x"]})
    unknown = [Sample("cab", (), {"pair": (1, 2)}), Sample("dag", (), {"object": object()}), Sample("b", ("\ud83d",))]
    for suffix in SUFFIXES:
        episodes = collect(make_env(4, prompts=[known, *unknown]), policy, 24, seed=0)
        starts = read_episodes(written(tmp_path / f"starts{suffix}", episodes)).starts
        assert {start.sample.prompt for start in starts if start} == {"a"}
        for start, before in zip(starts, episodes.starts, strict=True):
            assert start is None or start == before
            assert (start is None) is (before.sample is not known)


def test_the_state_of_the_users_generator_is_kept(policy, tmp_path):
    env = make_env(2, user=lambda messages: "a", max_turns=2, max_reply_tokens=4, reply_format="{reply}")
    episodes = collect(env, policy, 4, seed=0)
    assert episodes.starts[0].rng_state["bit_generator"] == "PCG64"
    for suffix in SUFFIXES:
        assert read_episodes(written(tmp_path / f"users{suffix}", episodes)).starts == episodes.starts


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from([2**63, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def whole_file(policy, tmp_path_factory):
    episodes = sampled(policy, 3, num_alternatives=2, constraints=[BanTokens(["c"])])
    return written(tmp_path_factory.mktemp("whole") / "episodes.jsonl", episodes)


def read_or_refuse(path):
    """Read a file; nothing but a ValueError that names it is allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_episodes(path)
        except ValueError as error:
            message = str(error)
        else:
            return
    assert path.name in message


@given(data=st.data())
def test_no_value_in_a_row_raises_anything_but_a_value_error(whole_file, data):
    rows = [json.loads(line) for line in whole_file.read_text().splitlines()]
    name = data.draw(st.sampled_from(sorted(rows[1])))
    value = data.draw(JUNK)
    if isinstance(rows[1][name], list) and rows[1][name] and data.draw(st.booleans()):
        rows[1][name][data.draw(st.integers(0, len(rows[1][name]) - 1))] = value
    else:
        rows[1][name] = value
    path = whole_file.with_name("junk.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read_or_refuse(path)


@given(position=st.floats(0, 1), flips=st.binary(min_size=1, max_size=4))
def test_no_flipped_bytes_raise_anything_but_a_value_error(whole_file, position, flips):
    content = bytearray(whole_file.read_bytes())
    start = int(position * (len(content) - len(flips)))
    content[start : start + len(flips)] = bytes(a ^ b for a, b in zip(content[start:], flips, strict=False))
    path = whole_file.with_name("flipped.jsonl")
    path.write_bytes(content)
    read_or_refuse(path)


@settings(max_examples=25)
@given(position=st.floats(0, 1), flip=st.integers(1, 255))
def test_a_flipped_byte_of_a_parquet_file_raises_nothing_but_a_value_error(whole_file, position, flip):
    path = whole_file.with_name("flipped.parquet")
    good = whole_file.with_name("good.parquet")
    if not good.exists():
        written(good, read_episodes(whole_file))
    content = bytearray(good.read_bytes())
    content[int(position * (len(content) - 1))] ^= flip
    path.write_bytes(content)
    read_or_refuse(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pandas_reads_the_file(policy, tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    episodes = sampled(policy, 4, num_alternatives=2)
    path = written(tmp_path / f"episodes{suffix}", episodes)
    frame = pandas.read_json(path, lines=True) if suffix == ".jsonl" else pandas.read_parquet(path)
    assert set(frame["schema"]) == {"textgym.episode/1"}
    assert np.float32(frame["entropies"][1]).tolist() == episodes.stats.entropies[1, : len(frame["ranks"][1])].tolist()
    assert "".join(frame["tokens"][0]).removesuffix("<eos>") == frame["completion"][0]


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs the program jq")
def test_jq_reads_the_file(policy, tmp_path):
    episodes = sampled(policy, 4, num_alternatives=2)
    path = written(tmp_path / "episodes.jsonl", episodes)
    query = "[.tokens, .alternative_ids[0][0], .ranks[0]]"
    lines = subprocess.run(["jq", "-c", query, path], check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == 4
    tokens, best, rank = json.loads(lines[0])
    assert len(tokens) == int(episodes.num_steps[0])
    assert (best, rank) == (int(episodes.stats.alternative_ids[0, 0, 0]), int(episodes.stats.ranks[0, 0]))
