"""The table from concept to line in agents/README.md points where it says."""

import re
from pathlib import Path

AGENTS = Path(__file__).parents[1] / "agents"
LINK = re.compile(r"`(?P<code>[^`]+)` in \[(?P<file>[\w/]+\.py):(?P<line>\d+)\]\((?P<path>[^)#]+)#L(?P<anchor>\d+)\)")


def test_every_link_of_the_table_points_at_the_line_that_it_names():
    links = list(LINK.finditer((AGENTS / "README.md").read_text(encoding="utf-8")))
    assert len(links) >= 20
    for link in links:
        assert link["path"] == f"textgym_agents/{link['file']}"
        assert link["line"] == link["anchor"]
        lines = (AGENTS / link["path"]).read_text(encoding="utf-8").splitlines()
        right = [number for number, line in enumerate(lines, 1) if link["code"] in line]
        assert int(link["line"]) in right, f"{link['code']} stands in {link['file']} at {right}, not at {link['line']}"


def test_every_agent_has_its_paragraph():
    text = (AGENTS / "README.md").read_text(encoding="utf-8")
    for module in (AGENTS / "textgym_agents").glob("*.py"):
        if re.search(r"^class \w+\((\w+, )?(PolicyGradientAgent|OnlineAgent|OfflineAgent)\)", module.read_text(), re.M):
            is_shared = module.name in ("agent.py", "offline.py", "policy_gradient.py")
            assert is_shared or f"(textgym_agents/{module.name})" in text, module.name
