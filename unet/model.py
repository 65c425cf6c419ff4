"""One U-Net, four ways to join its skip connections.

``crop-concat`` is the network of Ronneberger, Fischer, Brox: "U-Net: Convolutional Networks for Biomedical Image
Segmentation" (arXiv 1505.04597, figure 1): unpadded convolutions, skips cropped and concatenated. ``residual-add`` is
its small padded relative, whose skips are added. Their twins change nothing but the skip.

Input: float (N, 3, H, W), normalised as the bundle says. Output: logits (N, C, H', W'), where (H', W') is
``config.output_size((H, W))``: the input's size for a padded network, 2 * ``config.margin`` less for an unpadded one.
Softmax, sigmoid and argmax are the caller's business.
"""

import copy
import dataclasses
import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# BatchNorm as Keras has it, where the residual-add network comes from: torch's defaults are 1e-5 and 0.1.
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.01


class LevelShapes(NamedTuple):
    """(channels, h, w) of one level's feature maps.

    encoder: out of the encoder block; the skip carries it, and the bottleneck has nothing else.
    up: out of the up-convolution. decoder: what meets the skip, and joined: what comes of that; both at the join.
    output: what the level hands on, to the next up-convolution or to the head.
    """

    encoder: tuple[int, int, int]
    up: tuple[int, int, int] | None
    decoder: tuple[int, int, int] | None
    joined: tuple[int, int, int] | None
    output: tuple[int, int, int]


