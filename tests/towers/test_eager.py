"""The eager forward is a witness of its own: it must not share code with the engine that is held against it."""

import ast
import inspect

from gem_fast.towers import eager


def test_it_imports_torch_and_nothing_of_ours():
    nodes = list(ast.walk(ast.parse(inspect.getsource(eager))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {"." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} == {"typing", "torch"}
