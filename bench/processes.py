"""The other end of a provider's process: started, asked, and stopped by the benchmark."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import authors
from .protocol import receive, send
from .providers import Provider, Subject

if TYPE_CHECKING:
    from typing_extensions import Self

WORKER = ("-m", "gem_fast.bench.worker")


class ProviderError(RuntimeError):
    """A provider could not be loaded or failed; the message says why.

    Attributes:
        lacks: code that it needs is not there, as on the older side of a comparison.
    """

    def __init__(self, message: str, lacks: bool = False) -> None:
        super().__init__(message)
        self.lacks = lacks


@dataclass(frozen=True)
class Answer:
    """What a provider says about some forwards in a row.

    Attributes:
        seconds: of each forward.
        peak_mb: memory at its peak during the forwards: resident, or on a GPU allocated; None where the system does
            not tell.
        features: patch features [B, h*w, E], if asked for.
    """

    seconds: tuple[float, ...]
    peak_mb: float | None
    features: np.ndarray | None


class ProviderProcess:
    """A provider in a process of its own, which answers over its pipes (`protocol`); use it as a context manager."""

    def __init__(
        self,
        provider: Provider,
        subject: Subject,
        *,
        device: str = "cpu",
        threads: int | None = None,
        command: tuple[str, ...] = WORKER,
        first: Sequence[Path] = (),
    ) -> None:
        """Start the process and load the provider.

        Args:
            threads: of the CPU; None is torch's own choice.
            command: Python's arguments that run the worker.
            first: folders of packages that go before all others.

        Raises:
            ProviderError: it can't be loaded.
        """
        self.provider = provider
        # What the process prints; a pipe that nobody reads would block it.
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        pipe, env = subprocess.PIPE, environment(provider, threads, first)
        self.process = subprocess.Popen([sys.executable, *command], stdin=pipe, stdout=pipe, stderr=self.log, env=env)
        try:
            request = {"command": "load", "provider": asdict(provider), "subject": asdict(subject), "device": device}
            loaded = self.ask({**request, "threads": threads})[0]
        except BaseException:
            self.close()
            raise
        self.threads: int = loaded["threads"]
        self.resting_mb: float | None = loaded["resting_mb"]  # memory with the weights loaded, before any forward

    def forward(self, pixels: np.ndarray | None = None, *, calls: int = 1, answer: bool = False) -> Answer:
        """Run the pixels [B, 3, H, W], float32, normalised, or those given last; ProviderError if it fails."""
        reply, features = self.ask({"command": "forward", "calls": calls, "answer": answer}, pixels)
        return Answer(tuple(reply["seconds"]), reply["peak_mb"], features)

    def ask(self, message: dict[str, Any], array: np.ndarray | None = None) -> tuple[dict[str, Any], np.ndarray | None]:
        """Send a request and wait for its reply; ProviderError if it tells of an error, or if the process ends."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            send(self.process.stdin, message, array)
            received = receive(self.process.stdout)
        except (OSError, EOFError):
            received = None
        if received is None:
            raise ProviderError(f"{self.provider.key}: its process ended ({self.process.wait()}): {self.last_lines()}")
        if "error" in received[0]:
            raise ProviderError(f"{self.provider.key}: {received[0]['error']}", received[0]["lacks"])
        return received

    def last_lines(self) -> str:
        self.log.seek(0)
        return "; ".join(self.log.read().decode(errors="replace").strip().splitlines()[-3:]) or "it said nothing"

    def close(self) -> None:
        """End the process, and wait until its memory is free."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def environment(provider: Provider, threads: int | None, first: Sequence[Path] = ()) -> dict[str, str]:
    """Ours, with threads that sleep when they have nothing to do, and packages in `first` before all others.

    The authors' packages are first on the path of those that need them.
    """
    if provider.kind == "authors":
        first = (authors.folder(), *first)
    env = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    env["KMP_BLOCKTIME"] = "1"  # ms; OpenMP runtimes of Intel and LLVM would spin for 200
    env["PYTHONSAFEPATH"] = "1"
    if threads:
        env["OMP_NUM_THREADS"] = str(threads)
    env["PYTHONPATH"] = os.pathsep.join([*map(str, first), *filter(None, sys.path)])
    return env
