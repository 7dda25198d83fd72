"""docs/scorers.md says of every scorer what it says now; one whose package is missing says how to install it."""

import importlib.util
import inspect
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

import textgym.scorers
from fixtures import ROOT
from textgym.testing.known_scorers import REQUIRES

SCRIPT = ROOT / "tools" / "scorer_table.py"


def load_table():
    spec = importlib.util.spec_from_file_location("scorer_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scorer_table"] = module  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    return module


table = load_table()
WRITTEN = table.PAGE.read_text(encoding="utf-8")
LEAVES = [kind for kinds in table.groups_of_scorers().values() for kind in kinds]
BROUGHT = {"ReasoningGym", "RewardModel"}
"""Those that are given an object of the package that they need, or of their own."""
NEEDY = [kind for kind in LEAVES if kind.__name__ in REQUIRES and kind.__name__ not in BROUGHT]


def rows_of(text):
    """Return the cells of all tables, by the class in the first cell and then by column."""
    rows, columns = {}, []
    for line in text.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if len(cells) < 3 or cells[0]:
            columns = []
            continue
        cells = [cell.strip() for cell in cells[1:-1]]
        if not columns:
            columns = cells
        elif not cells[0].startswith("---"):
            name = re.match(r"`(\w+)`", cells[0])[1]
            rows.setdefault(name, []).append(dict(zip(columns, cells, strict=True)))
    return rows


ROWS = rows_of(WRITTEN)


def exported(*, made_of_others):
    for name in textgym.scorers.__all__:
        value = getattr(textgym.scorers, name)
        folder = value.__module__.split(".")[2]
        if inspect.isclass(value) and (folder == "combine") == made_of_others and "__call__" in dir_of_instances(value):
            yield name


def dir_of_instances(kind):
    is_leaf = kind.__module__.count(".") > 2  # the contracts stand beside the folders
    return {name for base in kind.__mro__[:-1] for name in vars(base)} if is_leaf else set()


def test_every_exported_scorer_has_a_row_of_facts_and_one_of_scores():
    names = set(exported(made_of_others=False))
    assert {"LengthBand", "Sentiment", "Judge"} <= names
    assert names <= {kind.__name__ for kind in LEAVES}
    assert list(ROWS) == [kind.__name__ for kind in LEAVES]
    assert {name: len(rows) for name, rows in ROWS.items() if len(rows) != 2} == {}


def test_every_exported_scorer_made_of_others_is_listed():
    names = set(exported(made_of_others=True))
    assert {"WeightedSum", "Cached"} <= names
    assert set(re.findall(r"^- `(\w+)`: ", WRITTEN, re.MULTILINE)) == names


def test_all_that_stands_around_the_tables_is_what_the_script_writes_now():
    for paragraph in table.page({}).split("\n\n"):
        if not paragraph.startswith("**Times**"):
            assert paragraph.rstrip() in WRITTEN


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_a_row_says_what_the_scorer_says_now(kind):
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


def as_pip_does(package):
    return package.lower().replace("_", "-")


@pytest.fixture(scope="module")
def said_without_packages():
    packages = {as_pip_does(package) for kind in NEEDY for package in REQUIRES[kind.__name__]}
    installed = packages_distributions()
    modules = [name for name, found in installed.items() if packages & set(map(as_pip_does, found))]
    code = WITHOUT_PACKAGES.format(modules=sorted(modules), folder=str(SCRIPT.parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.mark.parametrize("kind", NEEDY, ids=lambda kind: kind.__name__)
def test_without_its_package_a_scorer_says_how_to_install_it(kind, said_without_packages):
    packages = REQUIRES[kind.__name__]
    wanted = ["textgym[agents]"] if "torch" in packages else packages
    said = said_without_packages[kind.__name__]
    assert all(f"pip install '{package}'" in said for package in wanted), said


def test_a_reward_model_by_name_says_what_it_needs(said_without_packages):
    assert "pip install 'textgym[agents]'" in said_without_packages["RewardModel"]


def test_without_any_package_all_other_scorers_are_built(said_without_packages):
    assert set(said_without_packages) - BROUGHT == {kind.__name__ for kind in NEEDY}
