"""The model of scaling: by hand, by its laws, and its page."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from gem_fast.bench import scaling
from gem_fast.bench.scaling import Machine, Stage, Workload, plan, serial_share

# 1 s of encoding of which a tenth is serial, decoding beside it, half a second of writing.
LOAD = Workload(
    "by hand",
    (Stage("decode", 0.2, ahead=True), Stage("encode", 1.0, 0.1), Stage("write", 0.5)),
    read=1e6,
    written=3e6,
    traffic=2e9,
)
HERE = Machine("here", 2, memory=20e9, storage=1e9)
ON_GPU = replace(LOAD, stages=(LOAD.stages[0], LOAD.stages[2]), traffic=0.0, gpu_seconds=0.01)


def test_an_image_by_hand():
    """Encoding on 2 cores: 0.1 + 0.9 / 2; then 0.5 of writing. 1.7 core-seconds would take 0.85 s."""
    found = plan(LOAD, HERE, 2)
    assert found.seconds == pytest.approx(0.55 + 0.5)
    assert found.bottleneck == "cores"
    assert found.demands == pytest.approx({"cores": 1.05, "memory": 0.1, "storage": 0.004})
    assert found.hours(3600) == pytest.approx(1.05)
    assert found.busy("memory") == pytest.approx(0.1 / 1.05)


def test_decoding_ahead_sets_the_pace_where_it_takes_longest():
    slow = replace(LOAD, stages=(Stage("decode", 3.0, ahead=True), *LOAD.stages[1:]))
    assert slow.process_seconds(2) == 3.0
    # On one core nothing runs beside anything: the sum, whichever stages there are.
    assert slow.process_seconds(1) == LOAD.process_seconds(1) + 2.8 == pytest.approx(4.5)


def test_amdahl_bounds_what_one_process_gains():
    seconds = [LOAD.process_seconds(cores) for cores in (1, 2, 4, 16, 10**6)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] == pytest.approx(0.6, rel=1e-5)  # writing, and what is serial of encoding
    for serial in (0.0, 0.3, 1.0):
        assert serial_share(8.0, Stage("any", 8.0, serial).seconds(4), 4) == pytest.approx(serial)
    assert serial_share(1.0, 0.4, 2) == 0.0  # faster than cores alone explain
    assert serial_share(1.0, 1.2, 2) == 1.0


def test_processes_of_one_core_waste_none():
    many = Machine("many", 16, memory=1e15, storage=1e15)
    rates = [1 / plan(LOAD, many, threads).seconds for threads in (1, 2, 4, 8, 16)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(16 / LOAD.core_seconds)


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("load", [LOAD, ON_GPU], ids=["cpu", "gpu"])
def test_no_resource_works_longer_than_there_is_time(load, cores):
    """Core-seconds that images ask for fit the core-seconds that the machine has; so do bytes."""
    machine = Machine("any", cores, memory=20e9, storage=1e9, gpus=1 if load.gpu_seconds else 0)
    for threads in {1, min(2, cores), cores}:
        found = plan(load, machine, threads)
        assert load.core_seconds <= found.seconds * cores * (1 + 1e-12)
        assert load.traffic <= found.seconds * machine.memory
        assert load.read + load.written <= found.seconds * machine.storage
        assert load.gpu_seconds <= found.seconds
        assert max(found.busy(name) for name in found.demands) == 1


@pytest.mark.parametrize("field", ["cores", "memory", "storage"])
def test_more_of_a_resource_is_never_slower(field):
    before = plan(LOAD, HERE, 2).seconds
    for factor in (2, 8, 64):
        after = plan(LOAD, replace(HERE, **{field: getattr(HERE, field) * factor}), 2).seconds
        assert after <= before
        before = after


def test_the_bottleneck_moves_from_cores_to_memory_to_storage():
    def bottleneck(cores, memory, storage):
        return plan(LOAD, Machine("any", cores, memory, storage), 2).bottleneck

    assert bottleneck(2, 20e9, 1e9) == "cores"
    assert bottleneck(32, 20e9, 1e9) == "memory"
    assert bottleneck(2, 20e9, 1e6) == "storage"


def test_a_gpu_waits_for_cores_until_enough_of_them_feed_it():
    assert ON_GPU.process_seconds(2) == pytest.approx(0.51)
    needed = ON_GPU.cores_to_feed(2)
    assert needed == 2 * 51
    for cores, expected in ((needed - 2, "cores"), (needed, "GPU")):
        found = plan(ON_GPU, Machine("host", cores, 1e15, 1e15, gpus=1), 2)
        assert found.bottleneck == expected or found.busy(expected) == pytest.approx(1)
    assert found.seconds == pytest.approx(0.01)
    assert LOAD.cores_to_feed(2) == 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a process can't have 3"):
        plan(LOAD, HERE, 3)
    with pytest.raises(ValueError, match="GPU seconds where a machine has a GPU"):
        plan(ON_GPU, HERE, 2)
    with pytest.raises(ValueError, match="a machine has a core"):
        Machine("none", 0, 1, 1)


def write_workloads(folder):
    record = {"about": ["By hand."], "machine": "a machine", "cores": 2, "memory": 20e9}
    (folder / "workloads.json").write_text(json.dumps({**record, "workloads": [asdict(LOAD), asdict(ON_GPU)]}))


def test_workloads_come_back_from_their_file(tmp_path):
    write_workloads(tmp_path)
    record, loads = scaling.read_workloads(tmp_path / "workloads.json")
    assert loads == [LOAD, ON_GPU]
    assert record["machine"] == "a machine"


def test_the_page_has_every_plan_and_says_what_is_predicted(tmp_path):
    write_workloads(tmp_path)
    scaling.main(str(tmp_path))
    page = (tmp_path / "scaling.md").read_text()
    assert "measured on a machine" in page
    assert "is predicted.**" in page
    assert "By hand." in page
    assert "| by hand | 2 cores | 0.95 | cores | 291.7 | 59% encode, 29% write |  |" in page  # 1.05 s an image
    assert "| by hand | 16 cores | 7.62 | cores | 36.5 |" in page
    assert "| by hand | 16 cores + GPU | 15.69 | cores | 17.7 | 71% write, 29% decode | 102 |" in page


def test_the_stored_page_is_that_of_the_stored_workloads(tmp_path):
    reports = Path(__file__).parents[2] / "bench" / "reports"
    (tmp_path / "workloads.json").write_bytes((reports / "workloads.json").read_bytes())
    scaling.main(str(tmp_path))
    assert (tmp_path / "scaling.md").read_text() == (reports / "scaling.md").read_text()


@pytest.mark.parametrize("text", [None, "", "{}", '{"workloads": [{"stages": [], "speed": 1}]}', "[]"])
def test_a_file_that_is_missing_or_of_another_kind_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "workloads.json").write_text(text)
    with pytest.raises(SystemExit, match=r"scaling: .*workloads\.json: no file of workloads"):
        scaling.main(str(tmp_path))
