"""An output folder alone: who holds it, what is left of it, and what of an earlier run counts."""

import json
import os
import re
from contextlib import nullcontext, suppress

import pytest

from gem_fast.batch import folder as module
from gem_fast.batch.folder import RunError, check_parts, enter, hold, read_run
from gem_fast.batch.options import Part
from gem_fast.batch.records import ERRORS, LEGEND, LOCK, PARTIAL, RUN, SUMMARY, Record


def asked(**changes):
    return {"prompts": [["cat", "cat"]], "output": {"format": "files", "overlay_size": 1600}, "versions": {}} | changes


def left(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


class TestHold:
    @pytest.mark.parametrize("error", [None, KeyboardInterrupt])
    def test_of_a_run_that_wrote_nothing_nothing_is_left(self, tmp_path, error):
        (tmp_path / "there").mkdir()
        with suppress(KeyboardInterrupt), hold(tmp_path / "there" / "deep" / "out"):
            assert left(tmp_path) == ["there", "there/deep", "there/deep/out", f"there/deep/out/{LOCK}"]
            if error:
                raise error
        assert left(tmp_path) == ["there"]

    def test_what_a_run_wrote_stays_and_its_working_files_go(self, tmp_path):
        with hold(tmp_path / "out"):
            (tmp_path / "out" / PARTIAL).mkdir()
            (tmp_path / "out" / SUMMARY).touch()
        assert left(tmp_path) == ["out", f"out/{SUMMARY}"]

    @pytest.mark.parametrize("put", [False, True], ids=["gone", "another"])
    def test_a_lock_that_ended_while_it_was_taken_is_none(self, tmp_path, monkeypatch, put):
        """The run before removed the file between the opening and the locking, and another may have put its own."""
        whole = module._lock

        def late(handle):
            (tmp_path / LOCK).rename(tmp_path / "before")
            if put:
                (tmp_path / LOCK).touch()
            return whole(handle)

        monkeypatch.setattr(module, "_lock", late)
        with pytest.raises(RunError, match="another run works in"), hold(tmp_path):
            pass
        assert (tmp_path / LOCK).exists() == put

    @pytest.mark.filterwarnings("ignore:.*use of fork")
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="processes can't fork")
    def test_a_forked_process_has_no_lock(self, tmp_path):
        with hold(tmp_path):
            (handle,) = module._handles
            child = os.fork()
            if child == 0:
                with suppress(OSError):
                    os.fstat(handle)
                    os._exit(1)
                os._exit(len(module._handles))
            assert os.waitpid(child, 0)[1] == 0

    def test_a_lock_is_closed_with_its_run(self, tmp_path):
        with hold(tmp_path):
            (handle,) = module._handles
        assert not module._handles
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


def test_one_part_of_one_is_no_other_beside_parts(tmp_path):
    (tmp_path / "part-1-of-2").mkdir()
    (tmp_path / "part-1-of-2" / SUMMARY).touch()
    check_parts(tmp_path, Part(1, 1))
    check_parts(tmp_path, Part(2, 2))
    with pytest.raises(RunError, match="holds part-1-of-2, and part 1/3 would have images of it"):
        check_parts(tmp_path, Part(1, 3))


class TestEnter:
    def enter(self, folder, run, **how):
        enter(folder, run, **{"resume": True, "overwrite": False, **how})
        return json.loads((folder / RUN).read_text())

    def test_working_files_of_a_run_that_was_killed_go(self, tmp_path):
        (tmp_path / PARTIAL).mkdir()
        (tmp_path / PARTIAL / "a.labels.png").touch()
        self.enter(tmp_path, asked())
        assert left(tmp_path) == [PARTIAL, RUN]

    def test_overlays_keep_their_size_where_none_are_asked_for(self, tmp_path):
        self.enter(tmp_path, asked())
        assert self.enter(tmp_path, asked(output={"format": "files"}))["output"]["overlay_size"] == 1600

    @pytest.mark.parametrize(
        ("earlier", "now", "told"),
        [
            ({"versions": {"torch": "2"}}, {"versions": {"torch": "3"}}, None),
            ({}, {"more": 1}, "more was None, now 1"),
            ({"less": "x" * 80}, {}, f"less was {'x' * 80}, now None"),
            ({"less": "x" * 81}, {}, f"less was {'x' * 77}..., now None"),
            ({"settings": {"a": 2}}, {"settings": {"a": 2, "b": 3}}, "settings b was None, now 3"),
            ({"settings": {"a": 2, "b": 3}}, {"settings": {"a": 2}}, "settings b was 3, now None"),
            ({}, {"prompts": [["cat", "kitten"]]}, "prompts was cat, now cat (kitten)"),
            ({}, {"output": {"format": "files", "overlay_size": 20}}, "output overlay_size was 1600, now 20"),
            ({"output": {"format": "files"}}, {"output": {"format": "files", "overlay_size": 20}}, None),
            ({"inputs": "a"}, {"inputs": "b"}, "the inputs are others, or in another order"),
        ],
        ids=str,
    )
    def test_what_is_asked_otherwise(self, tmp_path, earlier, now, told):
        self.enter(tmp_path, asked(**earlier))
        with pytest.raises(RunError, match=rf"ask the same: {re.escape(told)}(,|;)") if told else nullcontext():
            self.enter(tmp_path, asked(**now))

    def test_failures_alone_are_no_results(self, tmp_path):
        (tmp_path / SUMMARY).write_bytes(Record("a.png", "failed", "damaged").line())
        self.enter(tmp_path, asked())
        (tmp_path / RUN).unlink()
        (tmp_path / SUMMARY).write_bytes(Record("a.png", "ok").line())
        with pytest.raises(RunError, match="holds results and no"):
            self.enter(tmp_path, asked())

    def test_what_is_overwritten_is_what_a_run_could_have_written(self, tmp_path):
        """A record is a text that anybody may have changed."""
        out = tmp_path / "out"
        out.mkdir()
        files = {str(i): name for i, name in enumerate(("a.labels.png", "../b.labels.png", "notes.txt"))}
        (out / SUMMARY).write_bytes(Record("a.png", "ok", files=files).line())
        for name in (*files.values(), ERRORS, LEGEND, RUN):
            (out / name).touch()
        self.enter(out, asked(), overwrite=True, resume=False)
        assert left(tmp_path) == ["b.labels.png", "out", f"out/{PARTIAL}", "out/notes.txt", f"out/{RUN}"]


class TestReadRun:
    def test_its_length_is_bounded(self, tmp_path, monkeypatch):
        (tmp_path / RUN).write_text('{"a": 1}')
        monkeypatch.setattr(module, "_LARGEST", 8)
        assert read_run(tmp_path) == {"a": 1}
        monkeypatch.setattr(module, "_LARGEST", 7)
        with pytest.raises(RunError, match=r"run\.json is damaged; take --overwrite"):
            read_run(tmp_path)

    def test_one_that_is_no_file(self, tmp_path):
        assert read_run(tmp_path) is None
        (tmp_path / RUN).mkdir()
        with pytest.raises(RunError, match=r"run\.json can't be read: Is a directory"):
            read_run(tmp_path)
