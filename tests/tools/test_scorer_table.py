"""docs/scorers.md is up to date, and a scorer whose package is missing raises an error with the install command."""

import importlib.util
import inspect
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

import textgym.scorers
from fixtures import ROOT
from textgym.scorers.catalogue import CATALOGUE

SCRIPT = ROOT / "tools" / "scorer_table.py"


def load_table():
    spec = importlib.util.spec_from_file_location("scorer_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scorer_table"] = module  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    return module


table = load_table()
WRITTEN = table.PAGE.read_text(encoding="utf-8")
SCORERS = [kind for kinds in table.groups_of_scorers().values() for kind in kinds]
GIVEN = {"ReasoningGym", "RewardModel"}
"""Scorers that are built from an object instead of importing their package."""
REQUIRING = [kind for kind in SCORERS if CATALOGUE[kind.__name__].packages and kind.__name__ not in GIVEN]
ROWS = table.rows_of(WRITTEN)


def exported(*, made_of_others):
    for name in textgym.scorers.__all__:
        value = getattr(textgym.scorers, name)
        is_combination = value.__module__.startswith("textgym.scorers.combine.")
        if inspect.isclass(value) and is_combination == made_of_others and "__call__" in attributes_of_leaves(value):
            yield name


def attributes_of_leaves(kind):
    is_leaf = kind.__module__.count(".") > 2  # the base classes lie beside the folders
    return {name for base in kind.__mro__[:-1] for name in vars(base)} if is_leaf else set()


def test_every_exported_scorer_has_a_row_of_facts_and_one_of_scores():
    names = set(exported(made_of_others=False))
    assert {"LengthBand", "Sentiment", "Judge"} <= names
    assert names <= {kind.__name__ for kind in SCORERS}
    assert list(ROWS) == [kind.__name__ for kind in SCORERS]
    assert {name: len(rows) for name, rows in ROWS.items() if len(rows) != 2} == {}


def test_every_exported_combination_is_listed():
    names = set(exported(made_of_others=True))
    assert {"WeightedSum", "Cached"} <= names
    assert set(re.findall(r"^- `(\w+)`: ", WRITTEN, re.MULTILINE)) == names


def test_the_text_around_the_tables_is_up_to_date_and_rows_survive_rewriting():
    groups = {folder: [ROWS[kind.__name__] for kind in kinds] for folder, kinds in table.groups_of_scorers().items()}
    assert table.page(groups, re.search(r"Measured on .*", WRITTEN)[0]) == WRITTEN


@pytest.mark.parametrize("kind", SCORERS, ids=lambda kind: kind.__name__)
def test_a_row_agrees_with_the_scorer(kind):
    try:
        row = table.row_of(kind, timed=False)
    except ImportError as error:
        pytest.skip(str(error))
    for written, now in zip(ROWS[kind.__name__], (table.facts_of(row), table.scores_of(row)), strict=True):
        assert list(written) == list(now)
        for column in now:
            if column in table.TIMES:
                assert (written[column] == "-") == isinstance(row.scores, str)
            else:
                assert written[column] == as_near_as_written(now[column], written[column]), column


def as_near_as_written(now, written):
    """Return ``now``, as an approximate number where it is one: networks differ in the last digits."""
    try:
        return written if float(written) == pytest.approx(float(now), abs=0.0101) else now
    except ValueError:
        return now


def test_a_changed_score_is_noticed():
    assert as_near_as_written("0.57", "0.59") != "0.59"
    assert as_near_as_written("0.57", "0.58") == "0.58"
    assert as_near_as_written("no", "yes") == "no"


# One process for all of them: nothing of a package may have been imported, and nothing cached, before.
WITHOUT_PACKAGES = """
import sys
for name in {modules}:
    sys.modules[name] = None  # as if it were not installed
sys.path.insert(0, {folder!r})
import scorer_table
from textgym.scorers import RewardModel
kinds = [kind for kinds in scorer_table.groups_of_scorers().values() for kind in kinds]
makers = {{kind.__name__: lambda kind=kind: scorer_table.built(kind) for kind in kinds}}
makers["RewardModel"] = lambda: RewardModel("a-model")
for name, make in makers.items():
    try:
        make()
    except ImportError as error:
        print(name, error, sep="\\t")
"""


def normalised(package):
    return package.lower().replace("_", "-")


@pytest.fixture(scope="module")
def errors_without_packages():
    packages = {normalised(package) for kind in REQUIRING for package in CATALOGUE[kind.__name__].packages}
    installed = packages_distributions()
    modules = [name for name, found in installed.items() if packages & set(map(normalised, found))]
    code = WITHOUT_PACKAGES.format(modules=sorted(modules), folder=str(SCRIPT.parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.mark.parametrize("kind", REQUIRING, ids=lambda kind: kind.__name__)
def test_without_its_package_a_scorer_raises_the_command_that_installs_it(kind, errors_without_packages):
    packages = CATALOGUE[kind.__name__].packages
    wanted = ["textgym[agents]"] if "torch" in packages else packages
    message = errors_without_packages[kind.__name__]
    assert all(f"pip install '{package}'" in message for package in wanted), message


@pytest.mark.parametrize("kind", REQUIRING, ids=lambda kind: kind.__name__)
def test_the_error_for_a_missing_package_is_documented(kind):
    assert "ImportError: If " in inspect.getdoc(kind.train if kind.__name__ == "BradleyTerry" else kind)


def test_a_reward_model_by_name_raises_the_command_that_installs_torch(errors_without_packages):
    assert "pip install 'textgym[agents]'" in errors_without_packages["RewardModel"]


def test_without_any_package_all_other_scorers_are_built(errors_without_packages):
    assert set(errors_without_packages) - GIVEN == {kind.__name__ for kind in REQUIRING}
