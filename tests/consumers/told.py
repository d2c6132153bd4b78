"""What a run of the consumers says: by consumer and kind of attention, which has to stand in docs/export.md."""

import json
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "consumers"
KINDS = ("ort", "portable", "onnx")  # kinds of attention, columns of the table
VERDICTS: dict[tuple[str, str], dict[str, str]] = {}


def note(consumer, version, kind, verdict):
    VERDICTS.setdefault((consumer, version), {})[kind] = verdict


def python_version(folder, package):
    """Of a package in a folder of its own; None if this Python has none."""
    found = distributions(path=[str(HOME / folder)])
    return next((each.version for each in found if each.name.lower().replace("_", "-") == package), None)


def node_version(package):
    return json.loads((HOME / "node" / "node_modules" / package / "package.json").read_text())["version"]


def tool(name, runtime):
    """What a tool is called in the table, and its version; those of ONNX Runtime have its own."""
    if name in ("quantize_dynamic", "quant_pre_process"):
        return f"ONNX Runtime's `{name}`", runtime
    package = {"float16": "onnxconverter-common"}.get(name, name)
    return f"{package}{', float16' if name == 'float16' else ''}", python_version("tools", package)


def missing(text):
    """Verdicts that do not stand in a table of the text, each told with its consumer and kind."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    stated = {tuple(row[:2]): dict(zip(KINDS, row[2:], strict=True)) for row in rows if len(row) == 2 + len(KINDS)}
    return [
        f"{consumer} {version}, {kind}: {verdict}"
        for (consumer, version), verdicts in VERDICTS.items()
        for kind, verdict in verdicts.items()
        if stated.get((consumer, version), {}).get(kind) != verdict
    ]
