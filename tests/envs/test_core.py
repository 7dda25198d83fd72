"""Episodes by hand: starts, steps, ends, rewards, groups, invalid actions and errors."""

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from textgym import InvalidActionError, PromptsExhaustedError, ScorerError, TextGenEnv, TextGenVectorEnv
from textgym.actions import Subset
from textgym.constraints import AllowTokens, BanTokens
from textgym.testing.traces import check_same
from textgym.tokenizers import ByteTokenizer, CharTokenizer

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id


def make(**kwargs):
    return TextGenEnv(**{"tokenizer": "char", "prompts": ["Hi "], "max_new_tokens": 8, "scorer": length} | kwargs)


def make_vector(num_envs=2, **kwargs):
    keywords = {"tokenizer": "char", "prompts": ["Hi "], "max_new_tokens": 8, "scorer": length}
    return TextGenVectorEnv(num_envs, **keywords | kwargs)


def length(completion):
    return float(len(completion))


def write(env, text):
    """Step through the characters of ``text``; ``$`` is EOS. Return what the last step gave."""
    for character in text:
        outcome = env.step(EOS if character == "$" else CHAR.encode(character)[0])
    return outcome


def started(seed=0, **kwargs):
    env = make(**kwargs)
    env.reset(seed=seed)
    return env


def unchanged(env, error, message, call):
    """The call raises, and the whole state is as it was."""
    before = env.get_state()
    with pytest.raises(error, match=message):
        call()
    check_same(before, env.get_state(), "state")


# Observations, rewards and ends ---------------------------------------------------------------------------------------


def test_the_window_holds_prompt_and_completion_padded_with_v():
    env = started(max_prompt_tokens=4)
    observation, *_ = write(env, "ab")
    assert observation.tolist() == [*CHAR.encode("Hi ab"), *[97] * 7]
    assert env.pad_token_id == CHAR.vocab_size == 97


def test_eos_ends_the_episode_with_the_score_as_reward():
    env = started()
    assert write(env, "abc")[1:4] == (0.0, False, False)
    _, reward, terminated, truncated, info = write(env, "$")
    assert (reward, terminated, truncated) == (3.0, True, False)
    assert info == {
        "prompt": "Hi ",
        "completion": "abc",
        "completion_ids": [*CHAR.encode("abc"), EOS],
        "score": 3.0,
        "scores": {"length": 3.0},
        "length": 4,
        "end_reason": "eos",
    }


def test_eos_at_once_leaves_an_empty_completion():
    _, reward, terminated, _, info = write(started(), "$")
    assert (reward, terminated, info["completion"], info["length"]) == (0.0, True, "", 1)


def test_the_budget_truncates_for_agents_that_bootstrap():
    env = started(max_new_tokens=3, time_limit="truncated")
    _, reward, terminated, truncated, info = write(env, "abc")
    assert (reward, terminated, truncated, info["end_reason"]) == (3.0, False, True, "max_new_tokens")


def test_the_budget_terminates():
    _, _, terminated, truncated, info = write(started(max_new_tokens=3), "abc")
    assert (terminated, truncated, info["end_reason"]) == (True, False, "max_new_tokens")


@pytest.mark.parametrize(("last", "reason"), [("$", "eos"), ("!", "stop_string")])
def test_an_end_in_the_last_step_of_the_budget_is_a_termination(last, reason):
    _, _, terminated, truncated, info = write(started(max_new_tokens=3, stop="!"), "ab" + last)
    assert (terminated, truncated, info["end_reason"]) == (True, False, reason)


def test_a_stop_string_may_span_tokens_and_stays_in_the_completion():
    env = started(stop=["xyz", "end"])
    assert not write(env, "a en")[2]
    _, _, terminated, _, info = write(env, "d")
    assert (terminated, info["end_reason"], info["completion"]) == (True, "stop_string", "a end")


@pytest.mark.parametrize(("prompts", "text"), [(["the end"], "a"), (["the en"], "d")])
def test_a_stop_string_in_the_prompt_or_across_its_end_does_not_count(prompts, text):
    assert not write(started(prompts=prompts, stop="end"), text)[2]


def test_a_stop_string_may_be_cut_across_the_bytes_of_a_character():
    env = started(tokenizer="byte", stop="é")
    first, second = "é".encode()
    assert not env.step(first)[2]
    assert env.step(second)[4]["end_reason"] == "stop_string"


