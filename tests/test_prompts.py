"""Prompts and templates: what may be written, in code and in a file."""

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

    @pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"caf\xe9")])
    def test_unreadable(self, tmp_path, make):
        make(tmp_path / "classes.txt")
        with pytest.raises(ValueError, match=r"classes\.txt can't be read as UTF-8 text"):
            read_prompt_file(tmp_path / "classes.txt")
