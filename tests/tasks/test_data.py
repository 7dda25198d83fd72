"""The user's own rows as data of a task: files, data sets, lists, column names, errors."""

import gzip
import json
import re

import pytest

import textgym
from textgym.tasks import TASKS
from textgym.users import Reply

ROWS = [
    {"context": "Ann has two cats.", "question": "How many cats?", "answer": "two"},
    {"context": "Bob is at home.", "question": "Where is Bob?", "answer": ["at home", "home"]},
]
PROMPT = "Ann has two cats.\nQuestion: How many cats?\nAnswer:"


def prompts_of(**keywords):
    return textgym.TextGenEnv(**({"task": "qa"} | keywords)).core.components.prompts


def score(env, text, index=0):
    env.reset(seed=0, options={"index": index})
    for token in [*env.tokenizer.encode(" " + text), env.eos_token_id]:
        *_, info = env.step(token)
    return info


class FakeDataset:
    """As much of a `datasets.Dataset` as is needed."""

    column_names = ("context", "question", "answer")

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return ROWS[index]

    def __iter__(self):
        return iter(ROWS)


def test_a_list_of_mappings_is_data():
    env = textgym.TextGenEnv(task="qa", data=ROWS)
    prompts = env.core.components.prompts
    assert len(prompts) == 2
    assert prompts[0].prompt == PROMPT
    assert [sample.references for sample in (prompts[0], prompts[1])] == [("two",), ("at home", "home")]
    assert prompts[0].metadata["context"] == "Ann has two cats."
    assert score(env, "two")["score"] == 1.0


@pytest.mark.parametrize("answer", ["at home", "home"])
def test_any_of_several_targets_is_right(answer):
    env = textgym.TextGenEnv(task="qa", data=ROWS)
    info = score(env, answer, index=1)
    assert info["score"] == 1.0
    assert "score_normalised" not in info


def test_a_jsonl_file_is_data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    for name in (path, str(path)):
        assert prompts_of(data=name)[1].references == ("at home", "home")


def test_a_compressed_file_is_data(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    assert prompts_of(data=path)[1].references == ("at home", "home")


def test_a_csv_file_is_data(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("context,question,answer\nAnn has two cats.,How many cats?,two\n", encoding="utf-8")
    assert prompts_of(data=path)[0].prompt == PROMPT


def test_an_object_like_a_data_set_is_data():
    assert prompts_of(data=FakeDataset())[0].prompt == PROMPT


def test_a_hugging_face_data_set_is_data():
    datasets = pytest.importorskip("datasets")
    pairs = [{"translation": {"en": "A cat.", "fr": "Un chat."}}, {"translation": {"en": "A dog.", "fr": "Un chien."}}]
    columns = {"source": "translation.en", "target": "translation.fr"}
    env = textgym.TextGenEnv(task="translation", data=datasets.Dataset.from_list(pairs), columns=columns)
    sample = env.core.components.prompts[1]
    assert (sample.prompt, sample.references) == ("English: A dog.\nFrench:", ("Un chien.",))
    assert score(env, "Un chien.", index=1)["score"] == 1.0
    with pytest.raises(ValueError, match="dictionary of splits; pass one of them: train"):
        prompts_of(data=datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS[:1])))


def test_columns_have_other_names():
    row = {"text": "Ann has two cats.", "asked": {"first": {"words": "How many cats?"}}, "answers": {"text": ["two"]}}
    columns = {"context": "text", "question": "asked.first.words", "answer": "answers.text"}
    sample = prompts_of(data=[row], columns=columns)[0]
    assert (sample.prompt, sample.references) == (PROMPT, ("two",))
    assert sample.metadata["text"] == sample.metadata["context"]


def test_a_column_whose_name_has_a_dot_is_found_first():
    row = {"q.a": "How many cats?", "q": {"a": "Who?"}, "context": "Ann has two cats.", "answer": "two"}
    assert prompts_of(data=[row], columns={"question": "q.a"})[0].prompt == PROMPT


def test_a_summary_of_the_users_own_text_is_scored():
    rows = [{"document": "Nadia met two cats in Rome. It rained all day long.", "summary": "Nadia met two cats."}]
    env = textgym.TextGenEnv(task="summary", data=rows)
    assert score(env, "Nadia met two cats.")["score"] == 1.0
    assert score(env, "Nadia met Bob.")["scores"]["faithful"] == 0.5


def test_a_dialogue_of_the_users_own_needs_a_user_and_a_scorer():
    rows = [{"setting": "At the inn.", "opening": "A room, please."}]
    for data in (rows, [rows[0] | {"goal": None}]):  # as datasets.Dataset fills a column that a row lacks
        with pytest.raises(ValueError, match=r"needs the column goal; without it, give user=\.\.\. and scorer=\.\.\."):
            score(textgym.TextGenEnv(task="dialogue", data=data), "Here you are.")
    env = textgym.TextGenEnv(
        task="dialogue",
        data=rows,
        user=lambda messages: Reply("Thank you.", "success" if "key" in messages[-1]["content"] else "failure"),
        scorer=lambda text: float("key" in text),
    )
    info = score(env, "Here is your key.")
    assert (info["prompt"], info["score"]) == ("At the inn.\nCustomer: A room, please.\nHelper:", 1.0)
    assert info["completion"] == " Here is your key.\nCustomer: Thank you."


