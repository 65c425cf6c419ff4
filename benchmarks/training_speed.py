"""Pictures a second in training, beside the loop that most people write.

    python benchmarks/training_speed.py                               both networks, CamVid fetched
    python benchmarks/training_speed.py --data streets=FOLDER --write
    python benchmarks/training_speed.py --quick                       few steps of a small batch

The other loop trains the same networks on the same crops: files decoded and augmented by DataLoader workers on the CPU;
float32, NCHW; same loss and optimizer. The second table is what evaluation and checkpoints cost of a run with
train.py's defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import dataset, flops, machine, matmul_peak, parser, publish, table, wait_for
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import ColorJitter

from training.augment import PixelStore
from training.dataset import Dataset
from training.datasets import TASKS
from training.distributed import make_accelerator
from training.evaluate import evaluate
from training.fit import fit
from training.loss import SegmentationLoss, class_weights
from training.recipe import Recipe
from unet.bundle import Bundle
from unet.metrics import IGNORE_INDEX
from unet.model import ARCHITECTURES, UNet
from unet.predict import Segmenter

SIDES = ("residual-add", "crop-concat")
DEFAULTS = Recipe()  # of train.py


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    header = machine("torch", "accelerate")
    pictures = dataset(args.task, dict(args.data).get(args.task))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = 2 if args.quick else args.batch_size or (48 if device.type == "cuda" else 6)
    steps = 2 if args.quick else 30 if device.type == "cuda" else 4
    precision = "float32" if make_accelerator().mixed_precision == "no" else "bfloat16"  # of fit
    peaks = {
        name: matmul_peak(device, getattr(torch, name), quick=args.quick)
        for name in dict.fromkeys((precision, "float32"))
    }
    rates, costs = [], []
    for architecture in SIDES:
        bench = Bench(pictures, architecture, device, batch_size, steps, args)
        runs, usual = [], []
        for _ in range(1 if args.quick else 3):  # in turn, so that other load slows both alike
            runs.append(bench.fit_once())
            usual.append(bench.usual_loop())
        ours, augmenting = ([run[which] for run in runs] for which in ("rate", "augmenting"))
        work = flops(bench.config, bench.config.input_size(bench.recipe.crop), training=True)
        shares = (
            f"{statistics.median(rate) * work / peaks[name]:.0%}"
            for rate, name in ((ours, precision), (usual, "float32"))
        )
        faster = f"**{statistics.median(ours) / statistics.median(usual):.1f}×**"
        augmented = f"{statistics.median(augmenting):.1%}"
        rates.append((architecture, shown_rate(ours), shown_rate(usual), faster, *shares, augmented))
        epoch = len(pictures.train) / statistics.median(ours)
        validation, checkpoint = (
            statistics.median(run[which] for run in runs) for which in ("validation", "checkpoint")
        )
        extra = validation / DEFAULTS.validate_every + checkpoint
        each = f"{epoch:.1f} s", f"{validation:.1f} s", f"{checkpoint:.2f} s"
        costs.append((architecture, *each, f"{extra / (extra + epoch):.1%}"))
    reached = ", ".join(f"{peak / 1e12:.2f} TFLOP/s in {name}" for name, peak in peaks.items())
    header += (
        f". fit in {precision}; batches of {batch_size}, crops of {args.crop[0]}x{args.crop[1]}, {workers()} "
        f"DataLoader workers; a large matrix product reaches {reached}"
    )
    columns = ("network", "fit", "the usual loop", "times faster")
    columns += (f"fit, of a {precision} matrix product", "the usual loop, of a float32 one", "augmenting")
    between = (
        f"Validated every {DEFAULTS.validate_every} epochs, saved after each: {len(pictures.train)} pictures an epoch, "
        f"{len(pictures.val)} to validate on."
    )
    of_epochs = ("network", "an epoch's training", "a validation", "a checkpoint", "both, of the run")
    text = f"{header}.\n\n{table(columns, rates)}\n\n{between}\n\n{table(of_epochs, costs)}"
    publish("training_speed", text, write=args.write)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    options = parser(__doc__, quick="few steps, batches of two, four val pictures", data=True)
    options.add_argument("--task", default="streets")
    options.add_argument("--width", type=float, default=1.0, help="multiplies the networks' channels")
    options.add_argument("--batch-size", type=int, help="(default: 6, on a GPU 48)")
    options.add_argument("--crop", type=int, nargs=2, default=DEFAULTS.crop, metavar=("H", "W"))
    args = options.parse_args(arguments)
    args.working_pixels = TASKS[args.task].working_pixels if args.task in TASKS else None
    return args


def shown_rate(rates: Sequence[float]) -> str:
    spread = f" ({min(rates):.2f} to {max(rates):.2f})" if len(rates) > 1 else ""
    return f"{statistics.median(rates):.2f} a second{spread}"


def workers() -> int:
    return min(16, os.cpu_count() or 1)


class Clock:
    """When functions were entered and left."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[float, float]]] = {}

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **options)
            self.spans.setdefault(name, []).append((start, time.perf_counter()))
            return result

        return watched

    def seconds(self, name: str) -> list[float]:
        return [end - start for start, end in self.spans[name]]


