import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import Checker, JSONSchema, MathAnswer, NumericAnswer, ValidJSON, evaluate, score_batch
from textgym.testing import check_scorer

NAN = float("nan")
LOCK = threading.Lock()


def batch_of(*completions, **columns):
    return TextBatch.from_texts(list(completions), **columns)


def scores_for(scorer, wanted, *completions):
    return scorer(batch_of(*completions, references=[[wanted]] * len(completions))).tolist()


# NumericAnswer


@pytest.mark.parametrize(
    ("wanted", "completion", "score"),
    [
        ("42", "The answer is 42.", 1.0),
        ("42", "42, or perhaps 41", 0.0),
        ("42", "no number", 0.0),
        ("42", "", 0.0),
        ("-42", "it is -42", 1.0),
        ("-42", "it is \u221242", 1.0),
        ("-42", "it is 42", 0.0),
        ("5", "10-5", 1.0),
        ("5", "It is...5", 1.0),
        ("5", "x = +5", 1.0),
        ("1234567.5", "1,234,567.50 in all", 1.0),
        ("4", "one of 1,2,3,4", 1.0),
        ("0.5", "about .5", 1.0),
        ("3", "H2O has 3 atoms, CO2 too", 1.0),
        ("1.2", "version 1.2.3", 1.0),
        ("-7", "he owes -$7", 1.0),
        ("1500", "1.5e3", 1.0),
        ("5", "答案是5", 1.0),
        ("50%", "50 %", 1.0),
        ("50%", "50", 1.0),
        ("50%", "0.5", 1.0),
        ("50", "50%", 1.0),
        ("0.5", "50%", 1.0),
        ("0.5", "50", 0.0),
        ("50%", "0.5%", 0.0),
        ("1", "1e999999999999999999999", 0.0),
        ("#### 18", "so 18", 1.0),
    ],
)
def test_the_last_number_is_compared(wanted, completion, score):
    assert scores_for(NumericAnswer(), wanted, completion) == [score]


def test_long_integers_are_compared_digit_by_digit():
    right = "123456789012345678901234567890"
    assert scores_for(NumericAnswer(), right, right, right[:-1] + "1") == [1.0, 0.0]
    assert scores_for(NumericAnswer(), "9" * 1_000, "9" * 1_000, "9" * 999 + "8") == [1.0, 0.0]


def test_the_number_after_the_last_marker_counts():
    scorer = NumericAnswer(marker="####")
    texts = ["#### 4\nthat was 5", "#### 3 #### 4", "####4", "4", "#### four"]
    assert scores_for(scorer, "2 + 2 = 4\n#### 4", *texts) == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert scores_for(scorer, "4", "#### 4") == [1.0]


def test_tolerances_are_absolute_and_relative():
    assert scores_for(NumericAnswer(tolerance=0.1), "3", "3.1", "2.9", "3.11") == [1.0, 1.0, 0.0]
    assert scores_for(NumericAnswer(tolerance=0, relative_tolerance=0.01), "-200", "-202", "-203") == [1.0, 0.0]


def test_the_metadata_column_takes_precedence_over_the_reference():
    metadata = [{"answer": 7}, {"answer": np.float64(7.0)}, {"answer": None}, {}, {"answer": True}]
    batch = batch_of(*["7"] * 5, references=[["8"], ["8"], ["8"], [], []], metadata=metadata)
    np.testing.assert_array_equal(NumericAnswer()(batch), [1.0, 1.0, 0.0, NAN, NAN])
    metadata = [{"result": "7"}]
    assert NumericAnswer(column="result")(batch_of("7", metadata=metadata)).tolist() == [1.0]


def test_a_reference_without_a_number_does_not_apply():
    np.testing.assert_array_equal(scores_for(NumericAnswer(), "twelve", "12"), [NAN])


