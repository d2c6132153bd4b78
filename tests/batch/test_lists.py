"""Lists of inputs, and inputs behind URLs."""

import io
import os
import sys
import threading
import zipfile

import pytest

from gem_fast import records, segment_files
from gem_fast.batch import lists, sources
from gem_fast.batch.contents import Refused, Remote
from gem_fast.batch.sources import Listing, check_inputs
from tests.batch.reading import SETTINGS, files, tar


class TestLists:
    def test_a_list_of_files_folders_and_archives(self, tmp_path, folder, monkeypatch):
        monkeypatch.chdir(tmp_path)
        tar(tmp_path / "t.tar", ("x.png", b"1"))
        (tmp_path / "list.txt").write_bytes(
            b"photos/b.jpg\r\n\nphotos\nt.tar\nmissing.png\n" + b"a\0b\n" + b"y" * 99_999
        )
        listing = Listing("@list.txt")
        assert [source.image for source in listing] == [
            *("photos/b.jpg", "photos/a.png", "photos/sub/c.png", "t.tar/x.png", "missing.png")
        ]
        assert listing.passed_over == {"lines that are no path": 2}

    def test_a_list_from_windows(self, tmp_path):
        (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\r\n\xef\xbb\xbfb.png\r\n")
        assert [source.image for source in Listing(f"@{tmp_path}/list.txt")] == ["a.png", "\ufeffb.png"]

    @pytest.mark.parametrize("letters", [(1 << 15) - 2, (1 << 15) - 1, 1 << 15, 1 << 16])
    def test_a_line_of_any_length_is_one(self, tmp_path, letters):
        (tmp_path / "list.txt").write_bytes(b" a.png \n" + b"y" * letters + b"\nb.png\n")
        long = "y" * letters if letters < 1 << 15 else None
        assert list(lists.read_list(str(tmp_path / "list.txt"))) == [" a.png ", long, "b.png"]

    def test_files_whose_names_have_colons(self, tmp_path, png, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "std::pair.png").write_bytes(png())
        (tmp_path / "list.txt").write_text("std::pair.png\n")
        for inputs in ("std::pair.png", "std::*.png", "@list.txt"):
            (source,) = Listing(inputs)
            assert (source.name, source.image, source.content) == ("std::pair", "std::pair.png", None)

    def test_there_is_no_such_list(self, tmp_path):
        with pytest.raises(ValueError, match=r"there is no list .*none\.txt"):
            Listing(f"@{tmp_path}/none.txt")

    def test_the_standard_input(self, small_model, folder, tmp_path, monkeypatch):
        named = "\n".join(map(str, sorted(folder.rglob("*.*"))))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(named.encode())))
        outcome = segment_files(small_model, "-", "cat", tmp_path / "out", format="tar", **SETTINGS)
        assert outcome.done == 3

    def test_a_standard_input_that_is_closed(self, small_model, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(ValueError, match="the standard input, which is closed"):
            segment_files(small_model, "-", "cat", tmp_path / "out", **SETTINGS)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
    def test_a_list_that_is_a_pipe_is_read_once(self, small_model, folder, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(str(folder),))
        writer.start()
        outcome = segment_files(small_model, f"@{tmp_path}/pipe", "cat", tmp_path / "out", format="tar", **SETTINGS)
        writer.join()
        assert outcome.done == 3

    def test_a_list_that_cannot_be_read(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        (tmp_path / "list.txt").write_text("a.png")
        monkeypatch.setattr("builtins.open", refuse)  # root reads everything
        with pytest.raises(ValueError, match=r"list\.txt: the list can't be read: Permission denied"):
            Listing(f"@{tmp_path}/list.txt")

    def test_a_url_with_signs_of_a_pattern(self, tmp_path, png):
        """What is there under that name is taken; what matches nothing fails; in lists nothing is a pattern."""
        memory = pytest.importorskip("fsspec").filesystem("memory")
        for name in ("photo[1].png", "photo1.png", "what?.png"):
            memory.pipe(f"/signs/{name}", png())
        root = "memory://signs/"
        assert [source.image for source in Listing([root + "photo[1].png", root + "what?.png"])] == [
            *(root + "photo[1].png", root + "what?.png")
        ]
        assert [source.image for source in Listing(root + "photo[12].png")] == ["memory:///signs/photo1.png"]
        with pytest.raises(
            ValueError, match=r"gone\[2\]\.png: there is no such file, and as a pattern it matches none"
        ):
            Listing(root + "gone[2].png")
        listed = ["photo[1].png", "photo[12].png", "*.png", "gone.png?sig=1"]
        (tmp_path / "list.txt").write_text("\n".join(root + name for name in listed))
        assert [source.image for source in Listing(f"@{tmp_path}/list.txt")] == [root + name for name in listed]

    @pytest.mark.parametrize("shape", ["files", "tar"])
    def test_a_store_is_asked_once_what_matches(self, small_model, tmp_path, png, monkeypatch, shape):
        """A run lists its inputs several times, and each lookup is a request."""
        memory, asked = pytest.importorskip("fsspec").filesystem("memory"), []
        for name in ("1.png", "2.png"):
            memory.pipe(f"/asked/{name}", png())
        glob = type(memory).glob
        monkeypatch.setattr(type(memory), "glob", lambda *given: asked.append(given[1]) or glob(*given))
        inputs = check_inputs(["memory://asked/*.png"])
        outcome = segment_files(small_model, inputs, "cat", tmp_path / "out", format=shape, **SETTINGS)
        assert (outcome.done, asked) == (2, ["/asked/*.png"])
        assert Listing(inputs).count() == 2

    def test_a_store_that_cannot_be_asked_what_matches(self, monkeypatch):
        memory = pytest.importorskip("fsspec").filesystem("memory")

        def refuse(*_):
            raise RuntimeError("403, Forbidden")

        monkeypatch.setattr(type(memory), "exists", refuse)
        monkeypatch.setattr(type(memory), "isdir", refuse)
        (source,) = Listing("memory://far/*.png")
        assert source.content == Refused("memory://far/*.png", "can't be listed: 403, Forbidden")

    def test_urls(self, small_model, folder, tmp_path, png):
        fsspec = pytest.importorskip("fsspec")
        memory = fsspec.filesystem("memory")
        for name in ("a.png", "sub/b.png", "notes.txt", "more.tar.gz"):
            memory.pipe(f"/urls/{name}", png())
        tar(tmp_path / "t.tar", ("x.png", png()))
        memory.pipe("/t.tar", (tmp_path / "t.tar").read_bytes())
        inputs = ["memory://urls", "memory://t.tar", "memory://urls/missing.png", folder / "a.png"]
        outcome = segment_files(small_model, inputs, "cat", tmp_path / "out", **SETTINGS)
        assert (outcome.done, outcome.failed) == (4, 1)
        told = [record.image for record in records(tmp_path / "out")]
        assert told[:4] == [
            *(f"memory:///urls/{name}" for name in ("a.png", "sub/b.png")),
            *("memory://t.tar/x.png", "memory://urls/missing.png"),
        ]
        assert segment_files(small_model, inputs[:2], "cat", tmp_path / "out", resume=True, **SETTINGS).kept == 3

    def test_names_behind_a_url_lead_nowhere_else(self, small_model, tmp_path, png, monkeypatch):
        pytest.importorskip("fsspec").filesystem("memory").pipe("/far/a.png", png())
        names = ["../../up.png", f"{tmp_path}/root.png", "https://b/c.png", "a//b\\..\\d.png", ".partial/e.png"]
        monkeypatch.setattr(sources, "files_of", lambda *_: ((f"memory://far/a.png?{name}", name) for name in names))
        monkeypatch.setattr(Remote, "read", lambda _: png())
        outcome = segment_files(small_model, "memory://far", "cat", tmp_path / "deep" / "out", **SETTINGS)
        assert (outcome.done, outcome.failed) == (3, 0)
        below = ["https:/b/c", "a/b_.._d", f"{tmp_path.as_posix()[1:]}/root"]
        assert files(tmp_path).keys() == {f"deep/out/{name}.labels.png" for name in below}

    def test_a_file_system_that_raises_what_it_likes(self, folder, monkeypatch):
        def files_of(*_):
            raise RuntimeError("403, Forbidden")
            yield

        pytest.importorskip("fsspec")
        monkeypatch.setattr(sources, "files_of", files_of)
        first, second = Listing(["memory://far", folder / "a.png"])
        assert first.content == Refused("memory://far", "can't be listed: 403, Forbidden")
        assert second.image == str(folder / "a.png")
        with pytest.raises(ValueError, match="nothing://a: fsspec can't open it"):
            Listing("nothing://a")

    def test_a_folder_in_an_archive_that_fsspec_opens(self, tmp_path, png):
        pytest.importorskip("fsspec")
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            archive.writestr("folder/sub/a.png", png())
        for inside in ("folder", "folder/sub/*.png", "folder/sub/a.png"):
            (source,) = Listing(f"zip://{inside}::{tmp_path}/z.zip")
            assert source.content.read() == png()
            assert source.image == f"zip://folder/sub/a.png::{tmp_path}/z.zip"
