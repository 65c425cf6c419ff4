"""Many pictures, two networks -> a row of numbers a picture, and one ZIP with all label maps, masks and overlays.

    with open("answers.zip", "wb") as file:
        for row in segment_many(pictures, ask, ("residual-add", "crop-concat"), file):
            print(row.name, row.note or row.agreement)

One picture is in memory at a time. One that cannot be read is a row that says why, and costs the others nothing.
Names come from strangers: in the archive they are plain file names, each there once.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image

from .compare import Scores, compare
from .ground_truth import read_truth
from .images import MAX_PIXELS, ImageError, Source, read_image, save_png
from .metrics import IGNORE_INDEX, ConfusionMatrix
from .overlay import overlay, unpainted_classes
from .predict import Segmentation

#: Both networks asked about one picture, uint8 (H, W, 3).
Ask = Callable[[np.ndarray], tuple[Segmentation, Segmentation]]

_NAME_BYTES = 120  # file systems take 255; a number and an ending are added
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))]
)
_FORMULA_STARTS = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Row:
    """What came of one picture; of each pair, the first network's comes first.

    name: as it was given. file: its name in the archive, without ending. size: (h, w). agreement: share of pixels.
    shares: float64 (2, k). scores: where it has a ground truth that fits. note: why something is missing, or what was
    decided: of several pages the first is read, and about its ground truth.
    """

    name: str
    file: str = ""
    size: tuple[int, int] | None = None
    agreement: float | None = None
    shares: np.ndarray | None = None
    seconds: tuple[float, float] | None = None
    scores: tuple[Scores, Scores] | None = None
    note: str = ""


def segment_many(
    pictures: Iterable[tuple[str, Source]],
    ask: Ask,
    networks: tuple[str, str],
    target: BinaryIO,
    *,
    truths: Mapping[str, Source] | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> Iterator[Row]:
    """Segment ``pictures``, (name, source) each, with both networks, writing a ZIP to ``target``; yields a row each.

    networks: what the two are called, in folders and columns. truths: ground truths by the name of their picture, see
    `match_truths`. max_pixels: larger pictures become rows with a note.

    The archive holds, for each network, labels/ (palette PNG of class numbers), masks/ (RGB PNG) and overlays/ (JPEG);
    scores.csv with a line for each picture and network; and classes.json. It is complete when the iterator is exhausted
    or closed: whoever stops early keeps what was done until then.
    """
    folders = _unique(networks)
    rows: list[Row] = []
    class_names: tuple[str, ...] = ()
    with zipfile.ZipFile(target, "w") as archive:
        try:
            taken: set[str] = set()
            for name, source in pictures:
                notes: list[str] = []
                try:
                    image = read_image(source, max_pixels=max_pixels, notify=notes.append)
                except ImageError as error:
                    row = Row(name, note=str(error))
                else:
                    found = ask(image)
                    class_names, palette = found[0].class_names, found[0].palette
                    truth = (truths or {}).get(name)
                    row = _row(name, _file_name(name, taken), image, found, truth, max_pixels, notes)
                    for folder, segmentation in zip(folders, found, strict=True):
                        _add_pictures(archive, folder, row.file, image, segmentation)
                    del image, found
                rows.append(row)
                yield row
        finally:
            if class_names:
                known = {"class_names": class_names, "palette": palette.tolist(), "ignore_index": IGNORE_INDEX}
                _add_text(archive, "classes.json", json.dumps(known, indent=1))
            _add_text(archive, "scores.csv", scores_csv(rows, networks, class_names))


def match_truths(pictures: Iterable[str], truths: Mapping[str, Source]) -> tuple[dict[str, Source], list[str]]:
    """Ground truths by file name -> those of these pictures, by the picture's name, and sentences about the others.

    A ground truth belongs to the picture of the same name; ending and capitals may differ.
    """
    pictures, called = list(pictures), {}
    for name in sorted(truths):
        called.setdefault(_key(name), []).append(name)
    wanted, remarks = {_key(name) for name in pictures}, []
    for key, names in called.items():
        if key not in wanted:
            remarks += [f"No picture is called like the ground truth {name}." for name in names]
        elif len(names) > 1:
            remarks.append(f"The ground truths {' and '.join(names)} have one name: none of them is used.")
    return {name: truths[names[0]] for name in pictures if len(names := called.get(_key(name), [])) == 1}, remarks


def pooled(rows: Iterable[Row]) -> tuple[ConfusionMatrix, ConfusionMatrix] | None:
    """The counts of all pictures with a ground truth, for each network, to be scored as one; None without any."""
    pairs = [row.scores for row in rows if row.scores]
    if not pairs:
        return None
    first, second = ([scores.confusion for scores in side] for side in zip(*pairs, strict=True))
    return sum(first[1:], first[0]), sum(second[1:], second[0])


def scores_csv(rows: Sequence[Row], networks: tuple[str, str], class_names: Sequence[str]) -> str:
    """A line for each picture and network, numbers from 0 to 1; empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    shares, ious = ([_cell(f"{what} {name}") for name in class_names] for what in ("share", "iou"))
    numbers = ["miou", "dice", "pixel_accuracy", "boundary_f1"]
    writer.writerow(
        ["picture", "file", "width", "height", "network", "agreement", "seconds", *numbers, *shares, *ious, "note"]
    )
    for row in rows:
        about = [_cell(row.name), _cell(row.file), *(row.size or ("", ""))[::-1]]
        if row.size is None:
            writer.writerow([*about, "", "", "", *[""] * (len(numbers) + 2 * len(class_names)), _cell(row.note)])
            continue
        for side, network in enumerate(networks):
            scores = row.scores[side] if row.scores else None
            judged = [scores.miou, scores.dice, scores.pixel_accuracy, scores.boundary] if scores else [None] * 4
            values = [*judged, *row.shares[side], *(scores.iou if scores else [None] * len(class_names))]
            written = [_number(value) for value in (row.agreement, row.seconds[side], *values)]
            writer.writerow([*about, _cell(network), *written, _cell(row.note)])
    return file.getvalue()