@pytest.mark.parametrize(
    "arguments", [{"tolerance": -1.0}, {"relative_tolerance": NAN}, {"tolerance": float("inf")}, {"marker": " "}]
)
def test_numeric_answer_rejects_invalid_options(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} "):
        NumericAnswer(**arguments)


@given(st.integers(-(10**12), 10**12))
def test_a_number_is_right_in_any_notation(number):
    texts = (f"is {number}", f"is {number:,}.", f"({number}.0)", f"**{number:.6e}**" if abs(number) < 10**6 else "0")
    assert scores_for(NumericAnswer(), str(number), *texts[: 3 + (abs(number) < 10**6)]).count(0.0) == 0


# MathAnswer


@pytest.fixture(scope="module")
def math_answer():
    scorer = MathAnswer()
    yield scorer
    scorer.close()


def test_equal_expressions_are_right(math_answer):
    texts = [r"so $\frac{2}{4}$", "0.5", "It is 1/2.", r"\boxed{\frac{1}{2}}", r"\boxed{2}", "half", "", "50%"]
    assert scores_for(math_answer, "1/2", *texts) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("wanted", "right", "wrong"),
    [
        (r"\frac{\sqrt{3}}{3}", r"$\frac{1}{\sqrt{3}}$", r"$\sqrt{3}$"),
        ("x^2 + 2x + 1", "$(x+1)^2$", "$(x-1)^2$"),
        ("$(1,2)$", "$(1, 2)$", "$(2, 1)$"),
        (r"\{1, 2\}", r"$\{2, 1\}$", r"$\{1\}$"),
        ("1,000", r"$1000$", "$1$"),
        ("Two and two\n#### 4", "4", "2"),
        ("The answer is $x + 1$", "$1 + x$", "$1$"),
    ],
)
def test_expected_answers_are_parsed_with_and_without_dollar_signs(math_answer, wanted, right, wrong):
    assert scores_for(math_answer, wanted, right, wrong) == [1.0, 0.0]


def test_a_sample_without_an_answer_does_not_apply(math_answer):
    batch = batch_of("4", "4", "4", metadata=[{}, {"answer": 4}, {"answer": "$5$"}])
    np.testing.assert_array_equal(math_answer(batch), [NAN, 1.0, 0.0])


def test_an_expected_answer_that_cannot_be_parsed_fails_its_episode_alone(math_answer):
    scores = score_batch(math_answer, batch_of("4", "4", references=[["$$"], ["4"]]))
    np.testing.assert_array_equal(scores.total, [NAN, 1.0])
    assert scores.failed.tolist() == [True, False]
    assert "math-verify finds no expression in the expected answer '$$'" in scores.error


@pytest.mark.slow
def test_an_expression_that_times_out_scores_0_and_later_ones_are_scored():
    scorer = MathAnswer(time_limit=0.5)
    assert scores_for(scorer, "4", "9**9**9**9", "2 + 2") == [0.0, 1.0]
    scores = score_batch(MathAnswer(time_limit=0.2, on_timeout=None), batch_of("9**9**9**9", references=[["4"]]))
    assert "'math_answer' took longer than 0.2 s" in scores.error


def test_math_is_verified_in_any_thread(math_answer):
    results = []
    thread = threading.Thread(target=lambda: results.append(scores_for(math_answer, "4", "$2+2$")))
    thread.start()
    thread.join()
    assert results == [[1.0]]


def test_a_completion_is_not_run_as_python(math_answer, tmp_path):
    mark = tmp_path / "mark"
    attack = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    assert scores_for(math_answer, "4", attack, f"${attack}$", f"\\boxed{{{attack}}}") == [0.0, 0.0, 0.0]
    assert not mark.exists()


