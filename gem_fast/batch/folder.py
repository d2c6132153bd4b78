"""The output folder of a run: held by one run at a time, and made with one question, which its `run.json` tells."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..outputs import KINDS
from ..writing import write_whole
from .options import Part
from .records import ERRORS, LEGEND, LOCK, PARTIAL, RUN, SUMMARY, read_records
from .shards import own_files

SCHEMA = 1
_LARGEST = 1 << 26  # bytes of a `run.json`: 65,535 classes with their synonyms


class RunError(ValueError):
    """An output folder that this run can't use; the message says why and what would be right."""


def check_output(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """What can be said of an output folder before anything is loaded: it is one, and may be written.

    Raises:
        RunError: it holds an earlier run, and neither was asked for. NotADirectoryError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"the output folder {folder} is a file")
    if not overwrite and not resume and read_run(folder) is not None:
        raise RunError(f"{folder} holds an earlier run: take --resume to go on with it or --overwrite to begin anew")


def check_parts(out: Path, part: Part) -> None:
    """RunError if an output folder holds parts of another number, which would have the same images."""
    parts = sorted(summary.parent.name for summary in out.glob(f"part-*-of-*/{SUMMARY}"))
    if others := [name for name in parts if part.of > 1 and not name.endswith(f"-of-{part.of}")]:
        raise RunError(f"{out} holds {others[0]}, and part {part} would have images of it; take another folder")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder, which is made; the lock dies with its process.

    Raises:
        RunError: another run works in it. OSError: it can't be made or written.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _handles.add(handle)
    try:
        if not _lock(handle) or not path.exists() or not os.path.samestat(os.fstat(handle), os.stat(path)):
            raise RunError(f"another run works in {folder}: wait for it, or name another folder with --out")
        try:
            yield
        finally:
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)
            path.unlink(missing_ok=True)
            for each in made:  # what a run that wrote nothing made
                with suppress(OSError):
                    each.rmdir()
    finally:
        _handles.remove(handle)
        os.close(handle)


_handles: set[int] = set()  # of locks


def _leave_locks() -> None:
    """In a forked process: a lock must not outlive the run whose it is."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)


def _lock(handle: int) -> bool:
    """Lock an open file for this process, unless another has."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def enter(folder: Path, run: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Make sure that the folder is this run's to write, and leave `run.json` in it.

    Args:
        folder: the output folder, held.
        run: what is asked: `model, weights, method, prompts, background, settings, output, part, inputs, versions`.
        resume: go on with an earlier run that asked the same.
        overwrite: begin anew in the folder of an earlier run.

    Raises:
        RunError: there is an earlier run, and neither was asked for, or it asked something else.
    """
    check_output(folder, resume=resume, overwrite=overwrite)
    earlier = None if overwrite else read_run(folder)
    if earlier is None and not overwrite and _has_results(folder):
        raise RunError(
            f"{folder} holds results and no {RUN} that says of what; take --overwrite to begin anew, or another folder"
        )
    if earlier is not None and (differences := list(_differences(earlier, {"schema": SCHEMA, **run}))):
        raise RunError(
            f"{folder} was made by another run, and a resumed one must ask the same: {'; '.join(differences)}; "
            "take --overwrite to begin anew, or another folder"
        )
    if earlier is not None and (size := _overlay_size(earlier)) is not None:
        run["output"].setdefault("overlay_size", size)  # of the overlays that are there
    if overwrite:
        _remove_results(folder)
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)  # of a run that was killed
    (folder / PARTIAL).mkdir()
    content = json.dumps({"schema": SCHEMA, **run}, indent=1, ensure_ascii=False)
    write_whole(folder / RUN, (content + "\n").encode(errors="backslashreplace"), folder / PARTIAL)


def read_run(folder: Path) -> dict[str, Any] | None:
    """The `run.json` of an output folder, or None if it has none.

    Raises:
        RunError: it is damaged.
    """
    path = folder / RUN
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}") from error
    try:
        run = json.loads(content) if len(content) <= _LARGEST else None
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict):
        raise RunError(f"{path} is damaged; take --overwrite to begin anew, or another folder")
    return run


def _has_results(folder: Path) -> bool:
    """Whether a summary there speaks of a finished image."""
    with suppress(OSError):
        return any(record.status == "ok" for record in read_records(folder))
    return False


def remove_output(folder: Path, name: str) -> None:
    """Remove a file that a record names, if a run could have written it."""
    path = folder / name
    if name.endswith(tuple(kind.ending for kind in KINDS)) and folder.resolve() in path.resolve().parents:
        path.unlink(missing_ok=True)


def _remove_results(folder: Path) -> None:
    """Remove what an earlier run wrote: its records, and the files that these name and a run could have written."""
    with suppress(FileNotFoundError):
        for record in read_records(folder / SUMMARY):
            for name in record.files.values():
                remove_output(folder, name)
    for path in own_files(folder):
        path.unlink()
    for name in (SUMMARY, ERRORS, LEGEND, RUN):
        (folder / name).unlink(missing_ok=True)


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What the runs ask differently, entry by entry."""
    sizes = _overlay_size(earlier), _overlay_size(now)
    if None not in sizes and sizes[0] != sizes[1]:
        yield f"output overlay_size was {sizes[0]}, now {sizes[1]}"
    now, earlier = _compared(json.loads(json.dumps(now, ensure_ascii=False))), _compared(earlier)
    if earlier.get("inputs") != now.get("inputs") and earlier.get("output") == now.get("output"):
        yield "the inputs are others, or in another order, and shards hold these as they were listed"
    for name in (*now, *(set(earlier) - set(now))):
        if name == "inputs":
            continue
        then, here = earlier.get(name), now.get(name)
        if isinstance(then, dict) and isinstance(here, dict):
            yield from (
                f"{name} {key} was {_short(then.get(key))}, now {_short(here.get(key))}"
                for key in (*here, *(set(then) - set(here)))
                if then.get(key) != here.get(key)
            )
        elif then != here:
            yield f"{name} was {_short(then)}, now {_short(here)}"


def _overlay_size(run: Mapping[str, Any]) -> Any:
    """Of the overlays that a run wrote as files; None if it wrote none, or an earlier version did."""
    output = run.get("output")
    return output.get("overlay_size") if isinstance(output, dict) else None


def _compared(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a resumed run may not change: not the versions, and of files, which are each for itself, not the kinds."""
    compared = {name: value for name, value in run.items() if name != "versions"}
    output = compared.get("output")
    if isinstance(output, dict) and output.get("format") == "files":
        compared["output"] = {"format": "files"}
    return compared


def _short(value: Any) -> str:
    """A value as it is shown: of prompts the names, with the words where these are others."""
    if isinstance(value, list) and all(isinstance(each, list) and each for each in value):
        value = [each[0] if each[1:] == each[:1] else f"{each[0]} ({', '.join(map(str, each[1:]))})" for each in value]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return (text if len(text) <= 80 else f"{text[:77]}...") or "none"
