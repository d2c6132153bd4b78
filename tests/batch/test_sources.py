"""Which images files, folders and patterns stand for."""

import glob
import os
import subprocess

import pytest

from gem_fast.batch.sources import Listing


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def stems(inputs, root):
    return {job.path.relative_to(root).as_posix(): job.name for job in Listing(inputs)}


def test_a_digest_is_of_images_and_their_order(tmp_path):
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/1.png")
    inputs = (["a"], ["b"], ["c"], ["a", "c"], ["c", "a"], ["a/2.png", "a/1.png"])
    told = [Listing([tmp_path / each for each in several]).digest() for several in inputs]
    assert len(set(told)) == len(told)
    assert Listing([tmp_path / "a"]).digest() == Listing(tmp_path / "b" / ".." / "a").digest() == told[0]


class TestListing:
    def test_folders_with_subfolders(self, tmp_path):
        touch(
            tmp_path, "b.JPG", "a.png", "sub/deep/c.webp", "notes.txt", "noending", "d.tif", "e.TIFF", "f.bmp", "g.gif"
        )
        assert stems([tmp_path], tmp_path) == {
            "a.png": "a",
            "b.JPG": "b",
            "d.tif": "d",
            "e.TIFF": "e",
            "f.bmp": "f",
            "g.gif": "g",
            "sub/deep/c.webp": "sub/deep/c",
        }
        assert [job.path for job in Listing([tmp_path])] == sorted(job.path for job in Listing([tmp_path]))

    def test_hidden_files_and_folders_are_passed_over(self, tmp_path):
        touch(tmp_path, "a.png", "._a.png", ".hidden.jpg", ".thumbnails/a.png", "sub/.cache/deep/b.png")
        assert list(stems([tmp_path], tmp_path)) == ["a.png"]
        assert list(stems([tmp_path / ".thumbnails"], tmp_path)) == [".thumbnails/a.png"]

    def test_own_output_is_passed_over(self, tmp_path):
        touch(tmp_path, "a.png", "a.overlay.png", "a.labels.png", "out/b.overlay.png")
        assert list(stems([tmp_path], tmp_path)) == ["a.png"]
        assert list(stems([f"{tmp_path}/*.png"], tmp_path)) == ["a.png"]
        assert list(stems([tmp_path / "a.overlay.png"], tmp_path)) == ["a.overlay.png"]

    def test_patterns(self, tmp_path):
        touch(tmp_path, "a1.png", "a2.jpg", "b1.png", "sub/a3.png")
        (tmp_path / "a4.png").mkdir()
        assert list(stems([f"{tmp_path}/a*"], tmp_path)) == ["a1.png", "a2.jpg"]
        assert list(stems([f"{tmp_path}/**/*.png"], tmp_path)) == ["a1.png", "b1.png", "sub/a3.png"]
        assert list(stems([f"{tmp_path}/[ab]1.png"], tmp_path)) == ["a1.png", "b1.png"]

    @pytest.mark.parametrize("pattern", ["**/*.png", "**", "a/**/*.png", "**/b/*.png", "*/**/*.png", "**/a/**/b.png"])
    def test_any_folders_as_glob_has_them(self, tmp_path, pattern):
        touch(tmp_path, "top.png", "a/a.png", "a/b/b.png", "a/b/[c]/c.png", "d/a/b/b.png", ".hidden/a/b.png")
        expected = {os.path.relpath(path, tmp_path) for path in glob.glob(f"{tmp_path}/{pattern}", recursive=True)}
        assert set(stems([f"{tmp_path}/{pattern}"], tmp_path)) == {path for path in expected if path.endswith(".png")}

    def test_any_folders_below_the_working_one(self, tmp_path, monkeypatch):
        touch(tmp_path, "a.png", "sub/b.png")
        monkeypatch.chdir(tmp_path)
        assert [str(source.path) for source in Listing("**/*.png")] == ["a.png", "sub/b.png"]

    def test_any_folders_where_links_lead_in_circles(self, tmp_path):
        """By its own name a folder is entered before any link to it; `glob` would follow these 2⁴⁰ times."""
        touch(tmp_path, "x/real/a.png", "outside/b.png")
        for name in ("again", "loop"):
            (tmp_path / "x" / name).symlink_to(tmp_path / "x")
        (tmp_path / "x" / "alias").symlink_to(tmp_path / "x" / "real")
        for name in ("far", "farther"):  # of two links the first by name
            (tmp_path / "x" / name).symlink_to(tmp_path / "outside")
        assert list(stems([f"{tmp_path}/x/**/*.png"], tmp_path)) == ["x/far/b.png", "x/real/a.png"]

    def test_folders_that_a_pattern_matches_are_told(self, tmp_path):
        touch(tmp_path, "a.png", "album/b.png")
        listing = Listing(f"{tmp_path}/a*")
        assert [source.name for source in listing] == ["a"]
        assert listing.passed_over == {"folders that a pattern matches, which are read where they are named": 1}
        through = Listing(f"{tmp_path}/**")
        assert [source.name for source in through] == ["a", "b"]
        assert not through.passed_over

    def test_a_file_whose_name_looks_like_a_pattern(self, tmp_path):
        touch(tmp_path, "a[1].png", "a1.png")
        assert list(stems([tmp_path / "a[1].png"], tmp_path)) == ["a[1].png"]

    def test_a_named_file_is_taken_whatever_its_ending(self, tmp_path):
        touch(tmp_path, "picture", ".hidden.xyz")
        assert stems([tmp_path / "picture", tmp_path / ".hidden.xyz"], tmp_path) == {
            "picture": "picture",
            ".hidden.xyz": ".hidden",
        }

    def test_one_input_needs_no_list(self, tmp_path):
        touch(tmp_path, "a.png")
        assert [job.path for one in (tmp_path, str(tmp_path)) for job in Listing(one)] == [tmp_path / "a.png"] * 2

    def test_same_stem_with_two_endings(self, tmp_path):
        touch(tmp_path, "a.jpg", "a.png", "b.png")
        assert stems([tmp_path], tmp_path) == {"a.jpg": "a.jpg", "a.png": "a.png", "b.png": "b"}

    def test_same_name_in_two_folders(self, tmp_path):
        touch(tmp_path, "one/a.jpg", "two/a.jpg", "two/b.jpg")
        found = stems([tmp_path / "one", tmp_path / "two"], tmp_path)
        assert found == {"one/a.jpg": "a", "two/a.jpg": "a-2", "two/b.jpg": "b"}

    def test_stems_differ_where_case_does_not_count(self, tmp_path):
        touch(tmp_path, "one/A.jpg", "two/a.jpg", "three/a.jpg.png", "four/a.jpg-2.png")
        found = list(stems([tmp_path / name for name in ("one", "two", "three", "four")], tmp_path).values())
        assert len({stem.casefold() for stem in found}) == 4

    @pytest.mark.parametrize("folder", ["errors.jsonl", "Summary.jsonl", "run.json", "legend.json", "a.labels.png"])
    def test_folders_are_called_like_no_file_of_a_run(self, tmp_path, folder):
        touch(tmp_path, f"{folder}/b.png", f"{folder}_/b.png", "a.png")
        assert sorted(stems([tmp_path], tmp_path).values()) == sorted(["a", f"{folder}_/b", f"{folder}_/b-2"])

    @pytest.mark.parametrize("letter", ["x", "猫"])
    def test_names_leave_room_for_endings(self, tmp_path, letter):
        stem = (letter * 251).encode()[:250].decode(errors="ignore")
        touch(tmp_path, f"{stem}.png", f"sub/{stem}.png", f"{stem[:-1]}z.png")
        names = [name.rsplit("/", 1)[-1] for name in stems([tmp_path], tmp_path).values()]
        assert len(set(names)) == 2
        assert all(stem.startswith(name.removesuffix("-2")) for name in names)
        assert all(200 < len(f"{name}.overlay.webp".encode()) < 250 for name in names)

    def test_given_twice_is_done_once(self, tmp_path):
        touch(tmp_path, "a.png")
        assert len(list(Listing([tmp_path, tmp_path / "a.png", f"{tmp_path}/*.png"]))) == 1

    @pytest.mark.parametrize("name", ["no.png", "no/folder", "*.jpg", "sub*"])
    def test_what_matches_nothing_is_named(self, tmp_path, name):
        touch(tmp_path, "a.png", "sub/b.png")
        with pytest.raises(ValueError, match=r"no such file or folder, and as a pattern") as error:
            Listing([tmp_path, tmp_path / name])
        assert name in str(error.value)

    def test_an_empty_folder(self, tmp_path):
        assert list(Listing([tmp_path])) == []