# ValidJSON and JSONSchema


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"a": [1, 2.5, null, true, "x"]}', 1.0),
        (" \n[1]\t", 1.0),
        ("42", 1.0),
        ('"a\\ud800"', 1.0),
        ("9" * 5_000, 1.0),
        ("", 0.0),
        ("{'a': 1}", 0.0),
        ('{"a": 1,}', 0.0),
        ('{"a": 1} done', 0.0),
        ("NaN", 0.0),
        ("[Infinity]", 0.0),
        ("\u00a042", 0.0),
        ("[" * 100_000, 0.0),
        ("[" * 100_000 + "]" * 100_000, 0.0),
    ],
)
def test_the_whole_text_must_be_json(text, score):
    assert ValidJSON()(batch_of(text)).tolist() == [score]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('Sure! {"a": 1}. Bye', 1.0),
        ('Sure!\n```json\n{"a": 1}\n```\nBye', 1.0),
        ("```\n42\n```", 1.0),
        ("```json\nno\n``` {}", 0.0),
        ("a {b} then [1]", 1.0),
        ("42", 0.0),
        ("{" * 100 + "{}", 0.0),
        ("", 0.0),
    ],
)
def test_the_first_value_is_found_in_a_text(text, score):
    assert ValidJSON("first")(batch_of(text)).tolist() == [score]


def test_the_value_must_be_of_the_given_kind():
    texts = ("{}", "[]", "1")
    assert ValidJSON(kind="object")(batch_of(*texts)).tolist() == [1.0, 0.0, 0.0]
    assert ValidJSON(kind="array")(batch_of(*texts)).tolist() == [0.0, 1.0, 0.0]


SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0}, "name": {"type": "string"}},
    "required": ["age", "name"],
}


def test_a_value_is_validated_against_the_schema():
    texts = ('{"age": 3, "name": "Ann"}', '{"age": -3, "name": "Ann"}', '{"age": "3"}', "[]", "{")
    assert JSONSchema(SCHEMA)(batch_of(*texts)).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert JSONSchema(SCHEMA, partial=True)(batch_of(*texts)).tolist() == [1.0, 0.5, pytest.approx(1 / 3), 0.5, 0.0]
    assert JSONSchema(SCHEMA, "first")(batch_of(f"It is {texts[0]}")).tolist() == [1.0]


NESTED = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}}]}


@pytest.mark.parametrize("partial", [False, True])
def test_values_too_deep_or_too_large_to_compare_are_invalid(partial):
    nested = batch_of("[[1]]", "[" * 800 + "1" + "]" * 800)
    assert JSONSchema(NESTED, partial=partial)(nested).tolist() == [1.0, 0.0]
    numbers = batch_of("2", "1" * 400, "1e400", "1" * 5_000)
    assert JSONSchema({"multipleOf": 0.5}, partial=partial)(numbers).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_an_infinitely_recursive_schema_is_an_error_and_not_a_score():
    assert "RecursionError" in score_batch(JSONSchema({"$ref": "#"}), batch_of("1")).error


def test_the_schema_is_copied():
    schema = {"type": "object"}
    scorer = JSONSchema(schema)
    schema["type"] = "array"
    assert scorer(batch_of("{}")).tolist() == [1.0]


