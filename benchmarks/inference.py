"""How fast both networks answer, beside the same networks as they are commonly run, and how close the answers stay.

    python benchmarks/inference.py                                    the bundles in weights/, the val pictures fetched
    python benchmarks/inference.py --data streets=FOLDER nuclei=FOLDER
    python benchmarks/inference.py --write                            puts the tables into README.md
    python benchmarks/inference.py --quick                            small pictures, few repeats

"Commonly" is the tutorial's way: float32, NCHW, eager, the whole picture at once, softmax and argmax. On a GPU the last
table also has batches and CUDA graphs.
"""

from __future__ import annotations

import argparse
import copy
import io
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measuring import (
    ROOT,
    copy_bandwidth,
    interleaved,
    machine,
    matmul_peak,
    photo,
    put_into_readme,
    random_bundle,
    shown,
    task_folders,
    wait_for,
)
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from page import viewer
from page.formatting import parameters as parameters_text
from training.dataset import Pairs, load_dataset
from training.datasets import TASKS, DownloadError, fetch_dataset
from unet.bundle import Bundle
from unet.compare import compare
from unet.images import read_image
from unet.metrics import ConfusionMatrix
from unet.model import UNet, count_parameters
from unet.predict import Segmenter, has_native_bfloat16
from unet.resize import sample, shrink

try:
    import segmentation_models_pytorch
except ImportError:  # on a machine where only what runs the networks is installed, its column is left out
    segmentation_models_pytorch = None


Answer = tuple[np.ndarray, np.ndarray]


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bundles = [Bundle.load(config.parent) for config in sorted(args.weights.glob("*/*/config.json"))]
    repeats = 3 if args.quick else 9
    pictures = val_pictures(bundles, args)
    parts = []
    for part in (
        lambda: machine("torch", "segmentation-models-pytorch") + ".",
        lambda: speed(bundles, args, device, repeats),
        lambda: closeness(bundles, pictures, args, device),
        lambda: where_the_time_goes(bundles, args, device, repeats),
        lambda: limits(args, device, repeats),
    ):
        parts.append(part())
        print(parts[-1], end="\n\n", flush=True)
    if args.write:
        put_into_readme("inference", "\n\n".join(parts), gpu=device.type == "cuda")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", type=Path, default=ROOT / "weights", help="bundles, as TASK/ARCHITECTURE (default: weights/)")
    add("--data", nargs="+", default=[], metavar="TASK=FOLDER", help="where a task's pictures are")
    add("--width", type=float, default=1.0, help="multiplies the channels of the networks with random weights")
    add("--quick", action="store_true", help="small pictures, few repeats")
    add("--write", action="store_true", help="put the tables into README.md")
    args = parser.parse_args(arguments)
    args.data = task_folders(args.data)
    return args


# How it is commonly done ---------------------------------------------------------------------------------------------


def whole_picture(bundle: Bundle, device: torch.device) -> Callable[[np.ndarray], Answer]:
    """The bundle's network on the whole picture; the same preprocessing, so that the answer is the same too."""
    config = bundle.net.config
    net = copy.deepcopy(bundle.net).to(device, memory_format=torch.contiguous_format).eval()

    def segment(image: np.ndarray) -> Answer:
        working = bundle.preprocessing.resize(image)
        size = working.shape[:2]
        fed = config.input_size(size)
        (top, bottom), (left, right) = (
            (config.margin, total - n - config.margin) for n, total in zip(size, fed, strict=True)
        )
        framed = np.pad(working, ((top, bottom), (left, right), (0, 0)), mode="reflect")
        x = bundle.preprocessing.normalise(torch.from_numpy(framed).to(device).permute(2, 0, 1)[None]).contiguous()
        with torch.inference_mode():
            logits = net(x)[:, :, : size[0], : size[1]]
            if size != image.shape[:2]:
                logits = F.interpolate(logits, image.shape[:2], mode="bilinear")
            return decide(logits)

    return segment


def other_unet(classes: int, device: torch.device) -> Callable[[np.ndarray], Answer]:
    """segmentation_models_pytorch's default U-Net, ResNet-34 inside, on the whole picture."""
    net = segmentation_models_pytorch.Unet("resnet34", encoder_weights=None, classes=classes).to(device).eval()

    def segment(image: np.ndarray) -> Answer:
        h, w = image.shape[:2]
        x = torch.from_numpy(image.copy()).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            return decide(net(F.pad(x, (0, -w % 32, 0, -h % 32), mode="reflect"))[:, :, :h, :w])

    return segment


def decide(logits: torch.Tensor) -> Answer:
    """Logits (1, C, h, w) -> labels uint8 (h, w), probabilities float32 (h, w): the way it is mostly written."""
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    probability, label = logits.softmax(dim=1).max(dim=1)
    return label[0].to(torch.uint8).cpu().numpy(), probability[0].cpu().numpy()


# The tables ----------------------------------------------------------------------------------------------------------


