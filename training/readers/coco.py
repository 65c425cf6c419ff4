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
        if not content["annotations"] and split == "test":  # of a competition, which keeps them to itself
            reading.notes.append(f"{path.name} has no annotations and is left out")
            continue
        label_of = {number: labels[name] for number, name in categories[path].items()}
        things = defaultdict(list)
        for thing in content["annotations"]:
            things[str(thing["image_id"])].append(thing)
        for image in content["images"]:
            name, drawn = image["file_name"], things.get(str(image["id"]), ())
            stated = [image.get("height"), image.get("width")]
            outlines = [thing.get("segmentation") for thing in drawn]
            sizes = {tuple(outline["size"]) for outline in outlines if isinstance(outline, dict) and "size" in outline}
            sizes |= {tuple(stated)} if all(stated) else set()
            if len(sizes) > 1:
                reading.problems.append(f"{path} gives {name} the sizes {' and '.join(map(str, sorted(sizes)))}")
                continue
            shapes = (_shape(thing, label_of) for thing in drawn)
            reading.add_drawn(path, name, folder.find(name, path, split), shapes, split, *sizes)
        known = {str(image["id"]) for image in content["images"]}
        if left := sum(len(drawn) for number, drawn in things.items() if number not in known):
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
    files = folder.json_where(_has_outlines)
    if files:  # one whose pictures show nothing belongs to them
        files += folder.json_where(_is_empty)
    # Of COCO's own families: instances, stuff, captions.
    return [path for path in files if path.stem.startswith("instances")] or files


def _has_outlines(content: dict[str, Any]) -> bool:
    return _lists_pictures(content) and _holds(content.get("annotations"), "segmentation")


def _is_empty(content: dict[str, Any]) -> bool:
    return _lists_pictures(content) and content.get("annotations") == []


def _lists_pictures(content: dict[str, Any]) -> bool:
    return bool(content.get("categories")) and _holds(content.get("images"), "file_name")


def _holds(entries: Any, field: str) -> bool:
    return isinstance(entries, list) and any(isinstance(entry, dict) and field in entry for entry in entries)
