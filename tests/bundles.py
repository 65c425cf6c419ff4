"""Small bundles with random weights, for tests of everything but accuracy."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
import yaml

from training.card import write_card
from unet import ARCHITECTURES, Bundle, Preprocessing, Segmenter, UNet

NAMES = ("background", "street", "tree", "car", "sky")
COLORS = np.array([(0, 0, 0), (128, 64, 128), (0, 128, 0), (0, 0, 200), (70, 130, 180)], np.uint8)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
SCORES = {
    "miou": 0.51239,
    "mean_dice": 0.6,
    "pixel_accuracy": 0.9,
    "iou": {"road": 0.5, "sky": 0.52478, "tree": None},
    "dice": {"road": 0.55, "sky": 0.65, "tree": float("nan")},
    "pictures": 101,
}
RECORD = {
    "data": {
        "name": "CamVid",
        "source": "367 frames",
        "license": "cc-by-nc-4.0",
        "terms": "Research use.",
        "url": "https://example.org/camvid",
    },
    "training": {
        "command": "python train.py --task streets",
        "commit": "0123abc",
        "versions": {"torch": "2.11.0"},
        "hardware": "2 CPU cores",
        "seconds": 4000,
        "seed": 1000,
        "steps": 30000,
        "best_step": 28000,
    },
    "scores": {"val": SCORES},
}


def small_bundle(architecture, *, classes=5, divisor=8, working_pixels=None, seed=0, task="test"):
    """A bundle whose networks answer with something else than one class everywhere."""
    torch.manual_seed(seed)
    config = ARCHITECTURES[architecture]
    config = dataclasses.replace(
        config, widths=tuple(w // divisor for w in config.widths), num_outputs=1 if classes == 2 else classes
    )
    net = UNet(config).eval()
    # Random weights favour one class everywhere: bring the logits of every class to one mean and spread.
    side = config.input_size((64, 64))
    with torch.no_grad():
        x = torch.from_numpy(photo(*side)).permute(2, 0, 1)[None].float().sub(120).div(65)
        spread, mean = torch.std_mean(net(x), dim=(0, 2, 3))
        net.head.weight.div_(spread.view(-1, 1, 1, 1))
        net.head.bias.sub_(mean).div_(spread)
    return Bundle(
        net, task, architecture, NAMES[:classes], COLORS[:classes],
        Preprocessing((110.0, 120.0, 130.0), (60.0, 65.0, 70.0), working_pixels),
    )  # fmt: skip


def save_nuclei(weights, *, working_pixels=None):
    """The smallest pair of networks that the page can compare, for nuclei, in the folder ``weights``."""
    for seed, architecture in enumerate(("residual-add", "crop-concat")):
        bundle = small_bundle(
            architecture, classes=2, task="nuclei", seed=seed, divisor=16, working_pixels=working_pixels
        )
        bundle.save(weights / "nuclei" / architecture)


def photo(height, width, seed=0):
    """uint8 (height, width, 3) with structure at every scale."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / s[0] + columns / s[1] + s[2]) for s in rng.uniform(3, 40, (3, 3))]
    return (np.stack(waves, axis=2) * 70 + 128 + rng.normal(0, 12, (height, width, 3))).clip(0, 255).astype(np.uint8)


def make_bundle(architecture="residual-add", *, task="streets", seed=0, **record):
    """An untrained bundle with an eighth of the architecture's width."""
    torch.manual_seed(seed)
    config = ARCHITECTURES[architecture]
    net = UNet(dataclasses.replace(config, widths=[width // 8 for width in config.widths], num_outputs=3)).eval()
    normal = Preprocessing((100, 110, 120), (50, 60, 70), working_pixels=10_000)
    palette = np.array([[128, 64, 128], [70, 130, 180], [107, 142, 35]])
    return Bundle(net, task, architecture, ("road", "sky", "tree"), palette, normal, **{**RECORD, **record})


def save_bundle(folder, *args, **kwargs):
    bundle = make_bundle(*args, **kwargs)
    write_card(bundle, bundle.save(folder))
    return Path(folder)


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def logits(source, revision=None):
    segmenter = Segmenter.load(source, revision=revision, device="cpu", precision="float32")
    image = np.random.default_rng(7).integers(0, 256, (90, 110, 3), np.uint8)
    ((_, _, values),) = segmenter.tiles(image)
    return values
