"""Results as JSON in pytest-benchmark's schema, and back."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
    """

    name: str
    group: str
    seconds: tuple[float, ...]
    params: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

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
        "group": row.group,
        "name": row.name,
        "fullname": row.name,
        "params": row.params,
        "param": row.provider,
        "extra_info": row.extra,
        "options": {},
        "stats": stats_of(row.seconds),
    }


def stats_of(seconds: Sequence[float]) -> dict[str, Any]:
    """The schema's statistics of rounds."""
    data = sorted(seconds)
    q1, q3 = quantile(data, 0.25), quantile(data, 0.75)
    within = [value for value in data if q1 - 1.5 * (q3 - q1) <= value <= q3 + 1.5 * (q3 - q1)]
    mean, spread = statistics.fmean(data), statistics.stdev(data) if len(data) > 1 else 0.0
    far = sum(abs(value - mean) > spread for value in data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": spread,
        "rounds": len(data),
        "median": quantile(data, 0.5),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": len(data) - len(within),
        "stddev_outliers": far,
        "outliers": f"{far};{len(data) - len(within)}",
        "ld15iqr": within[0],
        "hd15iqr": within[-1],
        "ops": 1 / mean,
        "total": sum(data),
        "iterations": 1,
        "data": list(seconds),
    }


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
        seconds = tuple(stats.get("data") or [stats["q1"], stats["median"], stats["q3"]])
        params, extra = entry.get("params") or {}, dict(entry.get("extra_info") or {})
        rivals, own = extra.pop("rivals", {}), extra.pop("provider", None)
        for rival, found in rivals.items():
            rows.append(Row(f"{name} {rival}", name, tuple(found["seconds"]), params | {"provider": rival}, found))
        if own is None:
            rows.append(Row(name, entry.get("group") or "", seconds, params, extra))
        else:
            rows.append(Row(f"{name} {own}", name, seconds, params | {"provider": own}, extra))
    return rows
