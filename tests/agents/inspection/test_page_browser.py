"""The page of a report in Chromium: every view, keyboard, filter, hostile texts, small and dark screens, accessibility.

apt-get install chromium; make browser
"""

import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from reports import hostile_report, random_report
from textgym_agents.inspection import Report

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).parents[3] / "build" / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = ("run", "episodes", "episode?n=0&t=2", "compare", "belief", "update", "alarms", "about")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright==1.65")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


class Page:
    """A page of the browser that collects errors and requests."""

    def __init__(self, browser, path, **options):
        self.address, self.errors, self.requests = path.as_uri(), [], []
        self.page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("request", lambda request: self.requests.append(request.url.partition("#")[0]))

    def open(self, view=""):
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}#{view}")
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def check(self):
        assert self.errors == []
        assert set(self.requests) <= {"about:blank", self.address}


@pytest.fixture(scope="module")
def report():
    return random_report(40)


@pytest.fixture(scope="module")
def saved(report, tmp_path_factory):
    return report.save(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def opened(browser, saved):
    page = Page(browser, saved)
    yield page
    page.check()
    page.page.close()


def found(page, text):
    """Wait for a text next to the filter; wait_for_function is not allowed by the page's policy."""
    page.locator("#found", has_text=text).wait_for()


def rows(page):
    return page.locator(".scroll [role=row]")


def test_every_view_is_drawn_without_error_or_request(opened):
    for view in VIEWS:
        page = opened.open(view)
        name = view.partition("?")[0]
        assert page.locator("nav [aria-current=page]").get_attribute("href").startswith(f"#{name}")
        assert len(page.locator("main").inner_text()) > 100
        assert not re.search("undefined|NaN|object", page.locator("main").inner_text())
    assert len(page.locator("nav a").all()) == len(VIEWS)


def test_views_without_data_do_not_appear(browser, tmp_path):
    report = random_report(4)
    kept = {name: report.table.columns[name] for name in ("log_prob", "reward")}
    report.table.columns = kept
    infos = [{"prompt": info["prompt"]} for info in report.infos]
    page = Page(browser, Report(report.table, infos).save(tmp_path / "report.html"))
    page.open("belief")
    assert page.page.locator("nav a").all_inner_texts() == ["Episodes", "Episode", "About"]
    assert "#episodes" in page.page.locator("nav [aria-current=page]").get_attribute("href")
    page.check()


def test_ten_thousand_episodes_are_a_list_of_few_rows(browser, tmp_path):
    report = random_report(10_000)
    opened = Page(browser, report.save(tmp_path / "report.html"))
    page = opened.open("episodes?sort=-return")
    returns = np.sort([info["return"] for info in report.infos])[::-1]
    assert page.locator("[role=grid]").get_attribute("aria-rowcount") == "10001"
    assert len(rows(page).all()) < 60
    page.locator(".scroll [tabindex='0']").press("End")
    last = rows(page).last
    assert last.get_attribute("aria-rowindex") == "10001"
    assert last.locator("div").nth(1).inner_text() == f"\N{MINUS SIGN}{-returns[-1]:.3f}"
    page.fill("input[type=search]", "return>0.99")
    found(page, f"{(returns > 0.99).sum()} of 10,000")
    opened.check()


@pytest.mark.parametrize(
    ("query", "keep"),
    [
        ("return<0.2", lambda info, text: info["return"] < 0.2),
        ("return>=0 -policy:after", lambda info, text: info["return"] >= 0 and info["policy"] != "after"),
        ("update=3", lambda info, text: info["update"] == 3),
        ("end_reason:max_new", lambda info, text: info["end_reason"] == "max_new_tokens"),
        ("alarm:kl", lambda info, text: False),
        (r"/\d\d/", lambda info, text: re.search(r"\d\d", text) or re.search(r"\d\d", info["prompt"])),
        ("duck", lambda info, text: "duck" in (info["prompt"] + text).lower()),
        ('"a careful"', lambda info, text: "a careful" in (info["prompt"] + "\n" + text).lower()),
        ("score/sentiment>0 tokens>18", None),
    ],
)
def test_the_filter_keeps_the_episodes_of_all_conditions(opened, report, query, keep):
    page = opened.open("episodes")
    page.fill("input[type=search]", query)
    expected = [n for n, info in enumerate(report.infos) if keep and keep(info, texts(report)[n])]
    if query == "alarm:kl":
        expected = [0, 3]
    if keep is None:
        lengths = np.diff(report.table.offsets)
        expected = [n for n, i in enumerate(report.infos) if i["scores"]["sentiment"] > 0 and lengths[n] > 18]
    found(page, f"{len(expected)} of 40")
    shown = [row.locator("div").first.inner_text() for row in rows(page).all()]
    assert shown == [str(n) for n in expected][: len(shown)]


def texts(report):
    return ["".join(token.text for token in episode.tokens) for episode in report.episodes]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("/[/", "/[/ is not a regular expression"),
        ("duck length<3", "No field “length”. Fields: return, score, "),
        ("return<x", "return < needs a number, got “x”"),
    ],
)
def test_a_filter_that_cannot_be_read_is_explained(opened, query, message):
    page = opened.open("episodes")
    page.fill("input[type=search]", query)
    found(page, message)


