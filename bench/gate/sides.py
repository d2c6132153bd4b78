"""Processes of the two sides, each over its own installation."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..processes import ProviderError, WorkerProcess, environment
from .checkout import Checkout
from .turns import Prepared

_ALIAS = "gate_bench"  # `bench` of the working tree under a name that neither installation has


class SideProcess(WorkerProcess):
    """One side in a process of its own."""

    def __init__(self, checkout: Checkout, tools: Path, threads: int | None = None) -> None:
        env = environment([checkout.folder, tools], threads)
        super().__init__(checkout.name, ("-m", f"{_ALIAS}.gate.worker"), env)
        try:
            loaded = self.ask({"command": "load", "threads": threads})[0]
            if checkout.folder.resolve() not in Path(loaded["file"]).resolve().parents:
                raise ProviderError(f"{checkout.name}: its process imported {loaded['file']}, not {checkout.folder}")
        except BaseException:
            self.close()
            raise
        self.native: list[str] = loaded["native"]

    def prepare(self, operation: str) -> Prepared:
        reply, result = self.ask({"command": "prepare", "operation": operation})
        return Prepared(missing=reply["missing"]) if reply["missing"] else Prepared(reply["seconds"], result)

    def time(self, calls: int) -> float:
        seconds: float = self.ask({"command": "time", "calls": calls})[0]["seconds"]
        return seconds


@contextmanager
def open_pair(
    before: Checkout, after: Checkout, folder: Path, threads: int | None = None
) -> Iterator[tuple[SideProcess, SideProcess]]:
    """New processes of the base and of the working tree.

    Raises:
        ProviderError: one does not start, or only one of them has native kernels: its library did not compile.
    """
    tools = folder / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    alias, bench = tools / _ALIAS, Path(__file__).resolve().parents[1]
    if not alias.is_symlink() or alias.resolve() != bench:
        alias.unlink(missing_ok=True)
        alias.symlink_to(bench)
    with SideProcess(before, tools, threads) as base, SideProcess(after, tools, threads) as tree:
        if base.native != tree.native:
            raise ProviderError(
                f"native kernels are not the same: {before.name} has {base.native}, {after.name} {tree.native}"
            )
        yield base, tree
