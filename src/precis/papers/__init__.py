"""The papers, one folder each, and what a paper's files build on (given lazily: listing papers needs no tyro)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from precis.papers.job import Job, Range, Work

__all__ = ["Job", "Range", "Work"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from precis.papers import job

        return getattr(job, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
