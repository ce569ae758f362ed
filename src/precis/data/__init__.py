"""Embedded data, standard data sets, the user's own files.  `kinds_of` says what a path can be used as."""

from typing import Any

__all__ = ["kinds_of"]


def __getattr__(name: str) -> Any:
    if name == "kinds_of":
        from precis.data.kinds import kinds_of

        return kinds_of
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
