"""How fast both networks answer, beside the usual way to run them.

    python benchmarks/inference.py                                    the bundles in weights/, the val pictures fetched
    python benchmarks/inference.py --data streets=FOLDER nuclei=FOLDER
    python benchmarks/inference.py --write                            puts the tables into docs/benchmarks.md
    python benchmarks/inference.py --quick                            small pictures, few repeats

The usual way is the tutorials': float32, NCHW, eager, the whole picture at once, softmax and argmax.
"""

from __future__ import annotations

import argparse
import copy
import io
import statistics
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from measuring import (
    dataset,
    flops,
    interleaved,
    machine,
    matmul_peak,
    parser,
    photo,
    publish,
    random_bundle,
    shown,
    table,
    wait_for,
)
from PIL import Image

from page import viewer
from page.formatting import parameters as parameters_text
from page.session import VIEW_PIXELS
from training.datasets import DownloadError
from unet.bundle import Bundle
from unet.compare import compare
from unet.images import read_image
from unet.metrics import ConfusionMatrix
from unet.model import count_parameters
from unet.predict import Segmenter, has_native_bfloat16
from unet.resize import sample, shrink

try:
    import segmentation_models_pytorch
except ImportError:  # where only what runs the networks is installed, its column is left out
    segmentation_models_pytorch = None

Answer = tuple[np.ndarray, np.ndarray]


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    header = machine("torch", "segmentation-models-pytorch")
    bundles = [Bundle.load(config.parent) for config in sorted(args.weights.glob("*/*/config.json"))]
    repeats = 2 if args.quick else 9
    parts = [part(bundles, args, device, repeats) for part in (speed, closeness, where_the_time_goes, limits)]
    publish("inference", "\n\n".join([f"{header}.", *parts]), write=args.write)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    options = parser(__doc__, quick="small pictures, few repeats", weights=True, data=True)
    options.add_argument("--width", type=float, default=1.0, help="multiplies the channels of random networks")
    return options.parse_args(arguments)


def native_dtype(device: torch.device) -> torch.dtype:
    """What Segmenter chooses on this device."""
    return torch.bfloat16 if has_native_bfloat16(device) else torch.float32


# How it is commonly done ---------------------------------------------------------------------------------------------


def whole_picture(bundle: Bundle, device: torch.device) -> Callable[[np.ndarray], Answer]:
    """The bundle's network and preprocessing, run on the whole picture at once."""
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
    """Labels and probabilities, as tutorials compute them.

    Logits (1, C, h, w) -> uint8 (h, w), float32 (h, w).
    """
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    probability, label = logits.softmax(dim=1).max(dim=1)
    return label[0].to(torch.uint8).cpu().numpy(), probability[0].cpu().numpy()


# The tables ----------------------------------------------------------------------------------------------------------


def speed(bundles: Sequence[Bundle], args: argparse.Namespace, device: torch.device, repeats: int) -> str:
    """Each network through Segmenter, and as it is commonly run."""
    usual, paper = ((96, 128), (100, 100)) if args.quick else ((360, 480), (388, 388))
    cases = [(random_bundle("crop-concat", args.width), paper)]
    cases += [(random_bundle(name, args.width), usual) for name in ("crop-concat", "residual-add")]
    cases += [(bundle, usual) for bundle in bundles]
    precisions = ["bfloat16", "float32"] if native_dtype(device) == torch.bfloat16 else ["float32"]
    header = ["network", "parameters", "picture", *(f"Segmenter, {precision}" for precision in precisions)]
    header += ["float32, NCHW, whole picture", *(["smp.Unet, ResNet-34"] if segmentation_models_pytorch else [])]
    rows = []
    for bundle, size in cases:
        image = photo(size)
        works = {precision: Segmenter(bundle, device=device, precision=precision) for precision in precisions}
        works["common"] = whole_picture(bundle, device)
        # A GPU's short cut for float32 (TF32) rounds like 10 bits, which random weights' labels are too close for.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            equal = np.mean(works["float32"](image).label_map == works["common"](image)[0])
        if equal < 0.999:
            raise SystemExit(f"{bundle.architecture}: only {equal:.2%} of the labels are equal, not the same work")
        if segmentation_models_pytorch:
            works["smp"] = other_unet(bundle.net.config.num_outputs, device)
        times = interleaved({name: partial(work, image) for name, work in works.items()}, repeats, device)
        common = statistics.median(times["common"])
        cells = [
            shown(t) + (f" · **{common / statistics.median(t):.1f}×**" if name in precisions else "")
            for name, t in times.items()
        ]
        parameters = parameters_text(count_parameters(bundle.net))
        rows.append([f"{bundle.architecture}, {bundle.task}", parameters, f"{size[0]}x{size[1]}", *cells])
    return f"A picture to labels and confidences: median (range), and how many times faster.\n\n{table(header, rows)}"


