"""The claims of Pr-VIPE, in the order of the summary."""
# ruff: noqa: I001

from .claims_poses import Retrieval, Probabilistic, CameraAugmentation, Dropout, Mining, Terms
from .claims_clips import Temporal

__all__ = ["Retrieval", "Probabilistic", "CameraAugmentation", "Dropout", "Temporal", "Mining", "Terms"]
