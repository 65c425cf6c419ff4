"""How fast both networks answer, beside the usual way to run them.

That is the tutorials': float32, NCHW, eager, the whole picture at once, softmax and argmax.
"""

import argparse
import copy
import io
import statistics
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import measuring
import numpy as np
import torch
import torch.nn.functional as F
from measuring import DEVICE, interleaved, matmul_peaks, photo, random_bundle, shown, table
from PIL import Image

from page import viewer
from page.components import parameters as parameters_text
from page.session import VIEW_PIXELS
from training.datasets import DownloadError
from unet.bundle import Bundle
from unet.compare import compare
from unet.images import read_image, sample, shrink
from unet.metrics import ConfusionMatrix
from unet.model import count_parameters
from unet.predict import Segmenter, has_native_bfloat16

try:
    import segmentation_models_pytorch
except ImportError:  # where only what runs the networks is installed, its column is left out
    segmentation_models_pytorch = None

Answer = tuple[np.ndarray, np.ndarray]  # uint8 labels and float32 probabilities, (h, w)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    bundles = [Bundle.load(folder) for folder in measuring.bundle_folders(args.weights)]
    parts = [block for part in (speed, closeness, where_the_time_goes, limits) for block in part(bundles, args)]
    header = measuring.machine("torch", *["segmentation-models-pytorch"] * bool(segmentation_models_pytorch))
    measuring.publish("inference", f"{header}.", *parts, write=args.write)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    options = measuring.parser(__doc__, quick="small pictures, few repeats", weights=True, data=True)
    options.add_argument("--width", type=float, default=1.0, help="multiplies the channels of random networks")
    args = options.parse_args(arguments)
    args.repeats = 2 if args.quick else 9
    return args


def native_precision() -> str:
    """What Segmenter chooses on this device."""
    return "bfloat16" if has_native_bfloat16(DEVICE) else "float32"


def whole_picture(bundle: Bundle) -> Callable[[np.ndarray], Answer]:
    """The bundle run on the whole picture at once."""
    config = bundle.net.config
    net = copy.deepcopy(bundle.net).to(DEVICE, memory_format=torch.contiguous_format).eval()

    def segment(image: np.ndarray) -> Answer:
        working = bundle.preprocessing.resize(image)
        (h, w), fed = working.shape[:2], config.input_size(working.shape[:2])
        rest = [(config.margin, total - n - config.margin) for n, total in zip((h, w), fed, strict=True)]
        framed = np.pad(working, (*rest, (0, 0)), mode="reflect")
        x = bundle.preprocessing.normalise(torch.from_numpy(framed).to(DEVICE).permute(2, 0, 1)[None]).contiguous()
        with torch.inference_mode():
            logits = net(x)[:, :, :h, :w]
            if (h, w) != image.shape[:2]:
                logits = F.interpolate(logits, image.shape[:2], mode="bilinear")
            return decide(logits)

    return segment


def other_unet(classes: int) -> Callable[[np.ndarray], Answer]:
    """segmentation_models_pytorch's default, on the whole picture."""
    net = segmentation_models_pytorch.Unet("resnet34", encoder_weights=None, classes=classes).to(DEVICE).eval()

    def segment(image: np.ndarray) -> Answer:
        h, w = image.shape[:2]
        x = torch.from_numpy(image.copy()).to(DEVICE).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            return decide(net(F.pad(x, (0, -w % 32, 0, -h % 32), mode="reflect"))[:, :, :h, :w])

    return segment


def decide(logits: torch.Tensor) -> Answer:
    """Answer from logits (1, C, h, w), as tutorials do."""
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    probability, label = logits.softmax(dim=1).max(dim=1)
    return label[0].to(torch.uint8).cpu().numpy(), probability[0].cpu().numpy()


def speed(bundles: Sequence[Bundle], args: argparse.Namespace) -> tuple[str, str]:
    """Each network through Segmenter, and as it is commonly run."""
    usual, paper = ((96, 128), (100, 100)) if args.quick else ((360, 480), (388, 388))
    cases = [(random_bundle("crop-concat", args.width), paper)]
    cases += [(random_bundle(name, args.width), usual) for name in ("crop-concat", "residual-add")]
    cases += [(bundle, usual) for bundle in bundles]
    precisions = list(dict.fromkeys((native_precision(), "float32")))
    header = ["network", "parameters", "picture", *(f"Segmenter, {precision}" for precision in precisions)]
    header += ["float32, NCHW, whole picture", *["smp.Unet, ResNet-34"] * bool(segmentation_models_pytorch)]
    rows = []
    for bundle, size in cases:
        image = photo(size)
        works = {precision: Segmenter(bundle, precision=precision) for precision in precisions}
        works["common"] = whole_picture(bundle)
        # A GPU's short cut for float32 (TF32) rounds like 10 bits, which random weights' labels are too close for.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            equal = np.mean(works["float32"](image).label_map == works["common"](image)[0])
        if equal < 0.999:
            raise SystemExit(f"{bundle.architecture}: only {equal:.2%} of the labels are equal, not the same work")
        if segmentation_models_pytorch:
            works["smp"] = other_unet(bundle.net.config.num_outputs)
        times = interleaved({name: partial(work, image) for name, work in works.items()}, args.repeats)
        common = statistics.median(times["common"])
        faster = {name: f" · **{common / statistics.median(times[name]):.1f}×**" for name in precisions}
        cells = [shown(seconds) + faster.get(name, "") for name, seconds in times.items()]
        parameters = parameters_text(count_parameters(bundle.net))
        rows.append([f"{bundle.architecture}, {bundle.task}", parameters, f"{size[0]}x{size[1]}", *cells])
    heading = "A picture to labels and confidences: median (range), and how many times faster."
    return heading, table(header, rows)