def test_a_reference_to_another_document_fails_and_is_not_fetched():
    scores = score_batch(JSONSchema({"$ref": "http://127.0.0.1:9/schema.json"}), batch_of("{}"))
    assert "127.0.0.1:9/schema.json" in scores.error


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ValidJSON("last"), ValueError, "unknown where 'last'"),
        (lambda: ValidJSON(kind="list"), ValueError, "unknown kind 'list'"),
        (lambda: JSONSchema("{}"), TypeError, "schema is '{}' of type str"),
        (lambda: JSONSchema({"type": "thing"}), ValueError, "not a valid JSON schema: 'thing'"),
        (lambda: JSONSchema({}, "all"), ValueError, "unknown where 'all'"),
    ],
)
def test_json_scorers_reject_invalid_options(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Checker. Inner functions are pickled by value, so that the process does not import this file.


def checker_of(check, **options):
    options.setdefault("time_limit", 5.0)
    return Checker(check, **options)


def test_a_check_of_the_completion():
    assert checker_of(lambda completion: completion == "b")(batch_of("a", "b")).tolist() == [0.0, 1.0]


def test_a_check_of_the_completion_and_its_sample():
    def check(completion, sample):
        return len(sample.prompt) + 10 * len(sample.references) + 100 * sample.metadata["n"]

    batch = batch_of("a", "b", prompts=["p", "qq"], references=[["r"], []], metadata=[{"n": 1}, {"n": 2}])
    assert checker_of(check)(batch).tolist() == [111.0, 202.0]


def test_a_second_parameter_is_the_sample_only_if_it_is_required_or_called_so():
    assert checker_of(lambda completion, sample=None: sample is not None)(batch_of("a")).tolist() == [1.0]
    assert checker_of(lambda completion, weight=0.5: weight)(batch_of("a")).tolist() == [0.5]


def test_none_does_not_apply():
    np.testing.assert_array_equal(checker_of(lambda text: None if text == "" else 1)(batch_of("", "a")), [NAN, 1.0])


def looping(completion):
    while completion == "loop":
        pass
    return float(len(completion))


def hanging_check():
    def check(completion):
        while completion == "loop":
            pass
        return float(len(completion))

    return check


def test_an_endless_loop_ends_and_fails_its_episode_alone():
    scorer = checker_of(hanging_check(), time_limit=0.5)
    scores = score_batch(scorer, batch_of("a", "loop", "bb", "loop", "ccc"))
    np.testing.assert_array_equal(scores.total, [1.0, NAN, 2.0, NAN, 3.0])
    assert scores.failed.tolist() == [False, True, False, True, False]
    assert scores.error == "scorer 'check' took longer than 0.5 s, for the completion 'loop'"
    with pytest.raises(ScorerError, match="took longer"):
        scorer(batch_of("loop"))
    assert scorer(batch_of("dd")).tolist() == [2.0]


def test_a_timeout_can_have_a_score():
    scorer = checker_of(hanging_check(), time_limit=0.5, on_timeout=-1.0)
    assert scorer(batch_of("loop", "a")).tolist() == [-1.0, 1.0]


def test_the_killed_process_is_gone_with_all_that_it_started(tmp_path):
    file = tmp_path / "pids"

    def check(completion):
        import pathlib
        import subprocess

        child = subprocess.Popen(["sleep", "60"])
        pathlib.Path(completion).write_text(f"{os.getpid()} {child.pid}")
        child.wait()

    assert checker_of(check, time_limit=0.5, on_timeout=0.0)(batch_of(str(file))).tolist() == [0.0]
    for pid in map(int, file.read_text().split()):
        assert not is_running(pid)


def is_running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.split(")")[1].split()[0] != "Z"  # a zombie waits for its new parent
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_process_is_kept_between_batches_and_ends_with_the_scorer():
    scorer = checker_of(lambda completion: os.getpid())
    first, second = scorer(batch_of("a")), scorer(batch_of("b"))
    pid = int(first[0])
    assert pid == second[0] != os.getpid()
    assert is_running(pid)
    del scorer
    gc.collect()
    assert not is_running(pid)


def test_an_exception_of_the_function_fails_its_episode_alone():
    scores = score_batch(checker_of(lambda completion: float(completion)), batch_of("1.5", "x"))
    np.testing.assert_array_equal(scores.total, [1.5, NAN])
    assert "'lambda' raised ValueError: could not convert string to float: 'x', for the completion 'x'" in scores.error


def test_a_result_that_is_not_a_number_fails_its_episode_alone():
    scores = score_batch(checker_of(lambda completion: "1.0" if completion else 1), batch_of("a", ""))
    np.testing.assert_array_equal(scores.total, [NAN, 1.0])
    assert "returned '1.0', expected a number" in scores.error
    assert "gave inf" in score_batch(checker_of(lambda completion: float("inf")), batch_of("a")).error


def test_a_function_that_ends_its_process_fails_its_episode_alone():
    def check(completion):
        if completion == "exit":
            os._exit(3)
        if completion == "crash":
            os.abort()
        if completion == "sys.exit":
            sys.exit(4)
        return 1.0

    scores = score_batch(checker_of(check), batch_of("exit", "a", "crash"))
    np.testing.assert_array_equal(scores.total, [NAN, 1.0, NAN])
    assert "'check' ended its process (exit status 3), for the completion 'exit'" in scores.error
    assert "signal SIGABRT" in score_batch(checker_of(check), batch_of("crash")).error
    assert "exit status 4" in score_batch(checker_of(check), batch_of("sys.exit")).error


# Hostile completions, which the checked function runs


def run_check():
    def check(completion):
        exec(completion, {})
        return float(len(completion))

    return check


PROGRAMS = ["1", "1 + 1", "1 + 1 + 1"]


def scores_around(program, **options):
    """Return the scores of honest programs before and after a hostile one, without its own."""
    scorer = checker_of(run_check(), **options)
    first = score_batch(scorer, batch_of("1", program, *PROGRAMS)).total.tolist()
    second = score_batch(scorer, batch_of(*PROGRAMS)).total.tolist()
    scorer.close()
    return [first[0], *first[2:], *second], first[1]


HONEST = [1.0, 1.0, 5.0, 9.0, 1.0, 5.0, 9.0]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@needs_fork
@pytest.mark.parametrize(
    "fork",
    [
        "import os\nos.fork()",
        "import os\nfor _ in range(4): os.fork()",
        "import ctypes\nctypes.CDLL(None).fork()",
        "import os, sys\nos.fork() or sys.exit()",
        "import os\nif os.fork() == 0: raise ValueError",
        "import os, time\nif os.fork() == 0: time.sleep(60)",
        "import os\nif os.fork() == 0:\n  while True:\n    for fd in range(3, 20):\n      try: os.read(fd, 9)\n"
        "      except OSError: pass",
        "import ctypes, os, time\nif ctypes.CDLL(None).fork() == 0: time.sleep(60)",
    ],
)
def test_a_child_that_the_function_forks_cannot_answer(fork):
    others, own = scores_around(fork)
    assert others == HONEST
    assert own == float(len(fork))


WRITE = """
import os, stat
for fd in range(3, 256):
    try:
        os.write(fd, {data!r})
    except OSError:
        pass
"""


@needs_fork
@pytest.mark.parametrize(
    "data",
    [
        b'{"value": 1000.0}\n',
        b'{"value": 1000.0}\n' * 9,
        b"0" * 32 + b' 3 {"value": 1000.0}\n',
        b'{"value": 10',
        b"\n",
        b"\x80\xff\n",
        b"[1000.0]\n",
    ],
)
def test_data_that_a_function_writes_to_descriptors_is_not_an_answer(data):
    others, own = scores_around(WRITE.format(data=data))
    assert others == HONEST
    assert np.isnan(own)


@pytest.mark.slow
@needs_fork
def test_an_unterminated_line_ends_the_process():
    program = WRITE.format(data=b"1").replace("for fd in", "while True:\n  for fd in").replace("\n    ", "\n      ")
    others, own = scores_around(program, time_limit=60.0)
    assert others == HONEST
    assert np.isnan(own)


def test_answers_that_a_thread_forges_later_are_errors_and_never_scores():
    program = """
import os, threading
def forge():
    while True:
        for fd in range(3, 256):
            try:
                os.write(fd, b'{"value": 1000.0}\\n')
            except OSError:
                pass
threading.Thread(target=forge, daemon=True).start()
"""
    others, own = scores_around(program)
    assert all(np.isnan(got) or got == right for got, right in zip(others, HONEST, strict=True))
    assert np.isnan(own) or own == len(program)


@pytest.mark.parametrize(
    "program",
    [
        # A thread that writes to all descriptors while a later episode is checked.
        "import os, threading\nos.go = threading.Event()\ndef later():\n  os.go.wait()\n  for fd in range(3, 64):\n"
        "    try: os.write(fd, b'x')\n    except OSError: pass\n"
        "os.left = threading.Thread(target=later, daemon=True)\nos.left.start()",
        "import json\njson.dumps = lambda reply: '{\"value\": 1000.0}'",
    ],
)
def test_side_effects_of_a_completion_do_not_change_later_scores(program):
    def check(completion):
        if completion == program:
            exec(completion, {})
        elif hasattr(os, "left"):
            os.go.set()
            os.left.join()
        return float(len(completion))

    scorer = checker_of(check, time_limit=10.0)
    scores = score_batch(scorer, batch_of(program, "a", "bc"))
    scorer.close()
    assert (scores.total.tolist(), scores.errors) == ([float(len(program)), 1.0, 2.0], {})


@pytest.mark.parametrize("name", ["math_answer", "mine"])
def test_the_name_survives_pickling_and_is_the_one_in_errors(name):
    scorer = MathAnswer()
    scorer.name = name
    copied = pickle.loads(pickle.dumps(scorer))
    assert copied.name == name
    assert f"scorer {name!r} raised" in score_batch(copied, TextBatch.from_texts(["1"], references=[["no sum"]])).error
    copied.close()


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.closerange(3, 256)",
        "import os\nos.close(3)",
        "import os\nos.closerange(0, 256)",
        "import os\nos._exit(0)",
    ],
)
def test_a_function_that_closes_descriptors_disturbs_no_other_episode(program):
    assert scores_around(program)[0] == HONEST


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space hold on Linux")
def test_a_function_that_takes_too_much_memory_fails_its_episode_alone():
    scorer = checker_of(run_check(), memory_limit=1 << 30)
    scores = score_batch(scorer, batch_of("1", "x = b'1' * (1 << 31)", "1 + 1"))
    np.testing.assert_array_equal(scores.total, [1.0, NAN, 5.0])
    assert "raised MemoryError" in scores.error


