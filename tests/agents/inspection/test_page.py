"""The file of a report: its data, sizes, escaping and errors. The page in a browser is tested in test_page_browser."""

import base64
import gzip
import hashlib
import json
import re
import warnings
import webbrowser
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

from reports import hostile_report, random_report
from textgym.rendering import display_token
from textgym_agents.inspection import Report, TokenTable
from textgym_agents.inspection import page as page_module
from textgym_agents.inspection.page import SCHEMA, page

HTML = resources.files("textgym_agents.inspection") / "html"


def element(html, name):
    return re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', html.decode(), re.DOTALL)[1]


def decoded(html):
    """Return the head, and a function that decodes an entry of it as (K, M) numbers."""
    head, data = json.loads(element(html, "head")), gzip.decompress(base64.b64decode(element(html, "data")))

    def numbers(entry):
        kind = {"u16": "<u2", "u32": "<u4", "f16": "<f2", "f32": "<f4"}[entry["dtype"]]
        size, shape = np.dtype(kind).itemsize, (entry["width"], entry["length"])
        planes = np.frombuffer(data, np.uint8, shape[0] * shape[1] * size, entry["offset"])
        stored = np.ascontiguousarray(planes.reshape(shape[0], size, shape[1]).transpose(0, 2, 1)).view(kind)[..., 0]
        if entry["dtype"][0] == "f":
            return stored.astype(float) * entry["factor"]
        return np.where(stored == np.iinfo(kind).max, np.nan, stored.astype(float))

    return head, numbers


@pytest.fixture(scope="module")
def report():
    report = random_report(24)
    report.table.columns["value"][3] = np.nan
    return report


def test_the_page_holds_every_token_and_column(report):
    head, numbers = decoded(page(report))
    assert head["schema"] == SCHEMA
    ids = np.array(head["ids"])[numbers(head["tokens"])[0].astype(int)]
    assert (ids == report.table.ids).all()
    assert [head["vocabulary"][head["ids"].index(i)] for i in ids.tolist()] == [
        display_token(report.table.texts[i]) for i in ids.tolist()
    ]
    assert [column["name"] for column in head["columns"]] == list(report.table.columns)
    for column in head["columns"]:
        values = report.table.columns[column["name"]].astype(float).reshape(len(ids), -1).T
        found = numbers(column)
        if column["name"] == "top_ids":
            found = np.array(head["ids"])[found.astype(int)]
        np.testing.assert_allclose(found, values, rtol=2**-11, atol=2**-24)


def test_the_page_holds_the_infos_of_the_episodes(report):
    head, numbers = decoded(page(report))
    fields = {field["name"]: field for field in head["episodes"]["fields"]}
    assert (numbers(head["episodes"]["sizes"])[0] == np.diff(report.table.offsets)).all()
    for name in ("return", "group", "update", "pair"):
        np.testing.assert_allclose(numbers(fields[name])[0], [info[name] for info in report.infos], rtol=1e-6)
    for name in ("prompt", "policy", "end_reason"):
        values = [fields[name]["values"][int(i)] for i in numbers(fields[name])[0]]
        assert values == [info[name] for info in report.infos]
    expected = [info["scores"]["sentiment"] for info in report.infos]
    np.testing.assert_allclose(numbers(fields["score/sentiment"])[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 3, np.nan], "u16"),
        ([0, 70_000, np.nan], "u32"),
        ([0.5, -1, np.nan, np.inf], "f16"),
        ([1e-9, -3e-9], "f16"),
        ([1e9, -3.5e9], "f16"),
        ([-1, 65_534], "f16"),
    ],
)
def test_numbers_keep_eleven_bits_in_the_smallest_type(values, dtype):
    values = np.array(values, dtype=np.float64)
    kind, factor, stored = page_module._stored(values)
    assert kind == dtype
    if dtype == "f16":
        np.testing.assert_allclose(stored.astype(float) * factor, values, rtol=2**-10)
    else:
        assert (stored[:-1] == values[:-1]).all()
        assert stored[-1] == np.iinfo(stored.dtype).max


def test_the_same_report_gives_the_same_bytes(report):
    assert page(report) == page(copied(report))


def copied(report):
    table = report.table
    columns = {name: values.copy() for name, values in table.columns.items()}
    again = TokenTable(table.offsets, table.ids.copy(), dict(table.texts), table.action_rows, table.steps, columns)
    infos = [dict(info) for info in report.infos]
    copy = Report(again, infos, dict(report.about), list(report.metrics), list(report.alarms), list(report.branches))
    copy.reasons = list(report.reasons)
    return copy


def test_the_policy_allows_the_own_script_and_style_alone(report):
    html = page(report).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, opening in (("script", '<script type="module">'), ("style", "<style>")):
        inline = re.findall(rf"{opening}(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline[-1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize(
    "word",
    ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval", "Function(", "fetch", "XMLHttpRequest",
     "http", "import(", "Worker", "setAttribute(\"style\"", "</"],
)  # fmt: skip
def test_the_script_cannot_parse_markup_or_request_anything(word):
    assert word not in (HTML / "app.js").read_text("utf-8")


def test_the_page_names_no_address():
    for name in ("page.html", "style.css"):
        assert not re.search(r"https?:|//|url\(|@import|src=|href=\"[^#]", (HTML / name).read_text("utf-8")), name