def test_keys_move_between_episodes_tokens_and_columns(opened):
    page = opened.open("episodes")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Episode 2')")
    page.keyboard.press("k")
    page.wait_for_selector("h1:has-text('Episode 1')")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("[aria-selected=true]").get_attribute("data-t") == "2"
    assert page.evaluate("document.activeElement.dataset.t") == "2"
    page.keyboard.press("End")
    assert "Token " in page.locator("aside").inner_text()
    page.keyboard.press("5")
    assert page.locator("[aria-pressed=true]").inner_text() == "5entropy"
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_selector("[role=grid]")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"


def test_the_address_keeps_the_state(opened):
    page = opened.open("episodes")
    page.fill("input[type=search]", "policy:after")
    found(page, "20 of 40")
    page.locator("[role=columnheader] >> text=return").click()
    rows(page).nth(3).click()
    page.wait_for_selector("aside")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("4")
    before = page.locator("main").inner_text()
    again = opened.open(page.url.partition("#")[2])
    assert again.locator("main").inner_text() == before
    assert "of 20 found" in before


def test_the_card_shows_the_numbers_of_the_token(opened, report):
    page = opened.open("episode?n=5&t=4")
    token = report.episodes[5].tokens[4]
    shown = dict(
        zip(page.locator("aside dt").all_inner_texts(), page.locator("aside dd").all_inner_texts(), strict=True)
    )
    assert f"{token.entropy:.3f}" == shown["entropy"]
    assert shown["log pi"].endswith("%")
    assert len(page.locator("aside .alt").all()) >= 5
    page.locator(".t").nth(7).hover()
    assert "Token 8 of" in page.locator("aside").inner_text()
    page.locator("h1").hover()
    assert "Token 5 of" in page.locator("aside").inner_text()


def test_branches_show_q_with_its_error_and_continuations(opened, report):
    page = opened.open("episode?n=0&t=2")
    branch = report.branches[0]
    assert len(page.locator(".branch").all()) == len(branch.actions)
    assert f"{abs(branch.q_values[1]):.3f}" in page.locator(".branch").nth(1).inner_text()
    assert "and they all laughed." in page.locator(".branch").nth(1).text_content()


def test_the_card_shows_biography_support_and_reason(opened, report):
    page = opened.open("episode?n=3&t=4")
    shown, row = page.locator("aside").inner_text(), report.table.rows(3).start + 4
    assert f"step 2\n{100 * np.exp(report.table.columns['biography'][row, 1]):.0f} %" in shown
    assert report.reasons[row] in shown
    support = report.table.columns["occlusion"][row]
    strongest = int(np.nanargmax(np.abs(support)))
    name = f"prompt, token {strongest + 1}" if strongest < 6 else f"(token {strongest - 5})"
    lines = page.locator("h3:has-text('context') + dl dt").all_inner_texts()
    assert name in lines[0]
    assert len(lines) == 6


def test_sign_is_shown_by_colour_and_underline(opened, report):
    page = opened.open("episode?n=1&c=advantage_mc")
    values = report.episodes[1].column("advantage_mc")
    large = np.abs(values) > 0.05 * np.abs(values).max()
    for t in np.flatnonzero(large):
        classes = page.locator(".t").nth(int(t)).get_attribute("class")
        assert ("minus" in classes) == (values[t] < 0)
        assert ("plus" in classes) == (values[t] > 0)
    style = "(e) => getComputedStyle(e).borderBottomStyle"
    assert page.locator(".t.minus").first.evaluate(style) == "dashed"
    assert page.locator(".t.plus").first.evaluate(style) == "solid"
    assert f"{np.abs(values).max():.3f}" in page.locator(".legend").inner_text()


def test_before_and_after_are_aligned_and_counted(opened, report):
    page = opened.open("compare?pair=2")
    pairs = [(n, n + 1) for n in range(0, 40, 2)]
    wins = sum(report.infos[b]["return"] > report.infos[a]["return"] for a, b in pairs)
    assert f"After is better in {wins} of 20 pairs: win rate {5 * wins} %" in page.locator("main").inner_text()
    cells = page.locator(".pair .both:not(.names)").all()
    for row, episode in ((0, 2), (1, 3)):
        shown = "".join(cell.locator(":scope > *").nth(row).text_content() for cell in cells)
        assert shown.replace("∅", "") == texts(report)[episode].replace("\n", "⏎")
    for cell in page.locator(".pair .both:has(.same)").all():
        assert len(set(cell.locator(".same").all_text_contents())) == 1


