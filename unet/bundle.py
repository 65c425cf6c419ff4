"""A bundle: one folder for one trained network.

``config.json`` (architecture, classes, palette, preprocessing, training record, scores) and ``model.safetensors``
(float16). Reading checks everything before a weight is used: a bundle is data from a stranger.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .images import MAX_PIXELS
from .model import UNet, UNetConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
#: Pictures that a card shows where they lie beside it, with their captions.
CARD_PICTURES = {
    "examples.png": "Good and bad examples",
    "confusion.png": "Confusion matrix (rows are the truth, columns the prediction)",
    "curves.png": "Training curves",
}
FORMAT = 1
#: scores["val" + AVERAGED] are of the same pictures as scores["val"], with several looks at each averaged.
AVERAGED = "_averaged"


class BundleError(ValueError):
    """A missing, damaged or foreign bundle, and what to do."""


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a picture before a network.

    mean, std: of each channel over the training pictures, in 0..255.
    working_pixels: pictures are resized to about so many, keeping their shape, because a small network recognises
        things only at the size it was trained on; None leaves every picture as it is.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    working_pixels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        finite = np.isfinite([*self.mean, *self.std]).all()
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            raise ValueError(f"mean and std need three numbers each, std above 0, got {self.mean} and {self.std}")
        pixels = self.working_pixels
        if pixels is not None and not (isinstance(pixels, int) and 1 <= pixels <= MAX_PIXELS):
            raise ValueError(f"working_pixels must be a whole number from 1 to {MAX_PIXELS:,}, or None, got {pixels!r}")

    def working_size(self, size: tuple[int, int], *, scale: float = 1.0) -> tuple[int, int]:
        """The size (h, w) that the network sees, times ``scale``."""
        if self.working_pixels is not None:
            scale *= (self.working_pixels / (size[0] * size[1])) ** 0.5
        return tuple(max(1, round(n * scale)) for n in size)

    def resize(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Resize uint8 (H, W, 3), by default to the working size."""
        h, w = size or self.working_size(image.shape[:2])
        if (h, w) == image.shape[:2]:
            return image
        return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise (N, 3, H, W) in 0..255 to float32."""
        mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (images.float() - mean) / std


@dataclass
class Bundle:
    """A network and all that belongs to it.

    class_names: one a class, in label order. palette: uint8 (k, 3), the colour each class is drawn in.
    data: name, source and terms of what it was trained on. training: the record of the run. scores: by split.
    temperature: divides the logits before they become a confidence; fitted on val, 1 where it was not.
    """

    net: UNet
    task: str
    architecture: str
    class_names: tuple[str, ...]
    palette: np.ndarray
    preprocessing: Preprocessing
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self.class_names = tuple(self.class_names)
        self.palette = np.asarray(self.palette, dtype=np.uint8)
        classes = self.net.config.num_classes
        if len(self.class_names) != classes or self.palette.shape != (classes, 3):
            raise ValueError(
                f"the network tells {classes} classes apart, but {len(self.class_names)} names and a palette of shape "
                f"{self.palette.shape} were given; give one name and one colour a class"
            )
        for word in (self.task, self.architecture, *self.class_names):
            if not isinstance(word, str) or not word.strip():
                raise ValueError(f"task, architecture and class_names are words, got {word!r}")
        if not isinstance(self.temperature, int | float) or not 0.01 <= self.temperature <= 100:
            raise ValueError(f"temperature must be a number from 0.01 to 100, got {self.temperature!r}")
        if len(set(self.class_names)) < classes:
            raise ValueError(f"two classes have one name: {', '.join(self.class_names)}")

    def plain_scores(self) -> dict[str, dict[str, Any]]:
        """Scores of whole splits without test-time augmentation."""
        return {
            split: scores
            for split, scores in self.scores.items()
            if isinstance(scores, dict) and "iou" in scores and not split.endswith(AVERAGED)
        }

    def save(self, folder: str | Path) -> Path:
        """Write config.json and model.safetensors -> the folder. Raises OSError."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: compact(tensor.detach().cpu()) for name, tensor in self.net.state_dict().items()}
        # Weights first: an interrupted save leaves a bundle without its config, which load refuses by name.
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        # Not by save_file, whose files only their owner can read: the page may be run by somebody else.
        (folder / WEIGHTS_FILE).write_bytes(save(tensors, metadata={"format": "pt"}))
        self.save_config(folder)
        return folder

    def save_config(self, folder: str | Path) -> None:
        """Write config.json alone, as after an evaluation."""
        config = {
            "format": FORMAT,
            "task": self.task,
            "architecture": self.architecture,
            "config": dataclasses.asdict(self.net.config),
            "class_names": self.class_names,
            "palette": self.palette.tolist(),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "data": self.data,
            "training": self.training,
            "temperature": self.temperature,
            "scores": self.scores,
        }
        partial = Path(folder) / (CONFIG_FILE + ".partial")
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        partial.replace(Path(folder) / CONFIG_FILE)

    @classmethod
    def load(cls, folder: str | Path) -> Bundle:
        """Read a bundle, its network float32 on the CPU.

        Raises BundleError where a file is missing or damaged, a field is wrong, or a tensor is missing, unexpected,
        or of another shape or kind than the architecture's.
        """
        folder = Path(folder)
        config = read_config(folder)
        try:
            with torch.device("meta"):  # shapes only: a stranger's config may name a network larger than memory
                net = UNet(UNetConfig(**config["config"]))
            bundle = cls(
                net=net,
                preprocessing=Preprocessing(**config["preprocessing"]),
                **{name: config[name] for name in ("task", "architecture", "class_names", "palette")},
                **{name: dict(config[name]) for name in ("data", "training", "scores")},
                temperature=config.get("temperature", 1.0),  # bundles of before have none
            )
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            reason = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise BundleError(f"{folder / CONFIG_FILE} does not describe a U-Net bundle: {reason}") from error
        net.load_state_dict(_read_weights(folder / WEIGHTS_FILE, net.state_dict()), assign=True)
        net.eval()
        return bundle


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a bundle, without its weights. Raises BundleError."""
    path = Path(folder) / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} does not exist. A bundle is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}; train.py writes one."
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as JSON ({error}); fetch or train the bundle again") from error
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        here = f"this version reads {FORMAT}; update the project or train again"
        raise BundleError(f"{path} has bundle format {found!r}, {here}")
    return config


def read_card(folder: str | Path) -> str:
    """A bundle's card as Markdown, its pictures inlined. Raises BundleError."""
    try:
        text = (Path(folder) / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError("this network has no card that can be read; train.py --evaluate writes one") from error
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    for name in CARD_PICTURES:
        if (picture := Path(folder) / name).is_file():
            data = base64.b64encode(picture.read_bytes()).decode()
            text = text.replace(f"]({name})", f"](data:image/png;base64,{data})")
    return text


def _read_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_slice(name) for name in sorted(file.keys())}
            problems = [f"missing {name}" for name in expected if name not in found]
            # Shapes and kinds are compared in the header, before anything of a stranger's size is allocated.
            for name, header in found.items():
                tensor = expected.get(name)
                if tensor is None:
                    problems.append(f"unexpected {name}")
                elif header.get_shape() != [*tensor.shape]:
                    problems.append(f"{name} is {header.get_shape()}, the architecture's is {[*tensor.shape]}")
                elif (header.get_dtype() in ("F16", "F32", "BF16")) != tensor.is_floating_point():
                    problems.append(f"{name} has dtype {header.get_dtype()}")
            if problems:
                shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
                raise BundleError(f"{path} does not hold this architecture's weights: {shown}")
            tensors = {name: file.get_tensor(name).to(tensor.dtype) for name, tensor in expected.items()}
    except FileNotFoundError as error:
        raise BundleError(f"{path} does not exist; fetch the bundle again or train it with train.py") from error
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is not a complete safetensors file ({error}); fetch the bundle again") from error
    damaged = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if damaged:
        raise BundleError(f"{path} holds numbers that are not finite in {damaged[0]}; fetch or train the bundle again")
    return tensors


def compact(tensor: Tensor) -> Tensor:
    """float16 if all numbers fit; counters stay integers."""
    if not tensor.is_floating_point():
        return tensor.contiguous()
    half = tensor.half()
    return (half if half.isfinite().all() else tensor.float()).contiguous()
