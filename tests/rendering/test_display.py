"""Text as it is shown: nothing invisible, nothing that a terminal obeys, printable text unchanged."""

import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.rendering import display_text, display_token, isolated
from textgym.rendering.display import INVISIBLE

ANYTHING = st.text(st.characters(exclude_categories=()) | st.sampled_from("\x1b\u202e\u200d\ud83d \n\t\x9b\u2028"))


def is_hidden(character: str) -> bool:
    """Return whether a terminal obeys the character, or shows nothing of it."""
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or ord(character) in INVISIBLE


@given(ANYTHING)
def test_no_control_bidi_or_invisible_character_survives(text):
    for shown in (display_text(text), display_text(text, one_line=True), display_token(text)):
        assert not [c for c in shown if is_hidden(c) and c not in "\n\t"]
        assert shown.encode("utf-8").decode("utf-8") == shown
    assert not {"\n", "\t"} & set(display_text(text, one_line=True) + display_token(text))


@given(ANYTHING)
def test_a_token_is_never_empty_and_has_no_spaces_at_its_ends(text):
    shown = display_token(text)
    assert shown
    assert shown == shown.strip()


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))))
def test_printable_text_is_unchanged(text):
    if not {ord(c) for c in text} & INVISIBLE:
        assert display_text(text) == display_text(text, one_line=True) == text


@given(ANYTHING)
def test_text_in_display_form_is_unchanged(text):
    assert display_text(display_text(text)) == display_text(text)
    assert display_token(display_token(text)) == display_token(text)


def test_no_code_point_of_the_planes_with_letters_and_tags_is_hidden():
    everything = "".join(map(chr, [*range(0x20000), *range(0xE0000, 0xE0200)]))
    assert not [c for c in set(display_text(everything)) - {"\n", "\t"} if is_hidden(c)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", "␛[2J␇"),
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("a\u202eb\u2066c\u2069", "a<U+202E>b<U+2066>c<U+2069>"),
        ("\x7f\x85\x9b", "␡<U+0085><U+009B>"),
        ("\ud83d", "<U+D83D>"),
        ("a\u200bb\ufeff\u00ad", "a<U+200B>b<U+FEFF><U+00AD>"),
        ("one\r\ntwo\tthree", "one␍\ntwo\tthree"),
        ("\u00a0naïve Ελλάδα мир 中文 ❤\ufe0f", "\u00a0naïve Ελλάδα мир 中文 ❤\ufe0f"),
        ("\U000e0041\U000e0101", "<U+E0041><U+E0101>"),
        (string.printable[:95], string.printable[:95]),
        ("", ""),
    ],
)
def test_text_by_hand(text, shown):
    assert display_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" a b ", "␣a b␣"),
        (" \n", "␣⏎"),
        ("\t", "⇥"),
        (" ", "␣"),
        ("", "∅"),
        ("\u00a0", "<U+00A0>"),
        ("\ufffd", "\ufffd"),
    ],
)
def test_token_by_hand(text, shown):
    assert display_token(text) == shown


def test_right_to_left_letters_are_isolated_and_others_are_not():
    assert isolated("\u05e9\u05dc") == "\u2068\u05e9\u05dc\u2069"
    assert isolated("naïve") == "naïve"
