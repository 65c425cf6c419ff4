"""Two U-Nets that join their skip connections differently, and colour palettes."""

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