def test_hostile_texts_stay_inside_the_data():
    html = page(hostile_report()).decode()
    assert html.lower().count("<script") == html.lower().count("</script>") == 3
    assert "<img" not in html
    assert "<!--" not in html
    assert not re.search("[\x00\x1b\u202e\ud800-\udfff]", html)
    head, _ = decoded(html.encode())
    assert "</script><img src=x onerror=window.hacked=1>" in head["vocabulary"]


def test_of_an_alarm_only_episodes_are_named_that_are_the_reports():
    report = random_report(24)
    alarm = report.alarms[0]
    of_another_run = replace(alarm, texts=("once more", alarm.texts[1]), episodes=(0, 3))
    report.alarms = [alarm, of_another_run, replace(alarm, episodes=(24, 1_000)), replace(alarm, texts=())]
    assert [report.alarmed(each) for each in report.alarms] == [[0, 3], [3], [], []]
    head, _ = decoded(page(report))
    assert [each["episodes"] for each in head["alarms"]] == [[0, 3], [3], [], []]
    others = replace(report, alarms=report.alarms[2:])
    kept = [decoded(page(each, alternatives=3))[0]["kept"] for each in (others, replace(report, alarms=[]))]
    assert kept[0] == kept[1]


def test_alternatives_are_kept_for_as_many_episodes_as_asked(report):
    head, numbers = decoded(page(report, alternatives=6))
    assert len(head["kept"]) == 6
    assert {0, 3} <= set(head["kept"])  # those of the alarm
    wide = next(column for column in head["columns"] if column["name"] == "top_log_probs")
    rows = np.concatenate([np.arange(*report.table.offsets[[e, e + 1]]) for e in head["kept"]])
    expected = report.table.columns["top_log_probs"][rows].T
    np.testing.assert_allclose(numbers(wide), expected, rtol=2**-11)
    assert "left out for 18 of 24 episodes" in head["notes"][0]
    assert decoded(page(report, alternatives=24))[0]["kept"] is None


def test_best_and_worst_episode_of_each_update_keep_their_alternatives(report):
    kept = page_module._chosen(report, 20)
    for update in (1, 5):
        numbers = [n for n, info in enumerate(report.infos) if info["update"] == update]
        assert max(numbers, key=lambda n: report.infos[n]["return"]) in kept


def test_a_large_report_keeps_the_alternatives_of_some_and_warns_if_it_is_still_large(report, tmp_path, monkeypatch):
    small = len(page(report, alternatives=5))
    monkeypatch.setattr(page_module, "NUM_WITH_ALTERNATIVES", 5)
    monkeypatch.setattr(page_module, "LARGE", small + 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.save(tmp_path / "report.html")
    assert len(decoded((tmp_path / "report.html").read_bytes())[0]["kept"]) == 5
    monkeypatch.setattr(page_module, "LARGE", small // 2)
    with pytest.warns(UserWarning, match="the report has 0 MB"):
        report.save(tmp_path / "report.html")


def test_a_too_large_report_is_refused_and_nothing_is_written(report, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "TOO_LARGE", 1000)
    with pytest.raises(ValueError, match="more than the 0 that"):
        report.save(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
    assert report.save(tmp_path / "report.html", force=True).stat().st_size > 1000


def test_a_path_that_cannot_be_written_is_named(report, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing does not exist: create the folder"):
        report.save(tmp_path / "missing" / "report.html")
    with pytest.raises(IsADirectoryError, match=r"such as .*report\.html, got a folder"):
        report.save(tmp_path)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        report.save(tmp_path / "report.html", alternatives=-1)
    with pytest.raises(TypeError, match="number of episodes or None, got 'all'"):
        report.save(tmp_path / "report.html", alternatives="all")
    assert not list(tmp_path.iterdir())


def test_a_report_whose_parts_do_not_fit_is_refused(report):
    broken = copied(report)
    broken.infos.pop()
    with pytest.raises(ValueError, match="holds 24 episodes, the report 23 infos"):
        page(broken)
    broken = copied(report)
    broken.table.columns["value"] = np.zeros(3)
    with pytest.raises(ValueError, match="column 'value' holds 3 rows"):
        page(broken)


def test_a_report_without_columns_or_episodes_has_a_page():
    empty = TokenTable(np.zeros(1, np.int64), np.zeros(0, np.int64), {}, np.zeros(0, np.int64), np.zeros((0, 0), bool))
    head, _ = decoded(page(Report(empty, [], metrics=[{"loss": float("nan")}, {"loss": 1.0}])))
    assert head["episodes"]["count"] == 0
    assert head["metrics"] == {"loss": [None, 1.0]}


def test_the_return_is_the_sum_of_rewards_where_the_infos_have_none(report):
    plain = copied(report)
    for info in plain.infos:
        del info["return"]
    head, numbers = decoded(page(plain))
    field = next(field for field in head["episodes"]["fields"] if field["name"] == "return")
    sums = np.add.reduceat(report.table.columns["reward"].astype(float), report.table.offsets[:-1])
    np.testing.assert_allclose(numbers(field)[0], sums, rtol=1e-5)


def test_open_shows_the_page_in_the_browser(report, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    path = report.open()
    assert opened == [path.as_uri()]
    assert path.read_bytes() == page(report)
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    with pytest.warns(UserWarning, match="no browser could be opened"):
        report.open()
