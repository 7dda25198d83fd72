"""Prompt sources and rejected inputs, the split into training and evaluation, and the encoding of prompts."""

import gzip
import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym.prompts
import textgym.prompts.encoding
from textgym.errors import PromptsExhaustedError
from textgym.prompts import (
    DatasetPrompts,
    FilePrompts,
    GeneratorPrompts,
    IndexedPrompts,
    ListPrompts,
    PromptEncoder,
    PromptSource,
    Sample,
    SubsetPrompts,
    as_prompts,
    as_sample,
    builtin_prompts,
    train_eval_split,
)
from textgym.tokenizers import ByteTokenizer, CharTokenizer, PaddedTokenizer

ROWS = [
    {"prompt": "2 + 3 =", "references": ["5"], "level": 1},
    {"prompt": "6 * 7 =", "references": ["42", "forty-two"], "level": 2},
    {"prompt": "1 + 1 =", "references": [], "level": 1},
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def indexed_sources(folder: Path) -> list[IndexedPrompts]:
    lines = '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n'
    return [
        ListPrompts(["a", "b", "c"]),
        SubsetPrompts(ListPrompts(["z", "c", "b", "a"]), [3, 2, 1]),
        FilePrompts(written(folder / "letters.jsonl", lines)),
        DatasetPrompts(datasets.Dataset.from_dict({"prompt": ["a", "b", "c"]})),
    ]


# Every indexed source -------------------------------------------------------------------------------------------


def test_an_indexed_source_returns_the_same_object_for_an_index(tmp_path: Path) -> None:
    for source in indexed_sources(tmp_path):
        assert [source[i].prompt for i in range(len(source))] == ["a", "b", "c"]
        assert all(source[i] is source[i] for i in range(3))
        assert source[-1] is source[2]
        with pytest.raises(IndexError):
            source[3]


def test_draw_takes_exactly_one_integer_from_the_generator(tmp_path: Path) -> None:
    for source in indexed_sources(tmp_path):
        ours, plain = rng(3), rng(3)
        for _ in range(20):
            assert source.draw(ours) is source[int(plain.integers(3))]


def test_every_sample_is_drawn(tmp_path: Path) -> None:
    for source in indexed_sources(tmp_path):
        generator = rng()
        assert {source.draw(generator).prompt for _ in range(100)} == {"a", "b", "c"}


def test_an_indexed_source_is_a_prompt_source_and_can_be_pickled(tmp_path: Path) -> None:
    for source in indexed_sources(tmp_path):
        assert isinstance(source, PromptSource)
        assert as_prompts(source) is source
        assert pickle.loads(pickle.dumps(source)).draw(rng(1)) == source.draw(rng(1))


# Samples and lists ----------------------------------------------------------------------------------------------


def test_a_sample_is_made_from_text_mapping_or_sample() -> None:
    sample = Sample("a")
    assert as_sample(sample) is sample
    assert as_sample("a") == sample
    assert as_sample({"q": "a", "answer": "b", "n": 1}, "q", "answer") == Sample("a", ("b",), {"n": 1})
    assert as_sample({"prompt": "a", "references": None}) == sample


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"text": "a"}, ValueError, "no column 'prompt'; there are: text"),
        ({}, ValueError, "there are: none"),
        ({"prompt": 5}, TypeError, "column 'prompt' must be str, got int: 5"),
        ({"prompt": [{"role": "user"}]}, TypeError, "must be str, got list"),
        (
            {"prompt": "a", "references": [1]},
            TypeError,
            r"the references in column 'references' must be str, got \(1,\)",
        ),
        ({"prompt": "a", "references": 1}, TypeError, "the references in column 'references' must be str, got "),
        (7, TypeError, "expected a prompt as str, Sample or mapping of columns, got int"),
    ],
)
def test_an_invalid_sample_is_rejected_with_its_index(spec: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"prompt 1 of the list: .*{message}"):
        as_prompts(["fine", spec])


def test_an_empty_list_is_rejected() -> None:
    with pytest.raises(ValueError, match="the list of prompts is empty"):
        as_prompts([])


