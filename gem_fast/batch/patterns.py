"""What a glob pattern matches, where links may lead in circles."""

import glob
import os
from collections.abc import Iterator

_ANY_FOLDERS = "**"


def matches(pattern: str) -> Iterator[str]:
    """Paths that match, as `glob` has it, in no order and perhaps more than once; `**` enters each folder once."""
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if _ANY_FOLDERS not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index(_ANY_FOLDERS)
    head, tail = os.sep.join([*parts[:place], ""]), os.sep.join(parts[place + 1 :] or ["*"])
    for root in glob.iglob(head) if head else [""]:
        for folder in _folders(root):
            yield from matches(os.path.join(glob.escape(folder), tail))


def _folders(root: str) -> Iterator[str]:
    """A folder and those below it that are not hidden: first without links, then those that links alone lead to."""
    waiting, links, entered = [root], list[str](), set[tuple[int, int]]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            place = os.stat(folder or os.curdir)
            if (place.st_dev, place.st_ino) in entered:
                continue
            entered.add((place.st_dev, place.st_ino))
            with os.scandir(folder or os.curdir) as scan:
                names = sorted(entry.name for entry in scan if not entry.name.startswith("."))
        except OSError:
            continue  # no folder, or one that can't be read, matches nothing
        yield folder
        below = [os.path.join(folder, name) for name in names]
        links += [path for path in below if os.path.islink(path)]
        waiting += [path for path in below[::-1] if os.path.isdir(path) and not os.path.islink(path)]