def _row(
    name: str,
    file: str,
    image: np.ndarray,
    found: tuple[Segmentation, Segmentation],
    truth: Source | None,
    max_pixels: int | None,
    notes: list[str],
) -> Row:
    comparison = compare(*found)
    notes = [*notes, *dict.fromkeys(segmentation.note for segmentation in found if segmentation.note)]
    if truth is not None:
        try:
            read = read_truth(truth, comparison.class_names, found[0].palette, max_pixels=max_pixels)
            comparison = comparison.with_truth(read.labels)
            notes = [*notes, *read.notes]
        except ValueError as error:  # ImageError and TruthError are
            notes = [*notes, str(error)]
    seconds = (found[0].seconds, found[1].seconds)
    size = image.shape[:2]
    return Row(name, file, size, comparison.agreement, comparison.shares, seconds, comparison.scores, " ".join(notes))


# ---- the archive -----------------------------------------------------------------------------------------------------


def _add_pictures(
    archive: zipfile.ZipFile, folder: str, name: str, image: np.ndarray, segmentation: Segmentation
) -> None:
    labels, palette = segmentation.label_map, segmentation.palette
    with archive.open(f"{folder}/labels/{name}.png", "w") as file:
        save_png(labels, file, palette=palette)
    with archive.open(f"{folder}/masks/{name}.png", "w") as file:
        save_png(palette[labels], file)
    drawn = overlay(image, labels, palette, unpainted=unpainted_classes(segmentation.class_names))
    with archive.open(f"{folder}/overlays/{name}.jpg", "w") as file:
        Image.fromarray(drawn).save(file, "JPEG", quality=92)


def _add_text(archive: zipfile.ZipFile, name: str, text: str) -> None:
    archive.writestr(name, text.encode(), compress_type=zipfile.ZIP_DEFLATED)


def _stem(name: str) -> str:
    """A file's name without its folders, of whatever system, and without its ending."""
    base = PurePosixPath(name.replace("\\", "/")).name
    return base.rpartition(".")[0] or base


def _key(name: str) -> str:
    """What names have in common that mean one picture, whatever system wrote them: macOS spells é as two characters."""
    return unicodedata.normalize("NFC", _stem(name)).casefold()


def _file_name(name: str, taken: set[str]) -> str:
    """A file name, without ending, that every system can store; not one that is taken, whose number it gets."""
    text = unicodedata.normalize("NFC", _stem(name))
    plain = "".join(c if c.isprintable() and c not in _NOT_IN_NAMES else "_" for c in text)
    plain = plain.encode()[:_NAME_BYTES].decode(errors="ignore").strip(" .") or "picture"
    plain = f"_{plain}" if plain.casefold().partition(".")[0] in _WINDOWS_DEVICES else plain
    unique, number = plain, 1
    while unique.casefold() in taken:
        number += 1
        unique = f"{plain}-{number}"
    taken.add(unique.casefold())
    return unique


def _unique(names: Iterable[str]) -> list[str]:
    taken: set[str] = set()
    return [_file_name(f"{name}.", taken) for name in names]


def _cell(text: str) -> str:
    """Text on one line that no spreadsheet runs as a formula."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.6g}"
