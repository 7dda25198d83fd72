"""Keywords of an environment: defaults, and errors for those that do not fit."""

import numpy as np
import pytest
from letter_env import make, started, unchanged

from textgym import InvalidActionError, TextGenEnv
from textgym.actions import Subset
from textgym.tokenizers import ByteTokenizer


@pytest.mark.parametrize(
    ("stop", "error", "message"),
    [
        ("", ValueError, "non-empty"),
        (3, TypeError, "stop takes strings and callables, got 3"),
        ([3], TypeError, "stop takes strings and callables, got 3"),
        (lambda a, b: 0, TypeError, "one arg"),
    ],
)
def test_an_impossible_stop_is_refused(stop, error, message):
    with pytest.raises(error, match=message):
        make(stop=[stop] if stop == "" else stop)


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
        ({"kl_penalty_target": 1.0}, "kl_penalty must be above 0 with kl_penalty_target"),
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


def test_a_tokenizer_of_ones_own_starts_from_the_built_in_openings_that_fit():
    env = TextGenEnv(tokenizer="char")
    lengths = {env.reset(seed=seed)[0].tolist().index(env.pad_token_id) for seed in range(20)}
    assert max(lengths) <= 32
    assert len(lengths) > 3


def test_the_built_in_openings_are_refused_where_none_fits():
    with pytest.raises(ValueError, match="max_prompt_tokens is 4"):
        TextGenEnv(tokenizer="char", max_prompt_tokens=4)


def test_a_misspelt_tokenizer_or_model_is_refused_without_asking_a_hub(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for keyword, name, meant in (("tokenizer", "chars", "char"), ("model", "tinny", "tiny")):
        with pytest.raises(ValueError, match=f"did you mean '{meant}'") as error:
            TextGenEnv(**{keyword: name})
        assert "transformers says" not in str(error.value)


def test_a_reference_that_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"reference must be a model's name, a loaded model .* got 3"):
        TextGenEnv(tokenizer="char", kl_penalty=0.1, reference=3)
