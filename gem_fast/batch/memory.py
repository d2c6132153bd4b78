"""Memory that the run and its processes share, so that arrays need not travel."""

import math
import mmap
import os
from typing import Any

import numpy as np


class Memory:
    """Places for arrays that two processes share; what does not fit travels by itself.

    Attributes:
        handle: a file in memory by which a process that was not forked finds it; -1 for none.
    """

    def __init__(self, places: int, size: int, handle: int = -1) -> None:
        self._size, self.handle = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, handle
        if handle >= 0 and os.fstat(handle).st_size < self._size * places:
            os.ftruncate(handle, self._size * places)
        self._map = mmap.mmap(handle, self._size * places)

    def put(self, place: int, array: np.ndarray) -> Any:
        """Store an array; what is returned stands for it in any process."""
        if array.nbytes > self._size:
            return array
        offset = place * self._size
        reference = (offset, array.shape, array.dtype.str)
        np.copyto(self.get(reference), array)
        return reference

    def get(self, reference: Any) -> np.ndarray:
        """The array itself, in place: to be read before the place is used again."""
        if isinstance(reference, np.ndarray):
            return reference
        offset, shape, kind = reference
        return np.frombuffer(self._map, kind, math.prod(shape), offset).reshape(shape)