def closeness(bundles: Sequence[Bundle], args: argparse.Namespace, device: torch.device, _repeats: int) -> str:
    """Compare Segmenter's labels with float32 on the CPU, over the val pictures."""
    rows, missing = [], set()
    for bundle in bundles:
        try:
            val = dataset(bundle.task, dict(args.data).get(bundle.task)).val
        except DownloadError as error:
            missing.add(f"Labels of {bundle.task} are not compared with float32's: {error}.")
            continue
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
        shares = f"{np.average(equal, weights=pixels):.3%}", f"{min(equal):.2%}"
        scores = f"{ours.miou():.4f}", f"{reference.miou():.4f}", f"{ours.miou() - reference.miou():+.4f}"
        rows.append((bundle.task, bundle.architecture, len(equal), *shares, *scores))
    print(*sorted(missing), sep="\n", file=sys.stderr)
    header = ("task", "network", "pictures", "equal labels", "worst picture", "mIoU", "in float32", "difference")
    chosen = str(native_dtype(device)).removeprefix("torch.")
    question = f"The same labels as float32 on the CPU? Here Segmenter chooses {chosen}."
    return f"{question}\n\n{table(header, rows, text=2)}"


def where_the_time_goes(bundles: Sequence[Bundle], args: argparse.Namespace, device: torch.device, repeats: int) -> str:
    """Time the page's steps from an uploaded file to the viewer's bytes."""
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
    rows = [
        [
            part,
            *(f"{1000 * column[part]:.1f} ms, {column[part] / column['**all**']:.0%}" for column in columns.values()),
        ]
        for part in next(iter(columns.values()))
    ]
    heading = "Where the time goes, from a file to both answers on their way to the browser."
    return f"{heading}\n\n{table(['', *columns], rows)}"


def one_picture(file: bytes, segmenters: Sequence[Segmenter]) -> Counter[str]:
    """Seconds of every part."""
    watch = Stopwatch(segmenters[0].device)
    with watch("reading the file"):
        image = read_image(file)
    with watch("shrinking for the screen"):
        view = shrink(image, VIEW_PIXELS)
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
        viewer.planes(view.shape[:2], comparison.label_maps, confidences)
        Image.fromarray(view).save(io.BytesIO(), "PNG", compress_type=zlib.Z_RLE)
    return watch.seconds


class Stopwatch:
    """Seconds of each part, without those of the parts inside it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: Counter[str] = Counter()
        self.inside: list[str] = []
        self.last = 0.0

    def _add_elapsed(self) -> None:
        wait_for(self.device)
        now = time.perf_counter()
        if self.inside:
            self.seconds[self.inside[-1]] += now - self.last
        self.last = now

    def enter(self, part: str) -> None:
        self._add_elapsed()
        self.inside.append(part)

    def leave(self) -> None:
        self._add_elapsed()
        self.inside.pop()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self.enter(part)
        yield
        self.leave()


def limits(_bundles: Sequence[Bundle], args: argparse.Namespace, device: torch.device, repeats: int) -> str:
    """Both networks alone: what share of the device's measured matrix product do they reach?"""
    dtype = native_dtype(device)
    peaks = {kind: matmul_peak(device, kind, quick=args.quick) for kind in dict.fromkeys((dtype, torch.float32))}
    rows = []
    for name, size in (("crop-concat", (572, 572)), ("residual-add", (360, 480))):
        net = random_bundle(name, args.width).net.to(device, memory_format=torch.channels_last)
        x = torch.randn(1, 3, *size, device=device).contiguous(memory_format=torch.channels_last)

        def run(net: torch.nn.Module = net, x: torch.Tensor = x) -> None:
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                net(x)

        seconds = interleaved({"": run}, repeats, device)[""]
        share = flops(net.config, size) / statistics.median(seconds) / peaks[dtype]
        rows.append((name, f"{size[0]}x{size[1]}", shown(seconds), f"{share:.0%}"))
    reached = ", ".join(f"{peak / 1e12:.2f} TFLOP/s in {str(kind)[6:]}" for kind, peak in peaks.items())
    heading = f"How near to the device's limits, measured in this run: a large matrix product reaches {reached}."
    return f"{heading}\n\n{table(('network', 'input', 'a picture', 'of the matrix product'), rows, text=2)}"


if __name__ == "__main__":
    main()
