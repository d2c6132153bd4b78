"""Files that appear whole or not at all."""

import pytest

from gem_fast.writing import write_whole


class TestWriteWhole:
    def test_writes_and_replaces(self, tmp_path):
        path = tmp_path / "new" / "file"
        for content in (b"first", b"second"):
            write_whole(path, content)
            assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]
        assert path.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
    def test_a_failure_leaves_what_was_there(self, tmp_path, monkeypatch, error):
        path = tmp_path / "file"
        path.write_bytes(b"before")

        def fail(*_):
            raise error

        monkeypatch.setattr("os.replace", fail)
        with pytest.raises(type(error)):
            write_whole(path, b"after")
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]

    def test_names_as_long_as_the_file_system_takes(self, tmp_path):
        path = tmp_path / ("x" * 255)
        write_whole(path, b"content")
        assert path.read_bytes() == b"content"

    def test_a_folder_in_the_way(self, tmp_path):
        (tmp_path / "file").mkdir()
        with pytest.raises(OSError, match="file"):
            write_whole(tmp_path / "file", b"content")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
