"""What a million images take: by hand, and the page from the pipeline's statistics."""

import pytest

from tools import scaling

FREE = {"read": 0.002, "encode files": 0.001}
WHOLE = {**FREE, "decode scores": 0.006}
FOUND = {
    "machine": "a machine",
    "quick": False,
    "ViT-B-16": {"engine": 0.2},
    "web": {"cases": [{"stages": FREE}, {"stages": FREE}, {"stages": WHOLE}]},
    "camera": {"cases": [{"stages": FREE}, {"stages": FREE}, {"stages": WHOLE}]},
}


@pytest.mark.parametrize(
    ("asked", "rate"),
    [((0.01, 0.19, 2), 10), ((0.01, 0.19, 16), 80), ((0.01, 0.19, 16, 0.001), 1000), ((0.04, 0.19, 16, 0.001), 400)],
)
def test_an_image_by_hand(asked, rate):
    """Cores share what an image takes of them; a GPU takes the encoding, and waits for them."""
    assert scaling.plan(*asked) == pytest.approx(rate)


def test_rows_are_of_the_pipelines_statistics():
    rows = {(row[0], row[1]): row[2:] for row in (case.row() for case in scaling.cases(FOUND))}
    assert rows["web, labels", "2 cores"] == ["9.00", "67% decode scores", "9.57", "29.0", ""]
    assert rows["web, labels", "16 cores + H200 that decodes"][0] == "3.00"
    assert rows["web, labels", "16 cores + H200"][-1] == "17"  # 9 ms of feeding in each 0.54 ms


def test_the_pages_table_shares_the_rate_out():
    laptop, big, *_, ray = scaling.page_table(FOUND)[2:]
    assert laptop == "| a laptop | 2 cores | 29 h | 29 h |"
    assert big == "| one big machine | 16 cores | 3.6 h | 3.6 h |"
    assert ray.startswith("| Ray | 8 nodes, 16 cores and an H200 each | 4.2 min |")


def test_the_stored_pages_are_those_of_the_stored_statistics(tmp_path):
    """Where the statistics are newer: `make scaling`."""
    page = tmp_path / "batch.md"
    page.write_bytes(scaling.PAGE.read_bytes())
    scaling.main(scaling.MEASURED, tmp_path / "scaling.md", page)
    assert (tmp_path / "scaling.md").read_text() == scaling.REPORT.read_text()
    assert page.read_text() == scaling.PAGE.read_text()


@pytest.mark.parametrize("text", [None, "", "{}", "[]"])
def test_a_missing_or_damaged_file_is_named(tmp_path, text):
    measured = tmp_path / "batch.json"
    if text is not None:
        measured.write_text(text)
    with pytest.raises(SystemExit, match=r"scaling: .*batch\.json: no file of"):
        scaling.main(measured, tmp_path / "scaling.md")
