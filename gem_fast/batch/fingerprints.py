"""Sets of texts by 64 bits of each: a million of them take 16 to 32 MB."""

import os
from array import array
from hashlib import blake2b

from .remote import is_url

_FIRST = 1 << 10


def fingerprint(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(blake2b(os.fsencode(text), digest_size=8).digest(), "big")


def identity(image: str) -> int:
    """What tells an image from others, however its path is spelled."""
    return fingerprint(image if is_url(image) else os.path.realpath(image))


class Fingerprints:
    """A set of 64-bit numbers: open addressing in one array, at most half full."""

    def __init__(self) -> None:
        self._table, self._count = array("Q", bytes(8 * _FIRST)), 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return self._table[self._place(number)] != 0

    def add(self, number: int) -> bool:
        """Add it, and say whether it was new."""
        place = self._place(number)
        if self._table[place]:
            return False
        self._table[place] = number or 1  # 0 is an empty place
        self._count += 1
        if 2 * self._count > len(self._table):
            earlier, self._table = self._table, array("Q", bytes(16 * len(self._table)))
            for each in earlier:
                if each:
                    self._table[self._place(each)] = each
        return True

    def _place(self, number: int) -> int:
        number = number or 1
        table, mask = self._table, len(self._table) - 1
        place = number & mask
        while table[place] and table[place] != number:
            place = (place + 1) & mask
        return place
