"""Images in tar archives, tables, lists and behind URLs: what is listed, what is refused, and that the rest goes on."""

import io
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from importlib import import_module
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gem_fast import records, segment_files
from gem_fast.batch import lists, sources, tables
from gem_fast.batch.columns import Columns, TableError, columns_of
from gem_fast.batch.contents import Refused, Remote
from gem_fast.batch.flatbuffers import record_batches
from gem_fast.batch.options import parse_part
from gem_fast.batch.pages import Chunk, rows_within
from gem_fast.batch.sources import Listing, check_inputs
from gem_fast.batch.tables import open_table
from gem_fast.batch.thrift import ThriftError, read_struct
from gem_fast.errors import ImageError

SETTINGS = {"size": 64, "batch_size": 2, "overlays": False}


@pytest.fixture
def png(picture):
    def make(seed=0):
        buffer = io.BytesIO()
        picture(40, 64, seed).save(buffer, "PNG")
        return buffer.getvalue()

    return make


def tar(path, *members, format=tarfile.PAX_FORMAT):
    """An archive of `(name or TarInfo, content)`."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = info.size or len(content)
            archive.fileobj.write(info.tobuf(format))
            archive.fileobj.write(content + bytes(-len(content) % 512))
    return path


def special(name, kind, size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, "/etc/passwd", size
    return info


def read(inputs):
    """The bytes of each image, or the reason why there are none, by what it is told by."""
    found = {}
    for source in Listing(inputs):
        try:
            found[source.image] = source.content.read()
        except ImageError as error:
            found[source.image] = str(error)
    return found


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.labels.png")}


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

    @pytest.mark.parametrize(
        ("name", "pack", "by"),
        [
            ("t.tar", "gzip", "gzip"),
            ("t.tar.gz", "gzip", "gzip"),
            ("t.tgz", "gzip", "gzip"),
            ("t.TAR.BZ2", "bz2", "bzip2"),
            ("t.tar.xz", "lzma", "xz"),
        ],
    )
    def test_compressed_archives(self, tmp_path, name, pack, by):
        path = tar(tmp_path / name, ("a.png", os.urandom(600)))
        for content in (path.read_bytes(), b""):
            path.write_bytes(import_module(pack).compress(content))
            assert read([path]) == {str(path): f"{path}: compressed by {by}, which is not read: unpack it first"}

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


class TestThrift:
    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"\x19\xf1" + b"\xff" * 8 + b"\x7f", "cut off"),  # a list of 2^63 truth values
            (b"\x19" * 5000, "too deep"),
            (b"\x1c" * 5000, "too deep"),
            (b"\x18\xff\xff\xff\xff\x0f", "cut off"),
            (b"\x15" + b"\xff" * 20, "too long a number"),
            (b"\x1b\x00\x00", "an unknown type"),
            (b"", "cut off"),
        ],
    )
    def test_what_has_no_end(self, content, told):
        with pytest.raises(ThriftError, match=told):
            read_struct(content)

    def test_every_type(self):
        told = (
            b"\x11\x12\x13\x07\x15\x03\x17" + bytes(8) + b"\x18\x02ab\x19\x22\x01\x02\x1c\x15\x04\x00\x05\x28\x06\x00"
        )
        fields = {1: True, 2: False, 3: 7, 4: -2, 5: bytes(8), 6: b"ab", 7: [1, 2], 8: {1: 2}, 20: 3}
        assert read_struct(told + b"more") == (fields, len(told))


class TestPages:
    """Headers as some writers make them, with the least and the greatest image among the statistics."""

    @pytest.mark.parametrize(("size", "fits"), [(9, True), (100_000, True), (3_000_000, True), (1 << 24, False)])
    def test_a_header_of_any_length(self, size, fits):
        length = bytes((size >> shift) & 127 | 128 for shift in (0, 7, 14)) + bytes([size >> 21])
        statistics = b"\x58" + length + bytes(size) + b"\x00"  # the fifth field, bytes, and the struct's end
        data = b"\x15\x06\x15\x00\x3c" + statistics + b"\x00"
        page = b"\x15\x00\x15\x06\x15\x06\x2c" + data + b"\x00"  # 3 bytes, 3 values
        file = io.BytesIO((page + b"abc") * 2)
        chunk = Chunk(0, len(file.getvalue()))
        if fits:
            assert rows_within(file, chunk, 12) == 12
        else:
            with pytest.raises(TableError, match=r"a damaged header of a Parquet page \(cut off\)"):
                rows_within(file, chunk, 12)


class TestTables:
    @pytest.fixture
    def table(self):
        return pa.table({"key": [f"{i}.png" for i in range(9)], "image": [bytes([i]) for i in range(9)]})

    def write(self, path, table, kind):
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=4)
        else:
            make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
            with pa.OSFile(str(path), "wb") as file, make(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=4)
        return path

    @pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
    def test_images_as_bytes(self, tmp_path, table, kind):
        path = self.write(tmp_path / ("t.parquet" if kind == "parquet" else "t.arrow"), table, kind)
        assert read([path]) == {f"{path}/{i}.png": bytes([i]) for i in range(9)}
        sources = list(Listing([path]))
        assert [source.name for source in sources] == [str(i) for i in range(9)]
        assert [source.content.read() for source in sources[::-2]] == [bytes([i]) for i in range(8, -1, -2)]

    def test_images_as_datasets_has_them(self, tmp_path):
        images = [{"bytes": bytes([i]), "path": f"{i}.png"} for i in range(3)]
        path = self.write(tmp_path / "t.parquet", pa.table({"image": images, "label": [1, 2, 3]}), "parquet")
        assert list(read([path]).values()) == [b"\0", b"\1", b"\2"]

    @pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
    def test_missing_images_as_datasets_has_them(self, tmp_path, kind):
        images = [{"bytes": b"1", "path": None}, None, {"bytes": None, "path": "a.png"}]
        path = self.write(
            tmp_path / f"t.{'parquet' if kind == 'parquet' else 'arrow'}", pa.table({"image": images}), kind
        )
        first, *others = read([path]).values()
        assert first == b"1"
        assert [reason.split(": ")[1] for reason in others] == ["the row has no image"] * 2

    def test_paths(self, tmp_path, folder):
        paths = sorted(str(path) for path in folder.rglob("*.*"))
        path = self.write(tmp_path / "t.parquet", pa.table({"path": [*paths, None, "a\0b"]}), "parquet")
        assert [source.image for source in Listing([path])][:3] == paths
        assert [type(source.content) for source in Listing([path])][3:] == [Refused] * 2

    def test_keys_name_files_below_the_output(self, tmp_path, table):
        keys = ["../../a.png", "/etc/b.png", "a.png", ".partial/a.png", "", None, "x\0y", "c.d", "..\\e"]
        path = self.write(tmp_path / "t.parquet", table.set_column(0, "key", [keys]), "parquet")
        named = [source.name for source in Listing([path])]
        assert named == ["a", "etc/b", "a-2", "a-3", "1-0", "1-1", "x_y", "c.d", ".._e"]
        assert len({source.image for source in Listing([path])}) == 9

    def test_rows_of_one_key_are_images_of_their_own(self, small_model, tmp_path, png):
        keys = ["a#2", "a", "a", "a", "a#3"]
        pq.write_table(pa.table({"key": keys, "image": [png(i) for i in range(5)]}), tmp_path / "t.parquet")
        told = ["a#2", "a", "a#2#2", "a#3", "a#3#4"]
        for resume in (False, True):
            outcome = segment_files(
                small_model, tmp_path / "t.parquet", "cat", tmp_path / "out", resume=resume, **SETTINGS
            )
            assert (outcome.done, outcome.kept) == ((0, 5) if resume else (5, 0))
            assert [record.image for record in records(outcome.summary)] == [f"{tmp_path}/t.parquet/{i}" for i in told]

    @pytest.mark.parametrize("dictionary", [True, False])
    def test_a_page_bomb_is_refused_by_name(self, tmp_path, table, dictionary):
        bomb = pa.table({"key": ["a", "b", "c"], "image": [b"\1", bytes(1 << 25), b"\2"]})
        settings = {"compression": "zstd", "use_dictionary": dictionary, "write_statistics": False}
        pq.write_table(bomb, tmp_path / "t.parquet", row_group_size=1, **settings)
        other = self.write(tmp_path / "u.parquet", table, "parquet")
        found = list(read([tmp_path / "t.parquet", other]).values())
        assert (found[0], found[2], found[3]) == (b"\1", b"\2", b"\0")
        assert "t.parquet/b: column image has a Parquet page that inflates" in found[1]

    def test_a_bomb_of_keys(self, tmp_path):
        pq.write_table(
            pa.table({"key": ["a" * (1 << 25)], "image": [b"1"]}), tmp_path / "t.parquet", compression="zstd"
        )
        (reason,) = read([tmp_path / "t.parquet"]).values()
        assert "column key has a Parquet page that inflates" in reason

    def test_long_keys_are_cut_and_few_are_in_memory(self, tmp_path, monkeypatch):
        """A page may hold a hundred times what it is stored as, and there may be any number of them."""
        path, keys = tmp_path / "t.parquet", [f"{i}é" + "a" * (1 << 20) for i in range(20)]
        monkeypatch.setattr(tables, "_INSIDE", 10 << 20)
        pages = {"data_page_size": 1, "write_batch_size": 1, "write_statistics": False, "use_dictionary": False}
        pq.write_table(pa.table({"key": keys, "image": [b"1"] * 20}), path, compression="zstd", **pages)
        parts = [rows.texts for rows in open_table(str(path)).rows(Columns("image", None, "key"))]
        assert 1 < max(map(len, parts)) <= 10
        assert [text[: len(key)] for key, text in zip(keys, chain(*parts), strict=True)] == [k[:4097] for k in keys]

    @pytest.mark.parametrize("names", [["key", "image"], ["label", "path"]])
    def test_categorical_columns_of_parquet(self, tmp_path, table, names):
        table = pa.table([column.cast(pa.string()).dictionary_encode() for column in table.columns], names)
        if names[1] == "image":
            images = [b"1", None, b"2"] * 3
            table = table.set_column(1, "image", [pa.array(images, pa.binary()).dictionary_encode()])
        path = self.write(tmp_path / "t.parquet", table, "parquet")
        if names[1] == "image":
            found = read([path])
            assert found[f"{path}/1.png"].endswith("1.png: the row has no image")
            assert [found.pop(f"{path}/{i}.png") for i in (0, 2, 3)] == [b"1", b"2", b"1"]
        else:
            assert [str(source.image) for source in Listing([path])][1:] == [chr(i) for i in range(1, 9)]

    def test_compressed_arrow_is_refused(self, tmp_path, table):
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file,
            pa.ipc.new_file(file, table.schema, options=options) as w,
        ):
            w.write_table(table)
        (reason,) = read([tmp_path / "t.arrow"]).values()
        assert "compressed Arrow, which is not read" in reason

    @pytest.mark.parametrize("kept", [0, 3, 200, -9])
    @pytest.mark.parametrize("kind", ["parquet", "stream"])
    def test_what_is_no_table_fails_alone(self, tmp_path, table, kind, kept, folder):
        path = self.write(tmp_path / ("t.parquet" if kind == "parquet" else "t.arrow"), table, kind)
        path.write_bytes(path.read_bytes()[:kept])
        sources = list(Listing([path, folder]))
        assert [source.name for source in sources][-3:] == ["a", "b", "sub/c"]
        assert (kept == -9 and kind == "stream") or isinstance(sources[-4].content, Refused)

    @pytest.mark.parametrize("kind", ["parquet", "file"])
    @pytest.mark.parametrize("types", [("large_string", "large_binary"), ("string_view", "binary_view")])
    def test_every_type_of_text_and_bytes(self, tmp_path, table, kind, types):
        if kind == "parquet" and "string_view" in types and int(pa.__version__.split(".")[0]) < 21:
            pytest.skip("this pyarrow writes no views into Parquet")
        text, content = (getattr(pa, name)() for name in types)
        table = table.cast(pa.schema([("key", text), ("image", content)])).rename_columns({"image": "photo.png"})
        path = self.write(tmp_path / ("t.parquet" if kind == "parquet" else "t.arrow"), table, kind)
        assert read([path]) == {f"{path}/{i}.png": bytes([i]) for i in range(9)}

    @pytest.mark.parametrize("kind", ["parquet", "stream"])
    @pytest.mark.parametrize("column", ["key", "path"])
    def test_text_that_is_no_utf_8(self, tmp_path, kind, column):
        offsets, letters = struct.pack("<3i", 0, 2, 3), b"\xff\xe9b"
        texts = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])
        columns = {column: texts} if column == "path" else {column: texts, "image": [b"1", b"2"]}
        path = self.write(tmp_path / ("t.parquet" if kind == "parquet" else "t.arrow"), pa.table(columns), kind)
        assert [source.name for source in Listing([path])] == [os.fsdecode(b"\xff\xe9"), "b"]

    @pytest.mark.parametrize("offset", [1 << 30, -(1 << 30)])
    @pytest.mark.parametrize("place", [1, 2, 3])
    @pytest.mark.parametrize("column", ["key", "image"])
    def test_arrow_that_points_elsewhere(self, tmp_path, column, place, offset):
        """Offsets behind the values, or before them, would be read wherever that is."""
        table = pa.table({"key": ["a", "b", "c"], "image": [b"1" * 9, b"2" * 9, b"3" * 9]})
        path = self.write(tmp_path / "t.arrow", table, "stream")
        right = [0, 1, 2, 3] if column == "key" else [0, 9, 18, 27]
        wrong = [*right[:place], offset, *right[place + 1 :]]
        path.write_bytes(path.read_bytes().replace(struct.pack("<4i", *right), struct.pack("<4i", *wrong)))
        found = read([path])
        assert len(found) == (1 if column == "key" else 3)
        assert all(f"{name}: damaged (" in reason for name, reason in found.items())

    def test_arrow_that_claims_rows_without_end(self, tmp_path):
        path = self.write(tmp_path / "t.arrow", pa.table({"image": [b"12", b"34", b"56"]}), "stream")
        path.write_bytes(path.read_bytes().replace(struct.pack("<q", 3), struct.pack("<q", 1 << 50)))
        (reason,) = read([path]).values()
        assert "damaged (" in reason

    def test_parquet_of_missing_rows_without_end(self, tmp_path):
        """A few bytes tell of any number of rows that have neither image nor key."""
        missing = pa.table({"image": pa.nulls(5_000_000, pa.binary()), "key": pa.nulls(5_000_000, pa.string())})
        path = tmp_path / "t.parquet"
        pq.write_table(missing, path)
        size = path.stat().st_size
        assert read([path]) == {str(path): f"{path}: 5,000,000 rows in {size:,} bytes, too many to be images"}

    def test_rows_that_take_less_than_a_byte(self, tmp_path):
        """Paths that go up or come again, and an image of many rows, as any writer packs them."""
        settings = {"compression": "zstd", "use_dictionary": False, "column_encoding": {"path": "DELTA_BYTE_ARRAY"}}
        paths, images = tmp_path / "p.parquet", tmp_path / "i.parquet"
        pq.write_table(pa.table({"path": [f"{i:06}.png" for i in range(4_000)]}), paths, **settings)
        pq.write_table(pa.table({"image": [b"same"] * 3_000}), images)
        assert paths.stat().st_size < 4_000
        assert images.stat().st_size < 3_000
        assert [source.name for source in Listing([paths])] == [f"{i:06}" for i in range(4_000)]
        assert list(read([images]).values()) == [b"same"] * 3_000

    def test_encrypted_parquet(self, tmp_path, table):
        encryption = pytest.importorskip("pyarrow.parquet.encryption")

        class Keys(encryption.KmsClient):
            def wrap_key(self, key, _):
                return key.hex()

        factory, found = encryption.CryptoFactory(lambda _: Keys()), []
        for plain in (False, True):
            asked = encryption.EncryptionConfiguration("f", column_keys={"c": ["image"]}, plaintext_footer=plain)
            secret = factory.file_encryption_properties(encryption.KmsConnectionConfig(), asked)
            pq.write_table(table, tmp_path / "t.parquet", encryption_properties=secret)
            found.append(read([tmp_path / "t.parquet"]))
        assert [reason.split(": ")[1] for reason in found[0].values()] == ["encrypted Parquet, which is not read"]
        assert len(found[1]) == 9
        assert all("column image of row group 0 is encrypted" in reason for reason in found[1].values())

    def test_columns_that_are_called_like_a_part_of_another(self, tmp_path):
        columns = {"key.of": ["no"], "image.bytes": [b"no"], "key": ["a"], "image": [{"bytes": b"yes"}]}
        path = self.write(tmp_path / "t.parquet", pa.table(columns), "parquet")
        found = [tables.Row("a", str(path), 0, 0, "image").read() for _ in range(2)]
        assert (found, [source.name for source in Listing([path])]) == ([b"yes"] * 2, ["a"])

    def test_parquet_whose_footer_is_damaged(self, tmp_path, table):
        """Wherever it is: of what it says of itself some ends the process in Parquet's own library."""
        path = tmp_path / "t.parquet"
        pq.write_table(table.slice(0, 2), path, store_schema=False)
        whole = path.read_bytes()
        length = int.from_bytes(whole[-8:-4], "little")
        for place in range(len(whole) - 8 - length, len(whole) - 8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
            assert read([path])

    def test_parquet_that_calls_a_column_another(self, tmp_path):
        """A bomb that lies where the footer's columns have each other's names is the schema's column."""
        path = tmp_path / "t.parquet"
        columns = pa.table({"image": [bytes(1 << 25)], "other": [b"1"]})
        pq.write_table(columns, path, compression="zstd", use_dictionary=False, store_schema=False)
        whole = path.read_bytes()
        footer = whole.rindex(b"other", 0, whole.rindex(b"other"))  # after the schema's come the chunks'
        chunks = whole[footer + 5 :].replace(b"image", b"?").replace(b"other", b"image").replace(b"?", b"other")
        path.write_bytes(whole[: footer + 5] + chunks)
        (reason,) = read([path]).values()
        assert "column image has a Parquet page that inflates" in reason

    @pytest.mark.parametrize("kind", ["parquet", "stream"])
    def test_a_table_that_is_written_anew(self, tmp_path, table, kind):
        path = self.write(tmp_path / ("t.parquet" if kind == "parquet" else "t.arrow"), table, kind)
        listed = list(Listing([path]))
        assert listed[0].content.read() == b"\0"
        anew = pa.table({"key": ["0.png"], "image": [b"new"]})
        self.write(path, anew, kind)
        assert next(iter(Listing([path]))).content.read() == b"new"
        with pytest.raises(ImageError, match=r"8\.png: "):
            listed[8].content.read()
        self.write(path, anew.rename_columns(["key", "other"]), kind)
        with pytest.raises(ImageError, match=r"0\.png: it has no column image; was it written anew"):
            listed[0].content.read()

    def test_arrow_that_begins_with_no_schema(self, tmp_path, table):
        path = self.write(tmp_path / "t.arrow", table, "stream")
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[4:8], "little")
        path.write_bytes(content[start:])
        assert read([path]) == {str(path): f"{path}: damaged (it does not begin with its schema)"}

    @pytest.mark.parametrize("kind", ["parquet", "stream"])
    def test_a_column_whose_name_is_no_utf_8(self, tmp_path, table, kind, folder):
        path = self.write(tmp_path / ("t.parquet" if kind == "parquet" else "t.arrow"), table, kind)
        path.write_bytes(path.read_bytes().replace(b"key", b"k\xff\xff"))
        first, *rest = Listing([path, folder])
        assert first.content.reason == "damaged (a column's name is no UTF-8)"
        assert len(rest) == 3

    @pytest.mark.parametrize("inside", [False, True])
    def test_arrow_with_dictionaries(self, tmp_path, table, inside):
        labels = pa.array(["cat"] * 9).dictionary_encode()
        table = table.append_column("label", pa.StructArray.from_arrays([labels], ["name"]) if inside else labels)
        (reason,) = read([self.write(tmp_path / "t.arrow", table, "file")]).values()
        assert "Arrow with dictionaries (label) is not read" in reason

    def test_an_arrow_file_is_read_by_its_footer(self, tmp_path, table):
        """Some writers begin with a schema that is no message."""
        path = self.write(tmp_path / "t.arrow", table, "file")
        content = path.read_bytes()
        path.write_bytes(content[:8] + content[16:24] + content[16:])
        assert list(read([path]).values()) == [bytes([i]) for i in range(9)]

    @pytest.mark.parametrize(
        ("of", "at", "told"),
        [(1, "first", "its batches lie over one another"), (0, "schema", "its footer names what is no batch"),
         (1, "end", "its footer names what is no batch")],
    )  # fmt: skip
    def test_an_arrow_file_whose_batches_lie_elsewhere(self, tmp_path, table, of, at, told):
        path = self.write(tmp_path / "t.arrow", table, "file")
        content = path.read_bytes()
        length = int.from_bytes(content[-10:-6], "little")
        places = record_batches(content[-10 - length : -10])
        place = {"first": places[0], "schema": 8, "end": len(content)}[at]
        footer = content[-10 - length :].replace(struct.pack("<q", places[of]), struct.pack("<q", place))
        path.write_bytes(content[: -10 - length] + footer)
        assert read([path])[str(path)] == f"{path}: damaged ({told})"

    def test_feather_of_version_1(self, tmp_path):
        (tmp_path / "t.feather").write_bytes(b"FEA1" + bytes(99))
        (reason,) = read([tmp_path / "t.feather"]).values()
        assert "Feather of version 1, which is not read" in reason

    @pytest.mark.parametrize("kind", ["parquet", "file"])
    def test_a_table_without_rows(self, tmp_path, table, kind):
        ending = "parquet" if kind == "parquet" else "arrow"
        empty = self.write(tmp_path / f"e.{ending}", table.slice(0, 0), kind)
        full = self.write(tmp_path / f"f.{ending}", table.slice(0, 1), kind)
        assert read([empty, full]) == {f"{full}/0.png": b"\0"}

    def test_columns_that_say_nothing(self, tmp_path):
        path = self.write(tmp_path / "t.parquet", pa.table({"n": [1], "image": [[b"1"]]}), "parquet")
        (reason,) = read([path]).values()
        assert "it has no column of images" in reason
        assert "it has n (int64), image (list<" in reason

    def test_rows_and_columns_in_any_order(self, tmp_path):
        path = str(tmp_path / "t.parquet")
        columns = {name: [f"{name} {i}".encode() for i in range(50)] for name in ("image", "other")}
        pq.write_table(pa.table(columns), path, row_group_size=40)
        table = open_table(path)
        for group, row, column in (
            (0, 39, "image"),
            (0, 1, "image"),
            (0, 1, "other"),
            (1, 1, "other"),
            (0, 1, "other"),
        ):
            assert table.image(group, row, column) == f"{column} {40 * group + row}".encode()

    def test_a_process_reads_by_a_file_of_its_own(self, tmp_path, table, monkeypatch):
        path = self.write(tmp_path / "t.parquet", table, "parquet")
        first = tables._open_table(str(path))
        assert tables._open_table(str(path)) is first
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a fork, which has the same place in an open file
        assert tables._open_table(str(path)) is not first

    def test_rows_without_keys_are_listed_in_parts(self, tmp_path):
        count = 3 + (1 << 16)
        pq.write_table(pa.table({"image": [i.to_bytes(4, "big") for i in range(count)]}), tmp_path / "t.parquet")
        parts = [
            (rows.first, len(rows.texts))
            for rows in open_table(str(tmp_path / "t.parquet")).rows(Columns("image", None, None))
        ]
        assert parts == [(0, 1 << 16), (1 << 16, 3)]

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"path": "string", "key": "string", "img": "binary"}, Columns("img", None, "key")),
            ({"photo": "struct", "pixels": "binary", "path": "string"}, Columns("pixels", None, "path")),
            ({"pixels": "binary", "png": "binary", "id": "int64"}, Columns("png", None, "id")),
            ({"photo": "struct", "n": "int64"}, Columns("photo", None, None)),
            ({"image": "string", "url": "string", "id": "int64"}, Columns(None, "image", "id")),
        ],
    )
    def test_which_columns_are_read(self, fields, expected):
        kinds = {
            "struct": pa.struct([("bytes", pa.binary())]),
            "string": pa.string(),
            "binary": pa.binary(),
            "int64": pa.int64(),
        }
        assert columns_of(pa.schema([(name, kinds[kind]) for name, kind in fields.items()])) == expected

    def test_a_million_rows_start_at_once(self, tmp_path, png):
        """Distinct keys and the same bytes: gigabytes, if they were read."""
        code = (
            "import resource, sys, time\nfrom gem_fast.batch.sources import Listing\n"
            "import pyarrow.parquet\npeak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
            "before, start = peak(), time.process_time()\nlisting = Listing(sys.argv[1])\nlisting.digest()\n"
            "source = next(iter(listing))\nassert source.content.read()\nassert listing.count() == 1_000_000\n"
            "print(time.process_time() - start, peak() - before)"
        )
        count, path = 1_000_000, tmp_path / "t.parquet"
        keys, same = pa.array(range(count)).cast(pa.string()), pa.array([0] * 1000)
        schema = pa.schema([("key", pa.string()), ("image", pa.binary())])
        with pq.ParquetWriter(path, schema) as writer:
            images = pa.DictionaryArray.from_arrays(same, pa.array([png() * 3])).cast(pa.binary())
            chunked = pa.chunked_array([images] * (count // 1000))
            writer.write_table(pa.table({"key": keys, "image": chunked}, schema))
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        seconds, megabytes = map(float, done.stdout.split())
        assert seconds < 5
        assert megabytes < 300


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
        for name in ("a.png", "sub/b.png", "notes.txt"):
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


class TestParts:
    def test_parts_share_the_inputs(self, tmp_path):
        for i in range(10):
            (tmp_path / f"{i}.png").write_bytes(b"")
        parts = [[source.name for source in Listing(tmp_path, part=parse_part(f"{i}/3"))] for i in (1, 2, 3)]
        assert parts == [["0", "3", "6", "9"], ["1", "4", "7"], ["2", "5", "8"]]
        assert [Listing(tmp_path, part=parse_part(f"{i}/3")).count() for i in (1, 2, 3)] == [4, 3, 3]

    @pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", ""])
    def test_what_is_no_part(self, text):
        with pytest.raises(ValueError, match="part must be one such as 3/16"):
            parse_part(text)

    def test_each_has_its_folder_and_its_lock(self, small_model, folder, tmp_path):
        def other(_):
            segment_files(small_model, folder, "cat", tmp_path, part="2/16", resume=True, **SETTINGS)

        segment_files(small_model, folder, "cat", tmp_path, part="01/16", on_record=other, **SETTINGS)
        assert sorted(path.name for path in tmp_path.glob("part*")) == ["part-01-of-16", "part-02-of-16"]
        assert [record.image[-5:] for record in records(tmp_path)] == ["a.png", "b.jpg"]

    def test_none_beside_those_of_another_number(self, small_model, folder, tmp_path):
        """All of the one and some of the other would have images twice."""
        out = tmp_path / "out"
        segment_files(small_model, folder, "cat", out, part="1/2", **SETTINGS)
        for part in ("1/3", "1/12"):
            with pytest.raises(ValueError, match=f"holds part-1-of-2, and part {part} would have images of it"):
                segment_files(small_model, folder, "cat", out, part=part, overwrite=True, **SETTINGS)
        segment_files(small_model, folder, "cat", out, part="2/2", **SETTINGS)
        assert len(list(records(out))) == 3
        (out / "part-1-of-2").rename(out / "part-1-of-3")
        with pytest.raises(ValueError, match="holds parts of 2 and of 3, each with all images"):
            list(records(out))