def test_one_text_instead_of_a_list_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"write \['Once upon'\]"):
        ListPrompts("Once upon")


def test_lists_arrays_and_tuples_are_accepted() -> None:
    for spec in (["a", "b"], ("a", "b"), np.array(["a", "b"])):
        assert [as_prompts(spec)[i].prompt for i in (0, 1)] == ["a", "b"]  # type: ignore[index]


def test_a_subset_rejects_empty_and_out_of_range_indices() -> None:
    with pytest.raises(ValueError, match="empty"):
        SubsetPrompts(ListPrompts(["a"]), [])
    with pytest.raises(IndexError):
        SubsetPrompts(ListPrompts(["a"]), [1])


# Files ----------------------------------------------------------------------------------------------------------


def test_a_text_file_has_one_prompt_per_line(tmp_path: Path) -> None:
    source = FilePrompts(written(tmp_path / "a.txt", "\ufeffOne \u2028day\r\n\n  Two\n"))
    assert [source[i].prompt for i in range(len(source))] == ["One \u2028day", "  Two"]


def test_a_jsonl_file_has_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "a.JSONL", '{"q": "2 + 3", "a": ["5"], "level": 1}\n\n{"q": "1", "a": "1"}\n')
    source = FilePrompts(path, prompt_column="q", references_column="a")
    assert source[0] == Sample("2 + 3", ("5",), {"level": 1})
    assert source[1] == Sample("1", ("1",))


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", "One\n"), ("a.jsonl", '{"prompt": "One"}\n'), ("a.csv", "prompt\nOne\n")]
)
def test_a_file_may_be_compressed(tmp_path: Path, name: str, text: str) -> None:
    path = written(tmp_path / f"{name}.GZ", gzip.compress(text.encode()))
    assert FilePrompts(path)[0] == FilePrompts(written(tmp_path / name, text))[0] == Sample("One")


