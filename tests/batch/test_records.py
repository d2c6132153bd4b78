"""The lines of a run: which are records, in what order, and which are in `errors.jsonl`."""

import pytest

from gem_fast.batch.records import ERRORS, PARTIAL, SUMMARY, Journal, Record, parse_record, read_records, reason_of


def put(folder, *images):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).write_bytes(b"".join(Record(image, "ok").line() for image in images))


def names(folder):
    return [record.image for record in read_records(folder)]


def test_parts_come_in_their_order_and_a_folders_own_lines_before_them(tmp_path):
    for number in (7, 3, 12, 1, 10, 5, 2, 11, 9, 4, 8, 6):
        put(tmp_path / f"part-{number:02}-of-12", f"{number}.png")
    assert names(tmp_path) == [f"{number}.png" for number in range(1, 13)]
    put(tmp_path, "own.png")
    assert names(tmp_path) == ["own.png"]


@pytest.mark.parametrize(
    ("key", "right"),
    [("0123456789abcdef", True), ("0123456789abcdef0", False), ("0123456789ABCDEF", False), (7, False)],
)
def test_what_a_key_is(key, right):
    assert (parse_record(Record("a.png", "ok", key=key).line()) is not None) == right


@pytest.mark.parametrize(
    ("image", "error", "reason"),
    [
        ("a: 1.png", "a: 1.png: 3×4 is more than 9,000 pixels", "N is more than N pixels"),
        ("a.png", "damaged or truncated (byte 7)", "damaged or truncated"),
        ("a.png", "a.png: no size; take another: or none", "no size"),
        ("a.png", None, "unknown"),
    ],
)
def test_reasons_are_without_what_is_an_images_own(image, error, reason):
    assert reason_of(Record(image, "failed", error)) == reason


def test_a_journal_ends_in_the_order_of_the_inputs(tmp_path):
    """Images that were not done have no line, others of an earlier run come behind, each once."""
    (tmp_path / PARTIAL).mkdir()
    put(tmp_path, "old.png", "kept.png")
    (tmp_path / ERRORS).write_text("of an earlier run")
    journal = Journal(tmp_path, resume=True)
    offsets = {record.image: offset for offset, record in journal.earlier()}
    journal.write(4, Record("4.png", "ok"))
    journal.place(0, offsets["kept.png"])
    journal.write(2, Record("2.png", "ok"))
    journal.close(offsets.values())
    assert names(tmp_path) == ["kept.png", "2.png", "4.png", "old.png"]
    assert not (tmp_path / ERRORS).exists()  # none failed


def test_failures_are_apart_too(tmp_path):
    (tmp_path / PARTIAL).mkdir()
    journal = Journal(tmp_path, resume=False)
    journal.write(1, Record("1.png", "failed", "damaged"))
    journal.write(0, Record("0.png", "ok"))
    journal.close()
    assert names(tmp_path) == ["0.png", "1.png"]
    assert names(tmp_path / ERRORS) == ["1.png"]
