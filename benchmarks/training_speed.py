"""Pictures a second in training, beside the usual loop.

That loop trains the same networks on crops of the same size: files decoded and augmented by DataLoader workers on the
CPU; float32, NCHW; same loss and optimizer. The second table: what validating and saving cost with train.py's defaults.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import DEVICE, dataset, flops, machine, matmul_peaks, parser, publish, shown, table, wait_for_gpu
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from training.augment import PixelStore
from training.dataset import Dataset
from training.datasets import TASKS
from training.distributed import make_accelerator
from training.evaluate import evaluate
from training.fit import fit
from training.loss import SegmentationLoss, class_weights
from training.recipe import Recipe
from training.start_from import as_bundle, build_network
from unet.metrics import IGNORE_INDEX
from unet.model import UNet
from unet.predict import Segmenter

DEFAULTS = Recipe()  # of train.py
WORKERS = min(16, os.cpu_count() or 1)


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, quick="few steps, batches of two, four val pictures", data=True)
    options.add_argument("--task", default="streets")
    options.add_argument("--width", type=float, default=1.0, help="multiplies the networks' channels")
    options.add_argument("--batch-size", type=int, default=48 if DEVICE.type == "cuda" else 6, help="(6, on a GPU 48)")
    options.add_argument("--crop", type=int, nargs=2, default=DEFAULTS.crop, metavar=("H", "W"))
    args = options.parse_args(arguments)
    if args.quick:
        args.batch_size = 2
    pictures = dataset(args.task, args)
    precision = "float32" if make_accelerator().mixed_precision == "no" else "bfloat16"  # of fit
    peaks, reached = matmul_peaks(precision, quick=args.quick)
    rates, costs = [], []
    for architecture in ("residual-add", "crop-concat"):
        bench = Bench(pictures, architecture, args)
        runs, usual = [], []
        for _ in range(1 if args.quick else 3):  # in turn, so that other load slows both alike
            runs.append(bench.fit_once())
            usual.append(bench.usual_loop())
        ours = [run["rate"] for run in runs]
        rate, augmenting, validation, checkpoint = (statistics.median(run[key] for run in runs) for key in runs[0])
        work = flops(bench.config, bench.config.input_size(bench.recipe.crop), training=True)
        other = statistics.median(usual)
        shares = f"{rate * work / peaks[precision]:.0%}", f"{other * work / peaks['float32']:.0%}", f"{augmenting:.1%}"
        both = (shown(found, unit=" a second", digits=2) for found in (ours, usual))
        rates.append((architecture, *both, f"**{rate / other:.1f}×**", *shares))
        epoch, extra = len(pictures.train) / rate, validation / DEFAULTS.validate_every + checkpoint
        each = f"{epoch:.1f} s", f"{validation:.1f} s", f"{checkpoint:.2f} s"
        costs.append((architecture, *each, f"{extra / (extra + epoch):.1%}"))
    header = (
        f"{machine('torch', 'accelerate')}. fit in {precision}; batches of {args.batch_size}, crops of "
        f"{args.crop[0]}x{args.crop[1]}, {WORKERS} DataLoader workers; {reached}."
    )
    between = (
        f"Validated every {DEFAULTS.validate_every} epochs, saved after each: {len(pictures.train)} pictures an epoch, "
        f"{len(pictures.val)} to validate on."
    )
    columns = ("network", "fit", "the usual loop", "times faster")
    columns += (f"fit, of a {precision} matrix product", "the usual loop, of a float32 one", "augmenting")
    of_epochs = ("network", "an epoch's training", "a validation", "a checkpoint", "both, of the run")
    tables = table(columns, rates), between, table(of_epochs, costs)
    publish("training_speed", header, *tables, write=args.write)


def watched(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[tuple[float, float]]]:
    """The same function, and when it was entered and left."""
    spans = []

    def run(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = function(*args, **options)
        spans.append((start, time.perf_counter()))
        return result

    return run, spans


def seconds(spans: list[tuple[float, float]]) -> list[float]:
    return [end - start for start, end in spans]


class Bench:
    """A network and some pictures, trained in two ways."""

    def __init__(self, pictures: Dataset, architecture: str, args: argparse.Namespace) -> None:
        self.pictures, self.architecture, self.width = pictures, architecture, args.width
        steps = 2 if args.quick else 30 if DEVICE.type == "cuda" else 4
        self.pairs = [pictures.train[i] for i in range(min(args.batch_size * steps, len(pictures.train)))]
        task = TASKS.get(args.task)
        self.store = PixelStore(self.pairs, task.working_pixels if task else None, DEVICE)
        # Two epochs, the first of which prepares everything; validated after the second.
        self.recipe = Recipe(2, min(args.batch_size, len(self.pairs)), tuple(args.crop), validate_every=2)
        self.val = [pictures.val[i] for i in range(len(pictures.val))[: 4 if args.quick else None]]
        self.config = self.network().config

    def network(self) -> UNet:
        classes = len(self.pictures.class_names)
        return build_network(self.architecture, classes, width=self.width, seed=0, start=None)

    def fit_once(self) -> dict[str, float]:
        """Rate of `fit`, share of augmenting, seconds of the rest."""

        def validate(net: UNet) -> float:
            bundle = as_bundle(net, "benchmark", self.architecture, self.pictures, self.store.preprocessing)
            return evaluate(Segmenter(bundle), self.val, progress=False).miou()

        accelerator, batch = make_accelerator(), self.store.batch
        self.store.batch, batches = watched(batch)
        accelerator.save_state, checkpoints = watched(accelerator.save_state)
        validate, validations = watched(validate)
        with tempfile.TemporaryDirectory() as folder:
            options = {"accelerator": accelerator, "validate": validate, "folder": Path(folder)}
            fit(self.network(), self.store, self.recipe, **options)
        self.store.batch = batch
        # From the second epoch's first batch until its loss has been read, for which the device is waited for.
        second = batches[len(batches) // 2 :]
        elapsed = validations[0][0] - second[0][0]
        return {
            "rate": len(second) * self.recipe.batch_size / elapsed,
            "augmenting": sum(seconds(second)) / elapsed,
            "validation": sum(seconds(validations)) * len(self.pictures.val) / len(self.val),
            "checkpoint": statistics.median(seconds(checkpoints)),
        }

    def usual_loop(self) -> float:
        """Pictures a second."""
        with tempfile.TemporaryDirectory() as folder:
            files, size, on_gpu = CroppedFiles(self, Path(folder)), self.recipe.batch_size, DEVICE.type == "cuda"
            workers = {"num_workers": WORKERS, "persistent_workers": True, "pin_memory": on_gpu}
            loader = DataLoader(files, size, shuffle=True, drop_last=True, **workers)
            net = self.network().to(DEVICE).train()
            weights = class_weights(self.store.class_shares(self.config.num_classes))
            loss_function = SegmentationLoss(self.config.num_outputs, weights).to(DEVICE)
            optimizer = torch.optim.AdamW(net.parameters(), self.recipe.learning_rate)
            for _epoch in range(2):
                wait_for_gpu()
                start = time.perf_counter()
                for images, labels in loader:
                    loss = loss_function(net(images.to(DEVICE)), labels.to(DEVICE))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                wait_for_gpu()
            return len(loader) * self.recipe.batch_size / (time.perf_counter() - start)


class CroppedFiles(torch.utils.data.Dataset):
    """The same pictures as PNG files, augmented with torchvision."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.files = []
        for i, pair in enumerate(bench.pairs):
            self.files.append([folder / f"{i}-{kind}.png" for kind in ("image", "labels")])
            for array, path in zip(pair, self.files[-1], strict=True):
                Image.fromarray(array).save(path)
        self.preprocessing, augmentation = bench.store.preprocessing, bench.recipe.augmentation
        self.scale, self.margin = augmentation.scale, bench.config.margin
        size, strength = bench.config.input_size(bench.recipe.crop), augmentation.color
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE_INDEX}
        steps = [
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(size, pad_if_needed=True, fill=fill),
            v2.ColorJitter(strength, strength, strength),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}),
            v2.Normalize(self.preprocessing.mean, self.preprocessing.std),
        ]
        self.augment = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = (Image.open(path) for path in self.files[index])
        size = self.preprocessing.working_size((image.height, image.width), scale=random.uniform(*self.scale))
        pair = tv_tensors.Image(image.convert("RGB")), tv_tensors.Mask(labels)
        image, labels = self.augment(*(v2.functional.resize(part, size) for part in pair))
        h, w = labels.shape[-2:]
        return image, labels[0, self.margin : h - self.margin, self.margin : w - self.margin]


if __name__ == "__main__":
    main()
