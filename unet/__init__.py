"""Two U-Nets that differ in how they join their skip connections, a palette, and what trains and runs them."""

from .bundle import Bundle, BundleError, Preprocessing
from .model import ARCHITECTURES, UNet, UNetConfig
from .predict import Segmentation, Segmenter

__all__ = [
    "ARCHITECTURES",
    "Bundle",
    "BundleError",
    "Preprocessing",
    "Segmentation",
    "Segmenter",
    "UNet",
    "UNetConfig",
]
