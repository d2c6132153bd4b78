"""Footers and headers of pages, told by bytes of our own: what any writer may put there."""

import io

import pytest

from gem_fast.batch.tables.columns import TableError
from gem_fast.batch.tables.pages import Chunk, row_groups, rows_within
from gem_fast.batch.tables.thrift import ThriftError, read_struct


def varint(number):
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def integer(number):
    return varint(2 * number if number >= 0 else -2 * number - 1)


def struct(fields):
    """A struct in Thrift's compact protocol, of integers, structs and lists of structs."""
    told, last = b"", 0
    for name, value in fields.items():
        kind = 6 if isinstance(value, int) else 12 if isinstance(value, dict) else 9
        told, last = told + bytes([(name - last) << 4 | kind]) + _value(value), name
    return told + b"\0"


def _value(value):
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, dict):
        return struct(value)
    head = bytes([len(value) << 4 | 12]) if len(value) < 15 else b"\xfc" + varint(len(value))
    return head + b"".join(map(struct, value))


def footer(*groups):
    told = struct({4: list(groups)})
    return io.BytesIO(b"PAR1" + told + len(told).to_bytes(4, "little") + b"PAR1")


def page(inflated, values=None, stored=1, encoding=0, version=1):
    """A page: without values a dictionary's, whose header names its own."""
    told = {2: inflated, 3: stored}
    if values is not None:
        told[5 if version == 1 else 8] = {1: values, 2: encoding} if version == 1 else {1: values, 4: encoding}
    return struct(told) + bytes(max(0, stored))


def rows(*pages, most=1_000_000):
    content = b"".join(pages)
    return rows_within(io.BytesIO(content), Chunk(0, len(content)), most)


class TestFooters:
    @pytest.mark.parametrize(("dictionary", "first"), [(None, 100), (0, 100), (40, 40), (100, 100), (700, 100)])
    def test_where_pages_begin(self, dictionary, first):
        column = {3: {7: 50, 9: 100} | ({} if dictionary is None else {11: dictionary})}
        (group,) = row_groups(footer({1: [column, {}], 3: 9}))
        assert (group.rows, group.chunks) == (9, [Chunk(first, first + 50), None])

    @pytest.mark.parametrize("count", [14, 15, 200])
    def test_many_columns(self, count):
        (group,) = row_groups(footer({1: [{3: {7: 1, 9: i}} for i in range(count)], 3: 1}))
        assert [chunk.first for chunk in group.chunks] == list(range(count))

    @pytest.mark.parametrize("length", [1 << 10, 1 << 31])
    def test_a_footer_longer_than_the_file(self, length):
        with pytest.raises(TableError, match=f"its footer: {length:,} bytes"):
            row_groups(io.BytesIO(b"PAR1" + length.to_bytes(4, "little") + b"PAR1"))


class TestRows:
    def test_plain_values_are_counted_by_their_page(self):
        """A hundred pages of 1,000 bytes are within bounds, each with the fewest values of any."""
        assert rows(page(1000, 10), page(500, 30), most=100_000) == 1000

    @pytest.mark.parametrize("version", [1, 2])
    def test_what_may_repeat_a_whole_page(self, version):
        """A row may have all of a dictionary, or of a page whose values repeat what is before them."""
        assert rows(page(1000), page(10, 500, version=version)) == 1000
        assert rows(page(1000, 1000, encoding=7, version=version)) == 1000
        assert rows(page(1000, 1000, encoding=6, version=version)) == 1_000_000

    def test_there_is_one_at_least(self):
        assert rows(page(1000, 1), most=10) == 1

    @pytest.mark.parametrize(("stored", "inflated"), [(-1, 1), (1, -1), (0, 1)])
    def test_sizes_that_no_page_has(self, stored, inflated):
        with pytest.raises(TableError, match="its sizes"):
            rows(page(inflated, 1, stored))

    @pytest.mark.parametrize(("inflated", "stored", "refused"), [
        (1 << 24, 1, False), ((1 << 24) + 1, 1, True), (200 << 20, 1 << 20, False), ((200 << 20) + 1, 1 << 20, True),
        ((1 << 30) + 1, 1 << 30, True),
    ])  # fmt: skip
    def test_bombs(self, inflated, stored, refused):
        content = struct({2: inflated, 3: stored, 5: {1: 1, 2: 0}})
        read = lambda: rows_within(io.BytesIO(content), Chunk(0, len(content)), 1)  # noqa: E731
        if refused:
            with pytest.raises(TableError, match=f"inflates {stored:,} bytes to {inflated:,}"):
                read()
        else:
            assert read() == 1


def test_lists_as_long_as_any():
    for count in (14, 15, 16, 300):
        fields, length = read_struct(struct({1: [{1: i} for i in range(count)]}))
        assert [each[1] for each in fields[1]] == list(range(count))
        assert length


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
