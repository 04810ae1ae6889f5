"""How the modules hang together: no imports in circles, and no two classes of one name."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

EXCEPTED = {
    # Code from before tagging had a room of its own asks search for it.
    ("openmofi.search", "openmofi.tag"),
}
"""(module, what it may import although that leads back to it); this list only gets shorter."""


def read_modules(source: Path) -> dict[str, ast.Module]:
    """Returns the syntax of each module by its name; a package has that of its __init__.py."""
    modules = {}
    for path in sorted(source.glob("openmofi/**/*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if path.stem == "__init__" else parts)
        modules[name] = ast.parse(path.read_text())
    return modules


def imported(tree: ast.Module) -> Iterator[str]:
    """Yields every name that a module imports, inside functions and for types only, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write imports in full; relative ones are not followed here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lineage(name: str) -> list[str]:
    """Returns a name, the package it is in, the package that is in, and so on."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def import_graph(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Returns what each module imports: modules, and the packages that are run on the way there.

    A package may show what lies in it, so the packages that a module is in are not counted, unless
    it names them.
    """
    graph = {}
    for name, tree in modules.items():
        graph[name] = set()
        for target in imported(tree):
            inner = [module for module in lineage(target) if module in modules]
            graph[name] |= {*inner[:1]} | ({*inner} - {*lineage(name)})
        graph[name].discard(name)
    return graph


def reached_from(start: str, graph: dict[str, set[str]]) -> set[str]:
    """Returns all that a module imports, directly or not."""
    found, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Returns the groups of modules each of which imports, directly or not, all of its group."""
    reached = {name: reached_from(name, graph) for name in graph}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }
    return sorted(sorted(group) for group in groups)


def shared_names(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Returns the names that several classes bear, and the modules these are in."""
    places = defaultdict(list)
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    return {name: {*found} for name, found in places.items() if len(found) > 1}


MODULES = read_modules(SOURCE)
GRAPH = import_graph(MODULES)


def test_no_module_imports_itself_by_way_of_others():
    graph = {
        name: {target for target in targets if (name, target) not in EXCEPTED}
        for name, targets in GRAPH.items()
    }
    assert len(graph) > 300
    assert circles(graph) == []


@pytest.mark.parametrize(("name", "target"), sorted(EXCEPTED))
def test_an_exception_that_is_no_longer_needed_is_struck_out(name, target):
    assert target in GRAPH[name]
    assert name in reached_from(target, GRAPH)


@pytest.mark.parametrize(
    "line",
    [
        "import openmofi.b.deep",
        "from openmofi.b.deep import Thing",
        "from openmofi.b import deep",
        "def later():\n    from openmofi.b import deep",
        "if TYPE_CHECKING:\n    from openmofi.b.deep import Thing",
        "from openmofi.b import leaf",  # which runs b/__init__.py, and that imports deep
    ],
)
def test_a_circle_is_found_however_it_is_imported(line):
    sources = {
        "openmofi": "",
        "openmofi.a": line,
        "openmofi.b": "from openmofi.b.deep import Thing",
        "openmofi.b.deep": "from openmofi.c import other",
        "openmofi.b.leaf": "",
        "openmofi.c": "from openmofi.a import more",
    }
    graph = import_graph({name: ast.parse(text) for name, text in sources.items()})
    [circle] = circles(graph)
    assert {"openmofi.a", "openmofi.b.deep", "openmofi.c"} <= {*circle}
    assert "openmofi.b.leaf" not in circle


def test_a_package_may_show_what_lies_in_it():
    sources = {
        "openmofi": "",
        "openmofi.b": "from openmofi.b.deep import Thing",
        "openmofi.b.deep": "from openmofi.b.leaf import Other",
        "openmofi.b.leaf": "import numpy",
    }
    assert circles(import_graph({name: ast.parse(text) for name, text in sources.items()})) == []


def test_no_two_classes_have_one_name():
    assert shared_names(MODULES) == {}


def test_classes_of_one_name_are_found_inside_functions_and_in_one_module():
    sources = {"a": "class One: ...", "b": "class Two: ...\ndef f():\n    class One: ...\n"}
    sources |= {"c": "class Three: ...\nclass Three: ..."}
    found = shared_names({name: ast.parse(text) for name, text in sources.items()})
    assert found == {"One": {"a", "b"}, "Three": {"c"}}
