"""The claims of the paper, each in its module."""

from .claims_divergence import KlLimit
from .claims_noise import AdditiveNoise
from .claims_removal import RandomLabels, Sparsity, VsOriginal

__all__ = ["AdditiveNoise", "KlLimit", "RandomLabels", "Sparsity", "VsOriginal"]