class Bench:
    """One network on the first pictures of a data set, trained in two ways."""

    def __init__(
        self,
        dataset: Dataset,
        architecture: str,
        device: torch.device,
        batch_size: int,
        steps: int,
        args: argparse.Namespace,
    ) -> None:
        config, classes = ARCHITECTURES[architecture], len(dataset.class_names)
        self.config = dataclasses.replace(
            config,
            widths=tuple(max(1, round(w * args.width)) for w in config.widths),
            batch_norm="before_relu" if config.batch_norm == "none" else config.batch_norm,  # as train.py does
            num_outputs=1 if classes == 2 else classes,
        )
        self.dataset, self.device, self.quick = dataset, device, args.quick
        count = min(batch_size * steps, len(dataset.train))
        self.pairs = [dataset.train[i] for i in range(count)]
        self.store = PixelStore(self.pairs, args.working_pixels, device)
        # Two epochs, the first of which prepares everything; validated after the second.
        self.recipe = Recipe(2, min(batch_size, count), tuple(args.crop), validate_every=2)
        self.steps = math.ceil(count / self.recipe.batch_size)
        val = range(min(4, len(dataset.val)) if args.quick else len(dataset.val))
        self.val = [dataset.val[i] for i in val]

    def fit_once(self) -> dict[str, float]:
        """Train with `fit`; the rate, augmentation's share, seconds of the rest."""
        clock, accelerator = Clock(), make_accelerator()

        def validate(net: UNet) -> float:
            net = net.fold_batch_norm() if self.config.batch_norm == "before_relu" else net
            names, palette = self.dataset.class_names, self.dataset.palette
            bundle = Bundle(net, "benchmark", "unet", names, palette, self.store.preprocessing)
            return evaluate(Segmenter(bundle), self.val, progress=False).miou()

        batch = self.store.batch
        self.store.batch = clock.watch("batch", batch)
        accelerator.save_state = clock.watch("checkpoint", accelerator.save_state)
        accelerator.log = clock.watch("log", accelerator.log)
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            fit(
                UNet(self.config),
                self.store,
                self.recipe,
                accelerator=accelerator,
                validate=clock.watch("validation", validate),
                folder=Path(folder),
            )
        self.store.batch = batch
        validation = sum(clock.seconds("validation"))
        # From the second epoch's first batch until its loss has been read, for which the device is waited for.
        begin, end = clock.spans["batch"][self.steps][0], clock.spans["validation"][0][0]
        return {
            "rate": self.steps * self.recipe.batch_size / (end - begin),
            "augmenting": sum(clock.seconds("batch")[self.steps :]) / (end - begin),
            "validation": validation * len(self.dataset.val) / len(self.val),
            "checkpoint": statistics.median(clock.seconds("checkpoint")),
        }

    def usual_loop(self) -> float:
        """Pictures a second."""
        with tempfile.TemporaryDirectory() as folder:
            crops = CroppedFiles(self, Path(folder))
            loader = DataLoader(
                crops,
                self.recipe.batch_size,
                shuffle=True,
                drop_last=True,
                num_workers=workers(),
                persistent_workers=True,
                pin_memory=self.device.type == "cuda",
            )
            torch.manual_seed(0)
            net = UNet(self.config).to(self.device).train()
            outputs = self.config.num_outputs
            weights = class_weights(self.store.class_shares(self.config.num_classes))
            loss_function = SegmentationLoss(outputs, weights).to(self.device)
            optimizer = torch.optim.AdamW(net.parameters(), self.recipe.learning_rate)
            for _epoch in range(2):
                wait_for(self.device)
                start = time.perf_counter()
                for images, labels in loader:
                    loss = loss_function(net(images.to(self.device)), labels.to(self.device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                wait_for(self.device)
            return len(loader) * self.recipe.batch_size / (time.perf_counter() - start)


class CroppedFiles(torch.utils.data.Dataset):
    """The same pictures as PNG files, augmented with Pillow and torchvision."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        config, recipe = bench.config, bench.recipe
        self.files = []
        for i, pair in enumerate(bench.pairs):
            self.files.append([folder / f"{i}-{kind}.png" for kind in ("image", "labels")])
            for array, path in zip(pair, self.files[-1], strict=True):
                Image.fromarray(array).save(path)
        self.preprocessing, self.augmentation = bench.store.preprocessing, recipe.augmentation
        self.size = config.output_size(config.input_size(recipe.crop))
        self.margin = config.margin
        strength = recipe.augmentation.color
        self.recolor = ColorJitter(strength, strength, strength)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng()
        image, labels = (Image.open(path) for path in self.files[index])
        low, high = np.log(self.augmentation.scale)
        h, w = self.preprocessing.working_size((image.height, image.width), scale=np.exp(rng.uniform(low, high)))
        image = np.asarray(self.recolor(image.convert("RGB").resize((w, h), Image.Resampling.BILINEAR)))
        labels = np.asarray(labels.resize((w, h), Image.Resampling.NEAREST))
        if rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        short = [max(0, wanted - n) for wanted, n in zip(self.size, (h, w), strict=True)]
        top, left = (rng.integers(max(0, n - wanted) + 1) for wanted, n in zip(self.size, (h, w), strict=True))
        rows, columns = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        beyond = [(self.margin, self.margin + n) for n in short]
        image = np.pad(image, (*beyond, (0, 0)), mode="reflect")
        labels = np.pad(labels, [(0, n) for n in short], constant_values=IGNORE_INDEX)[rows, columns]
        image = image[top : rows.stop + 2 * self.margin, left : columns.stop + 2 * self.margin]
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        return self.preprocessing.normalise(x)[0].contiguous(), torch.from_numpy(labels.copy()).long()


if __name__ == "__main__":
    main()
