"""LabelMe JSON: one file of shapes beside each photo, and labels.txt."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unet.images import ImageError, read_annotation
from unet.metrics import IGNORE_INDEX

from .base import ClassList, DataError, Folder, Pair, Reading, Shape, Shapes
from .class_lists import find_classes

NAME = "labelme"


def fits(folder: Folder) -> str:
    """Why this is a LabelMe folder, or ""."""
    files = _annotation_files(folder)
    return f"{files[0].name} with imagePath and shapes" if files else ""


def read(folder: Folder) -> Reading:
    """Read the shapes of every JSON file.

    Classes are those of labels.txt, or the labels in alphabetical order.
    """
    files = _annotation_files(folder)
    labels = {shape["label"] for path in files for shape in folder.json[path]["shapes"]}
    listed = find_classes(folder)
    names = [name for name in listed.names or sorted(labels) if not _is_special(name)]
    label_of = {name: i + 1 for i, name in enumerate(names)}
    label_of |= {"_background_": 0, "background": 0, "__ignore__": IGNORE_INDEX}
    source = f" ({listed.source})" if listed.names else ""
    reading = Reading(f"LabelMe JSON{source}", classes=ClassList.of_shapes(names, listed.source))
    reading.problems += folder.broken_json()
    used = set()
    for path in files:
        content = folder.json[path]
        picture = _photo(folder, path, content)
        if picture is None:
            reading.problems.append(f"{path} belongs to {content['imagePath']}, which is not beside it")
            continue
        used.add(picture)
        try:
            shapes = tuple(shape for s in content["shapes"] if (shape := _shape(s, label_of)))
        except (KeyError, TypeError, ValueError, ImageError, binascii.Error) as error:
            reading.problems.append(f"{path} has a shape that cannot be read ({error}): mend it in LabelMe")
            continue
        size = (content.get("imageHeight"), content.get("imageWidth"))
        reading.add(folder.split_of(path), Pair(picture, Shapes(path, shapes, size if all(size) else None)))
    if left := len(set(folder.pictures) - used):
        reading.notes.append(f"{left} pictures without a JSON file are left out")
    return reading


def _shape(shape: dict[str, Any], label_of: dict[str, int]) -> Shape | None:
    """None for points and lines, which have no area."""
    if shape["label"] not in label_of:
        raise DataError(f"{shape['label']!r} is not in labels.txt")
    label, kind = label_of[shape["label"]], shape.get("shape_type") or "polygon"
    points = np.array(shape["points"], float).reshape(-1, 2)
    if kind == "mask":
        bitmap = read_annotation(base64.b64decode(shape["mask"])) > 0
        return Shape(label, bitmap=bitmap, corner=tuple(np.rint(points[0]).astype(int).tolist()))
    if kind == "polygon" and len(points) > 2:
        return Shape(label, (points,))
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        return Shape(label, (np.array([(left, top), (right, top), (right, bottom), (left, bottom)]),))
    if kind == "circle":
        radius = np.hypot(*(points[1] - points[0]))
        return Shape(label, (ellipse(*points[0], radius, radius),))
    if kind in ("point", "line", "linestrip", "points"):
        return None
    raise DataError(f"a {kind} of {len(points)} points")


def ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """The outline of an ellipse, 64 points (x, y)."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)


def _photo(folder: Folder, path: Path, content: dict[str, Any]) -> Path | None:
    name = PurePosixPath(content["imagePath"].replace("\\", "/")).name
    beside = [path.with_name(name), *(p for p in folder.pictures if p.parent == path.parent and p.stem == path.stem)]
    found = [p for p in beside if p in folder.picture_set] or folder.by_name.get(name, [])
    return found[0] if len(set(found)) == 1 or (found and found[0].parent == path.parent) else None


def _annotation_files(folder: Folder) -> list[Path]:
    return [path for path, content in folder.json.items() if _is_labelme(content)]


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _is_special(name: str) -> bool:
    return name in ("_background_", "background", "__ignore__")
