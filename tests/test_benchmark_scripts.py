"""The scripts in benchmarks/ are not run here; what they import exists."""

import ast
import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("*.py"))


def imports(source: str) -> list[tuple[str, str]]:
    """Returns (module, name) of each `from module import name`, also inside functions."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return [(node.module or "", alias.name) for node in found for alias in node.names]


def names_of(path: Path) -> set[str]:
    """Returns what a script defines at its top."""
    tree = ast.parse(path.read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return names | {node.id for t in targets for node in ast.walk(t) if isinstance(node, ast.Name)}


def exists(module: str, name: str) -> bool:
    """Says whether a module of ours, or a script beside, has such a name."""
    beside = BENCHMARKS / module.replace(".", "/")
    if beside.with_suffix(".py").is_file():
        return name in names_of(beside.with_suffix(".py"))
    if beside.is_dir():
        return (beside / f"{name}.py").is_file()
    if module.partition(".")[0] != "openmofi":
        return True
    found = importlib.import_module(module)
    return hasattr(found, name) or bool(importlib.util.find_spec(f"{module}.{name}"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_imports_exists(script):
    wanted = imports((BENCHMARKS / script).read_text())
    assert [pair for pair in wanted if not exists(*pair)] == []


@pytest.mark.parametrize(
    ("module", "name"), [("reading", "nothing"), ("own", "nothing"), ("openmofi.kb", "nothing")]
)
def test_a_name_that_is_missing_is_found_out(module, name):
    assert not exists(module, name)
