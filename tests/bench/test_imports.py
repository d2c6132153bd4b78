"""Data flows one way in `bench`: its modules import each other in no circle, also inside functions."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def imported(path):
    """Modules of `bench` that a file imports, as paths without ending."""
    package = path.parent.relative_to(BENCH).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = (node.module or "").split(".") if node.module else []
        if node.level:
            start = (*package[: len(package) - node.level + 1], *parts)
        elif parts[:2] == ["gem_fast", "bench"]:
            start = tuple(parts[2:])
        else:
            continue
        for names in (start, *((*start, alias.name) for alias in node.names)):
            if names and BENCH.joinpath(*names).with_suffix(".py").exists():
                yield "/".join(names)


def test_no_module_imports_itself_by_way_of_others():
    modules = {}
    for path in BENCH.rglob("*.py"):
        name = str(path.relative_to(BENCH).with_suffix(""))
        modules[name] = set(imported(path))
    assert "torch_provider" in modules["onnx_provider"]
    assert list(TopologicalSorter(modules).static_order())  # CycleError names the circle
