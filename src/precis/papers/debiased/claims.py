"""The claims of debiased contrastive learning, in the order of the summary."""
# ruff: noqa: I001

from .claims_digits import FalseNegatives, BeatsBiased, MultiPositive
from .claims_classes import ClassCount
from .claims_estimator import Estimator

__all__ = ["FalseNegatives", "BeatsBiased", "ClassCount", "MultiPositive", "Estimator"]
