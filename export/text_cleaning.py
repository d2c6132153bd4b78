"""What open_clip does to texts before it splits them, as patterns of `tokenizers`."""

_CASED = r"[\p{Lu}\p{Ll}\p{Lt}ͺ]"
FINAL_SIGMA = rf"(?<={_CASED})Σ(?![\p{{Mn}}\p{{Me}}\p{{Cf}}\p{{Lm}}\p{{Sk}}'.:·]*{_CASED})"
# What ftfy does to every text before open_clip looks at it, as far as it can be said in patterns.
CLEANING = [
    ("[\u2018-\u201b\u02bc]", "'"),
    ("[\u201c-\u201f]", '"'),
    ("\ufb00", "ff"),
    ("\ufb01", "fi"),
    ("\ufb02", "fl"),
    ("\ufb03", "ffi"),
    ("\ufb04", "ffl"),
    ("[\\x00-\\x08\\x0b\\x0e-\\x1f\\x7f\ufeff]", ""),
    ("&quot;", '"'),
    ("&#39;|&apos;", "'"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&nbsp;", " "),
    ("&amp;", "&"),
]
