"""What Arrow's flatbuffers say that pyarrow does not tell; pyarrow has found each sound before.

Source: Arrow's Message.fbs and File.fbs.
"""

from struct import unpack_from


def is_compressed(message: bytes) -> bool:
    """Whether the metadata of a record batch's message says that its buffers are compressed.

    `header` is the third field of a message, `compression` the fourth of a record batch.
    """
    header = _field(message, _number(message, 0), 2)
    return _field(message, header + _number(message, header), 3) != 0


def record_batches(footer: bytes) -> list[int]:
    """Where the messages of a file's record batches begin, in bytes from its start.

    `recordBatches` is the fourth field of a footer: offsets, each with two lengths, in 24 bytes.
    """
    if not (found := _field(footer, _number(footer, 0), 3)):
        return []
    blocks = found + _number(footer, found)
    return [unpack_from("<q", footer, blocks + 4 + 24 * each)[0] for each in range(_number(footer, blocks))]


def _field(content: bytes, table: int, number: int) -> int:
    """Where a table's field lies; 0 if it has none."""
    fields = table - unpack_from("<i", content, table)[0]
    entry = 4 + 2 * number
    length: int = unpack_from("<H", content, fields)[0]
    offset: int = unpack_from("<H", content, fields + entry)[0] if entry < length else 0
    return table + offset if offset else 0


def _number(content: bytes, place: int) -> int:
    number: int = unpack_from("<I", content, place)[0]
    return number
