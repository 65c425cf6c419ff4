"""LabelMe JSON: a file of shapes beside each photo."""

from __future__ import annotations

import base64
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from unet.images import read_annotation
from unet.metrics import IGNORE_INDEX

from .base import ClassList, DataError, Reading, Shape, ellipse, labels_of, rectangle
from .class_lists import find_classes
from .folder import Folder

NAME = "labelme"
IGNORED = "__ignore__"  # what is neither learnt nor scored


def fits(folder: Folder) -> str:
    """Why this is a LabelMe folder, or ""."""
    files = folder.json_where(_is_labelme)
    return f"{files[0].name} with imagePath and shapes" if files else ""


def read(folder: Folder) -> Reading:
    """Read every JSON file; labels.txt may list the classes."""
    files = folder.json_where(_is_labelme)
    labels = {_class_name(shape) for path in files for shape in folder.json[path]["shapes"]}
    listed = find_classes(folder)
    names = [name for name in listed.names or sorted(labels) if name not in ("", IGNORED)]
    label_of = {"_background_": 0, "background": 0, IGNORED: IGNORE_INDEX} | labels_of(names)
    classes = ClassList.of_shapes(names, listed.source)
    reading = Reading("LabelMe JSON", classes=classes, problems=folder.broken_json)
    for path in files:
        content, split = folder.json[path], folder.split_of(path)
        name = content["imagePath"].replace("\\", "/")
        picture = path.with_name(PurePosixPath(name).name)
        if folder.by_path.get(picture) != picture:
            picture = folder.by_path.get(path.with_suffix(""))
        found = [picture] if picture else folder.find(name, path, split)
        shapes = (_shape(shape, label_of) for shape in content["shapes"])
        reading.add_drawn(path, name, found, shapes, split, (content.get("imageHeight"), content.get("imageWidth")))
    reading.note_unlisted(folder.pictures)
    return reading


def _shape(shape: dict[str, Any], label_of: dict[str, int]) -> Shape | None:
    """None for points and lines, which have no area."""
    if (name := _class_name(shape)) not in label_of:
        raise DataError(f"its label {name!r} is not in labels.txt" if name else "it has no label")
    label, kind = label_of[name], shape.get("shape_type") or "polygon"
    points = np.array(shape["points"], float).reshape(-1, 2)
    if kind == "mask":
        bitmap = read_annotation(base64.b64decode(shape["mask"])) > 0
        return Shape(label, bitmap=bitmap, corner=tuple(np.rint(points[0]).astype(int).tolist()))
    if kind in ("point", "line", "linestrip", "points"):
        return None
    if kind == "polygon" and len(points) > 2:
        outline = points
    elif kind == "rectangle":
        outline = rectangle(*points.ravel())
    elif kind == "circle":
        radius = np.hypot(*(points[1] - points[0]))
        outline = ellipse(*points[0], radius, radius)
    else:
        raise DataError(f"a {kind} of {len(points)} points")
    return Shape(label, (outline,), pixel_corners=True)  # LabelMe's own labelme.utils.shape_to_mask fills them so


def _class_name(shape: dict[str, Any]) -> str:
    label = shape["label"]
    return "" if label is None else str(label).strip()  # programs write numbers


def _is_labelme(content: dict[str, Any]) -> bool:
    return isinstance(content.get("shapes"), list) and "imagePath" in content
