"""What becomes of texts before they are split into tokens, as open_clip's models were trained. Needs no torch."""

import string
from collections.abc import Callable
from html import unescape

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _repaired(text: str) -> str:
    """Without what encodings and HTML have done to it; most texts have nothing that ftfy, slow to import, would see."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text
    import ftfy

    return unescape(unescape(ftfy.fix_text(text)))


def whitespace(text: str) -> str:
    """With single spaces between words."""
    return " ".join(_repaired(text).split())


def lower(text: str) -> str:
    """The same in small letters: CLIP's own."""
    return whitespace(text).lower()


def canonicalize(text: str) -> str:
    """In small letters and without punctuation: SigLIP's."""
    plain = _repaired(text).replace("_", " ").translate(_NO_PUNCTUATION)
    return " ".join(plain.lower().split())


CLEANINGS: dict[str, Callable[[str], str]] = {
    "whitespace": whitespace,
    "lower": lower,
    "canonicalize": canonicalize,
}