def closeness(bundles: Sequence[Bundle], args: argparse.Namespace) -> tuple[str, str]:
    """Compare Segmenter's labels with float32 on the CPU."""
    rows = []
    for bundle in bundles:
        try:
            val = measuring.dataset(bundle.task, args).val
        except DownloadError as error:
            print(f"Labels of {bundle.task} are not compared with float32's: {error}.", file=sys.stderr)
            continue
        chosen = Segmenter(copy.deepcopy(bundle))
        exact = Segmenter(bundle, device="cpu", precision="float32")
        ours, reference = (ConfusionMatrix(len(bundle.class_names)) for _ in range(2))
        equal, pixels = [], []
        for i in range(0, len(val), max(1, len(val) // 4) if args.quick else 1):
            image, truth = val[i]
            labels, wanted = chosen(image).label_map, exact(image).label_map
            ours.update(truth, labels)
            reference.update(truth, wanted)
            equal.append(float((labels == wanted).mean()))
            pixels.append(labels.size)
        shares = f"{np.average(equal, weights=pixels):.3%}", f"{min(equal):.2%}"
        scores = f"{ours.miou():.4f}", f"{reference.miou():.4f}", f"{ours.miou() - reference.miou():+.4f}"
        rows.append((bundle.task, bundle.architecture, len(equal), *shares, *scores))
    header = ("task", "network", "pictures", "equal labels", "worst picture", "mIoU", "in float32", "difference")
    question = f"The same labels as float32 on the CPU? Here Segmenter chooses {native_precision()}."
    return question, table(header, rows, text=2)


def where_the_time_goes(bundles: Sequence[Bundle], args: argparse.Namespace) -> tuple[str, str]:
    """Time the page's steps from a file to the viewer's bytes."""
    task = min((bundle.task for bundle in bundles), key=lambda task: (task != "streets", task))
    pairs = {
        f"weights/{task}": [bundle for bundle in bundles if bundle.task == task][:2],
        "random weights, full width": [random_bundle(name, args.width) for name in ("residual-add", "crop-concat")],
    }
    columns: dict[str, dict[str, float]] = {}
    for name, pair in pairs.items():
        segmenters = [Segmenter(bundle) for bundle in pair]
        for size in ((96, 128), (204, 306)) if args.quick else ((360, 480), (816, 1224)):
            file = io.BytesIO()
            Image.fromarray(photo(size)).save(file, "JPEG", quality=92)
            runs = [one_picture(file.getvalue(), segmenters) for _ in range(args.repeats + 1)][1:]
            medians = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
            columns[f"{name}, {size[0]}x{size[1]}"] = medians | {"**all**": sum(medians.values())}
    rows = []
    for part in next(iter(columns.values())):
        cells = [(1000 * column[part], column[part] / column["**all**"]) for column in columns.values()]
        rows.append([part, *(f"{milliseconds:.1f} ms, {share:.0%}" for milliseconds, share in cells)])
    return "Where the time goes, from a file to both answers on their way to the browser.", table(["", *columns], rows)


def one_picture(file: bytes, segmenters: Sequence[Segmenter]) -> Counter[str]:
    """Seconds of every part, without the parts inside it."""
    segmenting, networks = "resizing, tiles, labels, confidences", "both networks"
    seconds: Counter[str] = Counter()

    def timed(part: str, work: Callable[..., Any], *given: Any, **options: Any) -> Any:
        seconds[part] += 0.0  # parts stand in the order in which they begin
        measuring.wait_for_gpu()
        start = time.perf_counter()
        result = work(*given, **options)
        measuring.wait_for_gpu()
        seconds[part] += time.perf_counter() - start
        return result

    def pack() -> None:
        confidences = [sample(answer.confidence, view.shape[:2]) for answer in answers]
        viewer.planes(view.shape[:2], comparison.label_maps, confidences)
        Image.fromarray(view).save(io.BytesIO(), "PNG", compress_type=zlib.Z_RLE)

    image = timed("reading the file", read_image, file)
    view = timed("shrinking for the screen", shrink, image, VIEW_PIXELS)
    answers = []
    for segmenter in segmenters:
        with patch.object(segmenter.net, "forward", partial(timed, networks, segmenter.net.forward)):
            answers.append(timed(segmenting, segmenter, image))
    seconds[segmenting] -= seconds[networks]
    comparison = timed("comparing", compare, *answers)
    timed("packing both answers and the picture for the viewer", pack)
    return seconds


def limits(_bundles: Sequence[Bundle], args: argparse.Namespace) -> tuple[str, str]:
    """What share of a matrix product do the networks reach?"""
    precision, rows = native_precision(), []
    peaks, reached = matmul_peaks(precision, quick=args.quick)
    for name, size in (("crop-concat", (572, 572)), ("residual-add", (360, 480))):
        net = random_bundle(name, args.width).net.to(DEVICE, memory_format=torch.channels_last)
        x = torch.randn(1, 3, *size, device=DEVICE).contiguous(memory_format=torch.channels_last)
        autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16")
        seconds = interleaved({"": torch.inference_mode()(autocast(partial(net, x)))}, args.repeats)[""]
        share = measuring.flops(net.config, size) / statistics.median(seconds) / peaks[precision]
        rows.append((name, f"{size[0]}x{size[1]}", shown(seconds), f"{share:.0%}"))
    heading = f"How near to the device's limits, measured in this run: {reached}."
    return heading, table(("network", "input", "a picture", "of the matrix product"), rows, text=2)


if __name__ == "__main__":
    main()
