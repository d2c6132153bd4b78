"""What a million images take: by hand, and the page from the pipeline's statistics."""

from pathlib import Path

import pytest
from gem_fast.bench import scaling

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
    rows = {(row[0], row[1]): row[2:] for row in scaling.rows(FOUND)}
    assert rows["web, labels", "2 cores"] == ["9.00", "67% decode scores", "9.57", "29.0", ""]
    assert rows["web, labels", "16 cores + H200 that decodes"][0] == "3.00"
    assert rows["web, labels", "16 cores + H200"][-1] == "17"  # 9 ms of feeding in each 0.54 ms


def test_the_stored_page_is_that_of_the_stored_statistics(tmp_path):
    reports = Path(scaling.__file__).parent / "reports"
    (tmp_path / "batch.json").write_bytes((reports / "batch.json").read_bytes())
    scaling.main(str(tmp_path))
    assert (tmp_path / "scaling.md").read_text() == (reports / "scaling.md").read_text()


@pytest.mark.parametrize("text", [None, "", "{}", "[]"])
def test_a_missing_or_damaged_file_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "batch.json").write_text(text)
    with pytest.raises(SystemExit, match=r"scaling: .*batch\.json: no file of"):
        scaling.main(str(tmp_path))
