"""Episodes as coloured text and as a line that is updated in place."""

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.rendering import LiveLine, RenderState, colors_wanted, display_text, terminal_text

SGR = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "a\x1b]52;c;aGk=\x07\u202e\ud83d\x9b2J\r"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("variables", "stream", "wanted"),
    [
        ({}, Terminal(), True),
        ({}, io.StringIO(), False),
        ({"FORCE_COLOR": "1"}, io.StringIO(), True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, Terminal(), False),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({"NO_COLOR": ""}, Terminal(), True),
        ({"TERM": "dumb"}, Terminal(), False),
    ],
)
def test_colours_are_for_terminals_and_follow_the_environment(monkeypatch, variables, stream, wanted):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert colors_wanted(stream) is wanted


def test_colours_by_hand():
    state = RenderState(
        prompt="Hi",
        tokens=(" a", " b", " c", " d", ""),
        rewards=(0.0, 1.0, -0.1, 0.0, 0.0),
        probs=(0.5, 0.05, 0.9, 0.001, 1.0),
    )
    assert terminal_text(state, color=True) == (
        "\x1b[2mHi|\x1b[0m a\x1b[38;5;15;48;5;34m b\x1b[0m\x1b[38;5;15;48;5;52m c\x1b[0m\x1b[35m d\x1b[0m"
    )


@given(st.lists(st.tuples(st.text(), st.floats(allow_infinity=False), st.floats(0, 1))), st.text())
def test_colours_change_nothing_but_colours(tokens, prompt):
    state = RenderState(
        prompt=prompt + HOSTILE,
        tokens=tuple(token for token, _, _ in tokens),
        rewards=tuple(reward for _, reward, _ in tokens),
        probs=tuple(prob for _, _, prob in tokens),
    )
    colored, plain = terminal_text(state, color=True), terminal_text(state, color=False)
    assert SGR.sub("", colored) == plain
    assert not set(plain) & set("\x1b\x07\u202e\ud83d\x9b\r")


def lines(states, encoding="utf-8", monkeypatch=None):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "60")
    line = LiveLine()
    for state in states:
        line.show(state)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_the_line_is_overwritten_and_finished_at_the_end(monkeypatch):
    running = RenderState(prompt="Hi", tokens=(" there",), step=1, max_steps=2, total_reward=0.25)
    ended = RenderState(prompt="Hi", step=2, max_steps=2, total_reward=1.0, score=1.0, end_reason="eos")
    shown = lines([running, ended, running], monkeypatch=monkeypatch)
    assert shown == (
        "\rstep 1/2  reward +0.250  Hi| there\rstep 2/2  score +1.000  eos  Hi|  \n\rstep 1/2  reward +0.250  Hi| there"
    )


def test_a_shorter_line_covers_the_longer_one_and_a_reset_begins_a_new_line(monkeypatch):
    long, short = (RenderState(prompt="a" * n, step=1) for n in (9, 3))
    shown = lines([long, short, RenderState(prompt="b")], monkeypatch=monkeypatch)
    assert shown.endswith("aaa|      \n\rstep 0/1  reward +0.000  b|")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_the_line_fits_the_terminal_in_every_encoding(monkeypatch, encoding):
    state = RenderState(prompt="é中\n" + HOSTILE * 3, tokens=("x" * 100, HOSTILE, "中" * 50), step=3)
    shown = lines([state], encoding, monkeypatch).removeprefix("\r")
    assert sum(2 if c == "中" else 1 for c in shown) <= 60
    assert display_text(shown, one_line=True) == shown


def test_without_stdout_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    LiveLine().show(RenderState(prompt="Hi"))
