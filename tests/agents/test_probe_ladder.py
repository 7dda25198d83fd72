"""Every online agent climbs the ladder of probe environments; the benchmark does it on three seeds."""

import sys

import pytest

from fixtures import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from probe_ladder import AGENTS, STOCK, climb


@pytest.mark.slow
@pytest.mark.parametrize("name", [*AGENTS, *STOCK])
def test_the_ladder_is_climbed(name):
    report, _ = climb(name, (0,))
    assert report.passed, str(report)