def test_belief_prints_rank_correlation_and_explained_variance(opened, report):
    page = opened.open("belief?b=value~value_mc")
    x, y = (report.table.columns[name].astype(float) for name in ("value_mc", "value"))
    rank = np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1]
    explained = 1 - (x - y).var() / x.var()
    assert f"Rank correlation {rank:.3f}" in page.locator("main").inner_text()
    assert f"explained variance {explained:.3f}" in page.locator("main").inner_text()
    page.locator("circle").first.click()
    page.wait_for_selector("aside")


def test_a_click_on_the_curve_shows_the_episodes_of_the_update(opened):
    page = opened.open("run?u=7")
    page.locator(".plot svg").press("ArrowLeft")
    page.locator(".plot svg").press("Enter")
    page.wait_for_selector("[role=grid]")
    assert page.locator("input[type=search]").input_value() == "update=6"
    assert page.locator("#found").inner_text() == "2 of 40"


def test_groups_fold(opened):
    page = opened.open("episodes?groups=1")
    assert len(page.locator("[aria-expanded]").all()) > 3
    count = page.locator("[role=grid]").get_attribute("aria-rowcount")
    page.locator("[aria-expanded]").first.click()
    assert int(page.locator("[role=grid]").get_attribute("aria-rowcount")) < int(count)


def test_hostile_texts_are_inert(browser, tmp_path):
    opened = Page(browser, hostile_report().save(tmp_path / "report.html"))
    for view in VIEWS:
        page = opened.open(view)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img, iframe, main script, [onload], [onerror], a[href^=javascript]").count() == 0
    for episode in range(8):
        page = opened.open(f"episode?n={episode}")
        assert not re.search("[\x00\x1b\u202e\ud800-\udfff]", page.locator("body").inner_text())
    assert page.locator(".t").first.evaluate("(e) => getComputedStyle(e).unicodeBidi") == "isolate"
    opened.check()


def test_dark_and_light_screens_differ_and_the_switch_changes_them(browser, saved):
    dark, light = (Page(browser, saved, color_scheme=scheme) for scheme in ("dark", "light"))
    pictures = [zlib.crc32(opened.open("episode?n=0").screenshot()) for opened in (dark, light)]
    assert pictures[0] != pictures[1]
    colour = "getComputedStyle(document.body).backgroundColor"
    grounds = [opened.page.evaluate(colour) for opened in (dark, light)]
    light.page.click("#theme")
    assert light.page.evaluate(colour) == grounds[0]
    assert "theme=dark" in light.page.url
    light.page.click("#theme")
    assert light.page.evaluate(colour) == grounds[1]


@pytest.mark.parametrize("view", VIEWS)
def test_a_screen_of_360_pixels_needs_no_sideways_scrolling(browser, saved, view):
    page = Page(browser, saved, viewport={"width": 360, "height": 740}).open(view)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


def test_print_shows_the_rows_that_the_screen_scrolls_to(opened):
    page = opened.open("episodes")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(rows(page).all()) == 40
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator(".scroll").evaluate("(e) => e.scrollHeight <= e.clientHeight + 1")
    page.evaluate("dispatchEvent(new Event('afterprint'))")


def test_reduced_motion_has_no_transitions(browser, saved):
    page = Page(browser, saved, reduced_motion="reduce").open("episode?n=0")
    assert page.locator(".t").first.evaluate("(e) => getComputedStyle(e).transitionDuration") == "0s"


def test_data_of_another_version_are_refused_with_one_message(browser, saved, tmp_path):
    newer = tmp_path / "newer.html"
    newer.write_text(saved.read_text("utf-8").replace("textgym.report/1", "textgym.report/2", 1), "utf-8")
    page = browser.new_page()
    page.goto(newer.as_uri())
    page.wait_for_selector("main h1")
    assert "This page reads textgym.report/1, the data are textgym.report/2" in page.locator("main").inner_text()
    assert page.locator("nav a").count() == 0


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: npm install --prefix build axe-core@4.14.1")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser, saved, scheme):
    opened = Page(browser, saved, color_scheme=scheme, bypass_csp=True)
    for view in VIEWS:
        page = opened.open(view)
        page.add_script_tag(content=AXE.read_text("utf-8"))
        found = page.evaluate("axe.run().then((result) => result.violations)")
        serious = [
            (v["id"], v["help"], [n["html"][:120] for n in v["nodes"]][:3])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], view
