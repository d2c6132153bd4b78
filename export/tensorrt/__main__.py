"""Build the engines of an exported folder on this machine: `python -m gem_fast.export.tensorrt DIR [GRAPH ...]`."""

import sys
from pathlib import Path

from gem_fast.errors import ExportError

from .tensorrt_export import build_engines


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for engine in build_engines(Path(arguments[0]), names=tuple(arguments[1:])):
            print(engine)
    except (ExportError, OSError) as error:
        print(f"gem-fast: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
