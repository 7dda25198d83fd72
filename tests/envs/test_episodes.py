"""Observations, rewards and ends of episodes."""

import numpy as np
import pytest
from letter_env import CHAR, EOS, started, unchanged, write

from textgym import TextBatch
from textgym.endings import SentenceEnd
from textgym.tokenizers import CharTokenizer


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


@pytest.mark.parametrize(
    ("text", "ends"),
    [("Oh no! Yes.", True), ("Oh no! Yes!", True), ("Oh no! Yes,", False), ("1.5", False)],
)
def test_a_text_ends_with_the_first_sentence_that_is_long_enough(text, ends):
    # "Oh no!" has six tokens, "1." two.
    _, _, terminated, _, info = write(started(stop=SentenceEnd(7), max_new_tokens=40), text)
    assert terminated is ends
    assert not ends or (info["end_reason"], info["completion"]) == ("sentence_end", text)


@pytest.mark.parametrize("text", ["Yes.", 'He said, "Yes!"', "(“Oh?”)", "Wait…", "Oui."])
def test_closing_marks_belong_to_the_end_of_a_sentence(text):
    assert SentenceEnd()(TextBatch.from_texts([text])).tolist() == [True]


@pytest.mark.parametrize("text", ["", " ", "Yes", "Yes,", "Yes. ", 'Yes. "', "Yes. N", ".a"])
def test_any_other_end_of_a_text_is_within_a_sentence(text):
    assert SentenceEnd()(TextBatch.from_texts([text])).tolist() == [False]


class LineTokenizer(CharTokenizer):
    """Has a token of a full stop and two line ends, as that of Llama 3."""

    def __init__(self):
        super().__init__("ab#.\n")

    def decode(self, ids):
        return super().decode(ids).replace("#", ".\n\n")


def test_white_space_belongs_to_the_token_of_the_mark():
    texts = TextBatch.from_texts(["ab#", "ab#\n", "ab.\n"], tokenizer=LineTokenizer())
    assert SentenceEnd()(texts).tolist() == [True, False, False]


def test_a_sentence_in_the_prompt_does_not_end_the_text():
    assert not write(started(prompts=["It was so."], stop=SentenceEnd()), "a")[2]


@pytest.mark.parametrize("length", [0, -3])
def test_a_sentence_end_before_the_first_token_is_refused(length):
    with pytest.raises(ValueError, match="min_new_tokens must be at least 1"):
        SentenceEnd(length)


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


def test_the_potential_rewards_each_token_and_sums_to_the_score():
    env = started(reward="potential")
    rewards = [write(env, character)[1] for character in "abc$"]
    # Phi is the length so far and 0 at the end, where the score is added: 3 + 0 - 3.
    assert rewards == [1.0, 1.0, 1.0, 0.0]
