"""Score a network, and report it: scores, charts, card."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Subset
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
from .working_size import sample_indices

MOST_TRIED_ON = 200  # pictures of val, for the working size


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


def choose_working_size(segmenter: Segmenter, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Set the working size that ``pairs`` score best at.

    Training sees zoomed crops and an answer whole pictures, so that the size trained at is rarely the best to answer at
    (Touvron et al. 2019, FixRes, arXiv 1906.06423). From it, a quarter of a doubling at a time, fewer pixels are tried
    while they score better, and so are more, down to half and up to twice as many.
    """
    bundle = segmenter.bundle
    trained = bundle.training.setdefault("working_pixels", bundle.preprocessing.working_pixels)
    if not isinstance(trained, int):  # None: pictures are seen as they are
        return
    some = Subset(pairs, sample_indices(len(pairs), MOST_TRIED_ON))

    def set_size(quarters: int) -> None:
        pixels = int(float(f"{trained * 2 ** (quarters / 4):.3g}")) if quarters else trained
        bundle.preprocessing = dataclasses.replace(bundle.preprocessing, working_pixels=max(1, pixels))

    @functools.cache
    def score(quarters: int) -> float:
        set_size(quarters)
        return evaluate(segmenter, some).miou()

    best = 0
    for step in (-1, 1):
        end = 0
        while abs(end + step) <= 4 and score(end + step) > score(end):
            end += step
        best = max(best, end, key=score)
    set_size(best)
    if best:
        print(
            f"working size: {bundle.preprocessing.working_pixels:,} pixels score better on val than the {trained:,} "
            f"trained at: mIoU {score(best):.4f}, not {score(0):.4f}"
        )


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
    choose_working_size(segmenter, dataset.val)
    each = list(evaluate_each(segmenter, dataset.val))
    total = sum(each, ConfusionMatrix(len(names)))
    measured = scores(total, names, len(each))
    if bundle.scores.get("val") != measured:
        bundle.scores.pop("val" + AVERAGED, None)  # they belong to what was measured before, maybe on other pictures
    for name in ("test", "prior_result"):  # of the pictures before, which these may lack
        bundle.scores.pop(name, None)
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
        accuracy = round(evaluate(segmenter, dataset.val, size=size).pixel_accuracy(), 4)
        bundle.scores["prior_result"] = {"size": size, "pixel_accuracy": accuracy, "earlier": words}
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
