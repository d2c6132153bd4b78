"""Results as JSON in pytest-benchmark's schema, and back; several runs as one."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gem_fast.writing import write_whole

from .measure import Figure, quantile


@dataclass(frozen=True)
class Row:
    """One benchmark of a file, ours or pytest-benchmark's.

    Attributes:
        name: what identifies it in another run.
        group: the case; rows of a group were timed in turns.
        seconds: a value a round.
        params, extra: what was measured and what was derived, as in the file.
        whole: the seconds are those of all rounds, not quartiles in their place.
    """

    name: str
    group: str
    seconds: tuple[float, ...]
    params: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    whole: bool = True

    def at(self, share: float) -> float:
        """A quantile of the seconds."""
        return quantile(self.seconds, share)

    @property
    def provider(self) -> str:
        return str(self.params.get("provider", self.name))


def by_group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each case, in the order in which they came."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups


def row_of(figure: Figure, model: str, mode: str, flops: float, traffic: float, ceiling: dict[str, float]) -> Row:
    """A row with what follows from a figure: quantiles, rates, and their share of the machine's measured ceiling."""
    p = figure.provider
    group = f"{mode} {model} {figure.batch}x{figure.size}"
    extra: dict[str, Any] = {"refused": figure.refused, "error": figure.error}
    if figure.seconds:
        extra |= {
            "latency_p50_p95_p99": [quantile(figure.seconds, share) for share in (0.5, 0.95, 0.99)],
            "images_per_second": figure.batch / figure.median,
            "resting_mb": figure.resting_mb,
            "peak_mb": figure.peak_mb,
            "added_mb": figure.added_mb,
            **derived(figure.seconds, flops, traffic, ceiling),
        }
    params = {"provider": p.key, "model": model, "mode": mode, "batch": figure.batch, "size": figure.size} | asdict(p)
    return Row(f"{group} {p.key}", group, figure.seconds, params, extra)


def derived(seconds: Sequence[float], flops: float, traffic: float, ceiling: dict[str, float]) -> dict[str, Any]:
    """Noise and rates of work that took these seconds; 0 operations or bytes, and a ceiling not measured, have none.

    The share of the ceiling is the roofline's least time over the median.
    """
    median = quantile(seconds, 0.5)
    found: dict[str, Any] = {"seconds_p20_p80": [quantile(seconds, 0.2), quantile(seconds, 0.8)]}
    if flops:
        found |= {"flops": flops, "tflops": flops / median / 1e12}
    if traffic:
        found |= {"traffic": traffic, "gb_per_s": traffic / median / 1e9}
    if ceiling and (flops or traffic):
        found["share_of_ceiling"] = max(flops / ceiling["flops"], traffic / ceiling["bytes"]) / median
    return found


def document(rows: Sequence[Row], facts: dict[str, Any], *, command: str, ceilings: dict[str, Any]) -> dict[str, Any]:
    """The file's content; rows without a figure are told of in `gem_fast`, since the schema has no place for them."""
    return {
        "machine_info": facts,
        "commit_info": {},
        "benchmarks": [_benchmark(row) for row in rows if row.seconds],
        "gem_fast": {
            "command": command,
            "ceilings": ceilings,
            "refused": [{"name": r.name, "reason": r.extra["refused"]} for r in rows if not r.seconds],
        },
        "datetime": datetime.now(timezone.utc).isoformat(),
        "version": "5.1.0",
    }


def _benchmark(row: Row) -> dict[str, Any]:
    return {
        "group": row.group, "name": row.name, "fullname": row.name, "params": row.params, "param": row.provider,
        "extra_info": row.extra, "options": {}, "stats": stats_of(row.seconds),
    }  # fmt: skip


def stats_of(seconds: Sequence[float]) -> dict[str, Any]:
    """The schema's statistics of rounds."""
    data = sorted(seconds)
    q1, q3 = quantile(data, 0.25), quantile(data, 0.75)
    within = [value for value in data if q1 - 1.5 * (q3 - q1) <= value <= q3 + 1.5 * (q3 - q1)]
    mean, spread = statistics.fmean(data), statistics.stdev(data) if len(data) > 1 else 0.0
    far = sum(abs(value - mean) > spread for value in data)
    return {
        "min": data[0], "max": data[-1], "mean": mean, "stddev": spread, "median": quantile(data, 0.5),
        "q1": q1, "q3": q3, "iqr": q3 - q1, "ld15iqr": within[0], "hd15iqr": within[-1],
        "stddev_outliers": far, "iqr_outliers": len(data) - len(within), "outliers": f"{far};{len(data) - len(within)}",
        "rounds": len(data), "iterations": 1, "ops": 1 / mean, "total": sum(data), "data": list(seconds),
    }  # fmt: skip


