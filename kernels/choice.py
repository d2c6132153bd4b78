"""Which backend an operation takes: the one asked for by argument or environment, else the fastest that serves."""

import os

VARIABLE = "GEM_FAST_BACKEND"
BACKENDS = ("reference", "sdpa", "cpu", "triton")


def asked_backend(argument: str | None) -> str | None:
    """The backend that the argument names, else the one that `GEM_FAST_BACKEND` names, else None.

    Raises:
        ValueError: there is no backend of that name.
    """
    name = argument or os.environ.get(VARIABLE) or None
    if name is not None and name not in BACKENDS:
        origin = "" if argument else f" in {VARIABLE}"
        raise ValueError(f"unknown backend {name!r}{origin}; the backends are {', '.join(BACKENDS)}")
    return name


def takes(backend: str, argument: str | None, why_not: str | None, pays: bool) -> bool:
    """Whether an operation with a plain form takes `backend` instead: asked for by name, or by itself where it pays.

    Args:
        backend: the fast one, such as `"triton"`.
        argument: the backend that the caller names, or None.
        why_not: the reason why it can't serve, or None.
        pays: whether it is the one to take if none is asked for.

    Raises:
        ValueError: it is asked for by name and can't serve.
    """
    asked = asked_backend(argument)
    if asked == backend and why_not:
        raise ValueError(f"the backend {backend!r} can't serve: {why_not}")
    return asked == backend or (asked is None and why_not is None and pays)
