"""What open_clip's installed files say of its models, read as data: importing it takes longer than importing torch.

`model_configs/*.json` has the shapes, `pretrained.py` the tags. Of the latter only the assignments are evaluated, names
and literals and the functions that do nothing but fill in a dictionary; nothing in it is run.
"""

import ast
import json
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import missing_extra

_PARTS = ("embed_dim", "vision_cfg", "text_cfg")
_QUICK = "-quickgelu"
# Of the statements in `pretrained.py` that are no data: they repeat, under a name of its own, each model with the tags
# whose weights were trained with QuickGELU.
_KNOWN_STATEMENTS = "6bfe09bb0b2f64ef194a24f98c3922dc58108df95fcf4e51cdccc797ef98d9d4"


class NotDataError(ValueError):
    """A file of open_clip is written in another way than those that are known."""


@cache
def open_clip_folder() -> Path:
    """Where open_clip is installed; ModelError if it isn't."""
    try:
        found = find_spec("open_clip")  # which imports nothing
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise missing_extra("the list of models", "engine", ImportError(name="open_clip"))
    return Path(found.submodule_search_locations[0])


@cache
def _configs() -> dict[str, dict[str, Any]]:
    read = {path.stem: json.loads(path.read_bytes()) for path in (open_clip_folder() / "model_configs").glob("*.json")}
    return {name: read[name] for name in sorted(read, key=_natural) if all(part in read[name] for part in _PARTS)}


def _natural(name: str) -> list[Any]:
    """By which B-16 comes before B-32, and 224 before 1024."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())]


def model_names() -> list[str]:
    """All that open_clip can build, in its order."""
    return list(_configs())


def model_config(name: str) -> dict[str, Any] | None:
    """open_clip's config of a model, the caller's own copy; None if it has none of that name."""
    return deepcopy(_configs().get(name))


@cache
def pretrained_table() -> dict[str, dict[str, dict[str, Any]]]:
    """Settings of the weights by model and tag: `hf_hub`, `url`, `mean`, `std`, `interpolation`, `quick_gelu`."""
    try:
        return read_table(open_clip_folder())
    except (NotDataError, OSError, SyntaxError):  # another version, which can be asked
        import open_clip

        tags = {name: open_clip.list_pretrained_tags_by_model(name) for name, _ in open_clip.list_pretrained()}
        return {name: {tag: open_clip.get_pretrained_cfg(name, tag) for tag in each} for name, each in tags.items()}


def read_table(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The table in `pretrained.py`; NotDataError if it is not written as in the versions that are known."""
    names = _assigned((folder / "constants.py").read_text(encoding="utf-8"), {})
    source = (folder / "pretrained.py").read_text(encoding="utf-8")
    table = _assigned(source, names).get("_PRETRAINED")
    if not isinstance(table, dict):
        raise NotDataError("pretrained.py has no table")
    quick = {
        f"{name}{_QUICK}": {tag: dict(settings) for tag, settings in tags.items() if settings.get("quick_gelu")}
        for name, tags in table.items()
    }
    return table | {name: tags for name, tags in quick.items() if tags}


def _assigned(source: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all names that a module assigns, given those that it imports."""
    found, others = dict(names), []
    functions: dict[str, ast.FunctionDef] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = _value(value, found, functions)
            case ast.FunctionDef(name=name, body=[ast.Return(value=ast.Dict())]):
                functions[name] = statement
            case ast.For() | ast.While() | ast.If() | ast.AugAssign() | ast.Expr(value=ast.Call()):
                others.append(ast.get_source_segment(source, statement) or "")
    if others and sha256("\n".join(others).encode()).hexdigest() != _KNOWN_STATEMENTS:
        raise NotDataError("pretrained.py changes its table in a way that is not known")
    return found


def _value(node: ast.expr | None, names: Mapping[str, Any], functions: Mapping[str, ast.FunctionDef]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Tuple(elts=items):
            return tuple(_value(item, names, functions) for item in items)
        case ast.Dict(keys=keys, values=values):
            found: dict[Any, Any] = {}
            for key, each in zip(keys, values, strict=True):
                given = _value(each, names, functions)
                found |= given if key is None else {_value(key, names, functions): given}
            return found
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords) if name == "dict" or name in functions:
            given = {each.arg: _value(each.value, names, functions) for each in keywords}
            return given if name == "dict" else _called(functions[name], given, names)
    raise NotDataError(f"no data: {ast.dump(node)[:100] if node else None}")


def _called(function: ast.FunctionDef, given: dict[Any, Any], names: Mapping[str, Any]) -> Any:
    """What a function of keywords returns, whose only statement is a dictionary of them."""
    own = function.args
    wanted = [each.arg for each in own.args]
    if len(own.defaults) != len(wanted) or own.kwarg is None:
        raise NotDataError(f"{function.name} takes other arguments than those that are known")
    local = dict(names) | {arg: _value(value, names, {}) for arg, value in zip(wanted, own.defaults, strict=True)}
    local |= {arg: value for arg, value in given.items() if arg in wanted}
    local[own.kwarg.arg] = {arg: value for arg, value in given.items() if arg not in wanted}
    (returned,) = function.body
    assert isinstance(returned, ast.Return)
    return _value(returned.value, local, {})