def write_document(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_document(path: Path) -> dict[str, Any]:
    """A file that we or pytest-benchmark wrote; ValueError names it and what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a benchmark's JSON file ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise ValueError(f"{path}: a benchmark's file has a list `benchmarks`, this one has not")
    try:
        read_rows(content)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: a benchmark in it lacks {error}") from error
    return content


def read_rows(content: dict[str, Any]) -> list[Row]:
    """The rows of a file; where pytest-benchmark kept no single rounds, the median and quartiles stand for them.

    A benchmark of our suites brings those that it was timed in turns with, which become rows of their own before it.
    """
    rows = []
    for entry in content["benchmarks"]:
        stats, name = entry["stats"], entry["fullname"]
        whole = bool(stats.get("data"))
        seconds = tuple(stats["data"] if whole else (stats["q1"], stats["median"], stats["q3"]))
        params, extra = entry.get("params") or {}, dict(entry.get("extra_info") or {})
        rivals, own = extra.pop("rivals", {}), extra.pop("provider", None)
        for rival, found in rivals.items():
            rows.append(Row(f"{name} {rival}", name, tuple(found["seconds"]), params | {"provider": rival}, found))
        if own is None:
            rows.append(Row(name, entry.get("group") or name, seconds, params, extra, whole))
        else:
            rows.append(Row(f"{name} {own}", name, seconds, params | {"provider": own}, extra, whole))
    return rows


def merged(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs as one document: rounds of a benchmark that several hold come together.

    Of a ceiling that was measured in each, the highest holds for all.

    Raises:
        ValueError: the runs are of different machines or versions, or of a benchmark in two of them no rounds are kept.
    """
    _require_one_machine(contents)
    owns = [{"command": "", "ceilings": {}, "refused": []} | content.get("gem_fast", {}) for content in contents]
    ceilings = _highest([own["ceilings"] for own in owns])
    cases: dict[str, list[list[Row]]] = {}
    for content in contents:
        for group, members in by_group(read_rows(content)).items():
            cases.setdefault(group, []).append(members)
    rows = [row for runs in cases.values() for row in _pooled(runs)]
    for row in rows:
        ceiling = ceilings.get(str(row.params.get("dtype")))
        if ceiling and "share_of_ceiling" in row.extra:
            row.extra.update(derived(row.seconds, row.extra.get("flops", 0), row.extra.get("traffic", 0), ceiling))
    commands = "\n".join(own["command"] for own in owns if own["command"])
    content = document(rows, contents[0]["machine_info"], command=commands, ceilings=ceilings)
    content["gem_fast"]["refused"] = [entry for own in owns for entry in own["refused"]]
    return {**content, "datetime": contents[0]["datetime"]}


def _require_one_machine(contents: Sequence[dict[str, Any]]) -> None:
    """In what all tell: pytest-benchmark's own facts are beside ours in the files of the suites."""
    first, *others = (content["machine_info"] for content in contents)
    for other in others:
        for name in sorted({*first} & {*other}):
            if other[name] != first[name]:
                both = f"{first[name]} and {other[name]}"
                raise ValueError(f"runs of different machines are no single report: {name} is {both}")


def _highest(measured: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The highest of each rate, by type."""
    ceilings: dict[str, dict[str, float]] = {}
    for by_type in measured:
        for dtype, rates in by_type.items():
            known = ceilings.setdefault(dtype, rates)
            ceilings[dtype] = {name: max(value, known[name]) for name, value in rates.items()}
    return ceilings


def _pooled(runs: Sequence[list[Row]]) -> list[Row]:
    """A case's rows in several runs, which are other processes at other times: their noise belongs to it.

    Rows that not every one of them has are left out, since rounds are paired by turn; unless they share none.
    """
    by_name = [{row.name: row for row in rows} for rows in runs]
    shared = [name for name in by_name[0] if all(name in rows for rows in by_name)]
    if len(runs) == 1 or not shared:
        return [row for rows in runs for row in rows]
    return [_together([rows[name] for rows in by_name]) for name in shared]


def _together(parts: Sequence[Row]) -> Row:
    """Seconds of several runs one after the other, and what follows from them."""
    if not all(row.whole for row in parts):
        raise ValueError(f"two runs hold {parts[0].group!r}, and one kept no rounds of it")
    seconds, extra = tuple(value for row in parts for value in row.seconds), dict(parts[0].extra)
    median = quantile(seconds, 0.5)
    extra |= derived(seconds, extra.get("flops", 0), extra.get("traffic", 0), {})
    if "latency_p50_p95_p99" in extra:
        extra["latency_p50_p95_p99"] = [quantile(seconds, share) for share in (0.5, 0.95, 0.99)]
    if "images_per_second" in extra:
        extra["images_per_second"] *= parts[0].at(0.5) / median
    if all("share_of_ceiling" in row.extra for row in parts):
        extra["share_of_ceiling"] = min(row.extra["share_of_ceiling"] * row.at(0.5) for row in parts) / median
    for name in ("added_mb", "peak_mb"):
        if known := [row.extra[name] for row in parts if row.extra.get(name) is not None]:
            extra[name] = max(known)
    return replace(parts[0], seconds=seconds, extra=extra)
