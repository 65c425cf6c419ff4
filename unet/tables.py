"""The tables of many pictures: scores, objects, COCO, classes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .archive import Archive, network_folders
from .compare import Scores
from .metrics import IGNORE_INDEX, ConfusionMatrix
from .overlay import unpainted_classes


@dataclass(frozen=True)
class Row:
    """What is known of one picture.

    name: as it was given. file: its name in the archive, without ending. size: (h, w). agreement: share of pixels to
    which two networks give the same class. note: why something is missing, or what was decided. For each network:
    shares: float64 (n, k). scores: where it has a ground truth that fits. objects: how many, and their median area.
    annotations: COCO annotations, where they are written.
    """

    name: str
    file: str = ""
    size: tuple[int, int] | None = None
    agreement: float | None = None
    shares: np.ndarray | None = None
    seconds: tuple[float, ...] | None = None
    scores: tuple[Scores, ...] | None = None
    objects: tuple[tuple[int, float], ...] | None = None
    note: str = ""
    annotations: list[list[dict[str, Any]]] = field(default_factory=list, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON has it."""
        scores = self.scores and [[s.confusion.counts.tolist(), s.boundary, s.tolerance] for s in self.scores]
        return vars(self) | {"shares": self.shares.tolist(), "scores": scores}

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> Row:
        """The row that `to_json` gave."""
        scores = []
        for counts, boundary, tolerance in known["scores"] or ():
            confusion = ConfusionMatrix(len(counts))
            confusion.counts += np.array(counts)
            scores.append(Scores(confusion, boundary, tolerance))
        return cls(**known | {"shares": np.array(known["shares"]), "scores": tuple(scores) or None})


def pooled(rows: Iterable[Row]) -> tuple[ConfusionMatrix, ...] | None:
    """Each network's pixels over all pictures with a truth."""
    scored = [row.scores for row in rows if row.scores]
    if not scored:
        return None
    each = ([scores.confusion for scores in side] for side in zip(*scored, strict=True))
    return tuple(sum(rest, first) for first, *rest in each)


def write_tables(
    archive: Archive, rows: Sequence[Row], networks: Sequence[str], classes: tuple[Sequence[str], np.ndarray] | None
) -> None:
    """Write scores.csv, classes.json and, of objects, objects.csv and coco.json."""
    names = classes[0] if classes else ()
    if classes:
        known = {"class_names": names, "palette": classes[1].tolist(), "ignore_index": IGNORE_INDEX}
        archive.writestr("classes.json", json.dumps(known, indent=1))
    archive.writestr("scores.csv", _csv(_scores(rows, networks, names)))
    if any(row.annotations for row in rows):
        for number, folder in enumerate(network_folders(networks)):
            archive.writestr(f"{folder}/coco.json", json.dumps(coco(rows, number, names)))
        archive.writestr("objects.csv", _csv(_objects(rows, networks, names)))


def _scores(rows: Sequence[Row], networks: Sequence[str], class_names: Sequence[str]) -> Iterator[list[Any]]:
    """A line for each picture and network."""
    shares, ious = ([f"{what} {name}" for name in class_names] for what in ("share", "iou"))
    numbers = ["miou", "dice", "pixel_accuracy", "boundary_f1", "objects", "median_area"]
    yield ["picture", "file", "width", "height", "network", "agreement", "seconds", *numbers, *shares, *ious, "note"]
    for row in rows:
        about = [row.name, row.file, *(row.size or ("", ""))[::-1]]
        if row.size is None:
            yield [*about, *[""] * (3 + len(numbers) + 2 * len(class_names)), row.note]
            continue
        for side, network in enumerate(networks):
            scores = row.scores[side] if row.scores else None
            judged = [scores.miou, scores.dice, scores.pixel_accuracy, scores.boundary] if scores else [None] * 4
            counted = row.objects[side] if row.objects else (None, None)
            values = [*judged, *counted, *row.shares[side], *(scores.iou if scores else [None] * len(class_names))]
            yield [*about, network, *map(_number, (row.agreement, row.seconds[side], *values)), row.note]


def _objects(rows: Sequence[Row], networks: Sequence[str], class_names: Sequence[str]) -> Iterator[list[Any]]:
    """A line for each object, in pixels."""
    columns = ("area", "x", "y", "left", "top", "width", "height", "confidence")
    yield ["picture", "file", "network", "object", "class", *columns]
    for row in rows:
        for network, objects in zip(networks, row.annotations, strict=False):  # a failed picture has none
            for number, annotation in enumerate(objects, 1):
                name, measured = class_names[annotation["category_id"] - 1], annotation["measurements"]
                yield [row.name, row.file, network, number, name, *(measured[column] for column in columns)]


def coco(rows: Sequence[Row], network: int, class_names: Sequence[str]) -> dict[str, Any]:
    """One network's objects, as a COCO file."""
    pictures, annotations = [], []
    for row in rows:
        if row.annotations:
            height, width = row.size
            pictures.append({"id": len(pictures) + 1, "file_name": row.name, "height": height, "width": width})
            for found in row.annotations[network]:
                known = {key: value for key, value in found.items() if key != "measurements"}
                annotations.append({"id": len(annotations) + 1, "image_id": len(pictures), **known})
    used = {annotation["category_id"] - 1 for annotation in annotations}
    listed = used | set(range(len(class_names))) - set(unpainted_classes(class_names))
    categories = [{"id": i + 1, "name": class_names[i]} for i in sorted(listed)]
    return {"images": pictures, "annotations": annotations, "categories": categories}


def _csv(lines: Iterable[list[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([_cell(value) if isinstance(value, str) else value for value in line] for line in lines)
    return file.getvalue()


def _cell(text: str) -> str:
    """One line that no spreadsheet runs as a formula."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.6g}"
