"""How a claim is checked; knows no paper and no method.  Public names are given lazily."""

from typing import Any

_HOMES = {
    "claim": ("Claim", "Profile", "Outcome", "Table", "Hypothesis", "Precondition", "Tuning", "Recorder", "Metrics"),
    "hypotheses": (
        "Greater", "Less", "NotWorse", "Equivalent", "AtLeast", "AtMost", "Between", "Trend", "Interaction", "Ordered",
        "Proportion", "Spread", "Differs", "Statistic", "Exact",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"precis.lab.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