def test_a_dialogue_of_the_users_own_may_have_a_goal_for_the_simulated_customer():
    goal = {"shop": "market", "items": [{"count": 2, "quality": "", "thing": "egg"}], "unsaid": [], "manner": 0}
    rows = [{"setting": "At the market.", "opening": "Two eggs, please.", "goal": goal}]
    info = score(textgym.TextGenEnv(task="dialogue", data=rows), "Here are two eggs.")
    assert (info["score"], info["end_reason"]) == (1.0, "success")


def test_own_data_is_split_by_its_prompts():
    rows = [ROWS[0] | {"context": f"Ann has {i} cats."} for i in range(40)]
    every, train, held_out = (prompts_of(data=rows, split=split) for split in (None, "train", "eval"))
    assert (len(every), len(train), len(held_out)) == (40, 36, 4)
    texts = [{source[i].prompt for i in range(len(source))} for source in (train, held_out)]
    assert not texts[0] & texts[1]


# Errors ---------------------------------------------------------------------------------------------------------------


def check_raises(message, **keywords):
    with pytest.raises(ValueError, match=message):
        prompts_of(**keywords)


def test_a_missing_column_is_named_with_what_the_row_has_and_how_to_rename():
    rows = [ROWS[0], {"text": "Ann.", "question": "Who?", "answer": "Ann"}]
    check_raises(
        r"row 1 of the data: task 'qa' needs the columns context, question, answer; missing are context: a passage\. "
        r"The row has text, question, answer; map other names with columns=\{'context': \.\.\.}",
        data=rows,
    )


def test_a_renamed_column_that_is_not_there_is_named():
    check_raises(
        r"row 0 of the data: no column 'txt'; there are: context, question", data=ROWS, columns={"context": "txt"}
    )
    check_raises(r"no column 'en'; there are: fr", data=[{"t": {"fr": "a"}}], columns={"context": "t.en"})
    check_raises(r"no column 'en' in 'a text'", data=[{"t": "a text"}], columns={"context": "t.en"})


def test_a_null_column_counts_as_missing():
    check_raises("row 0 of the data: .* missing are context: a passage", data=[ROWS[0] | {"context": None}])


def test_a_target_is_a_text_or_several():
    check_raises(
        "row 0 of the data: the column 'answer' must be a string or a list of strings, got 2",
        data=[ROWS[0] | {"answer": 2}],
    )
    check_raises(r"must be a string or a list of strings, got \['a', 2\]", data=[ROWS[0] | {"answer": ["a", 2]}])
    check_raises("row 0 of the data: the column 'answer' is an empty list", data=[ROWS[0] | {"answer": []}])


def test_a_malformed_line_is_reported_with_file_and_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n{broken\n", encoding="utf-8")
    check_raises(rf"{re.escape(str(path))}, line 2: malformed JSON", data=path)
    path.write_text(json.dumps(ROWS[0]) + "\n\n" + json.dumps({"context": "a"}), encoding="utf-8")
    check_raises(rf"{re.escape(str(path))}, line 3: task 'qa' needs the columns", data=path)
    other = tmp_path / "rows.csv"
    other.write_text("context,question,answer\na,b\n", encoding="utf-8")
    check_raises(rf"{re.escape(str(other))}, line 2: 2 fields, the header has 3", data=other)


def test_a_dictionary_of_splits_raises():
    class Splits:
        column_names = {"train": ["context"], "test": ["context"]}  # noqa: RUF012

    check_raises("dictionary of splits; pass one of them: train, test", data=Splits())


def test_data_without_rows_raise(tmp_path):
    check_raises(r"data=\[\] has no rows", data=[])
    (tmp_path / "empty.jsonl").touch()
    check_raises("has no rows", data=tmp_path / "empty.jsonl")


@pytest.mark.parametrize("data", [3, {"context": "a"}, object()])
def test_data_of_another_type_raise(data):
    with pytest.raises(TypeError, match=r"expected the path of a JSONL or CSV file, a datasets\.Dataset or a list of"):
        prompts_of(data=data)


def test_rows_are_mappings():
    check_raises("row 0 of the data: expected a mapping of columns, got str 'a'", data=["a"])


def test_files_of_other_kinds_and_missing_ones_raise(tmp_path):
    check_raises(r"rows\.parquet: expected a \.jsonl or \.csv file", data="rows.parquet")
    with pytest.raises(FileNotFoundError):
        prompts_of(data=tmp_path / "none.csv")


def test_a_row_that_does_not_fit_the_budget_raises_at_construction():
    check_raises("prompt 0: the prompt .* max_prompt_tokens", data=[ROWS[0] | {"context": "word " * 200}])
    long = [ROWS[0] | {"context": "word " * 200}]
    assert textgym.TextGenEnv(task="qa", data=long, prompt_truncation="left").reset(seed=0)


def test_one_row_cannot_be_split():
    check_raises("fewer than two distinct prompts cannot be split", data=ROWS[:1], split="eval")


@pytest.mark.parametrize("name", ["sentiment", "dialogue", "translation", "qa", "summary", "quality"])
def test_the_documented_columns_are_enough(name):
    row = dict.fromkeys(TASKS[name].columns, "A short text.")
    assert textgym.TextGenEnv(task=name, data=[row]).reset(seed=0)
