"""The claims of supervised contrastive learning, in the order of the summary."""

from .claims_losses import BeatsCE, Corruption, OutVsIn, Stability, Views
from .claims_transfer import Transfer

__all__ = ["OutVsIn", "BeatsCE", "Transfer", "Corruption", "Views", "Stability"]
