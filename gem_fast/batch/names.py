"""What the outputs of an image are called: a name that no other has, and no file of the run's own."""

import os

from ..outputs import KINDS
from .fingerprints import Fingerprints, fingerprint
from .records import OWN_FILES

_ENDINGS = tuple(kind.ending for kind in KINDS)
_LONGEST = 230  # bytes; a disk's 255 leave room for a number and an ending


def output_name(name: str, taken: Fingerprints) -> str:
    """The name as a run can write it, with a number if it is taken; it is taken then."""
    *folders, last = map(_shortened, name.split("/"))
    name = "/".join([*(f"{folder}_" if _is_a_file(folder.casefold()) else folder for folder in folders), last])
    unique, number = name, 2
    while not taken.add(fingerprint(unique.casefold())):
        unique, number = f"{name}-{number}", number + 1
    return unique


def _is_a_file(folder: str) -> bool:
    """Whether a folder would be called as a file that a run writes."""
    return folder in OWN_FILES or folder.endswith(_ENDINGS)


def _shortened(part: str) -> str:
    content = os.fsencode(part)
    return part if len(content) <= _LONGEST else content[:_LONGEST].decode(errors="ignore")
