"""Every example of the README and of `docs` runs as it stands, or says in a comment before it why it can't here."""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from gem_fast.export import ExportOptions, export_onnx
from typer.main import get_command

import gem_fast
from gem_fast.cli import app
from gem_fast.demo import SAMPLES, copy_samples
from tests.command_line import invoke, plain

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
ALL = [*DOCUMENTS, "tools/README.md", "examples/README.md", "gem_fast/embedded/gem_tiny/README.md"]
# Examples that can't run here: they install, download, take a GPU, a server or minutes.
NOT_RUN = {
    "README.md": 2,
    "docs/batch.md": 5,
    "docs/backends.md": 2,
    "docs/benchmarks.md": 4,
    "docs/export.md": 7,
    "docs/methods.md": 1,
    "docs/models.md": 1,
    "docs/paper.md": 2,
    "docs/runtime.md": 2,
}
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


@dataclass(frozen=True)
class Example:
    """A block of code: where it stands, and why it is not run, if it is not."""

    place: str
    language: str
    code: str
    reason: str | None


def examples(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0, f"{document} has a block without an end"
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Example(f"{document}:{line}", found["language"], found["code"], found["reason"])


def commands(code):
    """The words of each command of a shell block; packages are installed already."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[:2] != ["pip", "install"]:
            yield words


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "exported"
    export_onnx(gem_fast.load("gem-tiny"), folder, ExportOptions(check=False))
    return folder


@pytest.fixture
def desk(tmp_path, monkeypatch, export):
    """A working folder with what the examples speak of."""
    for name in ("photos/chelsea.jpg", "photos/rocket.jpg", "more/coffee.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((SAMPLES / path.name).read_bytes())
    shutil.copy(tmp_path / "photos" / "chelsea.jpg", tmp_path / "photo.jpg")
    (tmp_path / "classes.txt").write_text("cat, kitten\nrocket\n")
    copy_samples(tmp_path / "demo_output" / "images")
    for name in ("exported", "gem-b16"):
        shutil.copytree(export, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.filterwarnings("ignore:this model's vocabulary does not hold")
def test_examples_run(document, desk):
    for example in examples(document):
        if example.reason is None and example.language == "python":
            exec(compile(example.code, example.place, "exec"), {"__name__": "__main__"})
        elif example.reason is None and example.language == "sh":
            for program, *arguments in commands(example.code):
                assert program == "gem-fast", f"{example.place}: {program} can't be run by this test"
                done = invoke(*arguments)
                assert done.exit_code == 0, f"{example.place}: gem-fast {shlex.join(arguments)}\n{done.output}"


def test_what_is_not_run():
    counts = {name: sum(each.reason is not None for each in examples(name)) for name in DOCUMENTS}
    assert {name: count for name, count in counts.items() if count} == NOT_RUN


@pytest.mark.parametrize("document", DOCUMENTS)
def test_languages(document):
    """Another name would keep a block from being run; one without a name is output."""
    assert {each.language for each in examples(document)} <= {"python", "sh", ""}


def _options(command):
    """The long names of a command's options, and of those below it."""
    named = {name for each in command.params for name in each.opts if name.startswith("--")}
    return named.union(*map(_options, getattr(command, "commands", {}).values()))


def test_every_option_is_told():
    told = "".join((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    known = set(re.findall(r"--(?:no-)?([a-z-]+)", told))
    assert {name for name in _options(get_command(app)) if name[2:] not in known} <= {"--help", "--version"}


@pytest.mark.parametrize("document", ALL)
def test_links_lead_somewhere(document):
    path = ROOT / document
    for name, anchor in _LINK.findall(path.read_text(encoding="utf-8")):
        target = (path.parent / name) if name else path
        assert target.exists(), f"{document} links to {name}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{document} links to {name}#{anchor}"


def test_a_newcomers_first_commands_show_what_they_name(desk):
    """The block of `gem-fast demo` in the README: words that gem-tiny knows, found in its samples."""
    (first,) = [each for each in examples("README.md") if each.code.startswith("gem-fast demo")]
    told = "".join(plain(invoke(*arguments).output) for _, *arguments in commands(first.code))
    assert "vocabulary" not in told
    (scene,) = gem_fast.records("scene")
    assert all(scene.areas[word] > 0.05 for word in ("car", "tree", "house")), scene.areas
    (photo,) = gem_fast.records("photo")
    assert 0.3 < photo.areas["cat"] < 0.6, photo.areas
    for named in re.findall(r"`(\S+\.overlay\.\w+)`", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert named.startswith("NAME") or Path(named).is_file(), named


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
