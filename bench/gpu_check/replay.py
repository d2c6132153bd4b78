"""A call as the replay of a captured CUDA graph: the same launches without the host's part."""

from typing import Any

import torch

from .cases import Call


def replay_of(call: Call) -> Call:
    """Capture a call, after two on a stream beside, which compile and choose what a capture may not.

    Returns:
        a call that replays it, and gives the results that stay where they are.

    Raises:
        RuntimeError: something in it can't be captured, such as waiting for the device.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(), call()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        results = call()

    def replay() -> Any:
        graph.replay()
        return results

    return replay


def beside(call: Call) -> Call:
    """A call on a stream of its own."""

    def on_stream() -> Any:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results = call()
        torch.cuda.current_stream().wait_stream(stream)
        return results

    return on_stream
