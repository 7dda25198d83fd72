"""Links of the tables from concept to code, and of the READMEs, point at what they name."""

import re

import pytest

from fixtures import ROOT

AGENTS = ROOT / "agents"
LINK = re.compile(r"(?P<names>`\w+`(?: and `\w+`)?)[^|`]* in \[(?P<file>[\w/]+\.py)\]\((?P<path>[^)]+)\)")
PAGES = [
    "README.md", "agents/README.md", "docs/architecture.md", "docs/credit.md", "docs/leaderboard.md", "docs/metrics.md",
    "docs/scorers.md",
]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "folder"), [("agents/README.md", "agents/textgym_agents"), ("docs/architecture.md", "textgym")]
)
def test_every_link_of_a_table_points_at_the_file_that_defines_what_it_names(page, folder):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = list(LINK.finditer(text))
    assert len(links) >= 20
    assert len(links) == len(re.findall(r"` in \[|one per sub-environment, in \[", text))
    for link in links:
        path = ((ROOT / page).parent / link["path"]).resolve()
        assert path.is_relative_to(ROOT / folder)
        assert path.as_posix().endswith(f"/{link['file']}")
        code = path.read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", link["names"]):
            defined = rf"^ *(def |class )?(self\.)?{name}(\(|:| =)"
            assert re.search(defined, code, re.MULTILINE), f"{name} is not defined in {link['path']}"


@pytest.mark.parametrize("page", PAGES)
def test_every_local_link_points_at_a_file_and_a_heading(page):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page} links {target}; the headings are {sorted(anchors)}"


def test_every_agent_has_its_paragraph():
    text = (AGENTS / "README.md").read_text(encoding="utf-8")
    for module in (AGENTS / "textgym_agents").glob("*.py"):
        if re.search(r"^class \w+\((OnlineAgent|OfflineAgent|Agent)\)", module.read_text(), re.M):
            is_shared = module.name in ("online.py", "offline.py")
            assert is_shared or f"(textgym_agents/{module.name})" in text, module.name
