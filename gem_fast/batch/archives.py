"""The images in archives and tables, which are read where they lie."""

import os
import re
from collections.abc import Iterator
from typing import Any

from ..images import EXTENSIONS
from .contents import MAX_BYTES, Refused, Remote, Stretch
from .found import OWN_ENDINGS, Found, PassedOver, TableRows
from .records import PARTIAL
from .remote import is_url, open_binary
from .tables.columns import LONGEST, TableError, columns_of
from .tables.opening import ENDINGS, Row, open_table
from .tar import members, why_packed


def images_in(path: str, real: str, name: str, passed_over: PassedOver) -> Iterator[Found | TableRows]:
    """Of an archive or table, by its path as given and its real one; itself, refused, if it can't be read."""
    try:
        inside = _in_table if os.path.splitext(path)[1].lower() in ENDINGS else _in_tar
        yield from inside(path, real, passed_over)
    except (TableError, OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        said = "damaged (a column's name is no UTF-8)" if isinstance(error, UnicodeDecodeError) else said
        yield Found(path, real, name, Refused(path, str(said)))


def _in_tar(path: str, real: str, passed_over: PassedOver) -> Iterator[Found]:
    with open_binary(path) as file:
        if packed := why_packed(file):
            raise TableError(packed)
        for member in members(file):
            image, place = f"{path}/{member.name}", f"{real}/{member.name}"
            stem, ending = os.path.splitext(member.name)
            if member.refused:
                yield Found(image, place, "refused", Refused(image, member.refused))
            elif is_hidden(member.name):
                passed_over.note("hidden files and folders", image)
            elif member.name.endswith(OWN_ENDINGS):
                passed_over.note("pictures that a run wrote", image)
            elif ending.lower() not in EXTENSIONS:
                passed_over.note("files that are no images", image)
            elif member.size > MAX_BYTES:
                yield Found(image, place, stem, Refused(image, f"larger than {MAX_BYTES:,} bytes"))
            else:
                yield Found(image, place, stem, Stretch(image, path, member.offset, member.size))


def _in_table(path: str, real: str, passed_over: PassedOver) -> Iterator[TableRows]:
    table = open_table(path)
    if table.is_own:
        passed_over.note("tables that a run wrote", path)
        return
    columns = columns_of(table.schema)
    for rows in table.rows(columns):
        yield TableRows(path, real, columns.content, rows)


def in_rows(item: TableRows) -> Iterator[Found]:
    """Images in rows of a table, called by their keys as far as these can name a file."""
    for row, text in enumerate(item.rows.texts, item.rows.first):
        if item.column is None:
            yield _by_path(f"{item.table}/row-{item.rows.group}-{row}", text)
            continue
        name = as_name(text) or f"{item.rows.group}-{row}"
        stem, ending = os.path.splitext(name)
        image = f"{item.table}/{name}"
        content = Row(image, item.table, item.rows.group, row, item.column)
        yield Found(image, f"{item.real}/{name}", stem if ending.lower() in EXTENSIONS else name, content)


def _by_path(row: str, path: str | None) -> Found:
    """The image that a table names by its path; no more than a plain URL is taken from a table of others."""
    if not path or "\0" in path or "::" in path or len(path) > LONGEST:
        return Found(row, row, "refused", Refused(row, "the row has no path of an image"))
    stem = os.path.splitext(os.path.basename(path))[0] or "unnamed"
    return Found(path, path, stem, Remote(path)) if is_url(path) else Found(path, os.path.realpath(path), stem)


def as_name(key: Any) -> str:
    """A key as a name below a folder: no part of it is empty, leads out, or into what a run removes at its end."""
    parts = re.sub(r"[\0-\x1f\\]", "_", "" if key is None else str(key)[:LONGEST]).split("/")
    return "/".join(part for part in parts if part.lower() not in ("", ".", "..", PARTIAL))


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden by its name."""
    return any(part.startswith(".") for part in name.split("/"))
