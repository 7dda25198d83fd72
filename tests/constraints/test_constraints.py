"""Constraints: masks against their definition and Hugging Face's logits processors, and rejected arguments."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MinNewTokensLengthLogitsProcessor, NoRepeatNGramLogitsProcessor

import textgym.constraints
from textgym.batch import TextBatch
from textgym.constraints import (
    AllOf,
    AllowTokens,
    BanTokens,
    Constraint,
    MinNewTokens,
    NoRepeatNGram,
    as_constraint,
    checked_mask,
)
from textgym.prompts import Sample
from textgym.tokenizers import CharTokenizer, PaddedTokenizer, WordTokenizer

LETTERS = CharTokenizer("abcd")
EOS = 4
EVERY = [AllowTokens(["a"]), BanTokens(["a"]), MinNewTokens(2), NoRepeatNGram(2), AllOf(), AllOf(BanTokens([0]))]


def batch_of(texts: list[list[int]], prompt_lengths: list[int] | None = None, spare: int = 0) -> TextBatch:
    """Build a batch from ids of prompt and completion, with ``spare`` columns of padding on the right."""
    lengths = np.array([len(ids) for ids in texts], dtype=np.int64)
    rows = np.full((len(texts), int(lengths.max(initial=0)) + spare), LETTERS.vocab_size, dtype=np.int64)
    for row, ids in zip(rows, texts, strict=True):
        row[: len(ids)] = ids
    prompts = np.array(prompt_lengths or [0] * len(texts), dtype=np.int64)
    samples = [Sample("")] * len(texts)
    return TextBatch(LETTERS, rows, lengths, prompts, samples, np.zeros(len(texts), dtype=np.bool_))


texts = st.lists(st.lists(st.integers(0, EOS), max_size=14), min_size=1, max_size=5)


# Every constraint -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constraint", EVERY, ids=lambda c: type(c).__name__)
@given(texts)
def test_a_mask_has_a_row_per_episode_and_a_column_per_token(constraint: Constraint, texts: list[list[int]]) -> None:
    mask = checked_mask(constraint, batch_of(texts))
    assert mask.shape == (len(texts), LETTERS.vocab_size)


@pytest.mark.parametrize("constraint", EVERY, ids=lambda c: type(c).__name__)
@given(texts, st.integers(0, 3))
def test_an_episode_has_the_same_mask_alone_and_in_a_batch(
    constraint: Constraint, texts: list[list[int]], spare: int
) -> None:
    mask = constraint.mask(batch_of(texts, spare=spare))
    for row, ids in zip(mask, texts, strict=True):
        np.testing.assert_array_equal(row, constraint.mask(batch_of([ids]))[0])


@pytest.mark.parametrize("constraint", EVERY, ids=lambda c: type(c).__name__)
def test_no_episodes_have_an_empty_mask(constraint: Constraint) -> None:
    assert constraint.mask(batch_of([])).shape == (0, LETTERS.vocab_size)


@pytest.mark.parametrize("constraint", EVERY, ids=lambda c: type(c).__name__)
def test_a_pickled_constraint_is_the_same(constraint: Constraint) -> None:
    batch = batch_of([[0, 1, 0], [2]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(constraint)).mask(batch), constraint.mask(batch))


# Lists ----------------------------------------------------------------------------------------------------------


def valid(constraint: Constraint, ids: list[int] | None = None) -> list[int]:
    return np.flatnonzero(constraint.mask(batch_of([ids or []]))[0]).tolist()


def test_only_listed_tokens_and_eos_are_allowed() -> None:
    assert valid(AllowTokens(["a", 2])) == [0, 2, EOS]
    assert valid(AllowTokens(["a", 2], allow_eos=False)) == [0, 2]
    assert valid(AllowTokens(["<eos>"], allow_eos=False)) == [EOS]
    assert valid(AllowTokens([])) == [EOS]


def test_listed_tokens_are_banned() -> None:
    assert valid(BanTokens(["a", 2])) == [1, 3, EOS]
    assert valid(BanTokens(["<eos>"])) == [0, 1, 2, 3]
    assert valid(BanTokens([])) == [0, 1, 2, 3, EOS]


def test_listed_tokens_are_resolved_with_the_tokenizer_of_the_batch() -> None:
    constraint = BanTokens(["b"])
    assert valid(constraint) == [0, 2, 3, EOS]
    other = TextBatch.from_texts(["b"], tokenizer=CharTokenizer("bc"))
    assert constraint.mask(other).tolist() == [[False, True, True]]


def test_a_word_is_listed_with_its_leading_space() -> None:
    tokenizer = WordTokenizer(["good", "bad"])
    batch = TextBatch.from_texts(["good"], tokenizer=tokenizer)
    assert BanTokens([" bad"]).mask(batch).tolist() == [[True, False, True, True]]


@pytest.mark.parametrize("kind", [AllowTokens, BanTokens])
def test_a_text_or_id_that_is_not_one_token_is_rejected(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"'ab' is not a single token; it is encoded as \['a', 'b'\]"):
        kind(["ab"]).mask(batch_of([[]]))
    with pytest.raises(ValueError, match="id 5 is not a token"):
        kind([5]).mask(batch_of([[]]))
    padded = TextBatch.from_texts(["a"], tokenizer=PaddedTokenizer(LETTERS, 8))
    with pytest.raises(ValueError, match="id 6 is not a token"):
        kind([6]).mask(padded)
    with pytest.raises(TypeError, match=r"write \['ab'\]"):
        kind("ab")
    with pytest.raises(TypeError, match="by its id or its text, got float"):
        kind([1.5])


# Length ---------------------------------------------------------------------------------------------------------


@given(texts, st.integers(1, 5), st.data())
def test_min_new_tokens_agrees_with_hugging_face(texts: list[list[int]], n: int, data: st.DataObject) -> None:
    prompt_lengths = [data.draw(st.integers(0, len(ids))) for ids in texts]
    mask = MinNewTokens(n).mask(batch_of(texts, prompt_lengths))
    for row, ids, prompt_length in zip(mask, texts, prompt_lengths, strict=True):
        processor = MinNewTokensLengthLogitsProcessor(prompt_length, n, [EOS])
        logits = processor(torch.tensor([ids], dtype=torch.long), torch.zeros(1, LETTERS.vocab_size))
        np.testing.assert_array_equal(row, np.isfinite(logits[0].numpy()))


def test_min_new_tokens_below_one_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        MinNewTokens(0)


# Repetition -----------------------------------------------------------------------------------------------------


@given(texts, st.integers(1, 4), st.integers(0, 3))
def test_a_token_is_invalid_exactly_if_it_would_repeat_an_n_gram(texts: list[list[int]], n: int, spare: int) -> None:
    mask = NoRepeatNGram(n).mask(batch_of(texts, spare=spare))
    for row, ids in zip(mask, texts, strict=True):
        there = {tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)}
        new = [tuple([*ids, token][-n:]) for token in range(LETTERS.vocab_size)]
        assert row.tolist() == [gram not in there for gram in new]


@given(texts, st.integers(1, 4))
def test_no_repeat_n_gram_agrees_with_hugging_face(texts: list[list[int]], n: int) -> None:
    mask = NoRepeatNGram(n).mask(batch_of(texts))
    for row, ids in zip(mask, texts, strict=True):
        logits = torch.zeros(1, LETTERS.vocab_size)
        logits = NoRepeatNGramLogitsProcessor(n)(torch.tensor([ids], dtype=torch.long), logits)
        np.testing.assert_array_equal(row, np.isfinite(logits[0].numpy()))


def test_an_n_gram_without_tokens_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        NoRepeatNGram(0)


# Combination ----------------------------------------------------------------------------------------------------


@given(texts)
def test_all_of_allows_what_all_constraints_allow(texts: list[list[int]]) -> None:
    parts: list[Constraint] = [NoRepeatNGram(2), MinNewTokens(3), BanTokens(["b"])]
    batch = batch_of(texts)
    expected = parts[0].mask(batch) & parts[1].mask(batch) & parts[2].mask(batch)
    np.testing.assert_array_equal(AllOf(*parts).mask(batch), expected)
    np.testing.assert_array_equal(as_constraint(parts).mask(batch), expected)


def test_all_of_no_constraints_allows_everything() -> None:
    assert valid(as_constraint(())) == [0, 1, 2, 3, EOS]


class Returns:
    """A constraint with a fixed mask."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def mask(self, batch: TextBatch) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.ones(5, dtype=np.bool_), r"\(5,\) and bool"),
        (np.ones((1, 4), dtype=np.bool_), r"\(1, 4\) and bool"),
        (np.ones((1, 5)), r"\(1, 5\) and float64"),
        ([[True] * 5], r"None and <class 'list'>"),
    ],
)
def test_a_mask_of_the_wrong_shape_or_dtype_is_rejected(value: Any, found: str) -> None:
    with pytest.raises(ValueError, match=rf"mask of Returns must have shape \(1, 5\) and dtype bool, got {found}"):
        AllOf(Returns(value)).mask(batch_of([[]]))


