"""A pickle read as data: tensors are described, and nothing is imported or called.

Pickles are small programs. This machine knows the operations that build containers and the few names with which torch
describes a tensor; whatever else a pickle asks for is refused by its name. Work and memory are bounded by its length.
"""

import io
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .stored import Module, Name, Storage, UnreadableError, damaged, made, storage_of

MOST_BYTES = 64 << 20  # of a pickle: the description of a checkpoint, without its tensors, has a few megabytes at most
MOST_STEPS = 3_000_000  # a ViT-bigG with its optimizer takes 200,000
_LONGEST_NAME = 1 << 10  # letters of a class; each of them may be joined of the same long text
_SMALL = 1 << 32  # integers below it are told apart by their hash


def read_pickle(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """The object that a pickle describes, and the storages it names; the stream is left behind it.

    Raises:
        UnreadableError: it is damaged or wants other objects.
    """
    machine = _Machine()
    try:
        return machine.run(pickletools.genops(stream)), machine.storages
    except UnreadableError:
        raise
    # Whatever a wrong order of operations runs into: too few items, items of another kind, no such memo.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise damaged(f"its description breaks off or is wrong ({str(error)[:80]})") from error


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marked: list[list[Any]] = field(default_factory=list)  # the stacks below each open mark
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def run(self, operations: Iterator[tuple[Any, Any, Any]]) -> Any:
        for step, (operation, argument, _) in enumerate(operations):
            if step >= MOST_STEPS:
                raise damaged(f"a pickle of more than {MOST_STEPS:,} steps")
            name = operation.name
            if name == "STOP":
                return self.stack.pop()
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _FRESH:
                self.stack.append(_FRESH[name]())
            elif name in _MEMO_WRITES:
                self.memo[len(self.memo) if argument is None else _small(argument)] = self.stack[-1]
            elif name in _MEMO_READS:
                self.stack.append(self.memo[argument])
            else:
                _STEPS[name](self, argument)
        raise damaged("a pickle without an end")

    def push(self, item: Any) -> None:
        self.stack.append(item)

    def mark(self, _: Any = None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def to_mark(self, _: Any = None) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def pop(self, _: Any = None) -> Any:
        return self.stack.pop() if self.stack else self.to_mark()

    def pair(self) -> list[Any]:
        return [self.stack.pop(-2), self.stack.pop()]

    def short_tuple(self, length: int) -> None:
        if len(self.stack) < length:
            raise damaged("a tuple of too few items")
        self.stack[-length:] = [tuple(self.stack[-length:])]

    def add(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def fill(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set(items)

    def name(self, parts: list[str]) -> None:
        if sum(map(len, parts)) > _LONGEST_NAME:
            raise damaged("the name of a class without end")
        self.push(Name(".".join(parts)))

    def reduce(self, _: Any) -> None:
        self.push(made(*self.pair()))

    def build(self, _: Any) -> None:
        """Attributes given to an object: only a TorchScript module has any that matter."""
        attributes = self.stack.pop()
        if isinstance(self.stack[-1], Module) and isinstance(attributes, dict):
            self.stack[-1].attributes = attributes

    def storage(self, _: Any) -> None:
        storage = storage_of(*self.stack.pop())
        self.push(self.storages.setdefault(storage.key, storage))


def _key(key: Any) -> Any:
    """A dictionary's key; what could be slow to hash, or never end, is another object with each use."""
    return key if isinstance(key, str) or (isinstance(key, int) and -_SMALL < key < _SMALL) else object()


def _small(index: int) -> int:
    if not 0 <= index < _SMALL:
        raise damaged("a memo without end")
    return index


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # its items are never looked up
}
_MEMO_WRITES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_MEMO_READS = {"GET", "BINGET", "LONG_BINGET"}
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.to_mark,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "LIST": lambda machine, _: machine.push(machine.to_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.to_mark())),
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "DICT": lambda machine, _: machine.fill(machine.to_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.to_mark()),
    "APPEND": lambda machine, _: machine.add([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.add(machine.to_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.to_mark()),
    "SETITEM": lambda machine, _: machine.set(machine.pair()),
    "SETITEMS": lambda machine, _: machine.set(machine.to_mark()),
    "GLOBAL": lambda machine, text: machine.name(text.split(" ")),
    "STACK_GLOBAL": lambda machine, _: machine.name(machine.pair()),
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
}
