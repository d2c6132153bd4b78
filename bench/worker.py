"""The process of one provider: it loads once, then answers forwards over a pipe with features, seconds and memory."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from . import memory
from .protocol import serve_parent
from .providers import Forward, Provider, Subject, build


class Worker:
    """State of the process: the loaded forward, and the pixels that it was last given."""

    def __init__(self, make: Callable[..., Forward] = build) -> None:
        self.make = make
        self.device = "cpu"
        self.forward_of: Forward | None = None
        self.pixels: torch.Tensor | None = None

    @torch.inference_mode()
    def load(self, message: dict[str, Any], _: np.ndarray | None) -> tuple[dict[str, Any], None]:
        """Build the provider; its weights stay resident."""
        if message["threads"]:
            torch.set_num_threads(message["threads"])
        self.device = message["device"]
        provider, subject = Provider(**message["provider"]), Subject(**message["subject"])
        self.forward_of = self.make(provider, subject, self.device)
        if provider.kind != "compiled":  # that would be a compilation for this size
            side = 4 * subject.model_cfg["vision_cfg"]["patch_size"]
            self.forward_of(torch.zeros(1, 3, side, side))  # what a first forward sets up belongs to the loading
        memory.release_unused()
        return {"threads": torch.get_num_threads(), "resting_mb": self.memory_now()}, None

    @torch.inference_mode()
    def forward(self, message: dict[str, Any], array: np.ndarray | None) -> tuple[dict[str, Any], np.ndarray | None]:
        """Run `calls` forwards of the pixels that come along, or came before; `answer` asks for the features."""
        if array is not None:
            self.pixels = torch.from_numpy(array)
            memory.release_unused()  # what forwards of another size left
        if self.forward_of is None or self.pixels is None:
            raise ValueError("a forward needs a provider that is loaded, and pixels")
        self.start_peak()
        seconds = []
        for _ in range(message["calls"]):
            start = time.perf_counter()
            features = self.forward_of(self.pixels)
            if self.device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        reply = {"seconds": seconds, "peak_mb": self.peak()}
        return reply, features.float().cpu().numpy() if message["answer"] else None

    def ceiling(self, message: dict[str, Any], _: np.ndarray | None) -> tuple[dict[str, Any], None]:
        """What this machine reaches in a large matrix product of a type, and in a copy."""
        from .ceiling import copy_rate, product_rate

        return {"flops": product_rate(message["dtype"], self.device), "bytes": copy_rate(self.device)}, None

    def memory_now(self) -> float | None:
        """Resident memory in MB, or what is allocated on the GPU."""
        return torch.cuda.memory_allocated() / 2**20 if self.device.startswith("cuda") else memory.resident_mb()

    def start_peak(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        else:
            memory.reset_peak()

    def peak(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**20 if self.device.startswith("cuda") else memory.peak_mb()


def main(make: Callable[..., Forward] = build) -> None:
    """Entry of the process."""
    worker = Worker(make)
    serve_parent({"load": worker.load, "forward": worker.forward, "ceiling": worker.ceiling})


if __name__ == "__main__":
    main()