def test_a_csv_file_has_columns_and_quoted_lines(tmp_path: Path) -> None:
    source = FilePrompts(written(tmp_path / "a.csv", 'prompt,references,level\r\n"a\nb, c",x,1\r\n\r\nd,y,2\r\n'))
    assert source[0] == Sample("a\nb, c", ("x",), {"level": "1"})
    assert source[1] == Sample("d", ("y",), {"level": "2"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": \n', r"a\.jsonl, line 2: malformed JSON, .* at column 12"),
        ("a.jsonl", '\n\n["a"]\n', r"a\.jsonl, line 3: expected a JSON object of columns, got list"),
        ("a.jsonl", '{"prompt": "a"}\n{"text": "b", "n": 1}\n', "line 2: no column 'prompt'; there are: text, n"),
        ("a.jsonl", '{"text": "first"}\n{"prompt": \n', "line 1: no column 'prompt'"),
        ("a.jsonl", '{"prompt": 1}\n', "line 1: the prompt in column 'prompt' must be str, got int"),
        ("a.jsonl", "\n", r"a\.jsonl: the file has no prompt"),
        ("a.txt", "", r"a\.txt: the file has no prompt"),
        ("a.txt", b"a\nb\xff\n", r"a\.txt, line 2: not UTF-8: byte 0xff"),
        ("a.csv", "", r"a\.csv: the file has no prompt"),
        ("a.csv", "prompt\n", r"a\.csv: the file has no prompt"),
        ("a.csv", "text,n\na,1\n", "line 2: no column 'prompt'; there are: text, n"),
        ("a.csv", "prompt,n\na,1\nb\n", "line 3: 1 fields, the header has 2"),
        ("a.csv", "prompt,n\na,1,2\n", "line 2: 3 fields, the header has 2"),
        ("a.csv", "prompt,prompt\na,1\n", "line 1: the header has a duplicate column: prompt, prompt"),
        ("a.csv", 'prompt\n"a\n', "line 2: malformed CSV"),
        ("a.json", "{}", r"\.txt, \.jsonl or \.csv file, got '\.json'"),
        ("a.gz", b"", r"\.txt, \.jsonl or \.csv file, got ''"),
        ("a.jsonl.gz", "no gzip", r"a\.jsonl\.gz, line 1: not a complete gzip file: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b"text" * 99, mtime=0)[:20], r"a\.jsonl\.gz, line 1: not a complete gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n{', mtime=0), r"a\.jsonl\.gz, line 2: malformed JSON"),
    ],
)
def test_a_malformed_file_is_rejected_with_name_and_line(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        as_prompts(written(tmp_path / name, text))


def test_a_missing_references_column_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 1: no column 'answer'; there are: prompt"):
        FilePrompts(written(tmp_path / "a.jsonl", '{"prompt": "a"}\n'), references_column="answer")


def test_a_path_is_accepted_as_path_and_as_string(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "One\n")
    for spec in (path, str(path)):
        assert as_prompts(spec).draw(rng()).prompt == "One"
    with pytest.raises(FileNotFoundError):
        as_prompts(tmp_path / "b.txt")


# Data sets ------------------------------------------------------------------------------------------------------


def test_a_data_set_has_columns() -> None:
    source = as_prompts(datasets.Dataset.from_list(ROWS))
    assert isinstance(source, DatasetPrompts)
    assert source[1] == Sample("6 * 7 =", ("42", "forty-two"), {"level": 2})


def test_a_data_set_without_the_column_or_a_row_is_rejected() -> None:
    data = datasets.Dataset.from_list(ROWS)
    with pytest.raises(ValueError, match="no column 'text'; there are: prompt, references, level"):
        DatasetPrompts(data, prompt_column="text")
    with pytest.raises(ValueError, match="no column 'answers'"):
        DatasetPrompts(data, references_column="answers")
    with pytest.raises(ValueError, match="the data set is empty"):
        as_prompts(data.select([]))


def test_a_dictionary_of_splits_is_rejected() -> None:
    data = datasets.Dataset.from_list(ROWS)
    with pytest.raises(ValueError, match="one of them: train, test"):
        as_prompts(datasets.DatasetDict(train=data, test=data))


def test_a_streamed_data_set_is_drawn_in_order() -> None:
    source = as_prompts(datasets.Dataset.from_list(ROWS).to_iterable_dataset())
    assert [source.draw(rng()).prompt for _ in ROWS] == [row["prompt"] for row in ROWS]
    with pytest.raises(PromptsExhaustedError):
        source.draw(rng())


# Generators -----------------------------------------------------------------------------------------------------


def sum_of_two(generator: np.random.Generator) -> Sample:
    a, b = generator.integers(10, size=2)
    return Sample(f"{a} + {b} =", (str(a + b),))


def test_prompts_of_a_function_are_reproducible_by_seed() -> None:
    source = as_prompts(sum_of_two)
    first, again = ([source.draw(generator) for _ in range(5)] for generator in (rng(1), rng(1)))
    assert first == again
    assert first != [source.draw(rng(2)) for _ in range(5)]
    assert pickle.loads(pickle.dumps(source)).draw(rng(1)) == first[0]


def test_an_iterator_is_drawn_in_order_until_it_ends() -> None:
    def stream() -> Iterator[object]:
        yield "a"
        yield {"prompt": "b", "n": 1}

    source = as_prompts(stream())
    assert [source.draw(rng()), source.draw(rng())] == [Sample("a"), Sample("b", (), {"n": 1})]
    with pytest.raises(PromptsExhaustedError, match="ended after 2 prompts"):
        source.draw(rng())


def test_a_function_must_return_a_prompt() -> None:
    with pytest.raises(TypeError, match=r"expected a prompt as str, .* got int"):
        as_prompts(lambda generator: 5).draw(rng())
    with pytest.raises(TypeError, match="a function of a random generator or an iterator, got list"):
        GeneratorPrompts(["a"])  # type: ignore[arg-type]


# Names ----------------------------------------------------------------------------------------------------------


def test_the_built_in_set_is_the_default_and_has_splits() -> None:
    assert as_prompts() is as_prompts("openings") is builtin_prompts()
    train, held_out, every = (builtin_prompts(split) for split in ("train", "eval", "all"))
    assert as_prompts("openings:train") is train
    assert as_prompts("openings:eval") is held_out
    texts = [{source[i].prompt for i in range(len(source))} for source in (train, held_out, every)]
    assert texts[0] | texts[1] == texts[2]
    assert not texts[0] & texts[1]
    assert len(every) == len(texts[2]), "no opening is duplicated"


def test_openings_are_stripped_ascii() -> None:
    for i in range(len(builtin_prompts())):
        prompt = builtin_prompts()[i].prompt
        assert prompt == prompt.strip()
        assert prompt.isascii()


def test_an_unknown_split_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"unknown split 'test'.* Known: all, eval, train"):
        builtin_prompts("test")


@pytest.mark.parametrize("text", ["Once upon a time", "no_such_file.txt", "a\x00b", "long " * 2000])
def test_a_string_that_is_not_a_file_is_rejected_with_a_hint(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown prompts .* Known: openings, .* a single prompt as a list: \["):
        as_prompts(text)


def test_a_misspelt_set_suggests_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'openings:train'"):
        as_prompts("opening:train")


@pytest.mark.parametrize("spec", [5, {"prompt": ["a"]}, {"a", "b"}, ListPrompts, b"bytes"])
def test_as_prompts_rejects_other_objects(spec: object) -> None:
    with pytest.raises(TypeError, match=r"expected a list of prompts, a path|prompt 0 of the list"):
        as_prompts(spec)


# Split ----------------------------------------------------------------------------------------------------------


def prompts_of(source: IndexedPrompts) -> list[str]:
    return [source[i].prompt for i in range(len(source))]


@given(st.lists(st.text(max_size=3), min_size=2, max_size=30), st.floats(0.01, 0.99), st.integers(0, 5))
def test_the_two_sides_are_disjoint_and_together_the_source(texts: list[str], share: float, seed: int) -> None:
    if len(set(texts)) < 2:
        texts = [*texts, "first", "second"]
    train, held_out = train_eval_split(ListPrompts(texts), share, seed)
    assert not set(prompts_of(train)) & set(prompts_of(held_out))
    assert sorted(prompts_of(train) + prompts_of(held_out)) == sorted(texts)


def test_the_split_depends_on_the_seed_but_not_on_the_order_of_the_source() -> None:
    texts = [f"prompt {i}" for i in range(100)]
    sides = [set(prompts_of(train_eval_split(ListPrompts(order))[1])) for order in (texts, texts[::-1])]
    assert sides[0] == sides[1]
    assert len(sides[0]) == 10
    assert sides[0] != set(prompts_of(train_eval_split(ListPrompts(texts), seed=1)[1]))


def test_a_new_prompt_moves_few_others() -> None:
    texts = [f"prompt {i}" for i in range(100)]
    before, after = (set(prompts_of(train_eval_split(ListPrompts(t))[1])) for t in (texts, [*texts, "new"]))
    assert len(before ^ after) <= 2


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_outside_0_and_1_is_rejected(share: float) -> None:
    with pytest.raises(ValueError, match="eval_share must be between 0 and 1"):
        train_eval_split(ListPrompts(["a", "b"]), share)


def test_a_source_that_cannot_be_split_is_rejected() -> None:
    with pytest.raises(ValueError, match="fewer than two distinct prompts"):
        train_eval_split(ListPrompts(["a", "a"]))
    with pytest.raises(TypeError, match="got GeneratorPrompts"):
        train_eval_split(as_prompts(sum_of_two))  # type: ignore[arg-type]


# Encoding -------------------------------------------------------------------------------------------------------


class WithBos(ByteTokenizer):
    bos_token_id = 256  # type: ignore[assignment]


def test_a_prompt_is_encoded_once_into_a_read_only_array() -> None:
    encoder = PromptEncoder(ByteTokenizer(), 8)
    ids = encoder(Sample("né"))
    assert ids.tolist() == [110, 195, 169]
    assert ids.dtype == np.int64
    assert encoder(Sample("né")) is ids
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_a_prompt_that_is_too_long_is_rejected_with_a_hint() -> None:
    encoder = PromptEncoder(ByteTokenizer(), 8)
    message = r"'one two three' has 13 tokens, max_prompt_tokens is 8; set prompt_truncation='left' or a larger"
    with pytest.raises(ValueError, match=message):
        encoder(Sample("one two three"))
    with pytest.raises(ValueError, match=r"^the prompt .{60} has 5000 tokens"):
        encoder(Sample("a" * 5000))
    with pytest.raises(ValueError, match="has 9 tokens"):
        encoder.encode_ids(range(9))
    assert encoder(Sample("12345678")).size == 8


def test_truncation_drops_the_named_side() -> None:
    for truncation, expected in (("left", b"three"), ("right", b"one t")):
        encoder = PromptEncoder(ByteTokenizer(), 5, truncation)  # type: ignore[arg-type]
        assert bytes(encoder(Sample("one two three")).tolist()) == expected
        assert bytes(encoder.encode_ids(list(b"one two three")).tolist()) == expected


def test_an_empty_prompt_is_bos_or_rejected() -> None:
    for truncation in (None, "left", "right"):
        encoder = PromptEncoder(WithBos(), 2, truncation)
        assert encoder(Sample("")).tolist() == [256]
        assert encoder.encode_ids([]).tolist() == [256]
    with pytest.raises(ValueError, match="the prompt '' has no tokens, and the tokenizer has no BOS"):
        PromptEncoder(ByteTokenizer(), 2)(Sample(""))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 257], ValueError, "prompt id 257 is not a token of the vocabulary of 300 ids"),
        ([-1], ValueError, "prompt id -1"),
        ([300], ValueError, "prompt id 300"),
        ([1.5], TypeError, "must be integers, got float64"),
        ([True], TypeError, "must be integers, got bool"),
        (["a"], TypeError, "must be integers"),
        ([[1, 2]], ValueError, r"one axis, got shape \(1, 2\)"),
        (3, ValueError, r"one axis, got shape \(\)"),
    ],
)
def test_prompt_ids_are_checked(ids: list[int], error: type[Exception], message: str) -> None:
    encoder = PromptEncoder(PaddedTokenizer(ByteTokenizer(), 300), 8)
    with pytest.raises(error, match=message):
        encoder.encode_ids(ids)


