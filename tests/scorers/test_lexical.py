import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers

from fixtures import slow_but
from textgym.batch import TextBatch
from textgym.prompts.base import Sample
from textgym.scorers import (
    BalancedBrackets,
    BannedWords,
    CharacterShare,
    DistinctN,
    Keywords,
    LengthBand,
    Readability,
    Regex,
    Repetition,
    Rhyme,
    SentenceShape,
    Syllables,
    WordShape,
    as_scorer,
    score_batch,
)
from textgym.scorers.lexical.rhyme import rhyme_ending
from textgym.scorers.lexical.syllables import count_syllables
from textgym.scorers.text import lines, lower_words_and_marks, sentences
from textgym.testing import check_scorer
from textgym.testing.known_scorers import preferences_of
from textgym.tokenizers import CharTokenizer, WordTokenizer, as_tokenizer

NAN = float("nan")
ALL = {
    "balanced_brackets": BalancedBrackets(),
    "banned_words": BannedWords(["cat", "happy dog"]),
    "character_share": CharacterShare(),
    "distinct_n": DistinctN(),
    "keywords": Keywords(["cat", "happy dog"]),
    "readability": Readability(),
    "readability by grade": Readability(grades=(3, 6)),
    "regex": Regex(r"\bcat\b"),
    "regex fullmatch": Regex(r"[a-z .]*", "fullmatch"),
    "regex count": Regex(r"\w+", "count", 5),
    "repetition": Repetition(),
    "rhyme": Rhyme(),
    "sentence_shape": SentenceShape(),
    "syllables": Syllables(),
    "word_shape": WordShape(),
}


def scores(scorer, *texts, **columns):
    return scorer(TextBatch.from_texts(list(texts), **columns)).tolist()


@pytest.mark.parametrize("name", slow_but(ALL, *list(ALL)[::4]))
def test_follows_the_scorer_contract(name):
    check_scorer(ALL[name])


@pytest.mark.parametrize("name", ALL)
def test_scores_the_preferred_text_higher(name):
    for better, worse in preferences_of(ALL[name]):
        first, second = scores(ALL[name], better, worse)
        assert first > second, (better, worse)


@pytest.mark.parametrize("name", [name for name in ALL if " " not in name and name != "regex"])
def test_id_equals_name(name):
    assert type(as_scorer(name)) is type(ALL[name])


def test_scorers_of_one_batch_share_its_words():
    class CountingList(list):
        reads = 0

        def __iter__(self):
            CountingList.reads += 1
            return super().__iter__()

    batch = TextBatch.from_texts([])
    batch.completions = CountingList(["The cat sat. The cat ran."])
    batch.lengths = np.array([25])
    for scorer in (Repetition(), DistinctN(1), DistinctN(2)):
        scorer(batch)
    assert CountingList.reads == 1


# BannedWords


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("a dog", 0),
        ("", 0),
        ("a cat", 1),
        ("CAT, cat; Cat!", 3),
        ("concat cats scat", 0),
        ("cat's cat-like _cat_", 3),
        ("a red\n  hat", 1),
        ("redhat, red, hat", 0),
        ("ha ha ha", 2),
        ("猫が", 1),
    ],
)
def test_banned_words_are_counted_where_they_begin_as_whole_words(text, hits):
    assert scores(BannedWords(["cat", "red hat", "ha ha", "猫"]), text) == [1 / (1 + hits)]


def test_two_banned_words_that_begin_at_one_place_are_one_hit():
    assert scores(BannedWords(["red", "red hat"]), "a red hat", "red red hat") == [1 / 2, 1 / 3]


@pytest.mark.parametrize("cell", [5, {"cat": 1}, b"cat"])
def test_a_column_without_words_is_an_error_that_shows_its_value(cell):
    for scorer in (Keywords(), BannedWords()):
        error = score_batch(
            scorer, TextBatch.from_texts(["a cat"], metadata=[{"keywords": cell, "banned_words": cell}])
        )
        assert f"of a sample are {cell!r}, expected a list" in error.error


def test_banned_words_can_come_with_the_sample():
    metadata = [{"banned_words": "cat, dog"}, {"banned_words": ["Dog"]}, {}, {"banned_words": []}]
    found = scores(BannedWords(), "a cat", "a cat", "a cat", "a cat", metadata=metadata)
    np.testing.assert_array_equal(found, [0.5, 1.0, NAN, NAN])


