"""Figures on a screen: every name as it is, and a ratio to the first provider of each case."""

import io

from gem_fast.bench.records import Row
from gem_fast.bench.tables import SHORT, digits, print_rows
from rich.console import Console


def test_every_case_has_its_name_and_its_ratios():
    group = "bench/bench_x.py::test_x[fp32-1x448]"  # brackets are markup to rich
    rows = [
        Row("a", group, (2.0, 4.0), {"provider": "plain"}, {"images_per_second": 1090.4}),
        Row("b", group, (1.0, 1.0), {"provider": "engine"}, {"added_mb": 12.3}),
        Row("c", "refused", ()),
    ]
    stream = io.StringIO()
    print_rows(Console(file=stream, width=150), rows, SHORT)
    title, head, *lines = (line.rstrip() for line in stream.getvalue().splitlines())
    assert title == group
    assert head.split()[-3:] == ["plain", "/", "this"]
    assert [line.split()[0] for line in lines] == ["plain", "engine"]
    assert "1090" in lines[0]
    assert lines[1].endswith("12        3.00× (2.40-3.60)")


def test_three_digits_and_all_before_the_point():
    assert [digits(v) for v in (0.00072849, 0.1234, 1.5, 13.24, 108.4, 1093.7)] == [
        "0.000728",
        "0.123",
        "1.5",
        "13.2",
        "108",
        "1094",
    ]
