"""Results as files, comparison of two runs, the report and its plots."""

import io
import json
import re
import sys

import pytest
from gem_fast.bench import records, runs
from gem_fast.bench.compare import compare
from gem_fast.bench.machine import _cpu_name, machine, machine_line
from gem_fast.bench.measure import Figure, ratio
from gem_fast.bench.plots import plots, to_png
from gem_fast.bench.providers import Provider
from gem_fast.bench.records import Row, document, merged, read_document, read_rows, row_of, write_document
from gem_fast.bench.sweep import Outcome, Sweep, waterfall
from rich.console import Console
from typer.testing import CliRunner

from gem_fast.cli import app

CEILINGS = {"float32": {"flops": 1e11, "bytes": 1e10}}


def row(provider="engine", size=448, batch=1, seconds=(0.9, 1.0, 1.2), mode="latency", **rest):
    figure = Figure(Provider(provider, "engine"), batch, size, seconds, 100.0, 180.0, 1e-7, **rest)
    return row_of(figure, "ViT-B-16", mode, flops=5e10, traffic=4e9, ceiling=CEILINGS["float32"])


def content_of(*rows):
    return document(rows, machine(), command="gem-fast bench <b>", ceilings=CEILINGS)


def test_a_row_derives_rates_and_the_share_of_the_ceiling():
    extra = row().extra
    assert extra["images_per_second"] == 1
    assert extra["tflops"] == pytest.approx(0.05)
    assert extra["gb_per_s"] == pytest.approx(4)
    assert extra["share_of_ceiling"] == pytest.approx(0.5)  # 0.5 s of arithmetic at 1e11, 0.4 s of traffic at 1e10
    assert extra["added_mb"] == 80
    assert extra["latency_p50_p95_p99"][0] == 1.0


def test_files_come_back_and_hold_pytest_benchmarks_fields(tmp_path):
    path = tmp_path / "run.json"
    rows = [row(), row("sdpa", seconds=(2.0, 2.1, 2.2)), row("bad", seconds=(), refused="wrong output")]
    write_document(path, content_of(*rows))
    content = read_document(path)
    assert read_rows(content)[0].seconds == rows[0].seconds
    assert [entry["reason"] for entry in content["gem_fast"]["refused"]] == ["wrong output"]
    assert len(content["benchmarks"]) == 2
    stats = content["benchmarks"][0]["stats"]
    assert (stats["min"], stats["median"], stats["max"], stats["rounds"]) == (0.9, 1.0, 1.2, 3)
    assert stats["ops"] == pytest.approx(1 / stats["mean"])


def test_fields_are_those_that_pytest_benchmark_itself_writes(tmp_path):
    stats = pytest.importorskip("pytest_benchmark.stats")
    theirs = stats.Stats()
    for value in (0.9, 1.0, 1.2):
        theirs.update(value)
    ours = content_of(row())["benchmarks"][0]["stats"]
    for name in ("min", "max", "mean", "stddev", "median", "total", "ops", "rounds"):
        assert ours[name] == pytest.approx(getattr(theirs, name)), name
    for name in stats.Stats.fields:
        assert name in ours


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"benchmarks": [{"stats": {}}]}', '{"benchmarks": [{"fullname": 1}]}']
)
def test_files_of_another_kind_are_refused_by_name(tmp_path, text):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"odd\.json"):
        read_document(path)


def rows_of(*providers):
    return [row(name, seconds=seconds) for name, seconds in providers]


def test_a_change_within_the_noise_is_none_and_one_beyond_it_is_told():
    before = rows_of(("a", (1.0, 1.1, 1.2)), ("b", (1.0, 1.0, 1.0)), ("c", (1.0, 1.0, 1.0)))
    after = rows_of(("a", (1.1, 1.2, 1.3)), ("b", (1.2, 1.21, 1.2)), ("c", (0.8, 0.8, 0.8)), ("d", (1.0,)))
    assert [change.verdict for change in compare(before, after)] == ["same", "slower", "faster"]
    assert compare(before, after)[1].ratio == pytest.approx(1.2)
    assert [change.verdict for change in compare(before, after, tolerance=0.3)] == ["same"] * 3


def test_relative_to_a_provider_a_slower_machine_is_no_regression():
    before = rows_of(("base", (1.0, 1.1, 1.0)), ("a", (2.0, 2.2, 2.0)))
    after = rows_of(("base", (1.5, 1.5, 3.0)), ("a", (3.0, 3.0, 6.0)))
    assert compare(before, after)[1].verdict == "slower"
    (change,) = compare(before, after, relative_to="base float32")
    assert (change.verdict, change.ratio) == ("same", 1.0)
    (change,) = compare(before, after, relative_to="first")
    assert (change.name, change.ratio) == ("latency ViT-B-16 1x448 a float32 / base float32", 1.0)
    with pytest.raises(ValueError, match="no benchmark beside 'none' in common; providers in both: a float32, base"):
        compare(before, after, relative_to="none")


