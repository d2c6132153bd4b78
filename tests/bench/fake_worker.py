"""A provider's process with forwards that need no model; the provider's backend says how it behaves.

Its clock is invented: a forward takes 1 ms, a slow one 30 ms, on any machine.
"""

import os
import sys

import numpy as np
from gem_fast.bench import memory, worker
from gem_fast.bench.providers import Loaded


class Fake(Loaded):
    """Features [B, 4, 2] of a kind, that pixels determine."""

    now = 0.0  # seconds

    def __init__(self, provider, subject, device, threads):
        self.behaviour, self.threads = provider.backend, threads or 2
        if self.behaviour == "does not load":
            raise ValueError("no such weights")

    def take(self, pixels):
        self.pixels = pixels
        memory.release_unused()

    def run(self):
        large = self.pixels.shape[-1] > 32
        if self.behaviour == "fails" and large:
            raise RuntimeError("no memory for this")
        if self.behaviour == "crashes" and large:
            sys.stderr.write("a line before the end\n")
            sys.stderr.flush()
            os._exit(3)
        Fake.now += 0.03 if self.behaviour == "slow" else 0.001
        if self.behaviour == "large" and large:
            np.ones((64, 2**20), np.float32).sum()  # 256 MB
        print("what a library says on standard output")

    def features(self):
        found = self.pixels.reshape(*self.pixels.shape[:2], -1)[:, :2, :4].transpose(0, 2, 1)
        found = found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)
        return found + np.float32(0.1 if self.behaviour == "wrong" else 0)


if __name__ == "__main__":
    worker.main(Fake, lambda: Fake.now)
