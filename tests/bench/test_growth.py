"""Time against counted operations as the input grows."""

import pytest
from gem_fast.bench.measure import Figure
from gem_fast.bench.providers import Provider
from gem_fast.bench.records import row_of
from gem_fast.bench.tables import growth, growth_lines


def row(size, seconds, flops, provider="engine", batch=1, mode="latency"):
    figure = Figure(Provider(provider, "engine"), batch, size, seconds)
    return row_of(figure, "ViT-B-16", mode, flops, 1e6, {"flops": 1e11, "bytes": 1e10})


def test_time_that_grows_as_the_work_does_is_one():
    rows = [row(1344, (8.0, 9.0, 10.0), 9e12), row(448, (1.0, 1.0, 4.0), 1e12), row(896, (8.0,), 4e12)]
    (case,) = growth(rows).items()
    assert case == ("engine float32, ViT-B-16, batch 1, latency", {448: 1.0, 896: 2.0, 1344: pytest.approx(1.0)})
    (line,) = growth_lines(rows)
    assert line.endswith("448² 1.00, 896² 2.00, 1344² 1.00 (spread 2.00×)")


def test_cases_are_kept_apart_and_what_has_one_size_has_no_growth():
    rows = [row(448, (1.0,), 1e12), row(896, (4.0,), 4e12, batch=4), row(896, (4.0,), 4e12, "sdpa")]
    assert growth([*rows, row(896, (), 4e12), row(896, (9.0,), 4e12, mode="waterfall")]) == {}
    assert len(growth([*rows, row(224, (0.1,), 1e11, batch=4)])) == 1
