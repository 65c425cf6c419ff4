"""VGG Image Annotator JSON: the regions of all photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .base import ClassList, DataError, Reading, Shape, ellipse, rectangle
from .folder import Folder
from .json_exports import Export, add_exports

NAME = "via"


def fits(folder: Folder) -> str:
    """Why this is a VIA folder, or ""."""
    files = folder.json_where(_is_via)
    return f"{files[0].name} with regions and shape_attributes" if files else ""


def read(folder: Folder) -> Reading:
    """Read every JSON file; classes are the values of the attribute."""
    files = folder.json_where(_is_via)
    exports = [export for path in files for export in _exports(folder, path)]
    found = {_class_name(region) for export in exports for region in export.things}
    names = sorted(found - {""}) or ["object"]
    reading = Reading(f"VIA ({files[0].name})", classes=ClassList.of_shapes(names, files[0].name))
    add_exports(folder, reading, exports, lambda region: _shape(region, names))
    return reading


def _exports(folder: Folder, path: Path) -> Iterator[Export]:
    split = folder.split_of(path)
    for entry in _entries(folder.json[path]).values():
        name, regions = entry["filename"], entry["regions"]
        things = list(regions.values()) if isinstance(regions, dict) else regions
        yield Export(path, name, folder.find(name, path, split), things, split)


def _shape(region: dict[str, Any], names: list[str]) -> Shape:
    name = _class_name(region) or (names[0] if len(names) == 1 else None)
    if name is None:
        raise ValueError("it has no class: give it its attribute in VIA")
    label, form = names.index(name) + 1, region["shape_attributes"]
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
    return (
        bool(content)
        and isinstance(entries, dict)
        and all(isinstance(entry, dict) and {"filename", "regions"} <= entry.keys() for entry in entries.values())
    )