@pytest.mark.parametrize("scorer", [BannedWords, Keywords])
@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("cat", TypeError, "words is one string, 'cat'"),
        ([], ValueError, "words is empty"),
        (["cat", " "], ValueError, "is blank"),
        ([1], TypeError, "is 1, expected a string"),
    ],
)
def test_invalid_word_lists_are_rejected(scorer, words, error, message):
    with pytest.raises(error, match=message):
        scorer(words)


# Regex


def test_regex_modes_search_fullmatch_and_count():
    texts = ["ab12", "12", "", "1 2 3 4"]
    assert scores(Regex(r"\d\d"), *texts) == [1, 1, 0, 0]
    assert scores(Regex(r"\d\d", "fullmatch"), *texts) == [0, 1, 0, 0]
    assert scores(Regex(r"\d", "count", 4), *texts) == [0.5, 0.5, 0, 1]
    assert scores(Regex(r"\d", "count", 2), *texts) == [1, 1, 0, 1]
    assert scores(Regex(r"(?i)CAT"), "a cat") == [1]


def test_regex_reads_max_characters_only():
    assert scores(Regex("b", max_characters=3), "aaab", "aab") == [0, 1]
    assert scores(Regex("a*", "fullmatch", max_characters=3), "aaaa", "aaa") == [0, 1]
    assert scores(Regex("a", "count", 10, max_characters=3), "a" * 9) == [0.3]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("(",), ValueError, "'\\(' is not a regular expression"),
        ((1,), TypeError, "pattern is 1 of type int"),
        (("a", "find"), ValueError, "unknown mode 'find'"),
        (("a", "count", 0), ValueError, "maximum is 0, expected an integer >= 1"),
        (("a", "search", 1, 0), ValueError, "max_characters is 0, expected an integer >= 1"),
    ],
)
def test_regex_rejects_invalid_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Regex(*arguments)


# DistinctN


@pytest.mark.parametrize(
    ("n", "text", "expected"),
    [
        (1, "the cat the dog", 3 / 4),
        (2, "the cat The Cat", 2 / 3),
        (2, "a b c", 1),
        (2, "a", 0),
        (3, "!!!!", 1 / 2),
        (1, "", 0),
    ],
)
def test_distinct_n_is_the_share_of_distinct_n_grams(n, text, expected):
    assert scores(DistinctN(n), text) == [expected]


@given(st.text(alphabet="ab ", max_size=30), st.integers(1, 3))
def test_distinct_n_and_repetition_add_up_to_1(text, n):
    batch = TextBatch.from_texts([text])
    total = DistinctN(n)(batch)[0] + Repetition(n)(batch)[0]
    assert math.isclose(total, float(len(lower_words_and_marks(text)) >= n))


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_distinct_n_rejects_invalid_n(n):
    with pytest.raises(ValueError, match=r"n is .*, expected an integer >= 1"):
        DistinctN(n)


# Syllables and readability

COMMON = """
the:1 be:1 make:1 makes:1 eye:1 cake:1 loved:1 walked:1 through:1 strength:1 tongue:1 friend:1 please:1 house:1 league:1
table:2 little:2 wanted:2 happy:2 something:2 places:2 wishes:2 people:2 being:2 player:2 rhythm:2 quiet:2 lion:2
science:2 careful:2 homework:2 unique:2 crying:2 didn't:2 hundred:2 apple:2 business:2 nation:2 special:2 evening:2
beautiful:3 everything:3 created:3 idea:3 radio:3 happier:3 area:3 animal:3 family:3 another:3 remember:3 reality:4
experience:4 information:4 society:4 especially:4 television:4 basically:3 appreciate:4 serious:3 opinion:3 usual:3
mother-in-law:4 I'm:1 couldn't:2 café:2 every:2 safety:2 library:3 chocolate:2 fire:1 tired:2 naked:2 diamond:2
"""


def test_syllables_of_common_words_are_right_for_95_percent():
    words = dict(pair.split(":") for pair in COMMON.split())
    wrong = {word: count_syllables(word) for word, count in words.items() if count_syllables(word) != int(count)}
    assert len(words) == 74
    assert wrong == {"chocolate": 3, "diamond": 3, "naked": 1, "tired": 1}


