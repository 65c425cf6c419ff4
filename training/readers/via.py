"""VGG Image Annotator JSON: regions of all photos in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .base import ClassList, DataError, Folder, Pair, Reading, Shape, Shapes
from .labelme import ellipse

NAME = "via"


def fits(folder: Folder) -> str:
    """Why this is a VIA folder, or ""."""
    files = _annotation_files(folder)
    return f"{files[0].name} with regions and shape_attributes" if files else ""


def read(folder: Folder) -> Reading:
    """Read the regions of every JSON file.

    The values of their attribute are the classes.
    """
    files = _annotation_files(folder)
    regions = [region for path in files for entry in _entries(folder.json[path]) for region in _regions(entry)]
    names = sorted({name for region in regions if (name := _class_name(region))}) or ["object"]
    reading = Reading(f"VIA ({files[0].name})", classes=ClassList.of_shapes(names, files[0].name))
    reading.problems += folder.broken_json()
    for path in files:
        for entry in _entries(folder.json[path]):
            picture = path.parent / entry["filename"]
            if picture not in folder.picture_set:
                found = folder.by_name.get(picture.name, [])
                picture = found[0] if len(found) == 1 else None
            if picture is None:
                reading.problems.append(f"{path} lists {entry['filename']}, which is not there: put it back")
                continue
            try:
                shapes = tuple(_shape(region, names) for region in _regions(entry))
            except (KeyError, TypeError, ValueError) as error:
                reading.problems.append(f"{path}: a region of {entry['filename']} cannot be read ({error})")
                continue
            reading.add(folder.split_of(path), Pair(picture, Shapes(path, shapes)))
    return reading


def _shape(region: dict[str, Any], names: list[str]) -> Shape:
    name = _class_name(region) or (names[0] if len(names) == 1 else None)
    if name is None:
        raise ValueError("it has no class: give it its attribute in VIA")
    label, form = names.index(name) + 1, region["shape_attributes"]
    if form["name"] in ("polygon", "polyline"):
        return Shape(label, (np.stack([form["all_points_x"], form["all_points_y"]], axis=1).astype(float),))
    if form["name"] == "rect":
        x, y, w, h = (float(form[key]) for key in ("x", "y", "width", "height"))
        return Shape(label, (np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)]),))
    if form["name"] in ("circle", "ellipse"):
        across, down = (form["r"], form["r"]) if form["name"] == "circle" else (form["rx"], form["ry"])
        return Shape(label, (ellipse(form["cx"], form["cy"], across, down),))
    raise ValueError(f"a {form['name']} has no area")


def _class_name(region: dict[str, Any]) -> str:
    """The one value of a region's attributes, or "".

    Raises DataError for several.
    """
    values = set()
    for value in region.get("region_attributes", {}).values():
        chosen = [key for key, checked in value.items() if checked] if isinstance(value, dict) else [value]
        values |= {str(v).strip() for v in chosen if str(v).strip()}
    if len(values) > 1:
        raise DataError(f"a VIA region has the attributes {', '.join(sorted(values))}: leave one, its class")
    return values.pop() if values else ""


def _entries(content: dict[str, Any]) -> list[dict[str, Any]]:
    return list(content.get("_via_img_metadata", content).values())


def _regions(entry: dict[str, Any]) -> list[dict[str, Any]]:
    regions = entry["regions"]
    return list(regions.values()) if isinstance(regions, dict) else regions


def _annotation_files(folder: Folder) -> list[Path]:
    return [path for path, content in folder.json.items() if _is_via(content)]


def _is_via(content: Any) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    entries = content.get("_via_img_metadata", content)
    return isinstance(entries, dict) and all(
        isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries.values()
    )
