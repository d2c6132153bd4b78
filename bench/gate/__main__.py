"""`python -m gem_fast.bench.gate [--base REF]`: has the working tree become slower than a commit?

Exit status: 0 no; 1 an operation is slower beyond the noise and the tolerance, also when measured again, or its output
differs, or it fails; 2 nothing could be compared.
"""

import argparse
import shlex
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ..machine import machine, machine_line
from ..records import write_document
from .checkout import ROOT, CheckoutError, install
from .operations import OPERATIONS
from .verdict import TOLERANCE, Verdict, gate


def main(arguments: list[str] | None = None) -> int:
    """Compare, print a line an operation, write JSON; returns the exit status."""
    asked = _arguments(arguments)
    facts = machine(asked.threads)
    print(machine_line(facts))
    try:
        before, after = install(asked.base, ROOT / "build" / "gate")
    except CheckoutError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2
    print(f"{before.name} ({before.tree[:12]}) against the working tree ({after.tree[:12]})", flush=True)
    sides = [partial(side.open, threads=asked.threads) for side in (before, after)]
    verdicts = gate(sides[0], sides[1], asked.operations, asked.tolerance, _tell)
    for verdict in verdicts:
        if verdict.again:
            medians = ", ".join(f"{series.median:.3f}×" for series in verdict.again)
            print(f"measured again: {verdict.operation} {medians}: {verdict.status}")
    failed = [verdict.operation for verdict in verdicts if verdict.failed]
    print(f"failed: {', '.join(failed)}" if failed else "no operation is slower beyond the noise")
    if asked.json:
        content = {
            "command": shlex.join(["python", "-m", "gem_fast.bench.gate", *(arguments or sys.argv[1:])]),
            "machine_info": facts,
            "base": {"name": before.name, "tree": before.tree},
            "working_tree": {"tree": after.tree},
            "tolerance": asked.tolerance,
            "operations": [asdict(verdict) for verdict in verdicts],
            "failed": failed,
        }
        write_document(asked.json, content)
    return 1 if failed else 0


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gem_fast.bench.gate", description=__doc__)
    parser.add_argument("--base", help="commit, branch or tag; by default main, or on main itself HEAD~1")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="share that is no regression")
    parser.add_argument("--only", action="append", default=[], help="operations whose names contain this; repeatable")
    parser.add_argument("--threads", type=int, help="of the CPU; by default torch's choice")
    parser.add_argument("--json", type=Path, help="file for every ratio")
    asked = parser.parse_args(given)
    asked.operations = [o for o in OPERATIONS if not asked.only or any(text in o.name for text in asked.only)]
    if not asked.operations:
        known = ", ".join(operation.name for operation in OPERATIONS)
        parser.error(f"no operation's name contains any of {asked.only}; there are: {known}")
    if asked.tolerance < 0:
        parser.error(f"tolerance must be 0 or more, got {asked.tolerance}")
    return asked


def _tell(verdict: Verdict) -> None:
    if verdict.series is None or verdict.seconds is None:
        print(f"{verdict.operation:34} {verdict.status}: {verdict.reason}", flush=True)
        return
    series, status = verdict.series, "measured again below" if verdict.status == "slower" else verdict.status
    span = f"{series.median:.3f}× ({series.low(0.05):.3f}-{series.high(0.05):.3f}, {len(series.ratios)} turns)"
    seconds = "{:.2f} / {:.2f} ms".format(*(1e3 * value for value in verdict.seconds))
    print(f"{verdict.operation:34} {span}  {seconds}  {status}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