def test_prompt_ids_are_accepted_in_any_integer_sequence() -> None:
    encoder = PromptEncoder(ByteTokenizer(), 8)
    for ids in ([1, 2], (1, 2), np.array([1, 2], dtype=np.uint8)):
        assert encoder.encode_ids(ids).tolist() == [1, 2]


@pytest.mark.parametrize(("limit", "truncation"), [(0, None), (4, "middle"), (4, True)])
def test_invalid_arguments_of_an_encoder_are_rejected(limit: int, truncation: object) -> None:
    with pytest.raises(ValueError, match=r"max_prompt_tokens must be at least 1|prompt_truncation must be"):
        PromptEncoder(ByteTokenizer(), limit, truncation)  # type: ignore[arg-type]


def test_check_reports_the_first_invalid_prompt() -> None:
    encoder = PromptEncoder(CharTokenizer(), 4)
    encoder.check(ListPrompts(["one", "four"]))
    encoder.check(as_prompts(itertools.repeat("far too long")))
    with pytest.raises(ValueError, match=r"prompt 1: the prompt 'three' has 5 tokens"):
        encoder.check(ListPrompts(["one", "three"]))
    with pytest.raises(ValueError, match=r"prompt 0: character 'é'"):
        encoder.check(ListPrompts(["é"]))


def test_the_encoders_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textgym.prompts.encoding, "CACHE_SIZE", 10)
    encoder = PromptEncoder(ByteTokenizer(), 8)
    for i in range(1000):
        assert bytes(encoder(Sample(str(i))).tolist()).decode() == str(i)
    assert len(encoder._cache) <= 10


def test_exported_names_are_sorted_and_importable() -> None:
    names = textgym.prompts.__all__
    assert names == sorted(names, key=lambda name: (name[0].islower(), name))
    assert all(hasattr(textgym.prompts, name) for name in names)


def test_a_generator_function_is_rejected_with_a_hint():
    def questions():
        yield "What?"

    with pytest.raises(TypeError, match="questions is a generator function: call it"):
        as_prompts(questions)
