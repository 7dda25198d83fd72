"""Reports in terminal and notebook: readable without colour, inert whatever the model wrote."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from textgym_agents.inspection import Alarm, Branch, Report, TokenTable
from textgym_agents.inspection.shading import default_column
from textgym_agents.inspection.terminal import report_view

HOSTILE = ["\x1b[2J", "\u202egnp", "[red]bold[/red]", "<script>alert(1)</script>", "\ud83d", "\r\n", "", "שלום"]


def report_of(texts, numbers, **columns):
    """Return a report of one episode per row of texts, with a column ``advantage_mc``."""
    ids = np.arange(sum(map(len, texts)))
    offsets = np.cumsum([0, *map(len, texts)])
    flat = [text for row in texts for text in row]
    steps = np.array([[t < len(row) for t in range(max(map(len, texts)))] for row in texts])
    table = TokenTable(offsets, ids, dict(enumerate(flat)), ids, steps)
    table.put_actions("advantage_mc", np.array([x for row in numbers for x in row], dtype=np.float64))
    for name, values in columns.items():
        table.put_actions(name, np.array(values))
    infos = [{"prompt": "Once", "completion": "".join(row), "return": float(b)} for b, row in enumerate(texts)]
    return Report(table, infos, {"policy": "LMPolicy", "return": "score"})


def printed(view, **settings):
    console = Console(file=io.StringIO(), width=80, highlight=False, **settings)
    console.print(view)
    return console.file.getvalue()


@pytest.fixture
def report():
    return report_of([[" a", " good", " day"], [" a", " bad", " day"]], [[0.0, 0.6, -0.1], [0.0, -0.9, 0.05]])


def test_colour_and_underline_say_the_sign_of_a_token(report):
    shown = printed(report.episodes[1], force_terminal=True, color_system="truecolor")
    bad, day = (re.search(rf"\x1b\[([0-9;]*)m {word}", shown)[1] for word in ("bad", "day"))
    assert bad.startswith("4;")  # underlined
    assert not day.startswith("4;")
    assert int(bad.split(";")[-3]) > int(bad.split(";")[-1])  # more red than blue
    assert int(day.split(";")[-3]) < int(day.split(";")[-1])


def test_without_colour_marks_say_it(report, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    shown = printed(report.episodes[1], force_terminal=True)
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", shown)  # no colour, perhaps underlined
    assert "⁻⁻" in shown
    plain = printed(report.episodes[1])  # not a terminal
    assert "\x1b" not in plain
    assert "Once a bad⁻⁻ day" in plain
    assert "-0.9 to +0.05" in plain.replace("\n", " ")


@pytest.mark.parametrize("settings", [{}, {"force_terminal": True, "color_system": "truecolor"}])
def test_hostile_tokens_are_inert_in_a_terminal(settings):
    report = report_of([HOSTILE, HOSTILE[::-1]], [range(8), range(8)], log_prob=[-1.0] * 16)
    report.infos[0]["prompt"] = report.infos[1]["end_reason"] = "".join(HOSTILE)
    report.alarms = [Alarm(HOSTILE[0], "".join(HOSTILE), HOSTILE[2], 1.0, 0.5, 3)]
    shown = printed(report, **settings)
    without_styles = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", without_styles)
    assert "[red]bold[/red]" in without_styles
    assert "␛[2J" in without_styles


def test_everything_fits_80_columns():
    long = [f" word{i}" for i in range(200)]
    report = report_of([long] * 9, [np.linspace(-1, 1, 200)] * 9, log_prob=[-1.0] * 1800)
    texts = tuple(info["completion"] for info in report.infos)
    report.alarms = [Alarm("kl", "a sentence " * 20, "another " * 20, 1.0, 0.5, None, (0, 1, 2, 3, 4), texts[:5])]
    assert max(map(len, printed(report).splitlines())) <= 80
    assert "0, 1, 2, 3, 4" in printed(report)
    report.alarms = [replace(report.alarms[0], texts=("of another run",) * 5)]
    assert "0, 1, 2, 3, 4" not in printed(report)
    assert "best and worst episodes" in printed(report)


def test_a_comparison_shows_both_sides_and_how_often_after_is_better():
    report = report_of([[" sad"], [" so"], [" glad"], [" happy"]], [[0.0], [0.1], [0.2], [0.3]])
    for b, info in enumerate(report.infos):
        info |= {"policy": "before" if b < 2 else "after", "pair": (b + 2) % 4}
    shown = printed(report)
    assert "mean return +0.500 -> +2.500, better in 2 of 2" in shown
    assert re.search(r"\+0\.00 +sad .*\+2\.00 +glad", shown)


def test_alternatives_stand_beside_a_token_with_their_q_values(report):
    for name in ("log_prob", "log_prob_after", "log_prob_before"):
        report.table.put_actions(name, np.log(np.full(6, 0.25)))
    report.table.put_actions("top_ids", np.array([[5, 1, -1]] * 6))
    report.table.put_actions("top_log_probs", np.log(np.array([[0.5, 0.25, 1e-9]] * 6)))
    report.branches = [Branch(1, 1, (5, 1), (0.5, 0.25), (0.75, -0.5), (0.1, 0.1))]
    shown = printed(report.episodes[1])
    assert re.search(r"␣bad .* 0\.250 -> 0\.250 .*␣day 0\.50 \+0\.75, ␣good 0\.25 -0\.50", shown)
    assert report.episodes[0].branches == ()
    assert "Q" not in printed(report.episodes[0])


def test_show_prints_the_named_column(report, capsys):
    report.table.put_actions("entropy", np.arange(6.0))
    report.episodes[0].show("entropy")
    assert "entropy: 0 to 2 nats in this text" in capsys.readouterr().out
    report.show()
    assert "-0.9 to +0.05" in capsys.readouterr().out.replace("\n", " ")
    with pytest.raises(AttributeError, match="no column 'kl'"):
        report.episodes[0].show("kl")
    report.table.put_actions("top_ids", np.zeros((6, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="'top_ids' holds 2 numbers of each token"):
        report.episodes[0].show("top_ids")


def test_the_default_column_is_the_truth_where_it_is_known():
    assert default_column({"log_prob": 1, "gae_advantage": 1, "advantage_mc": 1}) == "advantage_mc"
    assert default_column({"log_prob": 1, "gae_advantage": 1}) == "gae_advantage"


class Tags(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


def test_hostile_tokens_are_text_in_a_notebook():
    report = report_of([HOSTILE], [np.linspace(-1, 1, 8)], log_prob=[-1.0] * 8)
    report.infos[0]["prompt"] = '"><img src=x onerror=alert(1)>'
    report.about["reference"] = "<b onclick=alert(1)>"
    page = Tags(report._repr_html_())
    assert page.tags == {"p", "b", "br", "span", "div"}
    assert page.attributes == {"style", "title"}
    assert "<script>alert(1)</script>" in page.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\ud800-\udfff]", report._repr_html_())
    assert "text-decoration:underline" in report.episodes[0]._repr_html_()


def test_a_report_as_a_data_frame_has_a_row_per_token(report):
    pytest.importorskip("pandas")
    frame = report.to_pandas()
    assert frame["episode"].tolist() == [0, 0, 0, 1, 1, 1]
    assert frame[frame["advantage_mc"] < -0.5]["text"].tolist() == [" bad"]


def test_an_episode_without_tokens_is_shown(report):
    empty = report_of([[], [" a"]], [[], [1.0]])
    assert "Once" in printed(empty.episodes[0])
    assert "Once" in empty.episodes[0]._repr_html_()
    assert "2 episodes, 1 tokens" in printed(report_view(empty))
