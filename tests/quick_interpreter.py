"""Triton's interpreter without what it repeats: a plugin of pytest for the processes that `interpreted.py` starts.

For each call of each device function it looks through all members of its modules for what it has to replace, and for
each sum of integers it computes besides whether it overflows: near half of its time. Here the names are looked for once
a module; what is replaced, and by what, is as it was. An overflow shows in the result, as on a GPU.
"""

import functools
import inspect
import os
from dataclasses import replace
from typing import Any

if os.environ.get("TRITON_INTERPRET"):
    from triton.language.core import is_builtin
    from triton.runtime import interpreter

    @functools.cache
    def names_of_builtins(module: Any) -> list[str]:
        return [name for name, member in inspect.getmembers(module) if is_builtin(member)]

    def patch_builtins(module: Any, *arguments: Any) -> None:
        for name in names_of_builtins(module):
            member = getattr(module, name)
            if not is_builtin(member):
                return  # they are replaced together, and are so already
            interpreter._patch_attr(module, name, member, *arguments)

    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    interpreter._patch_builtin = patch_builtins
