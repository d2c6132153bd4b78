"""The process of one side: the operations, over the gem_fast that its path leads to.

The code here is the working tree's on both sides, as the package `gate_bench.gate`: it must import nothing of gem_fast
but what is timed.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..protocol import Message, serve_parent
from .operations import OPERATIONS, Call, Operation, as_array


class Worker:
    """State of the process: the operation that was made last."""

    def __init__(
        self, operations: Sequence[Operation] = OPERATIONS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.operations = {operation.name: operation for operation in operations}
        self.clock = clock
        self.call: Call | None = None

    def load(self, message: Message, _: np.ndarray | None) -> tuple[Message, None]:
        """Import the package; tell where it lies and what its native kernels can run."""
        import gem_fast

        if message["threads"]:
            torch.set_num_threads(message["threads"])
        try:
            from gem_fast.kernels.cpu_library import paths
        except ImportError:
            return {"file": gem_fast.__file__, "native": []}, None
        return {"file": gem_fast.__file__, "native": list(paths())}, None

    @torch.inference_mode()
    def prepare(self, message: Message, _: np.ndarray | None) -> tuple[Message, np.ndarray | None]:
        """Set an operation up and call it twice: its result, and the seconds of a call; or what this side lacks."""
        self.call = None
        try:
            self.call = self.operations[message["operation"]].make()
        except (ImportError, AttributeError) as error:
            return {"missing": str(error)}, None
        result = as_array(self.call())
        return {"missing": None, "seconds": self._seconds(1)}, result

    @torch.inference_mode()
    def time(self, message: Message, _: np.ndarray | None) -> tuple[Message, None]:
        """Seconds of one of `calls` in a row."""
        return {"seconds": self._seconds(message["calls"])}, None

    def _seconds(self, calls: int) -> float:
        if self.call is None:
            raise ValueError("an operation must be prepared before it is timed")
        start = self.clock()
        for _ in range(calls):
            self.call()
        return (self.clock() - start) / calls

    def commands(self) -> dict[str, Any]:
        return {"load": self.load, "prepare": self.prepare, "time": self.time}


if __name__ == "__main__":
    serve_parent(Worker().commands())
