"""What a run tells while it goes on."""

import io
import json
import time

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


@pytest.mark.parametrize(("seconds", "told"), [(4, "4 s"), (89, "89 s"), (120, "2 min"), (9000, "2.5 h")])
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
