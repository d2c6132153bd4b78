"""`gem-fast segment` ended at random points and resumed, in every format: the bytes of a run that was not.

    python -m tools.interruptions --kills 10 --terms 5 --seed 1

In each format one run is left alone. Others are ended by SIGKILL and by SIGTERM after a random part of the time that it
took, and resumed by the same command with --resume. Linux only; exit status 1 if one ended otherwise.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
from PIL import Image

import gem_fast
from gem_fast.cli import app

FORMATS = ("files", "tar", "parquet", "coco")
_BROKEN = (5, 67)  # images that fail
_ENDED = (0, 1)  # exit statuses of a run that went through
_BROKE = 70  # that of a command that raised what it should have told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--kills", type=int, default=10, help="by SIGKILL, in each format")
    parser.add_argument("--terms", type=int, default=5, help="by SIGTERM, in each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=90)
    asked = parser.parse_args()
    print(f"seed {asked.seed}, {asked.images} images, {os.cpu_count()} cores")
    gem_fast.load("gem-tiny")  # so that what is ended is the run, and not the importing of torch
    dice, wrong = random.Random(asked.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        photos = draw(Path(folder, "photos"), asked.images)
        for format in asked.formats:
            wrong += interrupted(photos, Path(folder), format, asked.kills, asked.terms, dice)
    sys.exit(wrong > 0)


def draw(folder: Path, count: int) -> Path:
    """Small pictures of several sizes, two of them broken."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    for i in range(count):
        picture = Image.fromarray(pixels[i]).resize((64 + 16 * (i % 3), 60), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:04d}.png")
    for i in _BROKEN:
        (folder / f"{i:04d}.png").write_bytes(b"broken")
    return folder


def interrupted(photos: Path, folder: Path, format: str, kills: int, terms: int, dice: random.Random) -> int:
    """A format's runs; how many ended with other bytes."""
    whole, start = folder / format, time.monotonic()
    wait(begin(photos, whole, format))
    took, truth = time.monotonic() - start, content(whole)
    wrong = early = 0
    for sign in [signal.SIGKILL] * kills + [signal.SIGTERM] * terms:
        out, point = folder / "out", dice.uniform(0, took)
        child = begin(photos, out, format)
        time.sleep(point)
        os.kill(child, sign)
        early += wait(child) not in _ENDED
        status, found = wait(begin(photos, out, format)), content(out)
        if status not in _ENDED or found != truth:
            differing = sorted(name for name in {*found, *truth} if found.get(name) != truth.get(name))
            print(f"{format}: {sign.name} after {point:.3f} s of {took:.3f}: status {status}, {differing[:5]}")
            print(out.with_suffix(".log").read_text(errors="replace")[-2000:], flush=True)
            wrong += 1
        shutil.rmtree(out)
    print(
        f"{format}: {kills} × SIGKILL, {terms} × SIGTERM, {early} of them before the end; {wrong} ended otherwise",
        flush=True,
    )
    return wrong


def begin(photos: Path, out: Path, format: str) -> int:
    """The command in a process of its own; its number."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    arguments = ["segment", str(photos), "--prompt", "cat", "--prompt", "dog", "--prompt", "car", "--out", str(out)]
    arguments += ["--format", format, "--shard-size", "20", "--batch-size", "4", "--resume"]
    try:
        app(arguments)
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 0)
    except BaseException:
        traceback.print_exc()
    os._exit(_BROKE)


def wait(child: int) -> int:
    """Its exit status; negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
