"""The imports between the modules: no circles, and every arrow points down.

One arrow points up, and the graph does not show it: ``registration`` imports ``tasks`` and ``probes`` by name, as entry
points are, when an id of theirs is used, so that importing textgym stays light. The last test lists all such imports.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from fixtures import ROOT

PACKAGES = {"textgym": ROOT / "textgym", "textgym_agents": ROOT / "agents" / "textgym_agents"}

LAYERS = (
    ("errors", "version"),
    ("registration", "rendering", "tokenizers"),
    ("prompts",),
    ("batch",),
    ("lm",),
    ("actions", "constraints", "endings", "observations"),
    ("users",),
    ("scorers",),
    ("rewards",),
    ("tasks",),
    ("envs",),
    ("probes",),
    ("testing",),
    ("textgym",),
    ("textgym_agents",),
)
"""The packages and modules at the top of textgym, lowest first. One of a layer imports only those of lower layers."""


def modules() -> dict[str, Path]:
    """Return the file of each module by its dotted name; a package is its ``__init__.py``."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the known modules that a file imports, inside functions too, but not under ``TYPE_CHECKING``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in inside}
    return names & known.keys()


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(path, known) - {name} for name, path in known.items()}


def top(module: str) -> str:
    """Return the layer's member that a module belongs to."""
    package, _, below = module.partition(".")
    return package if package == "textgym_agents" or not below else below.partition(".")[0]


def agents() -> set[str]:
    """Return the modules that define a class derived from a base class of agents."""
    bases = {"Agent", "OnlineAgent", "OfflineAgent"}
    found = set()
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ClassDef)
                and node.name not in bases
                and bases & {ast.unparse(b) for b in node.bases}
            ):
                found.add(module)
    return found


def test_no_module_imports_itself_through_others() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_every_import_points_to_a_lower_layer() -> None:
    height = {name: level for level, names in enumerate(LAYERS) for name in names}
    arrows = [(module, target) for module, targets in graph().items() for target in targets]
    assert len(arrows) > 500
    unknown = {top(module) for module, _ in arrows} - height.keys()
    assert not unknown, f"give {unknown} a layer"
    wrong = [
        f"{module} -> {target}"
        for module, target in arrows
        if top(module) != top(target) and height[top(target)] >= height[top(module)]
    ]
    assert not wrong, wrong


def test_agents_do_not_import_each_other() -> None:
    """An algorithm is one file that reads top to bottom; what two of them share lies below both."""
    arrows, names = graph(), agents()
    assert len(names) >= 9, names
    wrong = [f"{name} -> {target}" for name in names for target in arrows[name] & names]
    assert not wrong, wrong


def test_the_packages_do_not_import_the_tools() -> None:
    """The tools, which write data and weights, are not in the wheel."""
    folder = ROOT / "tools"
    tools = {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }
    assert {"world", "world.scene"} <= tools.keys()
    wrong = [f"{module} -> {name}" for module, path in modules().items() for name in imports(path, tools)]
    assert not wrong, wrong


IMPORT_BY_NAME = {
    "textgym.registration",  # tasks and probes, when an id of theirs is used
    "textgym.scorers",  # its own modules, when a scorer of theirs is used
    "textgym.scorers.registry",  # the same, for scorers by id
    "textgym.scorers.extras",  # optional packages of others
}


def test_no_other_module_imports_by_name() -> None:
    functions = {"import_module", "load_env_creator", "__import__"}
    found = set()
    for module, path in modules().items():
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        if any(ast.unparse(call.func).rpartition(".")[2] in functions for call in calls):
            found.add(module)
    assert found == IMPORT_BY_NAME
