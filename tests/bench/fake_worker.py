"""A provider's process with forwards that need no model; the provider's backend says how it behaves."""

import os
import sys
import time

import torch
from gem_fast.bench import worker


def features_of(pixels):
    """Features [B, 4, 2] of a kind, that pixels determine."""
    return torch.nn.functional.normalize(pixels.flatten(2)[:, :2, :4].transpose(1, 2), dim=-1)


def make(provider, subject, device):
    behaviour = provider.backend

    def forward(pixels):
        if behaviour == "fails" and pixels.shape[-1] > 32:
            raise RuntimeError("no memory for this")
        if behaviour == "crashes" and pixels.shape[-1] > 32:
            sys.stderr.write("a line before the end\n")
            sys.stderr.flush()
            os._exit(3)
        if behaviour == "slow":
            time.sleep(0.03)
        if behaviour == "large" and pixels.shape[-1] > 32:
            torch.ones(64, 2**20).sum()  # 256 MB
        print("what a library says on standard output")
        return features_of(pixels) + (0.1 if behaviour == "wrong" else 0.0)

    if behaviour == "does not load":
        raise ValueError("no such weights")
    return forward


if __name__ == "__main__":
    worker.main(make)
