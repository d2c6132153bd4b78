"""Prompts and templates: what may be written, in code and in a file."""

import os

import pytest

from gem_fast.prompts import parse_classes, parse_templates, read_prompt_file
from gem_fast.templates import TEMPLATES


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("cat", {"cat": ("cat",)}),
        (["cat", "remote control"], {"cat": ("cat",), "remote control": ("remote control",)}),
        (("cat", "dog"), {"cat": ("cat",), "dog": ("dog",)}),
        (["cat", ("car", "automobile")], {"cat": ("cat",), "car": ("car", "automobile")}),
        ({"vehicle": ["car", "bus"], "cat": "kitten"}, {"vehicle": ("car", "bus"), "cat": ("kitten",)}),
        ({"vehicle": ("car", "bus")}, {"vehicle": ("car", "bus")}),
        ([" cat "], {"cat": ("cat",)}),
        ([("car", "car", " car ", "auto")], {"car": ("car", "auto")}),
        (["background"], {"background": ("background",)}),
        ((name for name in ("a", "b")), {"a": ("a",), "b": ("b",)}),
        (["猫"], {"猫": ("猫",)}),
    ],
    ids=[
        "text",
        "list",
        "tuple",
        "synonyms",
        "mapping",
        "mapping-tuple",
        "blanks",
        "repeated-synonym",
        "background",
        "generator",
        "non-latin",
    ],
)
def test_classes(prompts, expected):
    assert {c.name: c.synonyms for c in parse_classes(prompts)} == expected


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        ([], "at least one class"),
        ({}, "at least one class"),
        ("", r"none of them empty, got \(''"),
        ([" "], "none of them empty"),
        (["cat", ""], "none of them empty"),
        ([("cat", "")], r"\('cat', ''\)"),
        ([()], "none of them empty"),
        (["cat", ["car", "automobile"]], "tuple of synonyms"),
        (["cat", 7], "7"),
        ([None], "None"),
        (None, "None"),
        (7, "a text, a list or a mapping, got 7"),
        ({"cat": []}, "'cat'"),
        ({"cat": 7}, "'cat': .7"),
        ({7: "cat"}, "7"),
        ({"": "cat"}, "'': "),
        (["cat", "dog", " cat"], "more than once: cat"),
        (["cat", "d\udcffg"], r"'d\\udcffg' holds bytes that are no UTF-8"),
    ],
    ids=str,
)
def test_unusable_prompts_are_named(prompts, reason):
    with pytest.raises(ValueError, match=reason):
        parse_classes(prompts)


def test_templates():
    assert parse_templates("photo") == ("a photo of a {}.",)
    assert len(parse_templates("imagenet")) == len(set(parse_templates("imagenet"))) == 80
    assert parse_templates("a {} here") == ("a {} here",)
    assert parse_templates(["a {}", "the {}"]) == ("a {}", "the {}")
    assert parse_templates(["photo", "the {}"]) == ("a photo of a {}.", "the {}")
    assert all("{}" in template for template in parse_templates("imagenet"))


@pytest.mark.parametrize("templates", ["a photo", "{} and {}", "", "fotos", ["a {}", "b"], ["{0}"], [7]], ids=str)
def test_unusable_templates_name_the_named_ones(templates):
    with pytest.raises(ValueError, match=r"one \{\} for the class, got .*photo, imagenet"):
        parse_templates(templates)


@pytest.mark.parametrize("templates", [[["a {}"]], [None], [b"a {}"]], ids=str)
def test_a_template_that_is_no_text_is_named(templates):
    with pytest.raises(ValueError, match=r"a template must hold one \{\}"):
        parse_templates(templates)


@pytest.mark.parametrize(("templates", "reason"), [(["\ud800{}"], "no UTF-8"), (None, "a text or a list")], ids=str)
def test_templates_that_are_no_text(templates, reason):
    with pytest.raises(ValueError, match=reason):
        parse_templates(templates)


def test_no_template():
    with pytest.raises(ValueError, match="at least one template"):
        parse_templates([])


def test_imagenet_templates_are_those_of_open_clip():
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    assert TEMPLATES["imagenet"] == tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


class TestPromptFile:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("cat\nremote control\n", {"cat": ["cat"], "remote control": ["remote control"]}),
            ("car, automobile , auto\n", {"car": ["car", "automobile", "auto"]}),
            (
                "# a comment\n\n  cat  \n   # another\ndog # no comment\n",
                {"cat": ["cat"], "dog # no comment": ["dog # no comment"]},
            ),
            ("\ufeffcat\n", {"cat": ["cat"]}),
            ("cat\r\ndog\r\n", {"cat": ["cat"], "dog": ["dog"]}),
            ("cat,,\n,dog\n,\n", {"cat": ["cat"], "dog": ["dog"]}),
            ("cat, kitten\ncat, tabby\n", {"cat": ["cat", "kitten", "cat", "tabby"]}),
            ("猫", {"猫": ["猫"]}),
        ],
        ids=["lines", "synonyms", "comments", "bom", "crlf", "stray-commas", "twice", "no-last-newline"],
    )
    def test_reads(self, tmp_path, content, expected):
        path = tmp_path / "classes.txt"
        path.write_bytes(content.encode())
        assert read_prompt_file(path) == expected

    @pytest.mark.parametrize("content", [b"", b"# only\n\n", b" , ,\n"], ids=["empty", "comments", "commas"])
    def test_no_class(self, tmp_path, content):
        path = tmp_path / "classes.txt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"classes\.txt names no class; write a class a line"):
            read_prompt_file(path)

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda p: None, "can't be read: No such file"),
            (lambda p: p.mkdir(), "is no file; write a class a line"),
            (os.mkfifo, "is no file; write a class a line"),
            (lambda p: p.write_bytes(b"caf\xe9"), "can't be read as UTF-8 text"),
            (lambda p: p.write_bytes("cat".encode("utf-16")), "can't be read as UTF-8 text"),
            (lambda p: p.write_bytes(b"cat\0dog"), "is no text"),
            (lambda p: p.write_text('["cat", "dog"]'), "is JSON; write a class a line"),
            (lambda p: p.write_text('{\n "cat": ["kitten"]\n}'), "is JSON"),
            (lambda p: p.write_text('{"cat": 1}\n{"dog": 2}'), "is JSON"),
            (lambda p: p.write_text("[" * 100_000), "is JSON"),
            (lambda p: p.write_bytes(b"cat\n" * (1 << 22) + b"dog"), "is larger than 16,777,216 bytes"),
            (lambda p: p.write_text("cat\n" + "x" * 5000), "line 2: a word of 5,000 letters"),
        ],
        ids=[
            "missing",
            "folder",
            "pipe",
            "latin1",
            "utf16",
            "binary",
            "list",
            "map",
            "json-lines",
            "deep",
            "huge",
            "long",
        ],
    )
    def test_what_is_no_list_of_classes_is_named(self, tmp_path, make, reason):
        make(tmp_path / "classes.txt")
        with pytest.raises(ValueError, match=rf"classes\.txt.*{reason}"):
            read_prompt_file(tmp_path / "classes.txt")

    def test_brackets_are_no_json(self, tmp_path):
        (tmp_path / "classes.txt").write_text("[sic] cat\n{}\n")
        assert list(read_prompt_file(tmp_path / "classes.txt")) == ["[sic] cat", "{}"]


def test_more_classes_than_labels():
    assert len(parse_classes([str(i) for i in range(65_535)])) == 65_535
    with pytest.raises(ValueError, match="tell 65,535 classes apart, got 65,536"):
        parse_classes([str(i) for i in range(65_536)])
