"""Several runs of benchmarks as one: their benchmarks side by side, and rounds of the same ones together."""

from collections.abc import Sequence
from typing import Any

from .measure import quantile
from .records import derived, stats_of


def merged(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs as one document: rounds of a benchmark that several hold come together.

    Of a ceiling that was measured in each, the highest holds for all.

    Raises:
        ValueError: the runs are of different machines or versions, or of a benchmark in two of them no rounds are kept.
    """
    _require_one_machine(contents)
    owns = [{"command": "", "ceilings": {}, "refused": []} | content.get("gem_fast", {}) for content in contents]
    found: dict[str, list[dict[str, Any]]] = {}
    for content in contents:
        for entry in content["benchmarks"]:
            found.setdefault(entry["fullname"], []).append(entry)
    benchmarks = [_pooled(entries) for entries in found.values()]
    ceilings = _highest([own["ceilings"] for own in owns])
    for entry in benchmarks:
        extra, ceiling = entry.get("extra_info") or {}, ceilings.get(str((entry.get("params") or {}).get("dtype")))
        if ceiling and "share_of_ceiling" in extra:
            extra |= derived(entry["stats"]["data"], extra.get("flops", 0), extra.get("traffic", 0), ceiling)
    commands = "\n".join(own["command"] for own in owns if own["command"])
    refused = [entry for own in owns for entry in own["refused"]]
    return {
        **contents[0],
        "benchmarks": benchmarks,
        "gem_fast": {"command": commands, "ceilings": ceilings, "refused": refused},
    }


def _require_one_machine(contents: Sequence[dict[str, Any]]) -> None:
    first, *others = (content["machine_info"] for content in contents)
    for other in others:
        for name in sorted({*first, *other}):
            if other.get(name) != first.get(name):
                both = f"{first.get(name)} and {other.get(name)}"
                raise ValueError(f"runs of different machines are no single report: {name} is {both}")


def _highest(measured: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The highest of each rate, by type."""
    ceilings: dict[str, dict[str, float]] = {}
    for by_type in measured:
        for dtype, rates in by_type.items():
            known = ceilings.setdefault(dtype, rates)
            ceilings[dtype] = {name: max(value, known[name]) for name, value in rates.items()}
    return ceilings


def _pooled(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One benchmark of several runs, which are other processes at other times: their noise belongs to it.

    Rivals that not every run has are left out, since rounds are paired by turn.
    """
    first = entries[0]
    if len(entries) == 1:
        return first
    if not all(entry["stats"].get("data") for entry in entries):
        raise ValueError(f"two runs hold {first['fullname']!r}, and one kept no rounds of it")
    seconds, extra = _together([(entry["stats"]["data"], entry.get("extra_info") or {}) for entry in entries])
    rivals = [(entry.get("extra_info") or {}).get("rivals", {}) for entry in entries]
    if rivals[0]:
        extra["rivals"] = {}
        for name in [name for name in rivals[0] if all(name in others for others in rivals)]:
            theirs, told = _together([(others[name]["seconds"], others[name]) for others in rivals])
            extra["rivals"][name] = {**told, "seconds": theirs}
    return {**first, "stats": stats_of(seconds), "extra_info": extra}


def _together(parts: Sequence[tuple[list[float], dict[str, Any]]]) -> tuple[list[float], dict[str, Any]]:
    """Seconds of several runs one after the other, and what follows from them."""
    seconds, extra = [value for part, _ in parts for value in part], dict(parts[0][1])
    median = quantile(seconds, 0.5)
    extra |= derived(seconds, extra.get("flops", 0), extra.get("traffic", 0), {})
    if "latency_p50_p95_p99" in extra:
        extra["latency_p50_p95_p99"] = [quantile(seconds, share) for share in (0.5, 0.95, 0.99)]
    if "images_per_second" in extra:
        extra["images_per_second"] *= quantile(parts[0][0], 0.5) / median
    if all("share_of_ceiling" in told for _, told in parts):
        extra["share_of_ceiling"] = min(told["share_of_ceiling"] * quantile(own, 0.5) for own, told in parts) / median
    for name in ("added_mb", "peak_mb"):
        if known := [told[name] for _, told in parts if told.get(name) is not None]:
            extra[name] = max(known)
    return seconds, extra
