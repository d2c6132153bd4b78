"""Images in Parquet and Arrow tables: what is listed, what is refused, and that the rest goes on."""

import os
import struct
import subprocess
import sys
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gem_fast import records, segment_files
from gem_fast.batch.contents import Refused
from gem_fast.batch.sources import Listing
from gem_fast.batch.tables import opening, parquet
from gem_fast.batch.tables.columns import Columns, columns_of
from gem_fast.batch.tables.flatbuffers import record_batches
from gem_fast.batch.tables.opening import Row, open_table
from gem_fast.errors import ImageError
from tests.batch.reading import SETTINGS, read


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
        monkeypatch.setattr(parquet, "_INSIDE", 10 << 20)
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
        found = [Row("a", str(path), 0, 0, "image").read() for _ in range(2)]
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
        first = opening._open_table(str(path))
        assert opening._open_table(str(path)) is first
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a fork, which has the same place in an open file
        assert opening._open_table(str(path)) is not first

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