def test_a_long_stop_string_is_found_at_its_last_token():
    stop = "a stop string of some length"
    env = started(stop=stop, max_new_tokens=100)
    assert not write(env, "0123456789" * 5 + stop[:-1])[2]
    assert write(env, stop[-1])[2]


def two_words(completion):
    return completion.count(" ") == 1


def four_tokens(batch):
    return batch.num_new_tokens >= 4


class Prompted:
    reason = "as long as the prompt"

    def __call__(self, batch):
        return batch.num_new_tokens == batch.prompt_lengths


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        (two_words, "ab ", "two_words"),
        ([four_tokens], "abcd", "four_tokens"),
        (["d", four_tokens], "abcd", "stop_string"),
        ([two_words, Prompted()], "abc", "as long as the prompt"),
    ],
)
def test_functions_end_episodes_and_give_their_name_as_the_reason(stop, text, reason):
    env = started(stop=stop)
    assert not write(env, text[:-1])[2]
    _, _, terminated, truncated, info = write(env, text[-1])
    assert (terminated, truncated, info["end_reason"]) == (True, False, reason)


def test_a_stop_function_of_the_wrong_shape_leaves_the_state():
    env = started(stop=wrong_shape)
    unchanged(env, ValueError, "'wrong_shape' returned shape", lambda: env.step(3))


def wrong_shape(batch):
    return np.ones((len(batch), 2), dtype=bool)


@pytest.mark.parametrize(
    ("stop", "error", "message"),
    [("", ValueError, "non-empty"), ([3], TypeError, "strings and callables"), (lambda a, b: 0, TypeError, "one arg")],
)
def test_an_impossible_stop_is_refused(stop, error, message):
    with pytest.raises(error, match=message):
        make(stop=[stop] if stop == "" else stop)


def test_the_potential_rewards_each_token_and_sums_to_the_score():
    env = started(reward="potential")
    rewards = [write(env, character)[1] for character in "abc$"]
    # Phi is the length so far and 0 at the end, where the score is added: 3 + 0 - 3.
    assert rewards == [1.0, 1.0, 1.0, 0.0]


# Starts ---------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"prompts": ["a" * 40]}, "prompt 0: .* has 40 tokens"),
        ({"prompts": [""]}, "prompt 0: .* no tokens"),
        ({"prompts": []}, "list of prompts is empty"),
        ({"scorer": "sentimant"}, "did you mean 'sentiment'"),
        ({"tokenizer": "chr"}, "did you mean 'char'"),
        ({"reward": "potentail"}, "did you mean 'potential'"),
        ({"observation": "dct"}, "did you mean 'dict'"),
        ({"actions": "vocab"}, "did you mean 'vocabulary'"),
        ({"constraints": "no_repeat_ngrams"}, "did you mean 'no_repeat_ngram'"),
        ({"prompts": "opening"}, "did you mean 'openings'"),
        ({"on_invalid_action": "ignored"}, "did you mean 'ignore'"),
        ({"on_scorer_error": "invalidate"}, "did you mean 'invalid'"),
        ({"time_limit": "terminate"}, "did you mean 'terminated'"),
        ({"step_info": ["action_masks"]}, "did you mean 'action_mask'"),
        ({"render_mode": "ascii"}, "unknown render_mode 'ascii'; did you mean 'ansi'"),
        ({"max_new_tokens": 0}, "at least 1, got 0"),
        ({"max_new_tokens": 1.5}, "integer of at least 1"),
        ({"group_size": 0}, "at least 1, got 0"),
        ({"kl_penalty": -1.0}, "kl_penalty must be"),
        ({"kl_penalty": float("nan")}, "kl_penalty must be"),
        ({"invalid_action_penalty": float("inf")}, "invalid_action_penalty must be"),
        ({"on_scorer_error": float("nan")}, "on_scorer_error must be"),
        ({"on_scorer_error": None}, "on_scorer_error must be"),
        ({"kl_penalty": 0.1}, "needs a language model"),
        ({"actions": Subset(["ab"])}, "not a single token"),
    ],
)
def test_an_impossible_environment_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        make(**keywords)


