"""The claims of Deep Image Prior, in the order of the summary."""
# ruff: noqa: I001

from .claims_impedance import NoiseImpedance
from .claims_restore import Denoise, SuperResolution, Inpaint, Learned
from .claims_holes import SemanticHoles
from .claims_full import Preimage, Sensitivity

__all__ = [
    "NoiseImpedance", "Denoise", "SuperResolution", "Inpaint", "SemanticHoles", "Learned", "Preimage", "Sensitivity",
]  # fmt: skip
