"""The links of agents/README.md point at the files that define the names."""

import re

from fixtures import ROOT

AGENTS = ROOT / "agents"
LINK = re.compile(r"`(?P<name>[^`]+)` in \[(?P<file>[\w/]+\.py)\]\((?P<path>[^)]+)\)")


def test_every_link_of_the_table_points_at_the_file_that_defines_what_it_names():
    links = list(LINK.finditer((AGENTS / "README.md").read_text(encoding="utf-8")))
    assert len(links) >= 20
    for link in links:
        assert link["path"] == f"textgym_agents/{link['file']}"
        text = (AGENTS / link["path"]).read_text(encoding="utf-8")
        defined = rf"^ *(def |class )?(self\.)?{link['name']}(\(|:| =)"
        assert re.search(defined, text, re.MULTILINE), f"{link['name']} is not defined in {link['file']}"


def test_every_agent_has_its_paragraph():
    text = (AGENTS / "README.md").read_text(encoding="utf-8")
    for module in (AGENTS / "textgym_agents").glob("*.py"):
        if re.search(r"^class \w+\((OnlineAgent|OfflineAgent|Agent)\)", module.read_text(), re.M):
            is_shared = module.name in ("online.py", "offline.py")
            assert is_shared or f"(textgym_agents/{module.name})" in text, module.name
