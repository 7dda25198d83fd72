"""Resets: options, and groups of episodes that share a prompt."""

import numpy as np
import pytest
from letter_env import CHAR, EOS, make, make_vector, unchanged, write

from textgym import PromptsExhaustedError


@pytest.mark.parametrize(
    ("options", "text", "steps"),
    [
        ({"prompt": "ab"}, "ab", 0),
        ({"prompt_ids": [5, 6, 7]}, "$%&", 0),
        ({"prompt_ids": np.array([5, 6, 7])}, "$%&", 0),
        ({"index": 1}, "Ho ", 0),
        ({"index": np.int64(1)}, "Ho ", 0),
        ({"prompt": "ab", "prefix": "cd"}, "abcd", 2),
        ({"index": 0, "prefix_ids": [1]}, "Hi  ", 1),
        ({"prompt": ["ab"]}, "ab", 0),
        ({"prompt_ids": [[5, 6]], "prefix": [""]}, "$%", 0),
    ],
)
def test_reset_options_give_prompt_and_prefix(options, text, steps):
    env = make(prompts=["Hi ", "Ho "])
    observation, _ = env.reset(seed=0, options=options)
    assert observation.tolist() == [*CHAR.encode(text), *[97] * (env.window - len(text))]
    assert env.core.steps[0] == steps


@pytest.mark.parametrize("options", [None, {}])
def test_without_options_the_prompt_is_drawn_by_the_seed(options):
    env = make(prompts=["Hi ", "Ho "])
    drawn = [CHAR.decode(env.reset(seed=seed, options=options)[0][:3]) for seed in range(20)]
    assert set(drawn) == {"Hi ", "Ho "}
    assert drawn == [CHAR.decode(env.reset(seed=seed, options=options)[0][:3]) for seed in range(20)]


def test_a_prefix_belongs_to_the_completion_and_to_the_budget():
    env = make(max_new_tokens=4)
    env.reset(options={"prefix": "ab"})
    assert not write(env, "c")[2]
    _, reward, terminated, _, info = write(env, "d")
    assert (terminated, reward, info["completion"], info["length"]) == (True, 4.0, "abcd", 4)


def test_reset_options_may_differ_between_slots():
    envs = make_vector(3, autoreset_mode="Disabled")
    envs.reset(seed=0, options={"prompt": ["a", "bc", "d"], "prefix_ids": [[1], [], [2, 3]]})
    assert envs.core.prompt_lengths.tolist() == [1, 2, 1]
    assert envs.core.lengths.tolist() == [2, 2, 3]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"promt": "a"}, ValueError, "unknown reset option 'promt'; did you mean 'prompt'"),
        ({"prompt": "a", "index": 0}, ValueError, "only one of"),
        ({"prefix": "a", "prefix_ids": [0]}, ValueError, "only one of"),
        ({"prompt": ["a", "b", "c"]}, ValueError, "'prompt' has 3 values for 2 episodes"),
        ({"prompt_ids": [[1]]}, ValueError, "'prompt_ids' has 1 values for 2 episodes"),
        ({"prompt": None}, TypeError, "'prompt' must be a text, got NoneType"),
        ({"prompt": [1, 2]}, TypeError, "'prompt' must be a text, got int"),
        ({"prompt_ids": "abc"}, TypeError, "'prompt_ids' must be a sequence of token ids, got str"),
        ({"prompt_ids": 3}, TypeError, "'prompt_ids' must be a sequence of token ids, got int"),
        ({"prompt_ids": [0.5]}, TypeError, "integers"),
        ({"prompt_ids": [97]}, ValueError, "97 is not a token"),
        ({"prompt_ids": [-1]}, ValueError, "-1 is not a token"),
        ({"prompt_ids": []}, ValueError, "no tokens"),
        ({"prompt": ""}, ValueError, "no tokens"),
        ({"prompt": "a" * 33}, ValueError, "has 33 tokens, max_prompt_tokens is 32"),
        ({"prompt": "é"}, ValueError, "not in the alphabet"),
        ({"index": 1}, ValueError, "prompt index 1 is outside 0 .. 0"),
        ({"index": -1}, ValueError, "prompt index -1"),
        ({"index": 0.0}, TypeError, "'index' must be the index of a sample"),
        ({"prefix": "12345678"}, ValueError, "prefix of 8 tokens leaves no room"),
        ({"prefix_ids": [97]}, ValueError, "prefix id 97 is not a token"),
        ({"prefix_ids": [0.5]}, TypeError, "integers"),
        ({"prefix_ids": [1, 96]}, ValueError, "96 is EOS"),
    ],
)
def test_impossible_reset_options_raise_and_leave_the_state(options, error, message):
    envs = make_vector(2)
    envs.reset(seed=0)
    envs.step([3, 4])
    unchanged(envs, error, message, lambda: envs.reset(options=options))