@pytest.mark.parametrize("word", ["2nd", "猫", "", "xyz", "'", "b" * 1000, "42"])
def test_every_word_has_at_least_one_syllable(word):
    assert count_syllables(word) >= 1


def test_syllables_score_falls_with_the_distance_from_the_pattern():
    lines_of_5_7_5 = ["I can see a cat", "It is sitting on a mat", "Now it runs away"]
    first, second, third = lines_of_5_7_5
    scorer = Syllables()
    assert scores(scorer, "\n".join(lines_of_5_7_5), "\n\n".join(lines_of_5_7_5)) == [1, 1]
    assert scores(scorer, first, f"{first}\n{second}") == pytest.approx([1 / 3, 2 / 3])
    assert scores(scorer, f"{first}\n{second}\n{third}\n{first}") == pytest.approx([3 / 4])
    assert scores(scorer, f"a cat\n{second}\n{third}") == pytest.approx([(2 / 5 + 2) / 3])
    assert scores(scorer, f"{second}\n{second}\n{third}") == pytest.approx([(2 - 7 / 5 + 2) / 3])
    assert scores(scorer, "") == [0]


def test_syllables_takes_bands():
    scorer = Syllables([(2, 4), 1])
    assert scores(scorer, "a cat sat\ncat", "a\ncat", "a a a a a a\ncat") == pytest.approx([1, 3 / 4, 3 / 4])
    assert scorer == Syllables(((2, 4), (1, 1)))


@pytest.mark.parametrize("lines", [(), (0,), [(3, 2)], [(1, 2, 3)]])
def test_syllables_rejects_invalid_lines(lines):
    with pytest.raises(ValueError, match=r"expected numbers or pairs \(low, high\)"):
        Syllables(lines)


def test_readability_is_flesch_s_formula():
    # 10 words, 2 sentences, 13 syllables; then 6, 1 and 6
    text = "The happy dog ran home. It was a sunny morning."
    assert scores(Readability(), text) == pytest.approx([(206.835 - 1.015 * 5 - 84.6 * 1.3) / 100])
    assert scores(Readability(), "The cat sat on the mat.") == [1]
    grade = 0.39 * 5 + 11.8 * 1.3 - 15.59
    assert scores(Readability(grades=(4, 6)), text) == pytest.approx([1 - (4 - grade) / 10])
    assert scores(Readability(grades=(0, 1)), text) == pytest.approx([1 - (grade - 1) / 10])
    assert scores(Readability(grades=(1, 2)), text) == [1]


def test_a_row_of_marks_does_not_raise_readability():
    text = "The old man walked slowly along the river while the children were playing with a dog under the trees."
    plain, with_marks = scores(Readability(), text, f"{text} . . . ! ...")
    assert with_marks == plain


def test_readability_without_latin_words_is_0():
    assert scores(Readability(), "", "42 43.", "猫。", "...") == [0, 0, 0, 0]


@pytest.mark.parametrize("grades", [(3, 1), (1, 2, 3), (NAN, 1)])
def test_readability_rejects_invalid_grades(grades):
    with pytest.raises(ValueError, match="grades must be a pair"):
        Readability(grades)


# Rhyme

RHYMES = "cat:hat night:kite day:they see:tea make:break go:snow you:blue light:bite rain:lane better:letter now:cow"
RHYMES += " singing:ringing station:nation love:above door:more said:bed walked:talked happy:snappy high:my time:rhyme"
OTHERS = "cat:dog cat:cut night:net letter:water singing:walking station:lotion love:move go:do happy:city bed:bead"


def test_frequent_rhymes_are_detected_from_spelling():
    unheard = [pair for pair in RHYMES.split() if len({rhyme_ending(word) for word in pair.split(":")}) > 1]
    assert unheard == []
    rhyming = [pair for pair in OTHERS.split() if len({rhyme_ending(word) for word in pair.split(":")}) == 1]
    assert rhyming == ["bed:bead"]  # spelled like "bed:dead"