def test_the_commands_exit_status_tells_of_a_regression(tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, seconds in zip(files, ((1.0, 1.0), (1.3, 1.3)), strict=True):
        write_document(path, content_of(row(seconds=seconds)))
    names = [str(path) for path in files]
    worse = CliRunner().invoke(app, ["bench", "compare", *names])
    assert worse.exit_code == 1
    assert "1.300" in worse.output
    assert "slower" in worse.output
    assert CliRunner().invoke(app, ["bench", "compare", *reversed(names)]).exit_code == 0
    write_document(files[1], content_of(row(size=224)))
    for other, message in (
        (tmp_path / "none.json", "none.json: there is no such file"),
        (files[1], "no benchmark in common"),
    ):
        failed = CliRunner().invoke(app, ["bench", "compare", names[0], str(other)])
        assert failed.exit_code == 2
        assert message in " ".join(failed.output.split())


def test_the_report_has_its_plots_and_names_as_they_are(tmp_path):
    rows = [row(seconds=(size / 448, size / 440), size=size, batch=batch) for size in (224, 448) for batch in (1, 2)]
    rows += [row(step.name, seconds=(1 / (i + 1),), mode="waterfall") for i, step in enumerate(waterfall())]
    rows += [row("odd | name"), row("bad <i>", seconds=(), refused="wrong output: off by 1")]
    path = tmp_path / "run.json"
    write_document(path, content_of(*rows))
    result = CliRunner().invoke(
        app, ["bench", "report", str(path), "--markdown", str(tmp_path / "run.md"), "--plots", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    text = (tmp_path / "run.md").read_text()
    assert "| + dead branches left out float32 |" in text
    assert "```sh\ngem-fast bench <b>\n```" in text
    assert "odd \\| name float32 |" in text
    assert "- latency ViT-B-16 1x448 bad <i> float32: no figure: wrong output: off by 1" in text
    assert {p.name for p in tmp_path.glob("*.png")} == {"waterfall.png", "resolution.png"}


def test_runs_of_one_machine_are_one_report(tmp_path):
    paths = [tmp_path / f"{name}.json" for name in ("a", "b", "other")]
    fast, slow = ({"float32": {"flops": value, "bytes": 1e10}} for value in (2e11, 1e11))
    facts = machine()
    refused = row("bad", size=448, seconds=(), refused="wrong output")
    write_document(paths[0], document([row(), refused], facts, command="one", ceilings=fast))
    write_document(paths[1], document([row(size=896, seconds=(4.0,))], facts, command="two", ceilings=slow))
    write_document(paths[2], document([row(size=224)], {**facts, "cpu": "another"}, command="", ceilings={}))
    names, out = [str(path) for path in paths], tmp_path / "out"
    files = ["--json", str(out / "all.json"), "--markdown", str(out / "all.md")]
    result = CliRunner().invoke(app, ["bench", "report", *names[:2], *files])
    assert result.exit_code == 0, result.output
    content = read_document(out / "all.json")
    assert [r.params["size"] for r in read_rows(content)] == [448, 896]
    assert content["gem_fast"]["ceilings"] == {"float32": {"flops": 2e11, "bytes": 1e10}}
    # The higher ceiling of the first run holds for the second too: moving the bytes takes longer than the operations.
    assert [r.extra["share_of_ceiling"] for r in read_rows(content)] == pytest.approx([0.4, 0.1])
    text = (out / "all.md").read_text()
    assert "one\ntwo" in text
    assert "| engine float32 | 4 |" in text
    assert "448² 1.00, 896² 4.00" in text
    assert "no figure: wrong output" in text
    for arguments, message in (
        ([names[0], names[2], *files], "cpu is"),
        ([str(tmp_path / "none.json"), *files], "none.json"),
    ):
        failed = CliRunner().invoke(app, ["bench", "report", *arguments])
        assert failed.exit_code == 2
        assert message in " ".join(failed.output.split())


def test_rounds_of_a_benchmark_in_several_runs_come_together():
    """Pairs of turns stay pairs, the highest of the runs' ceilings counts; a rival that one lacks is left out."""

    def suite(seconds, share, rivals):
        extra = {"flops": 1e9, "images_per_second": 1 / seconds[0], "share_of_ceiling": share, "added_mb": seconds[0]}
        told = {name: {"seconds": theirs, "added_mb": None} for name, theirs in rivals.items()}
        entry = {
            "fullname": "test",
            "stats": {"data": seconds},
            "extra_info": {"provider": "own", "rivals": told} | extra,
        }
        return {"machine_info": {}, "benchmarks": [entry], "datetime": ""}

    one = suite([1.0, 1.0, 1.0], 0.5, {"slow": [2.0, 2.0, 2.0], "other": [1.0, 1.0, 1.0]})
    two = suite([4.0, 2.0, 2.0], 0.2, {"slow": [8.0, 4.0, 6.0]})
    slow, own = read_rows(merged([one, two]))
    assert (slow.seconds, own.seconds) == ((2, 2, 2, 8, 4, 6), (1, 1, 1, 4, 2, 2))
    assert str(ratio(slow.seconds, own.seconds)) == "2.00× (2.00-2.00)"
    assert own.at(0.5) == 1.5
    assert own.extra["tflops"] == pytest.approx(1e9 / 1.5 / 1e12)
    assert own.extra["share_of_ceiling"] == pytest.approx(0.4 / 1.5)  # least time: 0.4 s by the second's ceiling
    assert own.extra["images_per_second"] == pytest.approx(1 / 1.5)
    assert (own.extra["added_mb"], slow.extra["added_mb"]) == (4.0, None)
    two["benchmarks"][0]["stats"] = {"q1": 2.0, "median": 2.0, "q3": 4.0}
    with pytest.raises(ValueError, match="two runs hold 'test', and one kept no rounds"):
        merged([one, two])


def test_plots_are_those_that_the_rows_have_something_for():
    assert list(plots([row()])) == []
    assert list(plots([Row("pytest's", "", (1.0,))])) == []
    ((name, figure),) = plots([row(size=224), row(size=448)])
    assert name == "resolution"
    assert to_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", [["report", "none.json"], ["--model", "gem-tiny", "--size", "32", "--waterfall"]])
def test_plots_without_matplotlib_fail_before_anything_is_done(monkeypatch, tmp_path, arguments):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(runs, "machine", lambda *_: pytest.fail("measured"))
    result = CliRunner().invoke(app, ["bench", *arguments, "--plots", str(tmp_path / "plots")])
    assert result.exit_code == 2, result.output
    assert "plots need matplotlib: pip install 'gem_fast[bench]'" in result.output
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--device", "fpga"], "device 'fpga' can't be used here"),
        (["--budget", "-1"], "--budget"),
        (["--plots", "plots"], "--plots draws several sizes, or a waterfall"),
        (["--plots", "plots", "--size", "32", "--size", "32"], "--plots draws several sizes, or a waterfall"),
    ],
)
def test_what_can_not_be_measured_is_told_before(monkeypatch, tmp_path, arguments, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "machine", lambda *_: pytest.fail("measured"))
    result = CliRunner().invoke(app, ["bench", "--model", "gem-tiny", *arguments])
    assert result.exit_code == 2, result.output
    assert told in re.sub("\x1b[^m]*m", "", result.output)


def test_the_machines_line_names_what_figures_hold_for():
    facts = machine(3)
    line = machine_line(facts)
    assert facts["threads"] == 3
    assert "3 threads" in line
    assert f"torch {facts['versions']['torch']}" in line
    assert json.loads(json.dumps(facts)) == facts
    assert machine_line({**facts, "gpus": ["H100"], "driver": "550"}).count("H100 (driver 550)") == 1


def test_a_cpu_is_told_by_its_generation_where_its_name_does_not():
    x86 = {"model name": "AMD EPYC", "cpu family": "26", "model": "2"}
    assert _cpu_name(x86) == "AMD EPYC (family 26 model 2)"
    assert _cpu_name({"model name": "Neoverse"}) == "Neoverse"
    assert _cpu_name({})


def test_rows_of_a_case_keep_their_order():
    found = records.by_group([row(size=448), row("sdpa", size=224), row("sdpa", size=448)])
    assert [[r.provider for r in members] for members in found.values()] == [
        ["engine float32", "sdpa float32"],
        ["sdpa float32"],
    ]


def test_a_run_that_is_cut_short_has_what_it_found(monkeypatch, tmp_path):
    def cut_short(asked, steps, tell):
        outcome = Outcome([], CEILINGS)
        for each in (row(), row("sdpa", seconds=(2.0,))):
            outcome.rows.append(each)
            tell(outcome)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.sweep, "run", cut_short)
    path, nowhere = tmp_path / "run.json", Console(file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        runs.measure_run(Sweep(), runs.Files(path), nowhere, nowhere)
    assert [each.seconds for each in read_rows(read_document(path))] == [(0.9, 1.0, 1.2), (2.0,)]
