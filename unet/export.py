"""Export a bundle to ONNX, pre- and post-processing included.

Input ``image``: uint8 (H, W, 3), RGB, any size. Outputs ``label_map`` and ``confidence``, as in `Segmentation`.
Metadata: task, architecture, and as JSON class_names and palette. The whole picture is one tile, so memory grows with
its size. Pictures about 40 times as long as wide, which `Segmenter` shrinks further, are answered otherwise.
"""

import copy
import io
import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bundle import Bundle, compact
from .predict import Segmenter, decide

ONNX_FILE = "model.onnx"
OPSET = 18  # the first whose Resize takes axes
_AXES = {0: "height", 1: "width"}


def export(bundle: Bundle, path: str | Path) -> Path:
    """Write the bundle as an ONNX file. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(to_onnx(bundle))
    return partial.replace(path)


def to_onnx(bundle: Bundle) -> bytes:
    """The content of an ONNX file, its weights float16."""
    import onnx  # only for those who export

    file = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but the new one cannot make sizes dynamic. The tracer warns of every
        # Python check of a size, which is always passed.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Exported(bundle).eval(),
            (torch.zeros(70, 90, 3, dtype=torch.uint8),),
            file,
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,  # it would store float32
            input_names=["image"],
            output_names=["label_map", "confidence"],
            dynamic_axes={"image": _AXES, "label_map": _AXES, "confidence": _AXES},
        )
    model = onnx.load_model_from_string(file.getvalue())
    lists = {"class_names": bundle.class_names, "palette": bundle.palette.tolist()}
    known = {"task": bundle.task, "architecture": bundle.architecture}
    onnx.helper.set_model_props(model, known | {key: json.dumps(values) for key, values in lists.items()})
    return model.SerializeToString()


def equal_labels(path: str | Path, bundle: Bundle, images: Iterable[np.ndarray]) -> float:
    """Share of pixels with Segmenter's class, both in float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    segmenter = Segmenter(bundle, device="cpu", precision="float32")
    equal = [session.run(["label_map"], {"image": image})[0] == segmenter(image).label_map for image in images]
    return float(np.concatenate(equal, axis=None).mean())


class _Interpolate(torch.autograd.Function):
    """Interpolate logits to a size known at run time."""

    @staticmethod
    def forward(ctx, logits: Tensor, size: Tensor) -> Tensor:
        return F.interpolate(logits, size=size.tolist(), mode="bilinear", align_corners=False)

    @staticmethod
    def symbolic(g, logits, size):
        # Not as the exporter does it: its coordinates differ for a side of one pixel.
        none = g.op("Constant", value_t=torch.zeros(0))
        options = {"mode_s": "linear", "coordinate_transformation_mode_s": "half_pixel", "axes_i": [2, 3]}
        return g.op("Resize", logits, none, none, size, **options).setType(logits.type().with_sizes([None] * 4))


class _Exported(nn.Module):
    """From picture to label map, for the tracer."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.net, self.preprocessing = copy.deepcopy(bundle.net).cpu().eval(), bundle.preprocessing
        self.temperature = bundle.temperature
        self.casts = [
            (layer, name, f"{prefix}_{name}".replace(".", "_"))
            for prefix, layer in self.net.named_modules()
            for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
            if tensor.is_floating_point()
        ]
        for layer, name, stored in self.casts:
            self.register_buffer(stored, compact(getattr(layer, name).detach()))
            delattr(layer, name)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (H, W, 3) -> label map, confidence float32 (H, W)."""
        # Slicing the shape of all three axes would confuse ONNX Runtime's shape inference.
        size = torch._shape_as_tensor(image[..., 0])
        x, working = image.permute(2, 0, 1), size
        if self.preprocessing.working_pixels is not None:
            working = _working_size(size, self.preprocessing.working_pixels)
            # As Pillow: columns first, and 8 bits between.
            x = (x.double() @ _resizing(size[1:], working[1:]).T + 0.5).floor()
            x = (_resizing(size[:1], working[:1]) @ x + 0.5).floor()
        for axis in (0, 1):
            x = x.index_select(1 + axis, self.read(working[axis]))
        for layer, name, stored in self.casts:
            setattr(layer, name, getattr(self, stored).float())
        logits = self.net(self.preprocessing.normalise(x[None]))
        logits = logits[:, :, : working[0], : working[1]]
        if self.preprocessing.working_pixels is not None:
            logits = _Interpolate.apply(logits, size)
        confidence, label_map = decide(logits[0], self.temperature)
        return label_map, confidence

    def read(self, length: Tensor) -> Tensor:
        """Working pixels to feed along an axis, see `tiling`."""
        config = self.net.config
        smallest, _ = config.input_size((1, 1))
        covered, _ = config.output_size((smallest, smallest))
        steps = (length - covered + config.stride - 1).clamp(min=0) // config.stride
        positions = torch.arange(smallest + config.stride * steps) - config.margin
        period = (2 * (length - 1)).clamp(min=1)
        folded = positions % period
        return torch.minimum(folded, period - folded).clamp(max=length - 1)


def _working_size(size: Tensor, working_pixels: int) -> Tensor:
    """`Preprocessing.working_size` of int64 (2,)."""
    # In float64: the exporter computes scalars in float32.
    one, pixels = torch.tensor([[1.0], [working_pixels]], dtype=torch.float64)
    lengths = size.double()
    scale = (pixels / (lengths[:1] * lengths[1:])).sqrt()
    return torch.maximum((lengths * scale).round(), one).long()


def _resizing(length: Tensor, new_length: Tensor) -> Tensor:
    """Pillow's weights for bilinear resizing, float64 (new_length, length)."""
    # ONNX has antialiased Resize, but ONNX Runtime weighs the pixels at the border otherwise than Pillow, whose weights
    # are multiples of 2^-22: float64 adds them up exactly.
    scale = length.double() / new_length.double()
    centres = (torch.arange(new_length[0]).double() + 0.5) * scale
    distances = torch.arange(length[0]).double() + 0.5 - centres[:, None]
    weights = (1 - (distances / torch.maximum(scale, torch.ones(1).double())).abs()).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True) * 2**22 + 0.5).floor() / 2**22