def test_rhyme_is_the_share_of_rhyming_pairs_of_the_scheme():
    cat, hat, night, kite, dog = "a cat", "the hat!", "one night,", "my kite", "the dog"
    assert scores(Rhyme(), "\n".join([cat, hat, night, kite]), "\n".join([cat, dog, night, kite])) == [1, 1 / 2]
    assert scores(Rhyme("ABAB"), "\n".join([cat, night, hat, kite])) == [1]
    assert scores(Rhyme("ABA"), "\n".join([cat, night, hat])) == [1]
    assert scores(Rhyme("AAA"), "\n".join([cat, hat, dog]), "\n".join([cat, hat, "flat"])) == [1 / 2, 1]


def test_an_unfinished_stanza_requires_all_its_pairs():
    cat, hat = "a cat", "the hat"
    found = scores(Rhyme("AA"), cat, f"{cat}\n{hat}", f"{cat}\n{hat}\n{cat}", f"{cat}\n\n{hat}\n{cat}\n{hat}")
    assert found == [0, 1, 1 / 2, 1]


def test_a_word_does_not_rhyme_with_itself_nor_a_line_of_marks_with_another():
    assert scores(Rhyme("AA"), "a cat\nthe Cat", "...\n!!!", "a cat\n...") == [0, 0, 0]


@pytest.mark.parametrize(("scheme", "error"), [("", ValueError), ("ABCD", ValueError), (["A", "A"], TypeError)])
def test_rhyme_rejects_invalid_schemes(scheme, error):
    with pytest.raises(error, match="scheme is"):
        Rhyme(scheme)


# SentenceShape and WordShape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Go now. Go? Wait (no)! Well...", ["Go now.", "Go?", "Wait (no)!", "Well..."]),
        ('He said "No." Then', ['He said "No."', "Then"]),
        ("It costs 3.50 now", ["It costs 3.50 now"]),
        ("A title\n\nA text.", ["A title", "A text."]),
        ("猫。犬。 ", ["猫。", "犬。"]),
        (" \n ", []),
        ("", []),
    ],
)
def test_sentences_end_at_their_marks(text, expected):
    assert sentences(text) == expected


def test_blank_lines_are_skipped():
    assert lines("a\n\n \t\nb\r\nc") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat sat. It ran!", 1),
        ("the cat sat. It ran!", 1 / 2),
        ("The cat sat", 0),
        ('He said "go." So I went.', 1),
        ('He said "go. So I went.', 1 / 2),
        ("He said “go. Now.”", 0),
        ("No.", 0),
        ("A " * 40 + "b.", 0),
        ("42 is the answer.", 1),
        ("... !", 0),
        ("猫坐在垫子上。", 1),
    ],
)
def test_sentence_shape_is_the_share_of_well_formed_sentences(text, expected):
    assert scores(SentenceShape(), text) == [expected]


WORDLIKE = "the I cat's 2nd 1980s 42 McKay O'Neil well-known NASA TV III naïve дом rhythms"


@pytest.mark.parametrize("word", WORDLIKE.split())
def test_word_like_words(word):
    assert scores(WordShape(), word) == [1]


@pytest.mark.parametrize(
    "word", ["xkcd", "aaargh", "c4t", "tHe", "a" * 21, "strngthsh", "b-xkcd", "aeiou", "a" * 99999]
)
def test_words_that_are_not_word_like(word):
    assert scores(WordShape(), word) == [0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SentenceShape(0), "expected 1 <= low <= high, got low=0, high=40"),
        (lambda: SentenceShape(3, 2), "expected 1 <= low <= high, got low=3, high=2"),
        (lambda: WordShape(0), "max_letters is 0, expected an integer >= 1"),
    ],
)
def test_shapes_reject_invalid_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# BalancedBrackets and CharacterShare


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        ("no brackets", 1),
        ("()[]{}", 1),
        ("([{}])", 1),
        ("([)]", 2 / 4),
        ("(", 0),
        (")(", 0),
        ("())", 2 / 3),
        ('say "(yes)" to “it”', 1),
        ('"(a"', 0),
        ('"a" "', 2 / 3),
    ],
)
def test_balanced_brackets_is_the_share_of_matched_brackets(text, expected):
    assert scores(BalancedBrackets(), text) == [expected]


def test_balanced_brackets_takes_other_pairs():
    assert scores(BalancedBrackets("<>**"), "<*a*>", "<*>", "(") == [1, 0, 1]


@pytest.mark.parametrize("pairs", ["", "(", "()[", "()(]", '""""'])
def test_balanced_brackets_rejects_invalid_pairs(pairs):
    with pytest.raises(ValueError, match="expected pairs of characters"):
        BalancedBrackets(pairs)