def test_an_exception_that_cannot_be_shown_fails_its_episode_alone():
    program = "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E"
    others, own = scores_around(program)
    assert others == HONEST
    assert np.isnan(own)


def test_a_function_may_print_and_read_without_disturbing_the_scores(capfd):
    def check(completion):
        import sys

        print("seen", completion)
        return len(sys.stdin.read())

    assert checker_of(check)(batch_of("a", "b")).tolist() == [0.0, 0.0]
    assert "seen a" in capfd.readouterr().err


def test_a_function_that_the_process_cannot_load_is_an_error_and_not_a_loop():
    class Unloadable:
        def __reduce__(self):
            return int, ("no number",)

    thing = Unloadable()
    error = score_batch(checker_of(lambda completion: thing is None), batch_of("a", "b")).error
    assert "the function could not be loaded in another process: raised ValueError" in error
    error = score_batch(checker_of(lambda completion, sample: 1), batch_of("a", metadata=[{"x": thing}])).error
    assert "the arguments could not be loaded in another process: raised ValueError" in error


def test_a_checker_can_be_copied_before_and_after_its_process_started():
    offset = 2
    scorer = checker_of(lambda completion: len(completion) + offset)
    for _ in range(2):
        for copied in (pickle.loads(pickle.dumps(scorer)), copy.deepcopy(scorer)):
            assert copied(batch_of("a")).tolist() == scorer(batch_of("a")).tolist() == [3.0]


