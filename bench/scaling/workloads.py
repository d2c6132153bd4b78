"""Workloads from the files of rates: measured ones for the CPU, and for a GPU what the roofline predicts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip

from gem_fast.towers.packing import vision_config

from ..counting import forward_work
from .model import Stage, Workload, serial_share

OUTPUTS = {"labels": ("write labels",), "labels and overlay": ("write labels", "write overlay")}
GPU, GPU_BATCH = "H100 SXM", 32
_RESULT = 8  # bytes a pixel that come back from a GPU: label and confidence


def read_rates(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measured rates, and the roofline's estimate for the GPU; ValueError names a file that is missing or damaged."""
    contents = []
    for name, command in (("rates.json", "make rates"), ("roofline.json", "make roofline")):
        try:
            contents.append(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / name}: not the file that `{command}` writes ({error})") from error
    rates, roofline = contents
    wanted = (rates["model"], GPU_BATCH, GPU)
    for estimate in roofline["estimates"]:
        if (estimate["model"], estimate["batch"], estimate["gpu"]) == wanted:
            return rates, estimate
    raise ValueError(f"{folder / 'roofline.json'}: no estimate of {wanted[0]} in batches of {GPU_BATCH} on {GPU}")


def encoding(rates: dict[str, Any], dtype: str) -> Stage:
    """The forward, from its seconds on one thread and on all: Amdahl's share at batch 1, the pace at the best batch."""
    cores = rates["cores"]
    measured = {(e["threads"], e["batch"]): e["seconds"] for e in rates["encode"] if e["dtype"] == dtype}
    serial = serial_share(measured[1, 1], measured[cores, 1], cores)
    fastest = min(seconds for (threads, _), seconds in measured.items() if threads == cores)
    return Stage("encode", fastest / (serial + (1 - serial) / cores), serial)


def cpu_workload(rates: dict[str, Any], photo: str, dtype: str, outputs: str) -> Workload:
    """Images of that kind, encoded by the CPU in that type."""
    before, after = _before(rates, photo), _after(rates, photo, ("labels", *OUTPUTS[outputs]))
    batch = max(e["batch"] for e in rates["encode"])
    config = vision_config(open_clip.get_model_config(rates["model"]))
    traffic = forward_work(config, batch, rates["size"], dtype=dtype).traffic / batch
    stages = (*before, encoding(rates, dtype), *after)
    return Workload(f"{photo}, {outputs}, {dtype}", stages, *_moved(rates, photo, outputs), traffic=traffic)


def gpu_workload(
    rates: dict[str, Any], estimate: dict[str, Any], photo: str, outputs: str, *, link: float, slower: float = 1.0
) -> Workload:
    """Images of that kind, encoded and decoded to labels by a GPU `slower` times as slow as predicted.

    Args:
        link: bytes a second between memory and GPU; pixels go there, labels and confidences come back.
    """
    before, after = _before(rates, photo), _after(rates, photo, OUTPUTS[outputs])
    details = rates["photos"][photo]
    pixels, side = details["width"] * details["height"], rates["size"]
    grown = pixels / side**2 - 1  # labels are predicted at the size of the input; here they have the photo's
    milliseconds = estimate["total"]["alternating"] + estimate["kernels"]["labels"]["floor"] * grown
    transfer = (3 * 4 * side**2 + _RESULT * pixels) / link
    return Workload(
        f"{photo}, {outputs}, {GPU}", (*before, *after), *_moved(rates, photo, outputs),
        gpu_seconds=slower * milliseconds / 1e3 + transfer,
    )  # fmt: skip


def _before(rates: dict[str, Any], photo: str) -> Iterator[Stage]:
    busy = rates["photos"][photo]["busy"]
    yield Stage("decode", busy["decode"], ahead=True)
    yield Stage("resize", busy["resize"])


def _after(rates: dict[str, Any], photo: str, names: tuple[str, ...]) -> Iterator[Stage]:
    busy = rates["photos"][photo]["busy"]
    yield from (Stage(name, busy[name]) for name in names)


def _moved(rates: dict[str, Any], photo: str, outputs: str) -> tuple[float, float]:
    """Bytes read and written."""
    details = rates["photos"][photo]
    return details["jpeg_bytes"], sum(details[f"{name.removeprefix('write ')}_bytes"] for name in OUTPUTS[outputs])