@pytest.mark.parametrize("keywords", [{"step_info": "action_mask"}, {"scorer": 3}, {"constraints": 3}, {"actions": 3}])
def test_an_object_of_the_wrong_kind_is_refused(keywords):
    with pytest.raises(TypeError):
        make(**keywords)


class LogitsOf100:
    class config:  # noqa: N801  as Hugging Face models have it
        @staticmethod
        def get_text_config():
            return LogitsOf100

    vocab_size = 100


def test_a_vocabulary_that_does_not_fit_the_model_is_refused():
    with pytest.raises(
        ValueError, match="vocabulary of 100 ids is too small for the tokenizer, whose highest id is 256"
    ):
        make(tokenizer=ByteTokenizer(), model=LogitsOf100())


def test_the_action_space_is_as_wide_as_the_models_logits_and_masks_what_is_no_token():
    env = started(model=LogitsOf100())
    assert env.action_space.n == 100
    assert np.flatnonzero(~env.action_masks()).tolist() == [97, 98, 99]
    unchanged(env, InvalidActionError, "<unused 98>", lambda: env.step(98))


# Groups ---------------------------------------------------------------------------------------------------------------


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


# Invalid and impossible actions ---------------------------------------------------------------------------------------

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


# Scorers that fail ----------------------------------------------------------------------------------------------------


class Fragile:
    """Scores the length, or fails in the way ``fault`` names."""

    def __init__(self):
        self.fault = None

    def __call__(self, batch):
        scores = np.array([len(text) for text in batch.completions], dtype=np.float64)
        if self.fault == "raise":
            raise RuntimeError("the model is away")
        if self.fault == "nan":
            scores[-1] = np.nan
        return scores[1:] if self.fault == "fewer" else scores


FAULTS = [("raise", "RuntimeError: the model is away"), ("nan", "no score"), ("fewer", "scores for")]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
@pytest.mark.parametrize("reward", ["terminal", "potential"])
def test_a_step_whose_scorer_fails_is_undone_and_can_be_repeated(fault, message, reward):
    scorer = Fragile()
    envs = make_vector(3, scorer=scorer, reward=reward, autoreset_mode="Disabled")
    reference = make_vector(3, scorer=length, reward=reward, autoreset_mode="Disabled")
    for each in (envs, reference):
        each.reset(seed=0)
        each.step([3, 4, 5])
    scorer.fault = fault
    actions = [6, EOS, EOS]
    unchanged(envs, ScorerError, message, lambda: envs.step(actions))
    scorer.fault = None
    for expected, got in zip(reference.step(actions)[:4], envs.step(actions)[:4], strict=True):
        np.testing.assert_array_equal(expected, got)


def test_a_reset_whose_scorer_fails_leaves_every_episode():
    scorer = Fragile()
    envs = make_vector(2, scorer=scorer, reward="potential")
    envs.reset(seed=0)
    envs.step([3, 4])
    scorer.fault = "raise"
    unchanged(envs, ScorerError, "the model is away", envs.reset)


def test_a_failed_score_may_be_invalid():
    scorer = Fragile()
    env = started(scorer=scorer, on_scorer_error="invalid")
    scorer.fault = "raise"
    _, reward, terminated, _, info = write(env, "ab$")
    assert (reward, terminated) == (0.0, True)
    assert np.isnan(info["score"])
    assert "the model is away" in info["scorer_error"]


def test_a_failed_score_may_be_replaced():
    scorer = Fragile()
    env = started(scorer=scorer, on_scorer_error=-2)
    scorer.fault = "nan"
    _, reward, _, _, info = write(env, "ab$")
    assert (reward, info["score"]) == (-2.0, -2.0)
    assert "no score" in info["scorer_error"]


def test_a_failure_concerns_its_slots_alone():
    scorer = Fragile()
    envs = make_vector(3, scorer=scorer, reward="potential", on_scorer_error="invalid")
    envs.reset(seed=0)
    scorer.fault = "nan"
    _, rewards, _, _, info = envs.step([3, 4, 5])
    assert info["_scorer_error"].tolist() == [False, False, True]
    assert rewards.tolist() == [1.0, 1.0, 0.0]


