"""Images in tar archives: what is listed, what is refused, and that the rest goes on."""

import os
import re
import tarfile
from importlib import import_module

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gem_fast import records, segment_files
from gem_fast.batch.sources import Listing
from gem_fast.errors import ImageError
from gem_fast.images import load_image
from tests.batch.reading import SETTINGS, files, read, special, tar


class TestTar:
    @pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_members_in_their_order(self, tmp_path, png, format):
        long = "folder/" * 30 + "long.png" if format != tarfile.USTAR_FORMAT else "folder/" * 20 + "long.png"
        names = ["b.png", "./a.jpg", "猫.png" if format != tarfile.USTAR_FORMAT else "c.png", long]
        path = tar(tmp_path / "t.tar", *((name, name.encode()) for name in names), format=format)
        assert read([path]) == {f"{path}/{name.removeprefix('./')}": name.encode() for name in names}
        named = [source.name for source in Listing([path])]
        assert named == [name.removeprefix("./").rsplit(".", 1)[0] for name in names]

    @pytest.mark.parametrize("name", ["b/./a.png", "b//a.png", ".//b/a.png", "././b/a.png"])
    def test_names_as_tar_keeps_them_of_folders_given_in_other_ways(self, tmp_path, name):
        path = tar(tmp_path / "t.tar", (name, b"1"), ("BZh.png", b"2"))
        assert read([path]) == {f"{path}/b/a.png": b"1", f"{path}/BZh.png": b"2"}
        assert [source.name for source in Listing([path])] == ["b/a", "BZh"]

    @pytest.mark.parametrize(("pack", "by"), [("gzip", "gzip"), ("bz2", "bzip2"), ("lzma", "xz")])
    @pytest.mark.parametrize("name", ["t.tar", "t.tar.gz", "t.tgz", "t.TAR.BZ2", "photo.jpg.xz"])
    def test_what_is_compressed_is_told(self, tmp_path, name, pack, by):
        path = tar(tmp_path / name, ("a.png", os.urandom(600)))
        told = f"{path}: compressed by {by}, which is not read: unpack it first"
        for content in (path.read_bytes(), b""):
            path.write_bytes(import_module(pack).compress(content))
            if name == "t.tar":
                assert read([path]) == {str(path): told}
            else:
                with pytest.raises(ImageError, match=f"^{re.escape(told)}$"):
                    load_image(path)

    def test_what_is_no_image_is_passed_over(self, tmp_path):
        listing = Listing(
            [tar(tmp_path / "t.tar", *((n, b"x") for n in ("a.json", "._a.png", "a.png", "a.labels.png", ".b/a.png")))]
        )
        assert [source.name for source in listing] == ["a"]
        assert sum(listing.passed_over.values()) == 4

    def test_folders_as_they_were_before_posix(self, tmp_path):
        path = tar(tmp_path / "t.tar", (special("folder/", tarfile.AREGTYPE), b""), ("folder/a.png", b"1"))
        assert read([path]) == {f"{path}/folder/a.png": b"1"}

    @pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
    def test_sparse_files_as_gnu_tar_writes_them_by_default(self, tmp_path, version):
        """Their holes are left out, or told before their bytes, in a member that is a file in all else."""
        headers = {"0.0": "GNU.sparse.size", "0.1": "GNU.sparse.map", "1.0": "GNU.sparse.major"}
        sparse = tarfile.TarInfo("a.png")
        names = (
            {"path": "folder/b.png"} if version == "0.0" else {"GNU.sparse.name": "folder/b.png", "path": "GNU/b.png"}
        )
        sparse.pax_headers = {headers[version]: "1", "SCHILY.xattr.user." + "k" * 200: "v", **names}
        path = tar(tmp_path / "t.tar", (sparse, b"12"), ("c.png", b"3"))
        assert read([path]) == {f"{path}/folder/b.png": f"{path}/folder/b.png: a sparse file", f"{path}/c.png": b"3"}

    @pytest.mark.parametrize(
        ("member", "reason"),
        [
            ("/etc/a.png", "an absolute name"),
            ("C:\\a.png", "an absolute name"),
            ("\\a.png", "an absolute name"),
            ("../a.png", "a name that leads out of its folder"),
            ("b/../../a.png", "a name that leads out of its folder"),
            ("b\\..\\..\\a.png", "a name that leads out of its folder"),
            ("./.", "not a name of a file"),
            (special("a.png", tarfile.SYMTYPE), "a link"),
            (special("a.png", tarfile.LNKTYPE), "a link"),
            (special("a.png", tarfile.CHRTYPE), "a device"),
            (special("a.png", tarfile.BLKTYPE), "a device"),
            (special("a.png", tarfile.FIFOTYPE), "a FIFO"),
            (special("a.png", tarfile.GNUTYPE_SPARSE), "a sparse file"),
            (special("a.png", b"~"), "of an unknown kind"),
            (special("a.png", tarfile.REGTYPE, 1 << 40), "claims 1,099,511,627,776 bytes"),
            (special("a.png", tarfile.REGTYPE, 1 << 33), "claims 8,589,934,592 bytes"),
        ],
        ids=lambda value: value.name + value.type.decode() if isinstance(value, tarfile.TarInfo) else str(value),
    )
    def test_what_is_hostile_is_refused_by_name_and_the_rest_goes_on(self, tmp_path, member, reason):
        path = tar(tmp_path / "t.tar", ("1.png", b"1"), (member, b""), ("2.png", b"2"), format=tarfile.GNU_FORMAT)
        first, refused, second = read([path]).items()
        assert (first, second) == ((f"{path}/1.png", b"1"), (f"{path}/2.png", b"2"))
        name = member.name if isinstance(member, tarfile.TarInfo) else member
        assert refused[0] == f"{path}/{name}"
        assert reason in refused[1]
        assert [source.name for source in Listing([path])][1].startswith("refused")

    @pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
    def test_a_size_of_what_has_no_content(self, tmp_path, kind):
        path = tar(tmp_path / "t.tar", (special("a", kind, 700), b""), ("2.png", b"2"))
        found = read([path])
        assert found.pop(f"{path}/2.png") == b"2"
        assert len(found) == (kind != b"5")

    @pytest.mark.parametrize(("kind", "size"), [(b"V", 0), (b"D", 700)])
    def test_labels_and_lists_of_gnus_archives_are_no_images(self, tmp_path, kind, size):
        path = tar(tmp_path / "t.tar", (special("backup", kind, size), bytes(size)), ("2.png", b"2"))
        assert read([path]) == {f"{path}/2.png": b"2"}

    def test_a_header_of_names_without_end(self, tmp_path):
        huge = special("x", tarfile.XHDTYPE, 2 << 20)
        path = tar(tmp_path / "t.tar", (huge, bytes(2 << 20)), ("2.png", b"2"))
        refused, second = read([path]).values()
        assert "a header of 2,097,152 bytes" in refused
        assert second == b"2"

    def test_damage_costs_what_it_hits(self, tmp_path):
        path = tar(tmp_path / "t.tar", *((f"{i}.png", bytes([i]) * 600) for i in range(4)))
        content = bytearray(path.read_bytes())
        content[1536] ^= 255  # the second header
        path.write_bytes(content)
        found = read([path])
        assert [name.rsplit("/", 1)[1] for name in found] == ["0.png", "byte 1536", "2.png", "3.png"]
        path.write_bytes(content[:4900])
        assert "ends within a header" in read([path])[f"{path}/byte 4608"]
        path.write_bytes(content[: 5120 + 600])  # not filled up to a block
        assert read([path])[f"{path}/3.png"] == b"\3" * 600
        path.write_bytes(content[:5300])
        assert "claims 600 bytes, more than the archive has" in read([path])[f"{path}/3.png"]

    @pytest.mark.parametrize("before", [7, 512])
    def test_behind_damage_headers_are_looked_for_where_blocks_begin(self, tmp_path, before):
        inner = tarfile.TarInfo("inner.png").tobuf(tarfile.GNU_FORMAT)
        path = tar(tmp_path / "t.tar", ("1.png", bytes(before) + inner), ("2.png", b"2"), format=tarfile.GNU_FORMAT)
        path.write_bytes(b"?" + path.read_bytes()[1:])
        told = [name.rsplit("/", 1)[1] for name in read([path])]
        assert told == ["byte 0", *(["inner.png"] if before == 512 else []), "2.png"]

    def test_times_that_gnu_tar_has_where_posix_has_a_folder(self, tmp_path):
        path = tar(tmp_path / "t.tar", ("a.png", b"1"), format=tarfile.GNU_FORMAT)
        content = bytearray(path.read_bytes())
        content[345:357] = b"14706127317\0"
        content[148:156] = b"%06o\0 " % (sum(content[:148]) + 8 * 32 + sum(content[156:512]))
        path.write_bytes(content)
        assert read([path]) == {f"{path}/a.png": b"1"}

    @pytest.mark.parametrize("size", [600, 900])
    def test_a_size_in_a_header_of_names_is_decimal(self, tmp_path, size):
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"size": str(size)}
        path = tar(tmp_path / "t.tar", (info, b"1" * size), ("2.png", b"2"))
        assert read([path]) == {f"{path}/a.png": b"1" * size, f"{path}/2.png": b"2"}

    @pytest.mark.parametrize("content", [b"", b"no archive" * 99, bytes(10_240)], ids=["empty", "text", "zeros"])
    def test_what_is_no_archive(self, tmp_path, content):
        (tmp_path / "t.tar").write_bytes(content)
        assert all(" header" in reason for reason in read([tmp_path / "t.tar"]).values())

    def test_two_members_of_one_name_are_two_images(self, tmp_path):
        path = tar(tmp_path / "t.tar", ("a.png", b"1"), ("a.png", b"2"))
        assert read([path, path]) == {f"{path}/a.png": b"1", f"{path}/a.png#1": b"2"}
        assert [source.name for source in Listing([path])] == ["a", "a-2"]

    def test_members_of_one_name_are_counted_each(self, tmp_path):
        """As they are listed: what is refused, too."""
        links = [(special("c.png", tarfile.SYMTYPE), b"")] * 2
        path = tar(tmp_path / "t.tar", ("a.png", b"1"), ("a.png", b"2"), *links)
        assert Listing([path, path]).count() == len(list(Listing([path, path]))) == 4


