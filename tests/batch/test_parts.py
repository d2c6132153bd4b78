"""Parts of a run."""

import pytest

from gem_fast import records, segment_files
from gem_fast.batch.options import parse_part
from gem_fast.batch.sources import Listing
from tests.batch.reading import SETTINGS


class TestParts:
    def test_parts_share_the_inputs(self, tmp_path):
        for i in range(10):
            (tmp_path / f"{i}.png").write_bytes(b"")
        parts = [[source.name for source in Listing(tmp_path, part=parse_part(f"{i}/3"))] for i in (1, 2, 3)]
        assert parts == [["0", "3", "6", "9"], ["1", "4", "7"], ["2", "5", "8"]]
        assert [source.position for source in Listing(tmp_path, part=parse_part("2/3"))] == [0, 1, 2]
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
