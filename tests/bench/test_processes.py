"""Providers in processes of their own: the protocol, failures that are told, memory, the authors' environment."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from gem_fast.bench import authors, memory, processes, protocol
from gem_fast.bench.processes import ProviderError, ProviderProcess
from gem_fast.bench.providers import Provider, Subject

FAKE = (str(Path(__file__).with_name("fake_worker.py")),)
SUBJECT = Subject("none", {"vision_cfg": {"patch_size": 8}}, {}, "")
PIXELS = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)


def fake(behaviour, **settings):
    return ProviderProcess(Provider(behaviour, "engine", backend=behaviour), SUBJECT, command=FAKE, **settings)


def test_messages_come_through_with_their_arrays():
    stream = io.BytesIO()
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    protocol.send(stream, {"a": "line\nbreak"}, array.transpose(2, 0, 1))
    protocol.send(stream, {"b": [1, None]})
    protocol.send(stream, {"c": 1}, np.zeros((0, 5), np.float32))
    stream.seek(0)
    message, received = protocol.receive(stream)
    assert message == {"a": "line\nbreak"}
    np.testing.assert_array_equal(received, array.transpose(2, 0, 1))
    assert protocol.receive(stream) == ({"b": [1, None]}, None)
    assert protocol.receive(stream)[1].shape == (0, 5)
    assert protocol.receive(stream) is None


def test_a_message_that_breaks_off_is_no_array():
    stream = io.BytesIO()
    protocol.send(stream, {}, np.ones(10, np.float32))
    with pytest.raises(EOFError, match="39 of 40 bytes"):
        protocol.receive(io.BytesIO(stream.getvalue()[:-1]))


def test_a_provider_answers_with_features_seconds_and_memory():
    with fake("right", threads=1) as process:
        assert process.threads == 1
        first = process.forward(PIXELS, answer=True)
        again = process.forward(calls=3)
    expected = PIXELS.reshape(3, 3, -1)[:, :2, :4].transpose(0, 2, 1)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(first.features, expected, rtol=1e-6)
    assert again.features is None
    assert len(again.seconds) == 3
    assert again.seconds == pytest.approx((0.001,) * 3)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_resident_memory_is_that_of_the_kernels_pages():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert memory.resident_mb() == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, rel=0.01)
    assert memory.peak_mb() >= memory.resident_mb() * 0.99


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory")
def test_the_peak_is_that_of_the_forward_alone():
    small = np.zeros((1, 3, 16, 16), np.float32)
    with fake("large") as process:
        before = process.forward(small).peak_mb
        peak = process.forward(PIXELS).peak_mb
        after = process.forward(small).peak_mb
        assert before < process.resting_mb + 50
    assert 250 < peak - before < 300
    assert after < peak - 200


def test_what_fails_is_told_and_the_process_goes_on():
    with fake("fails") as process:
        with pytest.raises(ProviderError, match=r"fails float32: RuntimeError: no memory for this"):
            process.forward(PIXELS)
        assert process.forward(PIXELS[:, :, :16, :16]).seconds


def test_a_process_that_ends_tells_its_last_lines():
    with fake("crashes") as process, pytest.raises(ProviderError, match=r"ended \(3\).*a line before the end"):
        process.forward(PIXELS)
    with pytest.raises(ProviderError, match="no such weights"):
        fake("does not load")


def test_pixels_must_come_before_a_forward_without_them():
    with fake("right") as process, pytest.raises(ProviderError, match="needs a provider that is loaded, and pixels"):
        process.forward()


def test_a_provider_that_is_not_one_is_refused():
    with pytest.raises(ValueError, match="unknown kind of provider 'tensorflow'; known are engine"):
        Provider("x", "tensorflow")
    with pytest.raises(ValueError, match="dtype must be one of float32"):
        Provider("x", "eager", "int8")


def test_threads_sleep_and_the_authors_packages_come_first(monkeypatch, tmp_path):
    monkeypatch.setenv(authors.VARIABLE, str(tmp_path))
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    env = processes.environment(Provider("authors", "authors"), 3)
    assert env["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert env["OMP_NUM_THREADS"] == "3"
    assert "OMP_WAIT_POLICY" not in env
    assert str(tmp_path) not in processes.environment(Provider("engine", "engine"), None)["PYTHONPATH"]


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv(authors.VARIABLE, str(tmp_path))
    assert "`make authors`" in authors.why_missing()
    assert str(tmp_path) in authors.why_missing()
    for name in ("gem", "open_clip"):
        (tmp_path / name).mkdir()
    assert authors.why_missing() is None