def test_a_failure_over_the_prompt_alone_is_in_the_info_of_the_reset():
    scorer = Fragile()
    scorer.fault = "raise"
    keywords = {"scorer": scorer, "reward": "potential", "on_scorer_error": "invalid"}
    assert "the model is away" in make(**keywords).reset()[1]["scorer_error"]
    _, info = make_vector(2, **keywords).reset()
    assert info["_scorer_error"].tolist() == [True, True]


def test_one_object_of_actions_serves_environments_of_different_tokenizers():
    letters = Subset(["b", "a"])
    first, second = started(actions=letters), started(actions=letters, tokenizer=CharTokenizer("abcdefgh Hio"))
    for env in (first, second):
        env.step(0)
        assert env.step(2)[4]["completion"] == "b"


# The KL term ----------------------------------------------------------------------------------------------------------


class Reference:
    """Half of the probability for the token that equals the text's length, a quarter for any other."""

    def log_probs(self, ids, lengths, actions, *, token_masks=None, active=None):
        return np.log(np.where(actions == lengths, 0.5, 0.25))


def test_the_kl_term_subtracts_the_log_ratio_of_policy_and_reference():
    env = started(kl_penalty=0.1, reference=Reference())
    env.set_log_probs(np.log(0.5))
    _, reward, *_ = env.step(7)  # after 3 tokens: a quarter
    assert reward == pytest.approx(-0.1 * np.log(2.0))
    env.set_log_probs(np.log(0.25))
    _, reward, *_ = env.step(4)  # after 4 tokens: a half
    assert reward == pytest.approx(0.1 * np.log(2.0))
    env.set_log_probs(np.log(0.75))
    _, reward, _, _, info = env.step(EOS)
    assert reward == pytest.approx(2.0 - 0.1 * np.log(3.0))
    assert info["kl"] == pytest.approx(np.log(2.0) - np.log(2.0) + np.log(3.0))
    assert info["score"] == 2.0


def test_without_log_probs_the_kl_term_is_a_cross_entropy():
    env = started(kl_penalty=0.1, reference=Reference())
    assert env.step(7)[1] == pytest.approx(-0.1 * np.log(4.0))
    _, _, _, _, info = env.step(EOS)
    assert info["kl"] == pytest.approx(2 * np.log(4.0))


def test_log_probs_hold_for_one_step():
    env = started(kl_penalty=0.1, reference=Reference())
    env.set_log_probs(np.log(0.5))
    env.step(7)
    assert env.step(7)[1] == pytest.approx(-0.1 * np.log(4.0))
    env.set_log_probs(np.log(0.5))
    env.reset()
    assert env.step(7)[1] == pytest.approx(-0.1 * np.log(4.0))


def test_the_kl_term_is_slot_by_slot_also_while_one_slot_restarts():
    envs = make_vector(2, kl_penalty=1.0, reference=Reference())
    envs.reset(seed=0)
    envs.set_log_probs(np.log([0.5, 0.25]))
    np.testing.assert_allclose(envs.step([EOS, 3])[1], [-np.log(2.0), np.log(2.0)])
    envs.set_log_probs(np.log([0.5, 0.125]))
    np.testing.assert_allclose(envs.step([3, 9])[1], [0.0, np.log(2.0)])  # slot 0 restarts
    np.testing.assert_allclose(envs.core.kl, [0.0, -2 * np.log(2.0)])


def test_an_ignored_action_costs_no_kl():
    env = started(kl_penalty=0.1, reference=Reference(), on_invalid_action="ignore", **ONLY_AB)
    assert write(env, "c")[1] == -1.0


class Wrong:
    """A reference that is wrong about the token 5."""

    value = np.nan

    def log_probs(self, ids, lengths, actions, **kwargs):
        return np.where(actions == 5, self.value, -1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_a_reference_that_is_no_number_is_an_error_and_the_step_is_undone(value, estimator):
    reference = Wrong()
    reference.value = value
    env = started(kl_penalty=0.1, kl_penalty_estimator=estimator, reference=reference)
    env.set_log_probs(-1.0)
    unchanged(env, ValueError, f"the KL reference gave the log-probability {value} for token 5", lambda: env.step(5))
    assert env.step(6)[1] == 0.0


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 5.0])
def test_a_log_probability_that_no_drawn_token_can_have_is_an_error_and_the_step_is_undone(wrong):
    env = started(kl_penalty=0.1, reference=Reference())
    env.set_log_probs(wrong)
    unchanged(env, ValueError, f"set_log_probs gave the log-probability {wrong} for token 5", lambda: env.step(5))