def test_character_share_is_the_share_of_characters_in_the_set():
    assert scores(CharacterShare("ab"), "aBcd", "", "é") == [0.5, 0, 0]
    assert scores(CharacterShare("ab", ignore_case=False), "aBcd") == [0.25]
    assert scores(CharacterShare("É"), "éa") == [0.5]


@pytest.mark.parametrize(("characters", "error"), [("", ValueError), (["a"], TypeError)])
def test_character_share_rejects_invalid_sets(characters, error):
    with pytest.raises(error, match="characters is"):
        CharacterShare(characters)


# Incremental scores


def subword_tokenizer():
    """A library tokenizer whose decoder drops the space before the first word."""
    pieces = ["▁", "▁a", "a", "b", "▁b", "▁cat", "s", "(", ")", "▁(", '"', "▁red", "▁hat", "é", ".", "▁▁"]
    library = LibraryTokenizer(models.Unigram([(piece, 0.0) for piece in pieces], unk_id=0))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    return as_tokenizer(library)


TOKENIZERS = {
    "tiny": as_tokenizer("tiny"),
    "byte": as_tokenizer("byte"),
    "char": CharTokenizer('ab cert.()"\nßAHİé猫'),
    "word": WordTokenizer(["cat", "cats", "red", "hat", "(a", "a)", "猫", "(", "ha"]),
    "padded": as_tokenizer("byte", vocab_size=300),
    "subword": subword_tokenizer(),
}
WORDS = ["cat", "red hat", "a", "ha ha", "a b", "ss", "(a", "猫", "i̇", "é", "be.", "b"]
INCREMENTAL = {
    "balanced_brackets": BalancedBrackets(),
    "banned_words": BannedWords(WORDS),
    "banned_words of the sample": BannedWords(),
    "character_share": CharacterShare("aeé猫"),
    "keywords": Keywords(WORDS),
    "keywords of the sample": Keywords(),
    "length_band": LengthBand(unit="characters"),
}
SNIPPETS = [
    "cat",
    " cat",
    "a red  hat",
    "RED\n hat",
    "ha ha ha",
    "ß",
    "İ",
    "(a [b]",
    '"',
    "猫猫",
    "é",
    "😀",
    ".",
    " ",
    "s",
]
PROMPT = "A happy ("
COLUMNS = [{"keywords": WORDS, "banned_words": "a, red hat, 猫"}, {"keywords": "cat, b"}, {}]


def batch_of_ids(tokenizer, rows, size):
    """Return texts of `size` tokens after prompts of different lengths, as an environment passes them."""
    prompts = [
        tokenizer.encode(PROMPT[: 3 * i])[: 3 * i] if tokenizer is TOKENIZERS["tiny"] else [0] * i for i in range(3)
    ]
    ids = np.full((len(rows), max(map(len, prompts)) + max(map(len, rows))), tokenizer.vocab_size, dtype=np.int64)
    lengths, starts = [], []
    for i, row in enumerate(rows):
        prompt = prompts[i % 3]
        text = prompt + row[:size]
        ids[i, : len(text)] = text
        starts.append(len(prompt))
        lengths.append(len(text))
    samples = [Sample("", (), COLUMNS[i % 3]) for i in range(len(rows))]
    done = np.zeros(len(rows), dtype=np.bool_)
    return TextBatch(tokenizer, ids, np.array(lengths), np.array(starts), samples, done)


@st.composite
def token_rows(draw, num_rows=3, max_tokens=24):
    """Rows of equal length: encoded snippets, cut anywhere, among arbitrary tokens."""
    tokenizer = TOKENIZERS[draw(st.sampled_from(sorted(TOKENIZERS)))]
    tokens = np.flatnonzero(tokenizer.token_mask).tolist()
    encoded = []
    for snippet in SNIPPETS:
        try:
            encoded.append(tokenizer.encode(snippet))
        except ValueError:  # not in the alphabet
            continue
    anything = st.lists(st.sampled_from(tokens), max_size=4)
    empty = [i for i in tokens if tokenizer.decode([i]) == ""]  # special tokens and beginnings of characters
    chunks = st.one_of(
        st.sampled_from(encoded), anything, *([st.lists(st.sampled_from(empty), max_size=4)] if empty else [])
    )
    drawn = [draw(st.lists(chunks, min_size=8, max_size=16)) for _ in range(num_rows)]
    rows = [[token for chunk in chunks for token in chunk][:max_tokens] for chunks in drawn]
    shortest = min(map(len, rows))
    return tokenizer, [row[:shortest] for row in rows]