def test_an_index_needs_prompts_that_can_be_indexed():
    env = make(prompts=lambda rng: "a")
    with pytest.raises(TypeError, match="cannot"):
        env.reset(options={"index": 0})


def test_prompts_that_run_out_leave_the_running_episodes():
    envs = make_vector(2, prompts=iter(["a", "b", "c"]), autoreset_mode="Disabled")
    envs.reset()
    envs.step([3, 4])
    unchanged(envs, PromptsExhaustedError, "ended after 3", lambda: envs.reset())


def test_each_drawn_prompt_is_assigned_to_the_next_episodes_whichever_slots_come_free():
    envs = make_vector(
        3, prompts=lambda rng: f"{rng.integers(10**6)} ", group_size=2, autoreset_mode="SameStep", max_new_tokens=20
    )
    envs.reset(seed=0)
    assert envs.core.groups.tolist() == [1, 1, 2]
    x = CHAR.encode("x")[0]
    seen = {}
    for actions in ([EOS, x, x], [EOS, x, EOS], [x, EOS, x], [EOS, EOS, EOS]):
        *_, info = envs.step(actions)
        final = info["final_info"]
        for slot in np.flatnonzero(final["_group"]):
            seen.setdefault(int(final["group"][slot]), []).append(final["prompt"][slot])
        assert final["_group"].tolist() == [action == EOS for action in actions]
    # By start: 1 1 2 | 2 | 3 _ 3 | _ 4 | 4 5 5; those that have ended by now:
    assert {group: len(prompts) for group, prompts in seen.items()} == {1: 2, 2: 2, 3: 2, 4: 1}
    assert all(len(set(prompts)) == 1 for prompts in seen.values())
    assert len({prompts[0] for prompts in seen.values()}) == 4
    assert envs.core.groups.tolist() == [4, 5, 5]


def test_a_prefix_alone_follows_the_prompt_of_the_group():
    envs = make_vector(4, prompts=[*"ABCDEFGH"], group_size=2, autoreset_mode="SameStep")
    observations, _ = envs.reset(seed=0, options={"prefix": ["x", "y", "x", "z"]})
    texts = [CHAR.decode(row[row != 97].tolist()) for row in observations]
    assert [text[1:] for text in texts] == ["x", "y", "x", "z"]
    assert texts[0][0] == texts[1][0]
    assert texts[2][0] == texts[3][0]
    assert envs.core.groups.tolist() == [1, 1, 2, 2]
    plain = make_vector(4, prompts=[*"ABCDEFGH"], group_size=2)
    plain.reset(seed=0)
    assert [text[0] for text in texts] == [sample.prompt for sample in plain.core.samples]


def test_episodes_whose_prompts_options_give_are_one_group_where_the_prompt_is_the_same():
    envs = make_vector(4, prompts=[*"ABCDEFGH"], group_size=3, autoreset_mode="Disabled")
    envs.reset(seed=0, options={"prompt": ["a", "b", "a", "c"]})
    assert envs.core.groups.tolist() == [1, 2, 1, 3]
    envs.reset(options={"reset_mask": np.array([True, True, False, False])})
    envs.reset(options={"reset_mask": np.array([False, True, True, False]), "prompt": "a"})
    envs.reset(options={"reset_mask": np.array([False, False, False, True])})
    assert envs.core.groups.tolist() == [4, 5, 5, 4]  # the third episode of the group that was begun before
    envs.reset(options={"index": 2})
    assert envs.core.groups.tolist() == [6] * 4


def test_seeding_every_slot_restarts_the_groups():
    envs = make_vector(3, group_size=2)
    envs.reset(seed=0)
    envs.reset()
    assert envs.core.groups.tolist() == [3, 3, 4]
    envs.reset(seed=0)
    assert envs.core.groups.tolist() == [1, 1, 2]


def test_resetting_every_slot_begins_a_new_group_and_resetting_some_does_not():
    envs = make_vector(3, group_size=2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.reset()
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    assert envs.core.groups.tolist() == [4, 3, 4]


def test_a_reset_that_fails_loses_no_episode_of_a_group():
    prompts = iter(["a", "b", 3])
    envs = make_vector(3, prompts=prompts, group_size=2, autoreset_mode="Disabled")
    envs.reset()
    unchanged(envs, TypeError, "expected a prompt", lambda: envs.reset())
