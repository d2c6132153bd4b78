"""Messages between a benchmark and the processes of its providers: a line of JSON, then the bytes of an array."""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeAlias

import numpy as np

Message: TypeAlias = "dict[str, Any]"
Command: TypeAlias = "Callable[[Message, np.ndarray | None], tuple[Message, np.ndarray | None]]"


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


def serve(requests: IO[bytes], replies: IO[bytes], commands: Mapping[str, Command]) -> None:
    """Answer until the requests end; what fails is told, also whether code is lacking; the next request is taken."""
    while (received := receive(requests)) is not None:
        message, array = received
        try:
            reply, answer = commands[message["command"]](message, array)
        except Exception as error:  # whatever a provider raises belongs to its figure, not to the run
            lacks = isinstance(error, (ImportError, AttributeError))
            send(replies, {"error": f"{type(error).__name__}: {error}", "lacks": lacks})
        else:
            send(replies, reply, answer)


def serve_parent(commands: Mapping[str, Command]) -> None:
    """Answer the process that started this one. What libraries print goes to standard error, off the pipe."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, replies, commands)
