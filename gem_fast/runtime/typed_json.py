"""JSON that nobody vouches for into frozen dataclasses: bounded, strict, and every wrong entry named."""

import dataclasses
import json
import math
import re
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import cut

_LARGEST = 2**63 - 1
_SCALARS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", NoneType: "null"}


class EntryError(ValueError):
    """A wrong entry.

    Attributes:
        entry: where it stands, as `image.mean[1]`.
        reason: what is wrong with it, and what would be right.
    """

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(f"{entry or 'it'} {reason}")
        self.entry = entry
        self.reason = reason

    def inside(self, outer: str) -> "EntryError":
        """The same, seen from what holds the entry."""
        dot = "." if outer and self.entry and not self.entry.startswith("[") else ""
        return EntryError(f"{outer}{dot}{self.entry}", self.reason)


def require(holds: bool, entry: str, right: str, found: Any) -> None:
    """EntryError that says what would be right, unless it holds."""
    if not holds:
        raise EntryError(entry, f"must be {right}, got {shown(found)}")


def shown(value: Any) -> str:
    """A value in a line of plain characters."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return cut(json.dumps(value))


def member(outer: str, key: str) -> str:
    """The name of an object's entry."""
    plain = re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII)
    return f"{outer}{'.' if outer else ''}{key}" if plain else f"{outer}[{shown(key)}]"


def read_json(path: Path, limit: int) -> Any:
    """The content of a file of at most `limit` bytes.

    Raises:
        OSError: it can't be read. ValueError: it is no JSON, too large, or reached through a link.
    """
    kind = path.lstat().st_mode
    if not stat.S_ISREG(kind):
        raise ValueError("it is a link; put the file itself there" if stat.S_ISLNK(kind) else "it is no regular file")
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return parse_json(content.decode("utf-8"))


def parse_json(text: str) -> Any:
    """What the text says; ValueError for what is no JSON, nested too deeply, or has a key twice in an object."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("its entries are nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"an object has the key {shown(twice)} twice")
    return made


def from_json(kind: Any, value: Any, entry: str = "") -> Any:
    """A value of JSON as a dataclass, a tuple, a mapping or a scalar, whatever `kind` is.

    Args:
        kind: a dataclass, `tuple[X, ...]`, `tuple[X, Y]`, `Mapping[str, X]`, a scalar, or a union of scalars, or of
            null and one of the others.
        value: what `parse_json` gave.
        entry: its name, for errors.

    Raises:
        EntryError: a type is wrong, a key is missing or unknown, or the dataclass refuses a value.
    """
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, entry)
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        return _tuple(arguments, value, entry)
    if isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping):
        require(isinstance(value, dict), entry, "an object", value)
        for key in value:
            require(_is_text(key), member(entry, key), "a name in Unicode", key)
        return {key: from_json(arguments[1], each, member(entry, key)) for key, each in value.items()}
    if arguments:
        return _union(arguments, value, entry)
    return _scalar(kind, value, entry)


@cache
def _fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _dataclass(kind: Any, value: Any, entry: str) -> Any:
    require(isinstance(value, dict), entry, "an object", value)
    fields = _fields(kind)
    for name in fields:
        if name not in value:
            raise EntryError(member(entry, name), "is missing")
    for key in value:
        if key not in fields:
            raise EntryError(member(entry, key), f"is unknown; known are {', '.join(fields)}")
    read = {name: from_json(each, value[name], member(entry, name)) for name, each in fields.items()}
    try:
        return kind(**read)
    except EntryError as error:
        raise error.inside(entry) from None
    except ValueError as error:
        raise EntryError(entry, f"is wrong: {error}") from None


def _tuple(kinds: tuple[Any, ...], value: Any, entry: str) -> tuple[Any, ...]:
    require(isinstance(value, list), entry, "a list", value)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    require(len(value) == len(kinds), entry, f"a list of {len(kinds)}", value)
    return tuple(from_json(kinds[i], each, f"{entry}[{i}]") for i, each in enumerate(value))


def _union(kinds: tuple[Any, ...], value: Any, entry: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    rest = [kind for kind in kinds if kind is not NoneType]
    if len(rest) == 1:
        return from_json(rest[0], value, entry)
    right = " or ".join(_SCALARS[kind] for kind in kinds)
    require(type(value) in rest, entry, right, value)
    return _scalar(type(value), value, entry)


def _scalar(kind: type, value: Any, entry: str) -> Any:
    """JSON writes 100.0 as 100 in some languages, so a whole number is a number; nothing else is taken for another."""
    known = type(value) is kind or (kind is float and type(value) is int)
    require(known and _fits(value), entry, _SCALARS[kind], value)
    return kind(value)


def _fits(value: Any) -> bool:
    """Whether a scalar is one that everything else can hold."""
    if type(value) is int:
        return abs(value) <= _LARGEST
    return _is_text(value) if isinstance(value, str) else not isinstance(value, float) or math.isfinite(value)


def _is_text(value: str) -> bool:
    """Whether UTF-8 has it: JSON can also say half a character."""
    return not re.search("[\ud800-\udfff]", value)