def test_threads_share_a_checker():
    scorer = checker_of(lambda completion: float(completion))
    results = {}

    def ask(k):
        results[k] = scorer(batch_of(*[str(100 * k + i) for i in range(50)])).tolist()

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [100.0 * k + i for i in range(50)] for k in range(4)}


def test_a_large_batch_of_long_texts_goes_through():
    texts = ["a" * 20_000 + str(i) for i in range(300)]
    assert checker_of(lambda text: len(text))(batch_of(*texts)).tolist() == [float(len(text)) for text in texts]


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (3, {}, TypeError, "function is 3 of type int"),
        (lambda: 1, {}, TypeError, "'lambda' has the signature"),
        (lambda a, b, c: 1, {}, TypeError, r"expected f\(completion\) or f\(completion, sample\)"),
        (lambda *, completion: 1, {}, TypeError, "has the signature"),
        (looping, {"time_limit": 0}, ValueError, "time_limit must be a positive"),
        (looping, {"time_limit": NAN}, ValueError, "time_limit must be a positive"),
        (looping, {"memory_limit": 0}, ValueError, "memory_limit must be None or a positive number of bytes"),
        (looping, {"memory_limit": 1e9}, ValueError, "memory_limit must be None or a positive number of bytes"),
        (looping, {"on_timeout": NAN}, ValueError, "on_timeout must be None or a finite number"),
        (lambda completion, lock=LOCK: 1, {}, TypeError, "cannot be sent to another process"),
    ],
)
def test_a_checker_rejects_invalid_arguments(function, options, error, message):
    with pytest.raises(error, match=message):
        Checker(function, **options)


