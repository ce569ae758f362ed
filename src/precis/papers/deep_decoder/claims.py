"""The claims of Deep Decoder, in the order of the summary."""
# ruff: noqa: I001

from .claims_pictures import Compression, CompressionStrong
from .claims_noise import DenoiseClaim, NoEarlyStopping, FitsLittleNoise
from .claims_pictures import Upsampling

__all__ = ["Compression", "CompressionStrong", "DenoiseClaim", "NoEarlyStopping", "FitsLittleNoise", "Upsampling"]