def test_log_probs_of_the_wrong_shape_are_refused():
    envs = make_vector(2)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(1,\)"):
        envs.set_log_probs([0.0])


# Copies and randomness ------------------------------------------------------------------------------------------------


def test_one_slot_and_sixty_four_give_the_same_episodes():
    keywords = {"prompts": ["a", "bcd", "ef "], "stop": "ab"}
    many = make_vector(64, autoreset_mode="SameStep", actions=Subset([*"abc"]), **keywords)
    ones = [make(actions=Subset([*"abc"]), **keywords) for _ in range(64)]
    observations, _ = many.reset(seed=5)
    for slot, one in enumerate(ones):
        np.testing.assert_array_equal(one.reset(seed=5 + slot)[0], observations[slot])
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = rng.integers(4, size=64)
        observations, rewards, terminated, truncated, _ = many.step(actions)
        for slot, one in enumerate(ones):
            observation, *outcome, _ = one.step(actions[slot])
            if outcome[1] or outcome[2]:
                observation, _ = one.reset()
            assert outcome == [rewards[slot], terminated[slot], truncated[slot]]
            np.testing.assert_array_equal(observation, observations[slot])


def test_no_global_generator_is_read_or_set():
    before = np.random.get_state()  # noqa: NPY002
    envs = make_vector(4, prompts=["a", "b"], reward="potential")
    envs.reset(seed=3)
    for _ in range(20):
        envs.step([1, 2, 3, EOS])
    check_same(before, np.random.get_state(), "global state")  # noqa: NPY002


def test_a_clone_is_independent_its_action_space_included():
    env = started(prompts=["a", "b", "c", "d"])
    env.action_space.seed(0)
    write(env, "xy")
    other = env.clone()
    expected = other.action_space.sample()
    write(other, "z$")
    other.reset()
    assert env.action_space.sample() == expected
    assert write(env, "$")[4]["completion"] == "xy"


def test_a_clone_has_the_log_probabilities_set_in_the_original():
    envs = make_vector(2, kl_penalty=0.1, reference=Reference())
    envs.reset(seed=0)
    envs.set_log_probs([-1.0, -2.0])
    other = envs.clone()
    assert envs.step([5, 6])[1].tolist() == other.step([5, 6])[1].tolist()
    assert envs.step([5, 6])[1].tolist() == other.step([5, 6])[1].tolist()


def test_a_snapshot_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 40\), this environment has \(2, 40\)"):
        make_vector(2).set_state(make().get_state())


def test_an_episode_can_be_branched_from_a_snapshot_many_times():
    env = started(max_new_tokens=3)
    write(env, "a")
    state = env.get_state()
    completions = []
    for text in ("bc", "de", "$"):
        env.set_state(state)
        completions.append(write(env, text)[4]["completion"])
    assert completions == ["abc", "ade", "a"]


def test_a_tokenizer_of_ones_own_starts_from_the_built_in_openings_that_fit():
    env = TextGenEnv(tokenizer="char")
    lengths = {env.reset(seed=seed)[0].tolist().index(env.pad_token_id) for seed in range(20)}
    assert max(lengths) <= 32
    assert len(lengths) > 3


def test_the_built_in_openings_are_refused_where_none_fits():
    with pytest.raises(ValueError, match="max_prompt_tokens is 4"):
        TextGenEnv(tokenizer="char", max_prompt_tokens=4)


def test_a_stop_that_is_neither_text_nor_function_is_refused():
    with pytest.raises(TypeError, match="stop takes strings and callables, got 3"):
        TextGenEnv(tokenizer="char", stop=3)


def test_a_misspelt_tokenizer_or_model_is_refused_without_asking_a_hub(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for keyword, name, meant in (("tokenizer", "chars", "char"), ("model", "tinny", "tiny")):
        with pytest.raises(ValueError, match=f"did you mean '{meant}'") as error:
            TextGenEnv(**{keyword: name})
        assert "transformers says" not in str(error.value)


def test_a_reference_that_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"reference must be a model's name, a loaded model .* got 3"):
        TextGenEnv(tokenizer="char", kl_penalty=0.1, reference=3)