# All scorers


@pytest.mark.parametrize(
    "scorer",
    [
        NumericAnswer(),
        NumericAnswer(marker="is"),
        ValidJSON(),
        ValidJSON("first", "object"),
        JSONSchema(SCHEMA, "first", partial=True),
        pytest.param(MathAnswer(), marks=pytest.mark.slow),
        checker_of(lambda completion: len(completion) % 2),
    ],
    ids=lambda scorer: type(scorer).__name__,
)
def test_every_scorer_follows_the_contract(scorer):
    check_scorer(scorer, references=["7"])
    if hasattr(scorer, "close"):
        scorer.close()


TEXT = st.one_of(st.text(max_size=40), st.text("0123456789,.-+%$eE ", max_size=20), st.text('{}[]":,01 ', max_size=20))


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_scores_are_zero_or_one_and_do_not_depend_on_the_batch(texts):
    for scorer in (NumericAnswer(), ValidJSON(), ValidJSON("first"), JSONSchema(SCHEMA, "first")):
        together = scores_for(scorer, "10", *texts)
        assert together == [scores_for(scorer, "10", text)[0] for text in texts]
        assert set(together) <= {0.0, 1.0}


def test_a_wrong_answer_is_a_score_and_not_an_error():
    batch = batch_of("wrong", references=[["4"]])
    for scorer in (NumericAnswer(), ValidJSON(), JSONSchema(SCHEMA)):
        assert evaluate(scorer, batch).total.tolist() == [0.0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_starts_a_worker_of_its_own():
    code = """
import os, sys
from textgym.batch import TextBatch
from textgym.scorers import Checker
checker, batch = Checker(lambda completion: os.getpid()), TextBatch.from_texts(["a"])
worker = checker(batch)[0]
if os.fork() == 0:
    another = checker(batch)[0]
    del checker
    os._exit(int(another == worker))
_, status = os.wait()
sys.exit(int(status != 0 or checker(batch)[0] != worker))
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_was_forked_while_a_thread_was_scoring_does_not_wait_for_it():
    code = """
import os, signal, sys, threading, time
from textgym.batch import TextBatch
from textgym.scorers import Checker
checker, texts = Checker(lambda completion: time.sleep(30), time_limit=30), TextBatch.from_texts(["a"])
threading.Thread(target=checker, args=(texts,), daemon=True).start()
while not checker._worker._lock.locked():
    time.sleep(0.01)
if os.fork() == 0:
    signal.alarm(20)
    checker._worker.map([])
    os._exit(0)
_, status = os.wait()
checker.close()
os._exit(int(status != 0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
