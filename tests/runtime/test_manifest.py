"""A manifest that nobody vouches for: each kind of wrong entry is named before a session is made."""

import copy
import hashlib
import json
import math
import os
import re
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gem_fast.errors import ExportError
from gem_fast.runtime import GemRuntime
from gem_fast.runtime.folder import file_sha256, open_folder
from gem_fast.runtime.manifest import Manifest, read_manifest, write_manifest
from tests.command_line import invoke
from tests.runtime.runtime_exports import exported
from tests.runtime.wrong_manifests import ENCODER, KINDS, renamed

TEXT, TOKENIZER = "text_encoder.onnx", "tokenizer.json"


@pytest.fixture(scope="module")
def valid():
    """The manifest of gem-tiny at 96×96 as JSON; not to be changed."""
    return json.loads((exported() / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    """A copy of the exported folder, to damage."""
    return shutil.copytree(exported(), tmp_path / "copy")


def changed(manifest, where, value):
    """The manifest with another value at a path of keys and indices; of a function, what it gives for the old one."""
    made = copy.deepcopy(manifest)
    *way, last = where
    holder = made
    for key in way:
        holder = holder[key]
    holder[last] = value(holder.get(last)) if callable(value) else value
    return made


def write(folder, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "manifest.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_entry_is_named(folder, valid, kind):
    where, value, told = KINDS[kind]
    way = [int(part) if part.isdecimal() else part for part in where.split("/")]
    write(folder, changed(valid, way, value))
    with pytest.raises(
        ExportError, match=rf"manifest\.json is damaged: .*{re.escape(told)}.*; export the model again$"
    ) as e:
        GemRuntime(folder)
    assert_one_line(e.value)


def assert_one_line(error):
    assert "\n" not in str(error)
    str(error).encode("utf-8")  # what a terminal takes


@pytest.mark.parametrize("section", ["model", "image", "text", "defaults", "export", "versions", "check", "files"])
def test_a_section_is_missing(folder, valid, section):
    write(folder, {name: value for name, value in valid.items() if name != section})
    with pytest.raises(ExportError, match=rf"damaged: {section} is missing"):
        GemRuntime(folder)


def entries(value, where=()):
    """The ways to every entry of an object, in objects and lists."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*where, key)
        if isinstance(each, dict | list):
            yield from entries(each, (*where, key))


def test_every_missing_key_is_named(folder, valid):
    """All that an object must have, wherever it stands; what names a file, a template or a version may be left out."""
    free = [("files",), ("versions",), ("text", "templates"), ("model", "options")]
    for where in entries(valid):
        if isinstance(where[-1], int) or where[:-1] in free or where[0] in ("format", "format_version"):
            continue
        made = copy.deepcopy(valid)
        holder = made
        for key in where[:-1]:
            holder = holder[key]
        del holder[where[-1]]
        write(folder, made)
        with pytest.raises(ExportError, match=rf"{where[-1]}(\"\])? is missing"):
            read_manifest(folder)


def test_a_role_comes_once_and_an_image_encoder_once_for_each_size(folder, valid):
    for name, role in ((ENCODER, "image_encoder for each size"), (TEXT, "text_encoder"), (TOKENIZER, "tokenizer")):
        write(folder, changed(valid, ("files", "another"), valid["files"][name]))
        with pytest.raises(ExportError, match=rf"files must have one file of the role {role}, got 2"):
            GemRuntime(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"format": ' * 100_000, "nested too deeply"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"format": "gem_fast.export", "format": "gem_fast.export"}', 'an object has the key "format" twice'),
        (" " * (17 << 20), "more than 16,777,216 bytes"),
    ],
    ids=["lists", "objects", "closed", "twice", "large"],
)
def test_what_is_no_manifest(folder, content, told):
    write(folder, content)
    with pytest.raises(ExportError, match=rf"manifest\.json is damaged: .*{told}"):
        GemRuntime(folder)


@pytest.mark.parametrize("version", [1, 2, True, "3", 2.5, None, [[]], 10**30])
def test_another_version(folder, valid, version):
    write(folder, changed(valid, ("format_version",), version))
    with pytest.raises(ExportError, match=r"has format version .*, this gem_fast reads 3 and 4; export the model a"):
        GemRuntime(folder)


def test_an_export_of_version_3_takes_the_shorter_side_as_it_did(folder, valid):
    older = copy.deepcopy(valid) | {"format_version": 3}
    del older["image"]["resize"]
    write(folder, older)
    assert read_manifest(folder) == read_manifest(exported())
    write(folder, older | {"format_version": 4})
    with pytest.raises(ExportError, match=r"damaged: image\.resize is missing"):
        read_manifest(folder)
    write(folder, {**older, "image": []})
    with pytest.raises(ExportError, match=r"damaged: image must be an object"):
        read_manifest(folder)


class TestLinks:
    @pytest.mark.parametrize("name", [ENCODER, TOKENIZER])
    def test_of_a_file(self, folder, name):
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)
        for verify in (True, False):
            with pytest.raises(ExportError, match=rf"copy/{name} is a link; .* copy what it names"):
                GemRuntime(folder, verify=verify)

    def test_of_a_folder_inside(self, folder, valid):
        (folder.parent / "elsewhere").mkdir()
        (folder / ENCODER).rename(folder.parent / "elsewhere" / ENCODER)
        (folder / "graphs").symlink_to(folder.parent / "elsewhere")
        write(folder, changed(valid, ("files",), renamed(f"graphs/{ENCODER}")))
        with pytest.raises(ExportError, match="copy/graphs is a link"):
            GemRuntime(folder)

    def test_of_the_manifest(self, folder):
        (folder / "manifest.json").rename(folder.parent / "manifest.json")
        (folder / "manifest.json").symlink_to(folder.parent / "manifest.json")
        with pytest.raises(ExportError, match=r"manifest\.json is damaged: it is a link"):
            GemRuntime(folder)

    def test_of_the_folder_itself_are_followed(self, folder, picture):
        (folder.parent / "link").symlink_to(folder)
        assert GemRuntime(folder.parent / "link", threads=1).segment(picture(), "cat").labels.size

    def test_files_in_folders_inside_are_read(self, folder, valid):
        (folder / "graphs").mkdir()
        (folder / ENCODER).rename(folder / "graphs" / ENCODER)
        write(folder, changed(valid, ("files",), renamed(f"graphs/{ENCODER}")))
        assert GemRuntime(folder, threads=1).image_encoder((96, 96)).path == folder / "graphs" / ENCODER


def test_what_is_no_file(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(ExportError, match=r"manifest\.json is damaged: it is no regular file"):
        GemRuntime(folder)


def test_a_tokenizer_that_is_too_large_to_read_whole(folder):
    with open(folder / TOKENIZER, "r+b") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(ExportError, match=r"tokenizer\.json is no tokenizer: it has more than 268,435,456 bytes"):
        GemRuntime(folder)


def test_the_command_line_says_it_in_a_line(folder, valid, tmp_path):
    write(folder, changed(valid, ("image", "patch_size"), 0))
    done = invoke("segment", tmp_path, "--prompt", "cat", "--out", tmp_path / "out", "--runtime", folder)
    assert done.exit_code == 2
    assert "image.patch_size must be from 1 to 16,384, got 0; export the model again" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_export_for_something_else_is_named(folder, valid):
    made = changed(valid, ("export", "format"), "pt2")
    write(folder, changed(made, ("files",), {TOKENIZER: valid["files"][TOKENIZER]}))
    with pytest.raises(ExportError, match=r"no file for image_encoder, .*labels: it is of the format pt2; export"):
        GemRuntime(folder)


@pytest.mark.parametrize("option", [None, "dynamic_size", "with_preprocess", "original"])
def test_what_is_written_is_read_again(option, tmp_path):
    options = {option: True} if option else {}
    manifest = open_folder(exported(**options))
    assert isinstance(manifest, Manifest)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    for name, entry in manifest.files.items():
        assert file_sha256(exported(**options) / name) == entry.sha256


def test_a_hash_is_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * (10 << 10)  # two and a half of the blocks that are read
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_one_that_could_not_be_read_is_not_written(tmp_path):
    manifest = read_manifest(exported())
    object.__setattr__(manifest.defaults, "logit_scale", math.nan)
    with pytest.raises(ValueError, match=r"defaults\.logit_scale must be a finite number, got NaN"):
        write_manifest(tmp_path, manifest)
    assert not any(tmp_path.iterdir())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**400, "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def mutated(data, manifest):
    """A copy with an entry changed, left out or added."""
    made = copy.deepcopy(manifest)
    *way, last = data.draw(st.sampled_from(list(entries(made))))
    holder = made
    for key in way:
        holder = holder[key]
    what = data.draw(st.sampled_from(["change", "leave out", "add"]))
    if what == "leave out":
        del holder[last]
    elif what == "change" or isinstance(holder, list):
        holder[last] = data.draw(JSON)
    else:
        holder[data.draw(st.text(max_size=8))] = data.draw(JSON)
    return made


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_is_an_error_or_a_valid_manifest(valid, tmp_path_factory, data):
    short = changed(changed(valid, ("text", "templates"), {"photo": ["a {}"]}), ("text", "known_tokens"), [5, 7])
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    write(folder, mutated(data, short))
    try:
        manifest, error = read_manifest(folder), None
    except ExportError as raised:
        manifest, error = None, raised
    if error:
        assert_one_line(error)
        return
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest
    assert min(manifest.image.patch_size, manifest.image.embed_dim, *manifest.image.std) > 0
    assert all(math.isfinite(value) for value in (*manifest.image.mean, *vars(manifest.defaults).values()))