class TestAsFiles:
    @pytest.mark.parametrize("kind", ["tar", "parquet", "list"])
    def test_they_are_segmented_like_files(self, small_model, folder, tmp_path, kind):
        paths = sorted(folder.rglob("*.*"))
        names = [path.relative_to(folder).as_posix() for path in paths]
        if kind == "tar":
            images = tar(tmp_path / "t.tar", *zip(names, (path.read_bytes() for path in paths), strict=True))
        elif kind == "parquet":
            images = tmp_path / "t.parquet"
            pq.write_table(pa.table({"key": names, "image": [path.read_bytes() for path in paths]}), images)
        else:
            (tmp_path / "list").write_text(str(folder))
            images = f"@{tmp_path}/list"
        segment_files(small_model, folder, "cat", tmp_path / "expected", **SETTINGS)
        assert segment_files(small_model, images, "cat", tmp_path / "out", **SETTINGS).done == 3
        assert files(tmp_path / "out") == files(tmp_path / "expected") != {}
        assert segment_files(small_model, images, "cat", tmp_path / "out", resume=True, **SETTINGS).kept == 3

    def test_hostile_members_are_recorded(self, small_model, tmp_path, png):
        path = tar(tmp_path / "t.tar", ("../a.png", png()), ("b.png", png()), (special("c.png", tarfile.SYMTYPE), b""))
        outcome = segment_files(small_model, path, "cat", tmp_path / "deep" / "out", **SETTINGS)
        assert (outcome.done, outcome.failed) == (1, 2)
        assert [record.error for record in records(outcome.summary) if record.error] == [
            f"{path}/../a.png: a name that leads out of its folder",
            f"{path}/c.png: a link",
        ]
        assert files(tmp_path).keys() == {"deep/out/b.labels.png"}