# Names ----------------------------------------------------------------------------------------------------------


def test_as_constraint_accepts_names_objects_and_sequences() -> None:
    by_name = as_constraint("no_repeat_ngram")
    assert isinstance(by_name, NoRepeatNGram)
    assert by_name.n == 3
    assert as_constraint(by_name) is by_name
    several = as_constraint(["no_repeat_ngram", by_name])
    assert isinstance(several, AllOf)
    assert len(several.constraints) == 2


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown constraint 'no_repeat'; did you mean 'no_repeat_ngram'\?"):
        as_constraint("no_repeat")


@pytest.mark.parametrize("spec", [None, 3, lambda batch: None, {"a": 1}, [3]])
def test_an_object_without_mask_is_rejected(spec: Any) -> None:
    with pytest.raises(TypeError, match=r"has a method mask\(batch\)"):
        as_constraint(spec)
    with pytest.raises(TypeError, match="is not a constraint"):
        AllOf(spec)


def test_a_class_instead_of_an_object_is_rejected() -> None:
    with pytest.raises(TypeError, match="write NoRepeatNGram"):
        as_constraint(NoRepeatNGram)  # type: ignore[arg-type]


def test_exported_names_are_sorted_and_importable() -> None:
    names = textgym.constraints.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(textgym.constraints, name) for name in names)
