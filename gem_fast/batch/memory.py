"""Memory that the run and its workers share, so that arrays need not travel."""

import mmap
from typing import Any

import numpy as np


class Memory:
    """Places for arrays that parent and workers share, one a task; what does not fit travels by itself."""

    def __init__(self, places: int, size: int) -> None:
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._size * places)

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
        return np.frombuffer(self._map, kind, int(np.prod(shape)), offset).reshape(shape)
