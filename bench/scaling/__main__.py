"""`python -m gem_fast.bench.scaling [folder]`: write `scaling.md` from the `rates.json` and `roofline.json` there."""

import argparse
import sys
from pathlib import Path

from gem_fast.writing import write_whole

from .model import Prices
from .report import Assumed, markdown
from .workloads import read_rates


def main(arguments: list[str] | None = None) -> int:
    """Write the page; returns the exit status, 2 where a file or an argument can't be used."""
    usual = Assumed()
    parser = argparse.ArgumentParser(prog="python -m gem_fast.bench.scaling", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("bench/reports"))
    parser.add_argument("--storage-mbs", type=float, default=usual.storage / 1e6, help="of disk or network, in all")
    parser.add_argument("--memory-gbs", type=float, default=usual.memory / 1e9, help="of machines other than this one")
    parser.add_argument("--link-gbs", type=float, default=usual.link / 1e9, help="between memory and GPU")
    parser.add_argument("--price-core-hour", type=float, help="in any currency; with it the page has prices")
    parser.add_argument("--price-gpu-hour", type=float)
    asked = parser.parse_args(arguments)
    rates_of = (asked.storage_mbs, asked.memory_gbs, asked.link_gbs)
    prices = Prices(asked.price_core_hour, asked.price_gpu_hour)
    if min(rates_of) <= 0 or min(price or 0 for price in (prices.core, prices.gpu)) < 0:
        parser.error("rates must be positive, and prices 0 or more")
    assumed = Assumed(asked.storage_mbs * 1e6, asked.memory_gbs * 1e9, asked.link_gbs * 1e9, prices)
    try:
        page = markdown(*read_rates(asked.folder), assumed)
    except ValueError as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 2
    write_whole(asked.folder / "scaling.md", page.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