class TestNothingIsPassedOverInSilence:
    def test_every_ending_of_an_image(self, tmp_path):
        names = ["a.jfif", "b.jpe", "c.AVIF", "d.heic", "e.jp2", "f.mpo", "g.jxl", "h.tiff"]
        touch(tmp_path, *names)
        assert list(stems([tmp_path], tmp_path)) == names

    def test_a_file_without_an_ending_by_its_first_bytes(self, tmp_path, picture):
        picture().save(tmp_path / "photo", "PNG")
        touch(tmp_path, "notes", "README")
        listing = Listing([tmp_path])
        assert [source.name for source in listing] == ["photo"]
        assert list(listing.told()) == [
            f"passed over 2 files that are no images: {tmp_path / 'README'}, {tmp_path / 'notes'}"
        ]

    def test_what_is_no_image_is_counted_with_examples(self, tmp_path):
        touch(tmp_path, *(f"{i}.txt" for i in range(5)), ".hidden.png", "a.labels.png", "a.overlay.jpg", "b.png")
        os.mkfifo(tmp_path / "pipe.png")
        (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
        listing = Listing([tmp_path])
        assert [source.path.name for source in listing] == ["b.png"]
        assert listing.passed_over == {
            "files that are no images": 5,
            "hidden files and folders": 1,
            "pictures that a run wrote": 2,
            "pipes, sockets and devices": 1,
            "links that lead nowhere": 1,
        }
        told = f"{tmp_path / '0.txt'}, {tmp_path / '1.txt'}, {tmp_path / '2.txt'}, ..."
        assert f"passed over 5 files that are no images: {told}" in listing.told()

    def test_linked_folders_are_entered_once(self, tmp_path):
        touch(tmp_path, "real/a.png", "data/b.png")
        (tmp_path / "data" / "linked").symlink_to(tmp_path / "real")
        (tmp_path / "data" / "again").symlink_to(tmp_path / "real")
        (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
        listing = Listing([tmp_path / "data"])
        assert [source.name for source in listing] == ["again/a", "b"]
        assert listing.passed_over == {"folders that were listed already": 2}

    def test_a_link_to_an_image_is_that_image(self, tmp_path):
        touch(tmp_path, "a.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
        assert [source.name for source in Listing([tmp_path])] == ["a"]

    def test_links_in_a_circle(self, tmp_path):
        touch(tmp_path, "z.png")
        (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
        (tmp_path / "b").symlink_to(tmp_path / "c")
        (tmp_path / "c").symlink_to(tmp_path / "b")
        listing = Listing([tmp_path])
        assert [source.name for source in listing] == ["z"]
        assert listing.passed_over == {"links that can't be followed (Too many levels of symbolic links)": 3}

    def test_a_folder_that_cannot_be_read(self, tmp_path, monkeypatch):
        touch(tmp_path, "a.png", "private/b.png")
        whole = os.scandir

        def scandir(path):
            if os.fspath(path).endswith("private"):
                raise PermissionError(13, "Permission denied", path)
            return whole(path)

        monkeypatch.setattr(os, "scandir", scandir)  # root reads everything
        listing = Listing([tmp_path])
        assert [source.name for source in listing] == ["a"]
        assert listing.passed_over == {"folders that can't be read (Permission denied)": 1}

    def test_folders_below_folders_without_end(self, tmp_path):
        """As deep as a path may be, which is deeper than Python's recursion."""
        place = os.open(tmp_path, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=place)
            below = os.open("d", os.O_RDONLY, dir_fd=place)
            os.close(place)
            place = below
        os.close(os.open("a.png", os.O_CREAT | os.O_WRONLY, dir_fd=place))
        os.close(place)
        try:
            assert len(list(Listing([tmp_path]))) == 1
        finally:  # Python's own removal would not come so deep
            subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)

    def test_listing_streams(self, tmp_path):
        touch(tmp_path, "a/a.png", "b/b.png")
        listing = iter(Listing([tmp_path]))
        assert next(listing).name == "a/a"
        touch(tmp_path, "b/c.png")  # not listed yet
        assert [source.name for source in listing] == ["b/b", "b/c"]
