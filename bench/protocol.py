"""Messages between a benchmark and the processes of its providers: a line of JSON, then the bytes of an array."""

import json
import math
from typing import IO, Any

import numpy as np


def send(stream: IO[bytes], message: dict[str, Any], array: np.ndarray | None = None) -> None:
    """Write a message, and a float32 array of any shape behind it."""
    head = {"message": message, "shape": None if array is None else list(array.shape)}
    stream.write(json.dumps(head).encode() + b"\n")
    if array is not None:
        stream.write(np.ascontiguousarray(array, np.float32).tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], np.ndarray | None] | None:
    """The next message with its array or None; None where the stream has ended, EOFError where it breaks off."""
    line = stream.readline()
    if not line:
        return None
    head = json.loads(line)
    if head["shape"] is None:
        return head["message"], None
    size = 4 * math.prod(head["shape"])
    content = bytearray()
    while len(content) < size:
        piece = stream.read(size - len(content))
        if not piece:
            raise EOFError(f"a message broke off after {len(content)} of {size} bytes")
        content += piece
    return head["message"], np.frombuffer(content, np.float32).reshape(head["shape"])
