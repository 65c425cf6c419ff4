"""Two U-Nets that differ in how they join their skip connections, a palette, and what trains and runs them."""

from .bundle import Bundle, BundleError, Preprocessing
from .images import ImageError, read_image
from .metrics import ConfusionMatrix
from .model import ARCHITECTURES, UNet, UNetConfig
from .palette import Palette, PaletteLadder
from .predict import Segmentation, Segmenter, TestTimeAugmentation

__all__ = [
    "ARCHITECTURES",
    "Bundle",
    "BundleError",
    "ConfusionMatrix",
    "ImageError",
    "Palette",
    "PaletteLadder",
    "Preprocessing",
    "Segmentation",
    "Segmenter",
    "TestTimeAugmentation",
    "UNet",
    "UNetConfig",
    "read_image",
]