@given(token_rows())
@settings(max_examples=150, deadline=None)
def test_last_pieces_concatenate_to_the_text(case):
    tokenizer, rows = case
    size = len(rows[0])
    texts = [""] * len(rows)
    for n in range(1, size + 1):
        batch = batch_of_ids(tokenizer, rows, n)
        texts = [text + piece for text, piece in zip(texts, batch.last_pieces, strict=True)]
        assert texts == batch.completions


@pytest.mark.slow
@given(token_rows(), st.integers(0, 24))
@settings(max_examples=200, deadline=None)
def test_incremental_scores_equal_the_score_of_the_whole_text(case, start):
    tokenizer, rows = case
    size = len(rows[0])
    start = min(start, size)
    first = batch_of_ids(tokenizer, rows, start)
    states = {name: scorer.begin(first) for name, scorer in INCREMENTAL.items()}
    for n in range(start, size + 1):
        batch = batch_of_ids(tokenizer, rows, n)
        for name, scorer in INCREMENTAL.items():
            if n > start:
                states[name] = pickle.loads(pickle.dumps(scorer.advance(states[name], batch)))
            scores = scorer.value(states[name], batch)
            np.testing.assert_allclose(scores, scorer(batch), rtol=1e-12, err_msg=f"{name}: {batch.completions}")


@given(st.lists(st.sampled_from("ab .(\n"), max_size=40))
@settings(max_examples=200, deadline=None)
def test_overlapping_words_are_found_character_by_character(characters):
    tokenizer = TOKENIZERS["char"]
    row = tokenizer.encode("".join(characters))
    for scorer in (Keywords(["a", "a b", "b a b", "ab", "b."]), BannedWords(["a", "a b", "b a b", "ab", "b."])):
        states = scorer.begin(batch_of_ids(tokenizer, [row], 0))
        for n in range(1, len(row) + 1):
            batch = batch_of_ids(tokenizer, [row], n)
            states = scorer.advance(states, batch)
            assert scorer.value(states, batch) == scorer(batch)


def test_states_stay_small_for_long_texts():
    tokenizer = TOKENIZERS["byte"]
    row = tokenizer.encode("a cat sat " * 100)
    for scorer in (Keywords(["cat", "unicorn"]), BannedWords(["cat", "red hat"]), CharacterShare(), BalancedBrackets()):
        assert len(pickle.dumps(scorer.begin(batch_of_ids(tokenizer, [row], len(row))))) < 250


def test_a_state_is_not_changed_by_later_tokens():
    tokenizer = TOKENIZERS["byte"]
    row = tokenizer.encode("a (cat) sat")
    for name, scorer in INCREMENTAL.items():
        states = scorer.begin(batch_of_ids(tokenizer, [row], 5))
        before = pickle.dumps(states)
        scorer.advance(states, batch_of_ids(tokenizer, [row], 6))
        assert pickle.dumps(states) == before, name


def test_last_pieces_of_texts_without_tokens_are_empty():
    assert TextBatch.from_texts(["", ""]).last_pieces == ["", ""]
    assert TextBatch.from_texts(["", "a"], ["p", ""]).last_pieces == ["", "a"]


def test_tokens_that_add_nothing_within_a_character_do_not_lose_it():
    tokenizer = TOKENIZERS["byte"]
    row = [0xE2, *[tokenizer.eos_token_id] * 10, 0x82, *[tokenizer.eos_token_id] * 10, 0xAC]
    assert batch_of_ids(tokenizer, [row], len(row)).last_pieces == ["€"]


def test_last_pieces_work_with_a_tokenizer_that_cannot_be_a_key():
    class Unhashable(CharTokenizer):
        __hash__ = None

    assert TextBatch.from_texts(["ab"], tokenizer=Unhashable("ab")).last_pieces == ["b"]


def test_incremental_scorers():
    incremental = {name for name, scorer in ALL.items() if scorer.incremental}
    assert incremental == {"balanced_brackets", "banned_words", "character_share", "keywords"}
