"""COCO JSON: polygons and run-length masks."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .base import ClassList, DataError, Reading, Shape
from .folder import Folder, split_in

NAME = "coco"


def fits(folder: Folder) -> str:
    """Why this is a COCO folder, or ""."""
    files = _annotation_files(folder)
    return f"{files[0].name} with images, annotations and categories" if files else ""


def read(folder: Folder) -> Reading:
    """Read every annotation file; ids order the classes."""
    files = _annotation_files(folder)
    categories = _categories(folder, files)
    names = [name for name in categories.values() if name]
    label_of = {number: names.index(name) + 1 if name else 0 for number, name in categories.items()}
    reading = Reading("COCO", classes=ClassList.of_shapes(names, files[0].name), problems=folder.broken_json)
    for path in files:
        content, split = folder.json[path], split_in(path.stem) or folder.split_of(path)
        things = defaultdict(list)
        for thing in content["annotations"]:
            things[thing["image_id"]].append(thing)
        for image in content["images"]:
            name, size = image["file_name"], (image.get("height"), image.get("width"))
            shapes = (_shape(thing, label_of) for thing in things[image["id"]])
            reading.add_drawn(path, name, folder.find(name, path, split), shapes, split, size)
        if boxes := sum(not thing.get("segmentation") for thing in content["annotations"]):
            reading.problems.append(
                f"{path} has {boxes} annotations without an outline: export outlines (polygons or masks), not boxes"
            )
    return reading


def _shape(thing: dict[str, Any], label_of: dict[int, int]) -> Shape | None:
    segmentation = thing.get("segmentation")
    if not segmentation:
        return None  # a box, which is refused
    label = label_of[thing["category_id"]]
    if isinstance(segmentation, dict):
        h, w = segmentation["size"]
        counts = segmentation["counts"]
        counts = _decompressed(counts) if isinstance(counts, str) else counts
        runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        turned = Image.fromarray(runs.reshape(w, h))
        top, left, *_ = box = turned.getbbox() or (0, 0, 0, 0)  # without it, objects of all pictures fill the memory
        return Shape(label, bitmap=np.asarray(turned.crop(box)).T, corner=(left, top))
    return Shape(label, tuple(np.array(polygon, float).reshape(-1, 2) for polygon in segmentation))


def _decompressed(text: str) -> list[int]:
    """Run lengths from COCO's text.

    5 bits a character, lowest first; from the fourth on, differences to the last but one.
    As rleFrString in github.com/cocodataset/cocoapi, common/maskApi.c.
    """
    counts: list[int] = []
    for number in re.findall("[P-o]*[0-O]", text):  # from P on, another character follows
        value = sum((ord(character) - 48 & 31) << 5 * i for i, character in enumerate(number))
        if ord(number[-1]) - 48 & 16:
            value -= 1 << 5 * len(number)
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


def _categories(folder: Folder, files: list[Path]) -> dict[int, str]:
    """{id: name}, "" for a background. Raises DataError where files differ."""
    categories = {}
    for path in files:
        content = folder.json[path]
        used = {annotation.get("category_id") for annotation in content["annotations"]}
        groups = {category.get("supercategory") for category in content["categories"]}
        for category in content["categories"]:
            number, name = category["id"], str(category["name"]).strip()
            if category.get("supercategory") == "none" and name in groups and number not in used:
                continue  # Roboflow lists the whole data set as a category of its own
            name = "" if name.strip("_").lower() == "background" else name
            if categories.setdefault(number, name) != name:
                raise DataError(f"{path} and {files[0]} give category {number} different names: export them together")
    return dict(sorted(categories.items()))


def _annotation_files(folder: Folder) -> list[Path]:
    files = folder.json_where(_is_coco)
    # Of COCO's own families: instances, stuff, captions.
    return [path for path in files if path.stem.startswith("instances")] or files


def _is_coco(content: dict[str, Any]) -> bool:
    return bool(content.get("categories")) and all(
        isinstance(entries := content.get(key), list) and any(isinstance(e, dict) and field in e for e in entries)
        for key, field in (("images", "file_name"), ("annotations", "segmentation"))
    )
