"""The 95 % intervals of values by rollouts hold the exact ones as often as they should."""

import runpy

import pytest

from fixtures import ROOT

COVERAGE = runpy.run_path(str(ROOT / "benchmarks" / "branching_coverage.py"))


@pytest.mark.slow
def test_intervals_cover_the_exact_values_of_2000_states():
    values = COVERAGE["value_intervals"](2000, 64)
    assert len(values.exact) == 2000
    assert 0.93 <= values.covered.mean() <= 0.97
    differing = values.kinds != 2  # where all returns are equal, the interval is a bound, which holds nearly always
    assert 0.93 <= values.covered[differing].mean() <= 0.97
    assert values.covered[~differing].mean() >= 0.95


@pytest.mark.slow
def test_intervals_of_advantages_with_an_adaptive_number_of_rollouts_are_a_little_too_narrow():
    assert 0.92 <= COVERAGE["advantage_coverage"](1000, 64).mean() <= 0.98
