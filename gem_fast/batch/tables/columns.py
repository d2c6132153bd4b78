"""What is common to tables: their rows, which columns hold images, paths and keys, and how these are read."""

from dataclasses import dataclass
from typing import Any

_BYTES = ("image", "image_bytes", "bytes", "content", "img", "jpg", "jpeg", "png", "webp", "data")
_PATHS = ("path", "image_path", "image", "file_name", "filename", "filepath", "file", "url", "uri")
_KEYS = ("key", "__key__", "id", "image_id", *_PATHS)
LONGEST = 1 << 12  # letters of a key or path
_TYPE = 40  # letters of a type that are told


class TableError(ValueError):
    """A table that can't be read; without its name."""


def damage(error: BaseException) -> str:
    """What a library says of a file."""
    return f"damaged ({' '.join(str(error).split())[:200]})"


@dataclass(frozen=True)
class Columns:
    """Which column holds what: images as bytes, or as paths; and keys, which name rows."""

    content: str | None
    path: str | None
    key: str | None


@dataclass(frozen=True)
class Rows:
    """Rows of a table that follow one another: their place in it, and their keys or paths."""

    group: int
    first: int
    texts: list[Any]


def columns_of(schema: Any) -> Columns:
    """Which columns to read.

    Raises:
        TableError: there is neither a column of images nor one of paths.
    """
    contents = [field.name for holds in (is_bytes, has_bytes) for field in schema if holds(field.type)]
    texts = [field.name for field in schema if _is_text(field.type)]
    named = [field.name for field in schema if _is_text(field.type) or _is_integer(field.type)]
    content = next((name for name in (*_BYTES, *contents) if name in contents), None)
    path = None if content else next((name for name in _PATHS if name in texts), None)
    if content is None and path is None:
        wanted = f"a binary one such as {_BYTES[0]}, or one of paths called {', '.join(_PATHS[:3])}"
        told = ", ".join(f"{field.name} ({str(field.type)[:_TYPE]})" for field in schema)
        raise TableError(f"it has no column of images ({wanted}); it has {told or 'none'}")
    return Columns(content, path, next((name for name in _KEYS if name in named), None))


def place_of(schema: Any, column: str) -> int:
    """Where a column stands; TableError if there is none of the name."""
    if column not in schema.names:
        raise TableError(f"it has no column {column}; was it written anew since it was listed?")
    return int(schema.names.index(column))


def _plain(kind: Any) -> Any:
    """The type of a column's values, which a categorical one has once each."""
    import pyarrow.types as kinds

    return kind.value_type if kinds.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    import pyarrow.types as kinds

    kind = _plain(kind)
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def _is_integer(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_integer(_plain(kind))


def is_bytes(kind: Any) -> bool:
    import pyarrow.types as kinds

    kind = _plain(kind)
    return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)


def has_bytes(kind: Any) -> bool:
    """Whether it is a column as Hugging Face's datasets hold images: with `bytes` and `path`."""
    import pyarrow.types as kinds

    place = kind.get_field_index("bytes") if kinds.is_struct(kind) else -1  # that of two of one name, too
    return place >= 0 and is_bytes(kind.field(place).type)


def bytes_of(array: Any) -> Any:
    """The bytes in a column of structs, none where a struct is missing."""
    return array.flatten()[array.type.get_field_index("bytes")]


def has_dictionary(kind: Any) -> bool:
    """Whether it is categorical, or holds what is."""
    import pyarrow.types as kinds

    kind = kind.storage_type if hasattr(kind, "storage_type") else kind
    return kinds.is_dictionary(kind) or any(has_dictionary(kind.field(each).type) for each in range(kind.num_fields))


def texts_of(array: Any) -> list[Any]:
    """Keys or paths, long ones cut a letter behind `LONGEST`: many may share their bytes in the table's memory."""
    if _shares(array.type) or array.nbytes > LONGEST + 256 * len(array):
        return [_text_of(value) for value in array]
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        return [_text_of(value) for value in array]


def _shares(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_dictionary(kind) or kinds.is_string_view(kind)


def _text_of(value: Any) -> Any:
    import pyarrow as pa

    value = value.value if isinstance(value, pa.DictionaryScalar) else value
    if not isinstance(value, pa.BinaryScalar) or (content := value.as_buffer()) is None:
        return value.as_py()
    # Of what is no UTF-8 the bytes, as Python has them in names of files; no letter takes more than four.
    return content[: 4 * (LONGEST + 1)].to_pybytes().decode("utf-8", "surrogateescape")[: LONGEST + 1]


def as_bytes(array: Any) -> Any:
    """A column of text as the bytes that it is; another as it is."""
    import pyarrow as pa

    kinds = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    return array.view(kinds[array.type]) if array.type in kinds else array