def speed(bundles: Sequence[Bundle], args: argparse.Namespace, device: torch.device, repeats: int) -> str:
    """Each network through Segmenter, and in its place what people would run."""
    usual = (96, 128) if args.quick else (360, 480)
    cases = [(random_bundle("crop-concat", args.width), (388, 388))]
    cases += [(random_bundle(name, args.width), usual) for name in ("crop-concat", "residual-add")]
    cases += [(bundle, usual) for bundle in bundles]
    precisions = ["float32", *(["bfloat16"] if has_native_bfloat16(device) else [])]
    header = "".join(f" Segmenter, {precision} |" for precision in reversed(precisions))
    other = " smp.Unet, ResNet-34 |" if segmentation_models_pytorch else ""
    rows = [
        f"| network | parameters | picture |{header} float32, NCHW, whole picture |{other}",
        "|---|--:|---|" + "--:|" * (len(precisions) + (2 if other else 1)),
    ]
    for bundle, size in cases:
        image = photo(size)
        works = {p: Segmenter(bundle, device=device, precision=p) for p in reversed(precisions)}
        works["common"] = whole_picture(bundle, device)
        # A GPU's short cut for float32 (TF32) rounds like 10 bits, which random weights' labels are too close for.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            equal = np.mean(works["float32"](image).label_map == works["common"](image)[0])
        if equal < 0.999:
            raise SystemExit(f"{bundle.architecture}: only {equal:.2%} of the labels are equal, not the same work")
        if other:
            works["smp"] = other_unet(bundle.net.config.num_outputs, device)
        times = interleaved({name: partial(work, image) for name, work in works.items()}, repeats, device)
        common = statistics.median(times["common"])
        cells = [
            shown(t) + (f" · **{common / statistics.median(t):.1f}×**" if name in precisions else "")
            for name, t in times.items()
        ]
        parameters = parameters_text(count_parameters(bundle.net))
        name = f"{bundle.architecture}, {bundle.task}"
        rows.append(f"| {name} | {parameters} | {size[0]}x{size[1]} | {' | '.join(cells)} |")
    return "A picture to labels and confidences: median (range), and how many times faster.\n\n" + "\n".join(rows)


def val_pictures(bundles: Sequence[Bundle], args: argparse.Namespace) -> dict[str, Pairs]:
    """The val pictures of each task, where they are at hand or may be fetched."""
    found = {}
    for task in dict.fromkeys(bundle.task for bundle in bundles):
        try:
            folder = args.data.get(task) or fetch_dataset(task)
        except DownloadError as error:
            print(f"Labels of {task} are not compared with float32's: {error}.", file=sys.stderr)
        else:
            found[task] = load_dataset(folder, task=TASKS.get(task)).val
    return found