@dataclass(frozen=True)
class UNetConfig:
    """The architecture, stored with the weights.

    widths: channels at each level, from the full-resolution level to the bottleneck.
    convolutions: 3x3 convolutions in a block.
    padded: True keeps a block's size (padding "same"); False loses 2 pixels a convolution and side pair, as the paper.
    skip: "add" or "concat" (encoder's channels first).
    join: where the skip comes in: "before_block", as the paper, or "after_block", on the block's output.
    batch_norm: "none", "before_relu" (can be folded into the convolution) or "after_relu".
    dropout: one rate a level, at the end of its encoder block and, bottleneck apart, of its decoder block. () is none.
    """

    widths: tuple[int, ...]
    convolutions: int
    padded: bool
    skip: str
    join: str
    batch_norm: str = "none"
    dropout: tuple[float, ...] = ()
    in_channels: int = 3
    num_outputs: int = 1

    def __post_init__(self) -> None:
        # JSON has lists only; a frozen dataclass is compared and hashed, so tuples it must be.
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "dropout", tuple(self.dropout))
        for field, allowed in {
            "skip": ("add", "concat"),
            "join": ("before_block", "after_block"),
            "batch_norm": ("none", "before_relu", "after_relu"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} is {getattr(self, field)!r}; it must be one of {', '.join(allowed)}")
        if not isinstance(self.padded, bool):  # "no" would count as yes
            raise ValueError(f"padded is {self.padded!r}; it must be true or false")
        if not self.widths or min(*self.widths, self.convolutions, self.in_channels, self.num_outputs) < 1:
            raise ValueError(f"widths, convolutions, in_channels and num_outputs must be at least 1, got {self}")
        # Far beyond any use; but a stranger's file may say anything, and the work grows with 2 to the levels.
        if len(self.widths) > 10 or self.convolutions > 100:
            raise ValueError(f"10 levels of 100 convolutions are the most, got {self}")
        if self.dropout and len(self.dropout) != len(self.widths):
            raise ValueError(f"dropout needs one rate for each of the {len(self.widths)} levels, got {self.dropout}")

    @property
    def num_classes(self) -> int:
        """Two classes share one logit; more have one each."""
        return max(2, self.num_outputs)

    @property
    def stride(self) -> int:
        """Input pixels to a bottleneck pixel; valid sizes' step."""
        return 2 ** (len(self.widths) - 1)

    @property
    def margin(self) -> int:
        """Input pixels lost on each side; the paper's 92."""
        smallest = self._smallest_length()
        return (smallest - self._output_length(smallest)) // 2

    @property
    def receptive_radius(self) -> int:
        """Receptive radius of an output pixel, in input pixels."""
        # The interval that one output pixel depends on is followed backwards through the deepest path: a 3x3
        # convolution widens it by one on each side, an up-convolution halves it, a pooling doubles it.
        shift = 0 if self.padded else 1  # without padding, output i of a convolution looks at inputs i..i+2

        def through_block(low: int, high: int) -> tuple[int, int]:
            return low + self.convolutions * (shift - 1), high + self.convolutions * (shift + 1)

        radius = 0
        for pixel in range(self.stride):
            low = high = pixel
            for _ in self.widths[1:]:
                low, high = through_block(low, high)
                low, high = low // 2, high // 2
            low, high = through_block(low, high)
            for _ in self.widths[1:]:
                low, high = through_block(2 * low, 2 * high + 1)
            radius = max(radius, pixel + self.margin - low, high - pixel - self.margin)
        return radius

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the logits for an input's (h, w).

        Raises ValueError for a size that does not fit, naming the nearest that do.
        """
        lengths = [self._output_length(length) for length in size]
        if None in lengths:
            smallest = self._smallest_length()
            below = [smallest + max(0, n - smallest) // self.stride * self.stride for n in size]
            above = [b if b >= n else b + self.stride for b, n in zip(below, size, strict=True)]
            nearest = " or ".join(dict.fromkeys(f"{h}x{w}" for h, w in (below, above)))
            raise ValueError(
                f"an input of {size[0]}x{size[1]} does not fit this network; the nearest sizes that do: {nearest}. "
                "Segmenter takes pictures of any size."
            )
        return tuple(lengths)

    def level_shapes(self, size: tuple[int, int]) -> tuple[LevelShapes, ...]:
        """Feature map shapes for an input ``size``, bottleneck last. Raises as `output_size`."""
        self.output_size(size)
        lost = 0 if self.padded else 2 * self.convolutions
        h, w = size
        encoders = []
        for width in self.widths:
            h, w = h - lost, w - lost
            encoders.append((width, h, w))
            h, w = h // 2, w // 2
        levels = [LevelShapes(encoders[-1], None, None, None, encoders[-1])]
        for encoder in encoders[-2::-1]:
            width = encoder[0]
            _, h, w = levels[0].output
            up, after_block = (width, 2 * h, 2 * w), (width, 2 * h - lost, 2 * w - lost)
            decoder = up if self.join == "before_block" else after_block
            joined = (2 * width if self.skip == "concat" else width, *decoder[1:])
            output = after_block if self.join == "before_block" else joined
            levels.insert(0, LevelShapes(encoder, up, decoder, joined, output))
        return tuple(levels)

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the smallest input for this output."""
        smallest = self._smallest_length()
        covered = self._output_length(smallest)
        return tuple(smallest + self.stride * -(-max(0, n - covered) // self.stride) for n in size)

    def check_skips(self, levels: Collection[int]) -> None:
        """Raises ValueError for a level without a skip."""
        skips = range(len(self.widths) - 1)
        for level in levels:
            if level not in skips:
                having = f"at the levels 0 (full resolution) to {skips[-1]}" if skips else "nowhere"
                raise ValueError(f"there is no skip at level {level}; this network has its skips {having}")

    def _output_length(self, length: int) -> int | None:
        """Output length for an input length, if it fits."""
        lost = 0 if self.padded else 2 * self.convolutions
        for _ in self.widths[1:]:
            length -= lost
            if length % 2:
                return None
            length //= 2
        length -= lost
        for _ in self.widths[1:]:
            length = 2 * length - lost
        return length if length > 0 else None

    def _smallest_length(self) -> int:
        return next(length for length in itertools.count(1) if self._output_length(length) is not None)


_RESIDUAL_ADD = UNetConfig(
    widths=(32, 64, 128),
    convolutions=3,
    padded=True,
    skip="add",
    join="after_block",
    batch_norm="after_relu",
    dropout=(0.2, 0.3, 0.4),
)
_CROP_CONCAT = UNetConfig(
    widths=(64, 128, 256, 512, 1024), convolutions=2, padded=False, skip="concat", join="before_block"
)

#: Every architecture by name. The menu, the command line, the tests and the README iterate this table.
ARCHITECTURES: dict[str, UNetConfig] = {
    "residual-add": _RESIDUAL_ADD,
    "crop-concat": _CROP_CONCAT,
    "residual-concat": dataclasses.replace(_RESIDUAL_ADD, skip="concat"),
    "crop-add": dataclasses.replace(_CROP_CONCAT, skip="add"),
}


class ConvBlock(nn.Sequential):
    """3x3 convolutions with ReLU and BatchNorm, then dropout."""

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig, dropout: float) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, config.convolutions + 1):
            layers[f"conv{i}"] = nn.Conv2d(in_channels, out_channels, 3, padding=1 if config.padded else 0)
            norm = nn.BatchNorm2d(out_channels, BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM)
            if config.batch_norm == "before_relu":
                layers[f"norm{i}"] = norm
            layers[f"relu{i}"] = nn.ReLU(inplace=True)  # nobody else needs what it overwrites
            if config.batch_norm == "after_relu":
                layers[f"norm{i}"] = norm
            in_channels = out_channels
        if dropout:
            layers["dropout"] = nn.Dropout(dropout)
        super().__init__(layers)


class Join(NamedTuple):
    """The feature maps at the join of one level.

    level: 0 is full resolution. encoder: (N, C, h, w), what the skip carried, before cropping. decoder: (N, C, h', w').
    joined: (N, C or 2C, h', w').
    """

    level: int
    encoder: Tensor
    decoder: Tensor
    joined: Tensor


class Up(nn.Module):
    """A 2x2 up-convolution, a block, and the join."""

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig, dropout: float) -> None:
        super().__init__()
        self.skip, self.join = config.skip, config.join
        joined_channels = out_channels * (2 if config.skip == "concat" else 1)
        before = config.join == "before_block"
        self.out_channels = out_channels if before else joined_channels
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.block = ConvBlock(joined_channels if before else out_channels, out_channels, config, dropout)

    def forward(self, x: Tensor, skip_connection: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The level's output, and at the join: decoder's, joined."""
        x = self.up(x)
        if self.join == "after_block":
            x = self.block(x)
        skip_connection = center_crop(skip_connection, x.shape[-2:])
        joined = torch.cat([skip_connection, x], dim=1) if self.skip == "concat" else skip_connection + x
        return self.block(joined) if self.join == "before_block" else joined, x, joined


class UNet(nn.Module):
    """The network of a :class:`UNetConfig`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        rates = config.dropout or (0.0,) * len(config.widths)
        channels = config.in_channels
        self.encoder = nn.ModuleList()
        for width, rate in zip(config.widths, rates, strict=True):
            self.encoder.append(ConvBlock(channels, width, config, rate))
            channels = width
        self.decoder = nn.ModuleList()
        for width, rate in zip(config.widths[-2::-1], rates[-2::-1], strict=True):
            self.decoder.append(Up(channels, width, config, rate))
            channels = self.decoder[-1].out_channels
        self.head = nn.Conv2d(channels, config.num_outputs, 1)
        self.apply(_initialise)

    def forward(
        self, x: Tensor, *, without_skips: Collection[int] = (), watch: Callable[[Join], None] | None = None
    ) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, C, H', W').

        without_skips: levels whose skip carries zeros instead of the encoder's feature map; 0 is full resolution.
        watch: called at every join, deepest first. Both concern this run alone, whoever else runs the same network.
        Raises ValueError for a size that does not fit, and for a level without a skip.
        """
        _, _, h, w = x.shape
        self.config.output_size((h, w))  # a size that does not fit is refused here, by name, not deep inside by shape
        self.config.check_skips(without_skips)
        skip_connections = []
        for block in self.encoder[:-1]:
            x = block(x)
            skip_connections.append(x)
            x = F.max_pool2d(x, 2)
        x = self.encoder[-1](x)
        for up in self.decoder:
            skip_connection = skip_connections.pop()
            level = len(skip_connections)
            if level in without_skips:
                skip_connection = torch.zeros_like(skip_connection)
            x, decoder, joined = up(x, skip_connection)
            if watch:
                watch(Join(level, skip_connection, decoder, joined))
        return self.head(x)

    def fold_batch_norm(self) -> "UNet":
        """A copy with every BatchNorm folded into its convolution.

        In eval mode, with the same logits. A crop-concat network trained with BatchNorm becomes the paper's, parameter
        for parameter. Raises ValueError for "after_relu", where a ReLU stands between the two.
        """
        if self.config.batch_norm == "after_relu":
            raise ValueError("BatchNorm after ReLU cannot be folded into the convolution; leave this network as it is")
        trained = copy.deepcopy(self).eval()
        for block in trained.modules():
            for name in [name for name, _ in block.named_children() if name.startswith("norm")]:
                conv = name.replace("norm", "conv")
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, name)))
                delattr(block, name)
        folded = UNet(dataclasses.replace(self.config, batch_norm="none")).to(self.head.weight)
        folded.load_state_dict(trained.state_dict())
        return folded.eval()


def center_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of x (..., H, W), of ``size`` (h, w)."""
    h, w = size
    top, left = (x.shape[-2] - h) // 2, (x.shape[-1] - w) // 2
    return x[..., top : top + h, left : left + w]


def count_parameters(net: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def _initialise(layer: nn.Module) -> None:
    """Gaussian weights, as the paper's section 3."""
    # On the meta device there is nothing to fill, and torch would load its compiler for it, which takes a second.
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and not layer.weight.is_meta:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
