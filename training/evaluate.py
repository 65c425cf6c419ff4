"""Score a network, and report it: scores, charts, card."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from unet.bundle import AVERAGED
from unet.metrics import ConfusionMatrix
from unet.predict import Segmenter, TestTimeAugmentation

from .calibration import calibrate
from .card import averaged_over, write_card
from .charts import draw_confusion, draw_curves, draw_examples
from .checkpoint import read_history
from .dataset import Dataset
from .record import hardware


def evaluate(segmenter: Segmenter, pairs: Sequence[tuple[np.ndarray, np.ndarray]], **options: Any) -> ConfusionMatrix:
    """Count over a whole split. options: of ``evaluate_each``."""
    return sum(evaluate_each(segmenter, pairs, **options), ConfusionMatrix(len(segmenter.bundle.class_names)))


def evaluate_each(
    segmenter: Segmenter,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    size: tuple[int, int] | None = None,
    progress: bool = True,
) -> Iterator[ConfusionMatrix]:
    """Count each picture, resized to ``size`` (h, w) if given."""
    for image, truth in tqdm(pairs, "evaluating", leave=False, disable=None if progress else True):
        if size is not None:
            image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
            truth = np.asarray(Image.fromarray(truth).resize(size[::-1], Image.Resampling.NEAREST))
        confusion = ConfusionMatrix(len(segmenter.bundle.class_names))
        confusion.update(truth, segmenter(image).label_map)
        yield confusion


def scores(confusion: ConfusionMatrix, class_names: Sequence[str], pictures: int) -> dict[str, Any]:
    """Scores as stored; None for an absent class."""

    def by_class(values: np.ndarray) -> dict[str, float | None]:
        return {n: None if math.isnan(v) else round(float(v), 4) for n, v in zip(class_names, values, strict=True)}

    return {
        "miou": round(confusion.miou(), 4),
        "mean_dice": round(confusion.mean_dice(), 4),
        "pixel_accuracy": round(confusion.pixel_accuracy(), 4),
        "iou": by_class(confusion.iou()),
        "dice": by_class(confusion.dice()),
        "pictures": pictures,
    }


def report(
    segmenter: Segmenter, folder: Path, run: Path, dataset: Dataset, *, average: bool = False, show: bool = False
) -> None:
    """Score a bundle; print and store the results.

    run: the folder with its history. average: score with test-time augmentation, too. show: pictures may be shown.
    """
    bundle = segmenter.bundle
    names = bundle.class_names
    each = list(evaluate_each(segmenter, dataset.val))
    total = sum(each, ConfusionMatrix(len(names)))
    measured = scores(total, names, len(each))
    if bundle.scores.get("val") != measured:
        bundle.scores.pop("val" + AVERAGED, None)  # they belong to what was measured before, maybe on other pictures
    bundle.scores["val"] = measured
    bundle.scores["calibration"] = calibrate(segmenter, dataset.val)
    if average:
        averaging = TestTimeAugmentation()
        several = evaluate(Segmenter(bundle, averaging=averaging), dataset.val)
        settings = {"averaging": dataclasses.asdict(averaging)}
        bundle.scores["val" + AVERAGED] = scores(several, names, len(each)) | settings
    if len(dataset.test):  # nothing was chosen by it, so it is scored once, at the end
        bundle.scores["test"] = scores(evaluate(segmenter, dataset.test), names, len(dataset.test))
    if dataset.task and dataset.task.prior_result:
        words, size = dataset.task.prior_result
        accuracy = evaluate(segmenter, dataset.val, size=size).pixel_accuracy()
        bundle.scores["prior_result"] = {"size": size, "pixel_accuracy": round(accuracy, 4), "earlier": words}
        print(f"pixel accuracy at {size[0]}x{size[1]}: {accuracy:.1%}; an earlier result: {words}")
    image = dataset.val.image(0)
    seconds = [segmenter(image).seconds for _ in range(6)][1:]  # the first prepares everything
    bundle.training["speed"] = {
        f"{image.shape[0]}x{image.shape[1]}, {hardware()}": round(statistics.median(seconds), 3)
    }
    if history := read_history(run):
        draw_curves(history, folder / "curves.png")
    draw_confusion(total.counts, names, folder / "confusion.png")
    draw_examples(_best_and_worst(segmenter, each, dataset, show=show), bundle.palette, folder / "examples.png")
    bundle.save_config(folder)
    write_card(bundle, folder)
    _print_scores(folder, bundle.scores)


def _print_scores(folder: Path, scores: dict[str, Any]) -> None:
    """Print the IoU of every class, and the means."""
    means = "  mIoU {miou:.4f}   Dice {mean_dice:.4f}   pixel accuracy {pixel_accuracy:.4f}"
    for split in filter(scores.__contains__, ("val", "test")):
        measured = scores[split]
        width = max(map(len, measured["iou"]))
        print(f"\n{folder}, {split}, {measured['pictures']} pictures")
        for name, iou in measured["iou"].items():
            print(f"  {name:<{width}}  IoU {'absent' if iou is None else f'{iou:.3f}'}")
        print(means.format(**measured))
    if averaged := scores.get("val" + AVERAGED):
        print(f"{means.format(**averaged)}   {averaged_over(averaged)}")
    print()


def _best_and_worst(
    segmenter: Segmenter, each: list[ConfusionMatrix], dataset: Dataset, *, show: bool
) -> list[tuple[str, np.ndarray | None, np.ndarray, np.ndarray]]:
    """Rows of val for draw_examples."""
    order = sorted(range(len(each)), key=lambda i: -each[i].miou() if each[i].counts.any() else -2)
    rows = []
    for i in dict.fromkeys([*order[:2], *order[-2:]]):
        image, truth = dataset.val[i]
        rows.append((f"mIoU {each[i].miou():.2f}", image if show else None, truth, segmenter(image).label_map))
    return rows
