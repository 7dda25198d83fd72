"""Episodes as pictures."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.errors import install_hint
from textgym.rendering import FrameRenderer, RenderState, default_renderer
from textgym.rendering.frames import BAD, GOOD, NEWEST


def has(frame, color):
    return bool((frame == color).all(axis=2).any())


def drawn(renderer, text):
    """Return what is drawn of a text, as characters."""
    return "".join(renderer._characters(text))


def test_a_picture_shows_prompt_text_reward_and_budget():
    state = RenderState(prompt="Hi", tokens=(" a", " b"), rewards=(-1.0, 0.0), step=2, max_steps=4, total_reward=0.5)
    frame = default_renderer()(state)
    assert (frame.shape, frame.dtype) == ((240, 640, 3), np.uint8)
    assert has(frame, NEWEST)  # the background of " b"
    assert has(frame, BAD)  # that of " a"
    assert has(frame, GOOD)  # the bar of the reward
    assert not np.array_equal(frame, default_renderer()(RenderState(prompt="Ho", tokens=(" a", " b"))))
    ended = RenderState(prompt="Hi", tokens=(" a",), score=-1.0, end_reason="eos")
    assert not has(default_renderer()(ended), NEWEST)


@settings(max_examples=20)
@given(st.text(st.characters(exclude_categories=())), st.lists(st.text(st.characters(exclude_categories=()))))
def test_any_text_gives_a_picture(prompt, tokens):
    frame = default_renderer()(RenderState(prompt=prompt, tokens=tuple(tokens)), title=prompt)
    assert frame.shape == (240, 640, 3)


def test_what_the_font_lacks_is_written_as_its_code():
    renderer = default_renderer()
    assert drawn(renderer, "naïve Ελλάδα мир Łódź “…”") == "naïve Ελλάδα мир Łódź “…”"
    assert drawn(renderer, "中😀") == "<U+4E2D><U+1F600>"
    assert drawn(renderer, "␛␡␣") == "<U+001B><U+007F>␣"
    assert drawn(renderer, "❤\ufe0f e\u0301") == "❤ é"


def test_no_character_is_drawn_as_an_empty_box():
    """The picture of a missing character differs from those of all others."""
    renderer = default_renderer()
    for code in (*range(0x21, 0x600), *range(0x2000, 0x2200), *range(0x4E00, 0x4E20)):
        for character in drawn(renderer, chr(code)):
            assert renderer._mask(character) != renderer._missing


def test_lines_break_at_spaces_and_long_words_break_anywhere():
    renderer = FrameRenderer(width=20 * 12 + 20)
    cells = list(renderer._cells(RenderState(prompt="Once upon a time there was\n" + "x" * 45 + " y")))
    shown = ["".join(c[0] for c in line) for line in renderer._wrapped(cells)]
    assert shown == ["Once upon a time ", "there was", "x" * 20, "x" * 20, "xxxxx y"]


def test_a_text_that_is_too_long_is_scrolled_to_its_end():
    states = [RenderState(prompt="word " * 500, tokens=("end",)), RenderState(prompt="word " * 600, tokens=("end",))]
    assert has(default_renderer()(states[0]), NEWEST)
    assert has(default_renderer()(states[1]), NEWEST)


def test_a_picture_without_room_is_refused():
    with pytest.raises(ValueError, match="a picture of 640 x 60 has no room"):
        FrameRenderer(height=60)


def test_without_pillow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError) as error:
        FrameRenderer()
    assert str(error.value) == f"render_mode='rgb_array' needs Pillow: {install_hint('render')}"
