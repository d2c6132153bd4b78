"""Prompts as users name them: classes with synonyms, prompt files, templates. Needs no torch."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeAlias

from .templates import TEMPLATES
from .text_file import read_text_file

MOST_CLASSES = 65_535  # what 16-bit labels tell apart, 0 being background
_LARGEST_FILE = 1 << 24
_LONGEST_WORD = 2_000


@dataclass(frozen=True)
class TextClass:
    """A class as the user names it: its name, and the words that stand for it."""

    name: str
    synonyms: tuple[str, ...]


Prompts: TypeAlias = str | Sequence[str | tuple[str, ...]] | Mapping[str, Sequence[str]]


def parse_classes(prompts: Prompts) -> tuple[TextClass, ...]:
    """The classes of one image, as users name them.

    `"cat"`, `["cat", "remote control"]`, with a tuple for a class of several words as in
    `["cat", ("car", "automobile")]`, or a mapping from class names to their words.

    Raises:
        ValueError: there is no prompt, one is empty or no text, two have the same name, or there are more than
            `MOST_CLASSES`.
    """
    if not isinstance(prompts, Iterable):
        raise ValueError(f"prompts must be a text, a list or a mapping, got {prompts!r}")
    if isinstance(prompts, Mapping):
        named = [(name, tuple(w) if isinstance(w, list | tuple) else (w,)) for name, w in prompts.items()]
    else:
        listed = [prompts] if isinstance(prompts, str) else prompts
        tuples = [prompt if isinstance(prompt, tuple) else (prompt,) for prompt in listed]
        named = [(words[0] if words else "", words) for words in tuples]
    if not named:
        raise ValueError("prompts must name at least one class")
    for name, words in named:
        if not words or not all(isinstance(word, str) and word.strip() for word in (name, *words)):
            raise ValueError(
                "a prompt must be a text or a tuple of synonyms, none of them empty, "
                f"got { ({name: words} if isinstance(prompts, Mapping) else words)!r}"
            )
        if bad := next((word for word in (name, *words) if not _is_unicode(word)), None):
            raise ValueError(f"a prompt must be a text, and {bad!r} holds bytes that are no UTF-8")
    classes = tuple(TextClass(name.strip(), tuple(dict.fromkeys(w.strip() for w in words))) for name, words in named)
    if twice := [name for name, count in Counter(c.name for c in classes).items() if count > 1]:
        raise ValueError(f"each class needs a name of its own, but these come more than once: {', '.join(twice)}")
    if len(classes) > MOST_CLASSES:
        raise ValueError(
            f"label images tell {MOST_CLASSES:,} classes apart, got {len(classes):,}; split them into runs"
        )
    return classes


def parse_background(background: Prompts) -> tuple[TextClass, ...]:
    """`parse_classes`, of which there may be none."""
    none = background is None or (isinstance(background, Sized) and not len(background))
    return () if none else parse_classes(background)


def _is_unicode(text: str) -> bool:
    """Whether it has no surrogates, which Python makes of bytes of a command line that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_prompt_file(path: str | os.PathLike) -> dict[str, list[str]]:
    """Classes from a text file: a class a line, its synonyms separated by commas; empty lines and `#` are passed over.

    Raises:
        ValueError: the file can't be read, is something else than such a list, or names no class.
    """
    classes: dict[str, list[str]] = {}
    for words in read_class_lines(path):
        classes.setdefault(words[0], []).extend(words)
    return classes


def read_class_lines(path: str | os.PathLike, gaps: bool = True) -> list[list[str]]:
    """The words of each line of a prompt file, those of one class in several lines apart; errors as above.

    Without gaps, a line that would be passed over is an error, but for empty ones at the end.
    """
    name = f"prompts file {os.fspath(path)}"
    right = "write a class a line, synonyms after commas"
    text = read_text_file(path, name, _LARGEST_FILE, right)
    if "\0" in text:
        raise ValueError(f"{name} is no text, it holds bytes of value 0; {right}")
    if _is_json(text):
        raise ValueError(f"{name} is JSON; {right}")
    lines: list[list[str]] = []
    for number, line in enumerate(text.rstrip().splitlines(), 1):
        words = [word.strip() for word in line.split(",") if word.strip()]
        if words and not line.lstrip().startswith("#"):
            if len(longest := max(words, key=len)) > _LONGEST_WORD:
                raise ValueError(
                    f"{name}, line {number}: a word of {len(longest):,} letters is longer than any model reads; {right}"
                )
            lines.append(words)
        elif not gaps:
            raise ValueError(f"{name}, line {number} names no class, and lines count labels here; {right}")
    if not lines:
        raise ValueError(f"{name} names no class; {right}")
    return lines


def _is_json(text: str) -> bool:
    """Whether a text is a JSON list or object, or begins as one over several lines."""
    start = text.lstrip()[:1]
    if start not in ("{", "["):
        return False
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return text.strip() in ("{", "[") or text.lstrip()[1:].lstrip()[:1] in ('"', "{", "[")
    return True


def prompts_for_each(prompts: Any, count: int) -> list[tuple[TextClass, ...]]:
    """Classes of each of `count` images: a list of lists or mappings is one for each, anything else is for all."""
    if isinstance(prompts, list | tuple) and prompts and all(isinstance(p, list | dict) for p in prompts):
        if len(prompts) != count:
            raise ValueError(
                f"prompts has {len(prompts)} lists for {count} images; give one for each image, "
                "or a flat list for all (synonyms of a class go into a tuple)"
            )
        return [parse_classes(each) for each in prompts]
    return [parse_classes(prompts)] * count


def parse_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """A name of `TEMPLATES`, a template, or a list of both; each template has one `{}` for the class."""
    if not isinstance(templates, Iterable):
        raise ValueError(f"templates must be a text or a list, got {templates!r}")
    listed = [templates] if isinstance(templates, str) else templates
    chosen = tuple(
        template
        for given in listed
        for template in (TEMPLATES.get(given, (given,)) if isinstance(given, str) else (given,))
    )
    if not chosen:
        raise ValueError("templates must hold at least one template")
    for template in chosen:
        if not isinstance(template, str) or template.count("{}") != 1:
            names = ", ".join(TEMPLATES)
            raise ValueError(f"a template must hold one {{}} for the class, got {template!r}; named ones: {names}")
        if not _is_unicode(template):
            raise ValueError(f"a template must be a text, and {template!r} holds bytes that are no UTF-8")
    return chosen