def closeness(
    bundles: Sequence[Bundle],
    pictures: dict[str, Pairs],
    args: argparse.Namespace,
    device: torch.device,
) -> str:
    """What Segmenter does by itself on this device, beside float32 on the CPU, over the val pictures."""
    rows = [
        "| task | network | pictures | equal labels | worst picture | mIoU | in float32 | difference |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for bundle in bundles:
        if bundle.task not in pictures:
            continue
        val = pictures[bundle.task]
        chosen = Segmenter(copy.deepcopy(bundle), device=device)
        exact = Segmenter(bundle, device="cpu", precision="float32")
        ours, reference = (ConfusionMatrix(len(bundle.class_names)) for _ in range(2))
        equal, pixels = [], []
        for i in range(len(val))[:: max(1, len(val) // 4) if args.quick else 1]:
            image, truth = val[i]
            labels, wanted = chosen(image).label_map, exact(image).label_map
            ours.update(truth, labels)
            reference.update(truth, wanted)
            equal.append(float((labels == wanted).mean()))
            pixels.append(labels.size)
        difference = ours.miou() - reference.miou()
        rows.append(
            f"| {bundle.task} | {bundle.architecture} | {len(equal)} | {np.average(equal, weights=pixels):.3%} "
            f"| {min(equal):.2%} | {ours.miou():.4f} | {reference.miou():.4f} | {difference:+.4f} |"
        )
    precision = "bfloat16" if has_native_bfloat16(device) else "float32"
    return f"The same labels as float32 on the CPU? Here Segmenter chooses {precision}.\n\n" + "\n".join(rows)


def where_the_time_goes(bundles: Sequence[Bundle], args: argparse.Namespace, device: torch.device, repeats: int) -> str:
    """From an uploaded file to the bytes that the browser draws: what the page does with a new picture."""
    task = min((bundle.task for bundle in bundles), key=lambda task: (task != "streets", task))
    pairs = {
        f"weights/{task}": [bundle for bundle in bundles if bundle.task == task],
        "random weights, full width": [random_bundle(name, args.width) for name in ("residual-add", "crop-concat")],
    }
    columns: dict[str, dict[str, float]] = {}
    for name, pair in pairs.items():
        segmenters = [Segmenter(bundle, device=device) for bundle in pair[:2]]
        for size in ((96, 128), (204, 306)) if args.quick else ((360, 480), (816, 1224)):
            file = io.BytesIO()
            Image.fromarray(photo(size)).save(file, "JPEG", quality=92)
            runs = [one_picture(file.getvalue(), segmenters) for _ in range(repeats + 1)][1:]
            medians = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
            columns[f"{name}, {size[0]}x{size[1]}"] = medians | {"**all**": sum(medians.values())}
    rows = [f"| | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    for part in next(iter(columns.values())):
        cells = [f"{1000 * column[part]:.1f} ms, {column[part] / column['**all**']:.0%}" for column in columns.values()]
        rows.append(f"| {part} | {' | '.join(cells)} |")
    return "Where the time goes, from a file to both answers on their way to the browser.\n\n" + "\n".join(rows)


def one_picture(file: bytes, segmenters: Sequence[Segmenter]) -> dict[str, float]:
    """Seconds of every part."""
    watch = Stopwatch(segmenters[0].device)
    with watch("reading the file"):
        image = read_image(file)
    with watch("shrinking for the screen"):
        view = shrink(image, viewer.PIXELS)
    answers = []
    for segmenter in segmenters:
        net, handles = segmenter.net, []
        handles.append(net.register_forward_pre_hook(lambda *_: watch.enter("both networks")))
        handles.append(net.register_forward_hook(lambda *_: watch.leave()))
        with watch("resizing, tiles, labels, confidences"):
            answers.append(segmenter(image))
        for handle in handles:
            handle.remove()
    with watch("comparing"):
        comparison = compare(*answers)
    with watch("packing both answers and the picture for the viewer"):
        confidences = [sample(answer.confidence, view.shape[:2]) for answer in answers]
        viewer.files(view, comparison, confidences, answers[0].palette, [s.bundle.architecture for s in segmenters])
    return watch.seconds


class Stopwatch:
    """Seconds of each part, without those of the parts inside it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.inside: list[str] = []
        self.last = time.perf_counter()

    def _book(self) -> None:
        wait_for(self.device)
        now = time.perf_counter()
        if self.inside:
            self.seconds[self.inside[-1]] = self.seconds.get(self.inside[-1], 0.0) + now - self.last
        self.last = now

    def enter(self, part: str) -> None:
        self._book()
        self.inside.append(part)

    def leave(self) -> None:
        self._book()
        self.inside.pop()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self.enter(part)
        yield
        self.leave()


def limits(args: argparse.Namespace, device: torch.device, repeats: int) -> str:
    """Both networks alone: what share of the device's measured matrix product and copy speeds do they reach?"""
    dtype = torch.bfloat16 if has_native_bfloat16(device) else torch.float32
    peaks = {kind: matmul_peak(device, kind, quick=args.quick) for kind in {dtype, torch.float32}}
    peak, plain, bandwidth = peaks[dtype], peaks[torch.float32], copy_bandwidth(device)
    rows = [
        "| network | input | batch | a batch | pictures a second | of the matrix product | of the copy |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    cases = [("crop-concat", (572, 572), 1), ("residual-add", (360, 480), 1)]
    if device.type == "cuda":
        cases += [("crop-concat", (572, 572), 16), ("residual-add", (360, 480), 16)]
    for name, size, batch in cases:
        net = random_bundle(name, args.width).net.to(device, memory_format=torch.channels_last)
        x = torch.randn(batch, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
        flops, moved = cost(net, x[:1], dtype)
        nets = {"eager": net}
        if device.type == "cuda":  # not on ZeroGPU, which has no torch.compile
            nets["compiled, CUDA graphs"] = torch.compile(net, mode="reduce-overhead")

        def run(net: nn.Module, x: torch.Tensor = x) -> None:
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                net(x)

        for run_one in nets.values():  # compiling and recording take some runs
            for _ in range(3):
                run(run_one)
        times = interleaved({kind: partial(run, net) for kind, net in nets.items()}, repeats, device)
        for kind, seconds in times.items():
            rate = batch / statistics.median(seconds)
            rows.append(
                f"| {name}, {kind} | {size[0]}x{size[1]} | {batch} | {shown(seconds)} | {rate:,.0f} "
                f"| {rate * flops / peak:.0%} | {rate * moved / bandwidth:.0%} |"
            )
    products = f"{plain / 1e12:.2f} TFLOP/s in float32"
    if dtype != torch.float32:
        products = f"{peak / 1e12:.2f} TFLOP/s in bfloat16, {products}"
    return (
        f"How near to the device's limits, measured in this run: matrix products reach {products}; a copy reaches "
        f'{bandwidth / 1e9:,.0f} GB/s. "Of the copy" counts as if every convolution read its input and wrote its '
        "output once, and nothing else were moved.\n\n" + "\n".join(rows)
    )


def cost(net: UNet, x: torch.Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """(FLOPs, bytes moved) of the convolutions for one picture (1, 3, H, W)."""
    moved = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal moved
        moved += (inputs[0].numel() + output.numel()) * dtype.itemsize

    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(x)
    for handle in handles:
        handle.remove()
    return counter.get_total_flops(), moved


if __name__ == "__main__":
    main()
