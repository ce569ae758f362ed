"""The claims of MobileNetV2, in the order of the summary."""
# ruff: noqa: I001

from .claims_blocks import LinearBottleneck, BottleneckShortcut, Manifold
from .claims_exact import ReluLosesInformation, Size, Memory
from .claims_convolutions import Factorised, InvertedVsSeparable

__all__ = [
    "BottleneckShortcut", "Factorised", "InvertedVsSeparable", "LinearBottleneck", "Manifold", "Memory",
    "ReluLosesInformation", "Size",
]  # fmt: skip
