"""Masked actions under each policy, and actions outside of the action space."""

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from letter_env import CHAR, make, make_vector, started, unchanged, write

from textgym import InvalidActionError
from textgym.actions import Subset
from textgym.constraints import AllowTokens, BanTokens
from textgym.tokenizers import CharTokenizer

ONLY_AB = {"constraints": AllowTokens(["a", "b"])}


def test_an_invalid_action_raises_and_leaves_the_state():
    env = started(**ONLY_AB)
    write(env, "ab")
    unchanged(env, InvalidActionError, r"\(token 68, 'c'\)", lambda: write(env, "c"))
    assert write(env, "a$")[4]["completion"] == "aba"


def test_an_invalid_action_may_terminate():
    env = started(on_invalid_action="terminate", invalid_action_penalty=0.5, **ONLY_AB)
    write(env, "ab")
    _, reward, terminated, truncated, info = write(env, "c")
    assert (reward, terminated, truncated) == (2.0 - 0.5, True, False)
    assert (info["end_reason"], info["completion"], info["invalid_action"]) == ("invalid_action", "ab", True)


def test_an_invalid_action_may_be_ignored_and_spends_the_budget():
    env = started(
        on_invalid_action="ignore", invalid_action_penalty=0.5, max_new_tokens=3, time_limit="truncated", **ONLY_AB
    )
    before = env.core.ids.copy()
    observation, reward, terminated, truncated, info = write(env, "c")
    assert (reward, terminated, truncated, info) == (-0.5, False, False, {"invalid_action": True})
    assert (observation == before[0]).all()
    write(env, "a")
    _, reward, _, truncated, info = write(env, "d")
    assert (reward, truncated, info["completion"], info["length"]) == (1.0 - 0.5, True, "a", 1)


def test_an_invalid_eos_that_is_ignored_ends_nothing():
    env = started(on_invalid_action="ignore", constraints=BanTokens(["<eos>"]))
    assert not write(env, "$")[2]


def test_invalid_actions_concern_their_slot_alone():
    envs = make_vector(3, on_invalid_action="ignore", **ONLY_AB)
    envs.reset(seed=0)
    a, c = CHAR.encode("ac")
    _, rewards, _, _, info = envs.step([a, c, a])
    assert rewards.tolist() == [0.0, -1.0, 0.0]
    assert info["_invalid_action"].tolist() == [False, True, False]
    assert envs.core.lengths.tolist() == [4, 3, 4]


def test_where_the_constraints_leave_nothing_eos_is_valid():
    env = started(constraints=AllowTokens(["a"], allow_eos=False), actions=Subset(["b", "c"]))
    assert env.action_masks().tolist() == [False, False, True]


def test_constraints_that_leave_nothing_raise_without_eos():
    env = started(constraints=AllowTokens(["a"], allow_eos=False), actions=Subset(["b", "c"], eos=False))
    with pytest.raises(InvalidActionError, match="no valid action"):
        env.action_masks()


def test_masks_cannot_be_written_to():
    env = started(**ONLY_AB)
    with pytest.raises(ValueError, match="read-only"):
        env.action_masks()[0] = True


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 97], r"actions \[97\] are outside Discrete\(97\)"),
        ([-1, 0], r"actions \[-1\] are outside"),
        ([0], r"shape \(2,\), got dtype int64 and shape \(1,\)"),
        ([[0, 0]], r"shape \(1, 2\)"),
        (0, r"shape \(\)"),
        ([0.0, 1.0], "got dtype float64"),
        ([True, False], "got dtype bool"),
        ([None, 0], "got dtype object"),
        (["a", "b"], "got dtype <U1"),
    ],
)
def test_an_impossible_action_is_refused_and_leaves_the_state(actions, message):
    envs = make_vector(2)
    envs.reset(seed=0)
    envs.step([1, 2])
    unchanged(envs, ValueError, message, lambda: envs.step(actions))


@pytest.mark.parametrize("action", [3, np.int32(3), np.uint8(3), np.array(3)])
def test_integers_of_any_width_are_actions(action):
    assert started().step(action)[0][3] == 3


def test_a_step_needs_a_running_episode():
    env = make()
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(0)
    env.reset(seed=0)
    write(env, "$")
    unchanged(env, ResetNeeded, "reset", lambda: env.step(0))
    env.reset()
    env.step(0)


def test_one_object_of_actions_serves_environments_of_different_tokenizers():
    letters = Subset(["b", "a"])
    first, second = started(actions=letters), started(actions=letters, tokenizer=CharTokenizer("abcdefgh Hio"))
    for env in (first, second):
        env.step(0)
        assert env.step(2)[4]["completion"] == "b"
