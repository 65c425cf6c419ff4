"""COCO JSON: polygons and run-length masks."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .base import ClassList, Reading, Shape, labels_of
from .folder import Folder, split_in

NAME = "coco"


def fits(folder: Folder) -> str:
    """Why this is a COCO folder, or ""."""
    files = _annotation_files(folder)
    return f"{files[0].name} with images, annotations and categories" if files else ""


def read(folder: Folder) -> Reading:
    """Read every annotation file; ids order the classes."""
    files = _annotation_files(folder)
    categories = {path: _categories(path, folder.json[path]) for path in files}
    # Files that were exported one by one may number the same classes differently.
    names = dict.fromkeys(name for _, name in sorted(pair for listed in categories.values() for pair in listed.items()))
    labels = labels_of(names)
    reading = Reading("COCO", classes=ClassList.of_shapes(names, files[0].name), problems=folder.broken_json)
    for path in files:
        content, split = folder.json[path], split_in(path.stem) or folder.split_of(path)
        label_of = {number: labels[name] for number, name in categories[path].items()}
        things = defaultdict(list)
        for thing in content["annotations"]:
            things[str(thing["image_id"])].append(thing)
        for image in content["images"]:
            name, drawn = image["file_name"], things.pop(str(image["id"]), ())
            sizes = {tuple(s["size"]) for thing in drawn if isinstance(s := thing.get("segmentation"), dict)}
            sizes |= {size} if all(size := (image.get("height"), image.get("width"))) else set()
            if len(sizes) > 1:
                reading.problems.append(f"{path} gives {name} the sizes {' and '.join(map(str, sorted(sizes)))}")
                continue
            shapes = (_shape(thing, label_of) for thing in drawn)
            reading.add_drawn(path, name, folder.find(name, path, split), shapes, split, *sizes)
        if left := sum(map(len, things.values())):
            reading.notes.append(f"{left} annotations in {path.name} are of pictures that it does not list")
        if boxes := sum(not thing.get("segmentation") for thing in content["annotations"]):
            reading.problems.append(
                f"{path} has {boxes} annotations without an outline: export outlines (polygons or masks), not boxes"
            )
    reading.note_unlisted(folder.pictures)
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


def _categories(path: Path, content: dict[str, Any]) -> dict[int, str]:
    """{id: name} of one file. Raises DataError for repeated names."""
    used = {annotation.get("category_id") for annotation in content["annotations"]}
    groups = {category.get("supercategory") for category in content["categories"]}
    categories = {}
    for category in content["categories"]:
        number, name = category["id"], str(category["name"]).strip()
        if category.get("supercategory") == "none" and name in groups and number not in used:
            continue  # Roboflow lists the whole data set as a category of its own
        categories[number] = name
    ClassList.of_shapes(categories.values(), path.name)
    return categories


def _annotation_files(folder: Folder) -> list[Path]:
    files = folder.json_where(_is_coco)
    if files:  # a file of pictures that show nothing belongs to them
        files = folder.json_where(lambda content: _is_coco(content) or _is_coco(content, empty=True))
    # Of COCO's own families: instances, stuff, captions.
    return [path for path in files if path.stem.startswith("instances")] or files


def _is_coco(content: dict[str, Any], *, empty: bool = False) -> bool:
    def holds(key: str, field: str) -> bool:
        entries = content.get(key)
        return isinstance(entries, list) and any(isinstance(entry, dict) and field in entry for entry in entries)

    outlines = content.get("annotations") == [] if empty else holds("annotations", "segmentation")
    return bool(content.get("categories")) and holds("images", "file_name") and outlines
