"""The command, run in this process."""

import re

from typer.testing import CliRunner

from gem_fast.cli import app


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
