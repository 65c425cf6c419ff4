"""Pictures a second in training: `fit` beside the loop that most people write, with the same networks and crops.

    python benchmarks/training_speed.py                               both networks, CamVid fetched
    python benchmarks/training_speed.py --data streets=FOLDER --write
    python benchmarks/training_speed.py --quick                       few steps of a small batch

The other loop: files decoded and augmented by DataLoader workers on the CPU; float32, NCHW; same loss and optimizer.
The second table is what evaluation and checkpoints cost of a run with train.py's defaults.
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
from measuring import machine, matmul_peak, put_into_readme, task_folders, wait_for
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import ColorJitter

import train
from training.augment import PixelStore
from training.dataset import Dataset, load_dataset
from training.datasets import TASKS, fetch_dataset
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
DEFAULTS = train.parse_arguments([])  # of train.py


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    before = machine("torch", "accelerate")
    root = args.data.get(args.task) or fetch_dataset(args.task)
    dataset = load_dataset(root, task=TASKS.get(args.task))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = 2 if args.quick else args.batch_size or (48 if device.type == "cuda" else 6)
    steps = 2 if args.quick else 30 if device.type == "cuda" else 4
    precision = "float32" if make_accelerator().mixed_precision == "no" else "bfloat16"  # of fit
    peaks = {name: matmul_peak(device, getattr(torch, name), quick=args.quick) for name in {precision, "float32"}}
    rates = [
        f"| network | fit | the usual loop | times faster | fit, of a {precision} matrix product "
        "| the usual loop, of a float32 one | augmenting |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    costs = [
        "| network | an epoch's training | a validation | a checkpoint | both, of the run |",
        "|---|--:|--:|--:|--:|",
    ]
    for architecture in SIDES:
        bench = Bench(dataset, architecture, device, batch_size, steps, args)
        runs, usual = [], []
        for _ in range(1 if args.quick else 3):  # in turn, so that a busy machine is busy for both
            runs.append(bench.fit_once())
            usual.append(bench.usual_loop())
        ours, theirs = ([run[which] for run in runs] for which in ("rate", "augmenting"))
        pairs = ((ours, precision), (usual, "float32"))
        shares = (statistics.median(rate) * bench.flops() / peaks[name] for rate, name in pairs)
        rates.append(
            f"| {architecture} | {shown_rate(ours)} | {shown_rate(usual)} "
            f"| **{statistics.median(ours) / statistics.median(usual):.1f}×** "
            f"| {' | '.join(f'{share:.0%}' for share in shares)} | {statistics.median(theirs):.1%} |"
        )
        epoch = len(dataset.train) / statistics.median(ours)
        validation, checkpoint = (
            statistics.median(run[which] for run in runs) for which in ("validation", "checkpoint")
        )
        overhead = validation / DEFAULTS.validate_every + checkpoint
        costs.append(
            f"| {architecture} | {epoch:.1f} s | {validation:.1f} s | {checkpoint:.2f} s "
            f"| {overhead / (overhead + epoch):.1%} |"
        )
    text = "\n\n".join(
        [
            f"{before}. fit in {precision}; batches of {batch_size}, crops of "
            f"{args.crop[0]}x{args.crop[1]}, {workers()} DataLoader workers; matrix products reach "
            + ", ".join(f"{peak / 1e12:.2f} TFLOP/s in {name}" for name, peak in sorted(peaks.items()))
            + ".",
            "\n".join(rates),
            f"Validated every {DEFAULTS.validate_every} epochs, saved after each: {len(dataset.train)} pictures an "
            f"epoch, {len(dataset.val)} to validate on.",
            "\n".join(costs),
        ]
    )
    print(text)
    if args.write:
        put_into_readme("training_speed", text, gpu=device.type == "cuda")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--task", default="streets")
    add("--data", nargs="+", default=[], metavar="TASK=FOLDER", help="where a task's pictures are")
    add("--width", type=float, default=1.0, help="multiplies the networks' channels")
    add("--batch-size", type=int, help="(default: 6, on a GPU 48)")
    add("--crop", type=int, nargs=2, default=DEFAULTS.crop, metavar=("H", "W"))
    add("--quick", action="store_true", help="few steps, batches of two, four val pictures")
    add("--write", action="store_true", help="put the tables into README.md")
    args = parser.parse_args(arguments)
    args.data = task_folders(args.data)
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
        """Pictures a second, the share of that time that augmenting takes; seconds of a validation and a checkpoint."""
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

    def flops(self) -> float:
        """Of a training step, for each picture of the batch."""
        size = self.config.input_size(self.recipe.crop)
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            net = UNet(self.config)
            net(torch.empty(1, 3, *size)).sum().backward()
        return counter.get_total_flops()


class CroppedFiles(torch.utils.data.Dataset):
    """The same pictures as PNG files: decoded, zoomed, cropped, mirrored and recoloured with Pillow and torchvision."""

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
