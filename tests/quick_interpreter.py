"""Triton's interpreter without what it repeats: a plugin of pytest for the processes that `interpreted.py` starts.

For each call of each device function it looks through all members of its modules for what it has to replace, which is a
third of its time. Here the names are looked for once a module; what is replaced, and by what, is as it was.
"""

import functools
import inspect
import os
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
            if is_builtin(member):  # else it is replaced already
                interpreter._patch_attr(module, name, member, *arguments)

    interpreter._patch_builtin = patch_builtins
