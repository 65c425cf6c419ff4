"""COCO JSON: polygons and run-length masks.

As CVAT, Label Studio, Roboflow and labelme2coco export them.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .base import ClassList, DataError, Folder, Pair, Reading, Shape, Shapes, split_in

NAME = "coco"


def fits(folder: Folder) -> str:
    """Why this is a COCO folder, or ""."""
    files = _annotation_files(folder)
    return f"{files[0].name} with images, annotations and categories" if files else ""


def read(folder: Folder) -> Reading:
    """Read every annotation file.

    Categories become classes 1, 2, ... in the order of their ids.
    """
    files = _annotation_files(folder)
    categories = _categories([folder.json[path] for path in files], files)
    names = [name for name in categories.values() if name is not None]
    label_of = {number: names.index(name) + 1 if name else 0 for number, name in categories.items()}
    reading = Reading(f"COCO ({files[0].name})", classes=ClassList.of_shapes(names, files[0].name))
    reading.problems += folder.broken_json()
    for path in files:
        split = split_in(path.stem) or folder.split_of(path)
        _read_file(folder, path, split, label_of, reading)
    return reading


def _read_file(folder: Folder, path: Path, split: str, label_of: dict[int, int], reading: Reading) -> None:
    content = folder.json[path]
    shapes, boxes = defaultdict(list), 0
    for annotation in content["annotations"]:
        segmentation = annotation.get("segmentation")
        boxes += not segmentation
        if segmentation:
            try:
                shapes[annotation["image_id"]].append(_shape(segmentation, label_of[annotation["category_id"]]))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                reading.problems.append(
                    f"{path}: annotation {annotation.get('id')} cannot be read ({error!r}): export it again"
                )
    if boxes:
        reading.problems.append(
            f"{path} has {boxes} annotations without an outline: export outlines (polygons or masks), not boxes"
        )
    for image in content["images"]:
        picture = _find(folder, path, image["file_name"], split)
        if picture is None:
            reading.problems.append(
                f"{path} lists {image['file_name']}, which is not there: put it back, or take it out"
            )
            continue
        size = (image["height"], image["width"]) if image.get("height") and image.get("width") else None
        reading.add(split, Pair(picture, Shapes(path, tuple(shapes[image["id"]]), size)))


def _shape(segmentation: Any, label: int) -> Shape:
    if isinstance(segmentation, dict):
        h, w = segmentation["size"]
        counts = segmentation["counts"]
        counts = _decompressed(counts) if isinstance(counts, str) else counts
        runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return Shape(label, bitmap=runs.reshape(w, h).T)
    return Shape(label, tuple(np.array(polygon, float).reshape(-1, 2) for polygon in segmentation))


def _decompressed(text: str) -> list[int]:
    """Run lengths from COCO's text.

    5 bits a character, lowest first; from the fourth on, differences to the last but one.
    As rleFrString in github.com/cocodataset/cocoapi, common/maskApi.c.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _categories(contents: list[dict], files: list[Path]) -> dict[int, str | None]:
    """{id: name} of all files, None for a background.

    Raises DataError where files differ.
    """
    categories = {}
    for content, path in zip(contents, files, strict=True):
        used = {annotation.get("category_id") for annotation in content["annotations"]}
        groups = {category.get("supercategory") for category in content["categories"]}
        for category in sorted(content["categories"], key=lambda category: category["id"]):
            number, name = category["id"], str(category["name"]).strip()
            if category.get("supercategory") == "none" and name in groups and number not in used:
                continue  # Roboflow lists the whole data set as a category of its own
            name = None if name.strip("_").lower() == "background" else name
            if categories.setdefault(number, name) != name:
                raise DataError(f"{path} and {files[0]} give category {number} different names: export them together")
    named = [name for name in categories.values() if name]
    if repeated := [name for i, name in enumerate(named) if name in named[:i]]:
        raise DataError(f"{files[0]} lists the category {repeated[0]!r} twice: give each its own name")
    return dict(sorted(categories.items()))


def _annotation_files(folder: Folder) -> list[Path]:
    """The files with outlines.

    Of COCO's own families (instances, stuff, captions) only the instances.
    """
    files = [path for path, content in folder.json.items() if _is_coco(content)]
    instances = [path for path in files if path.stem.startswith("instances")]
    return instances or files


def _is_coco(content: Any) -> bool:
    if not isinstance(content, dict) or not content.get("categories"):
        return False
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        return False
    listed = any(isinstance(image, dict) and "file_name" in image for image in images)
    return listed and any(isinstance(entry, dict) and "segmentation" in entry for entry in annotations)


def _find(folder: Folder, path: Path, name: str, split: str) -> Path | None:
    """The picture of a file name, None unless one is meant.

    Looked for beside the JSON file first, then in the same split, then anywhere.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    direct = path.parent.joinpath(*parts)
    if direct in folder.picture_set:
        return direct
    for length in (len(parts), 1):
        found = [p for p in folder.by_name.get(parts[-1], ()) if p.parts[-length:] == parts[-length:]]
        found = [p for p in found if folder.split_of(p) == split] or found
        if len(found) == 1:
            return found[0]
    return None
