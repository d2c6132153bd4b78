"""The model of scaling: by hand, by its laws, and the page and the rates that it is fed by."""

import json
from dataclasses import replace

import pytest
from gem_fast.bench.scaling import __main__ as command
from gem_fast.bench.scaling import rates as measured
from gem_fast.bench.scaling.model import Machine, Prices, Stage, Workload, plan, serial_share
from gem_fast.bench.scaling.workloads import cpu_workload, encoding, gpu_workload, read_rates
from PIL import Image

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
    assert found.core_hours(3600) == pytest.approx(2.1)
    assert found.gpu_hours(3600) == 0
    assert found.terabytes(1e6) == pytest.approx((1, 3))
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


def test_prices_are_told_only_where_all_are_known():
    machine = Machine("host", 16, 1e15, 1e15, gpus=1)
    found = plan(ON_GPU, machine, 2)
    images = 3600 / found.seconds  # an hour of them
    assert found.money(images, Prices(0.05, 2.0)) == pytest.approx(16 * 0.05 + 2.0)
    assert found.money(images, Prices(core=0.05)) is None
    assert plan(LOAD, HERE, 2).money(3600 / 1.05, Prices(core=0.05)) == pytest.approx(0.1)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a process can't have 3"):
        plan(LOAD, HERE, 3)
    with pytest.raises(ValueError, match="GPU seconds where a machine has a GPU"):
        plan(ON_GPU, HERE, 2)
    with pytest.raises(ValueError, match="a machine has a core"):
        Machine("none", 0, 1, 1)


STAGES = {"decode": 0.005, "resize": 0.006, "labels": 0.007, "write labels": 0.004, "write overlay": 0.06}
PHOTO = {"width": 640, "height": 480, "jpeg_bytes": 100_000, "labels_bytes": 5_000, "overlay_bytes": 300_000,
         "alone": dict.fromkeys(STAGES, 0.001), "busy": STAGES}  # fmt: skip
RATES = {
    "machine_line": "a machine", "cores": 2, "model": "ViT-B-16", "size": 448, "classes": 150,
    "copy_bytes_per_second": 20e9, "photos": {"web": PHOTO, "camera": {**PHOTO, "width": 6400}},
    "encode": [
        {"dtype": dtype, "batch": batch, "threads": threads, "seconds": seconds, "peak_mb": 500.0}
        for dtype in ("float32", "bfloat16")
        for batch, threads, seconds in ((1, 1, 1.0), (1, 2, 0.6), (4, 2, 0.5))
    ],
    "end_to_end": {"photo": "web", "dtype": "bfloat16", "batch": 4, "seconds": 0.6},
}  # fmt: skip
ESTIMATE = {"model": "ViT-B-16", "batch": 32, "gpu": "H100 SXM", "total": {"alternating": 0.35},
            "kernels": {"labels": {"floor": 0.01}}}  # fmt: skip


def test_encoding_keeps_the_measured_pace():
    stage = encoding(RATES, "float32")
    assert stage.serial == pytest.approx(0.2)  # 0.6 = 0.2 + 0.8 / 2
    assert stage.seconds(2) == pytest.approx(0.5)  # of the faster batch


def test_workloads_take_their_stages_and_bytes_from_the_rates():
    load = cpu_workload(RATES, "web", "bfloat16", "labels and overlay")
    assert [stage.name for stage in load.stages] == [
        "decode", "resize", "encode", "labels", "write labels", "write overlay",
    ]  # fmt: skip
    assert (load.read, load.written) == (100_000, 305_000)
    # The thread that reads is hidden behind the rest.
    assert load.process_seconds(2) == pytest.approx(0.006 + 0.5 + 0.007 + 0.004 + 0.06)
    assert cpu_workload(RATES, "web", "float32", "labels").traffic == pytest.approx(2 * load.traffic)


def test_a_gpu_is_as_fast_as_predicted_and_its_link():
    load = gpu_workload(RATES, ESTIMATE, "web", "labels", link=10e9)
    pixels = 640 * 480
    labels = 0.01 * pixels / 448**2
    assert load.gpu_seconds == pytest.approx((0.34 + labels) / 1e3 + (12 * 448**2 + 8 * pixels) / 10e9)
    assert [stage.name for stage in load.stages] == ["decode", "resize", "write labels"]
    slower = gpu_workload(RATES, ESTIMATE, "web", "labels", link=10e9, slower=2)
    assert slower.gpu_seconds - load.gpu_seconds == pytest.approx((0.34 + labels) / 1e3)


def write_inputs(folder):
    (folder / "rates.json").write_text(json.dumps(RATES))
    (folder / "roofline.json").write_text(json.dumps({"estimates": [ESTIMATE]}))


def test_the_page_has_every_plan_and_says_what_is_predicted(tmp_path):
    write_inputs(tmp_path)
    assert command.main([str(tmp_path)]) == 0
    page = (tmp_path / "scaling.md").read_text()
    assert "is predicted**" in page
    assert page.count("| 16 cores + H100 SXM |") == 4
    assert page.count("| 2 cores |") == page.count("| 16 cores |") == 8
    assert "0.58 s an image by the model, 0.60 s measured (-4%)" in page
    assert "price" not in page
    assert command.main([str(tmp_path), "--price-core-hour", "0.05", "--price-gpu-hour", "2"]) == 0
    assert "price a million" in (tmp_path / "scaling.md").read_text()


def test_inputs_that_are_missing_or_of_another_kind_are_named(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 2
    assert "rates.json: not the file that `make rates` writes" in capsys.readouterr().err
    write_inputs(tmp_path)
    (tmp_path / "roofline.json").write_text('{"estimates": []}')
    with pytest.raises(ValueError, match="no estimate of ViT-B-16 in batches of 32 on H100 SXM"):
        read_rates(tmp_path)
    with pytest.raises(SystemExit):
        command.main([str(tmp_path), "--storage-mbs", "0"])


def test_stages_are_timed_on_what_the_engine_would_do(tmp_path):
    photo = measured.make_photo("web", tmp_path)
    calls = measured.stages(photo, tmp_path)
    results = {name: call() for name, call in calls.items()}
    with Image.open(photo) as image, Image.open(tmp_path / "a.labels.png") as labels:
        assert results["decode"].size == image.size == labels.size
        assert len(labels.getcolors()) > 3  # not one class everywhere: PNG would have nothing to do
        assert results["labels"].shape == image.size[::-1]
    assert results["resize"].shape == (3, 448, 448)
    seconds = measured.stage_seconds(str(photo), 1)
    assert set(seconds) == set(calls)
    assert min(seconds.values()) > 0


def test_a_camera_photo_is_as_detailed_as_the_sample(tmp_path):
    web, camera = (measured.make_photo(name, tmp_path) for name in ("web", "camera"))
    with Image.open(web) as small, Image.open(camera) as large:
        ratio = large.width * large.height / (small.width * small.height)
    assert ratio == 42
    assert camera.stat().st_size / web.stat().st_size == pytest.approx(ratio, rel=0.7)
