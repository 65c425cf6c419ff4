"""Two U-Nets that join their skip connections differently, and colour palettes."""

from .bundle import Bundle, BundleError, Preprocessing
from .images import ImageError, read_image
from .metrics import ConfusionMatrix
from .model import ARCHITECTURES, UNet, UNetConfig
from .palette import Palette, PaletteLadder
from .predict import Segmentation, Segmenter, TestTimeAugmentation
