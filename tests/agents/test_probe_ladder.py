"""Every online agent passes the ladder of probe environments on one seed; the benchmark runs three."""

import sys

import pytest

from fixtures import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from probe_ladder import AGENTS, STOCK, run


@pytest.mark.slow
@pytest.mark.parametrize("name", [*AGENTS, *STOCK])
def test_every_agent_passes_the_probe_ladder(name):
    report, _ = run(name, (0,))
    assert report.passed, str(report)
