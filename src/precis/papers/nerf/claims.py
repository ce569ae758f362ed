"""The claims of NeRF, in the order of the summary."""

from .claims_size import Compression
from .claims_time import FastTraining
from .claims_views import Hierarchical, NovelViews, OneScene, PositionalEncoding, ViewDependence

__all__ = [
    "NovelViews", "PositionalEncoding", "Hierarchical", "ViewDependence", "OneScene", "Compression", "FastTraining",
]  # fmt: skip
