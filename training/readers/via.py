"""VGG Image Annotator JSON: regions of all photos."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import ClassList, DataError, Reading, Shape, ellipse, labels_of, rectangle
from .folder import Folder

NAME = "via"


def fits(folder: Folder) -> str:
    """Why this is a VIA folder, or ""."""
    files = folder.json_where(_is_via)
    return f"{files[0].name} with regions and shape_attributes" if files else ""


def read(folder: Folder) -> Reading:
    """Read every JSON file; the attribute is the class."""
    files = folder.json_where(_is_via)
    listed = [(path, entry) for path in files for entry in _entries(folder.json[path]).values()]
    names = sorted({_class_name(region) for _, entry in listed for region in _regions(entry)} - {""}) or ["object"]
    label_of = labels_of(names)
    reading = Reading("VIA", classes=ClassList.of_shapes(names, files[0].name), problems=folder.broken_json)
    for path, entry in listed:
        name, split = entry["filename"], folder.split_of(path)
        shapes = (_shape(region, label_of) for region in _regions(entry))
        reading.add_drawn(path, name, folder.find(name, path, split), shapes, split)
    reading.note_unlisted(folder.pictures)
    return reading


def _regions(entry: dict[str, Any]) -> list[dict[str, Any]]:
    regions = entry["regions"]
    return list(regions.values()) if isinstance(regions, dict) else regions


def _shape(region: dict[str, Any], label_of: dict[str, int]) -> Shape:
    name = _class_name(region) or (next(iter(label_of)) if len(label_of) == 1 else None)
    if name is None:
        raise ValueError("it has no class: give it its attribute in VIA")
    label, form = label_of[name], region["shape_attributes"]
    if form["name"] in ("polygon", "polyline"):
        return Shape(label, (np.stack([form["all_points_x"], form["all_points_y"]], axis=1).astype(float),))
    if form["name"] == "rect":
        x, y, w, h = (float(form[key]) for key in ("x", "y", "width", "height"))
        return Shape(label, (rectangle(x, y, x + w, y + h),))
    if form["name"] in ("circle", "ellipse"):
        across, down = (form["r"], form["r"]) if form["name"] == "circle" else (form["rx"], form["ry"])
        return Shape(label, (ellipse(form["cx"], form["cy"], across, down),))
    raise ValueError(f"a {form['name']} has no area")


def _class_name(region: dict[str, Any]) -> str:
    """The one value of a region's attributes, or "". Raises DataError for several."""
    values = set()
    for value in region.get("region_attributes", {}).values():
        chosen = [key for key, checked in value.items() if checked] if isinstance(value, dict) else [value]
        values |= {str(v).strip() for v in chosen if str(v).strip()}
    if len(values) > 1:
        raise DataError(f"a VIA region has the attributes {', '.join(sorted(values))}: leave one, its class")
    return values.pop() if values else ""


def _entries(content: dict[str, Any]) -> dict[str, Any]:
    return content.get("_via_img_metadata", content)


def _is_via(content: dict[str, Any]) -> bool:
    entries = _entries(content)
    listed = entries.values() if isinstance(entries, dict) else ()
    return bool(listed) and all(isinstance(entry, dict) and {"filename", "regions"} <= entry.keys() for entry in listed)
