"""What a run tells while it goes on."""

import io
import json
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from gem_fast.batch import Progress
from gem_fast.cli import progress as shown_progress
from gem_fast.cli.progress import Style, duration, plain_line, shown


def running(**counts):
    return Progress(**counts, started=time.monotonic() - 10)


def test_a_plain_line():
    assert plain_line(running(total=1200, done=118, failed=2, kept=3)).startswith(
        "123 of 1,200 images, 12.00 images/s, 2 failed, about 90 s left"
    ) or plain_line(running(total=1200, done=118, failed=2, kept=3)).endswith("about 2 min left")
    assert plain_line(running(done=5)) == "5 images, 0.50 images/s"


@pytest.mark.parametrize(
    ("seconds", "told"), [(4, "4 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_durations(seconds, told):
    assert duration(seconds) == told


def test_time_left_is_of_what_is_left():
    progress = running(total=100, done=20, kept=60)
    assert progress.seconds_left == pytest.approx(10, rel=0.01)
    assert running(done=20).seconds_left is None
    assert json.loads(json.dumps(progress.told()))["kept"] == 60


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(shown_progress, "errors", Console(file=stream))
    monkeypatch.setattr(shown_progress, "_FIRST", 0.01)
    monkeypatch.setattr(shown_progress, "PLAIN_SECONDS", 0.01)
    with shown(running(total=3, done=1), Style.auto):
        deadline = time.monotonic() + 10
        while stream.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert stream.getvalue().startswith("1 of 3 images, ")
    assert stream.getvalue().count("\n") >= 2
    assert "\x1b" not in stream.getvalue()


def test_the_first_line_comes_sooner():
    waits, lines = [], []
    ended = SimpleNamespace(wait=lambda seconds: waits.append(seconds) or len(waits) == 3)
    shown_progress._repeat(lambda: lines.append("told"), 5.0, 30.0, ended)
    assert (waits, lines) == ([5.0, 30.0, 30.0], ["told"] * 2)


def test_a_bar_counts_what_is_kept_and_what_failed():
    bar = shown_progress._bar()
    shown_progress._update(bar, running(total=9, done=1, failed=2, kept=3))
    assert (bar.tasks[0].completed, bar.tasks[0].total) == (6, 9)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(("style", "lines"), [(Style.auto, 0), (Style.plain, 0), (Style.none, 0), (Style.json, 1)])
def test_what_a_short_run_shows(monkeypatch, terminal, style, lines):
    """On a terminal a bar, elsewhere nothing, for the end of a run has a line of its own."""
    stream, bars = io.StringIO(), []
    monkeypatch.setattr(shown_progress, "errors", Console(file=stream, force_terminal=terminal))
    monkeypatch.setattr(shown_progress, "_update", lambda bar, progress: bars.append(bar))
    with shown(running(total=3, done=1), style):
        pass
    assert bool(bars) == (terminal and style is Style.auto)
    assert stream.getvalue().count('"done": 1') == lines
    assert "1 of 3" not in stream.getvalue()
