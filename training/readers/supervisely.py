"""Supervisely: ann/<picture>.json beside img/, and meta.json."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .base import ClassList, Reading, Shape, is_background, labels_of, rectangle
from .folder import Folder

NAME = "supervisely"


def fits(folder: Folder) -> str:
    """Why this is a Supervisely folder, or ""."""
    return "meta.json with classes, and ann/ beside img/" if _metas(folder) and _annotation_files(folder) else ""


def read(folder: Folder) -> Reading:
    """Read every picture; meta.json lists the classes."""
    classes = folder.json[_metas(folder)[0]]["classes"]
    names = [entry["title"] for entry in classes]
    things, label_of = [entry for entry in classes if not is_background(entry["title"])], labels_of(names)
    colors = [tuple(bytes.fromhex(entry["color"].lstrip("#"))) for entry in things if entry.get("color")]
    palette = colors if len(set(colors)) == len(things) and (0, 0, 0) not in colors else ()
    listed = ClassList.of_shapes(names, "meta.json", palette)
    reading = Reading("Supervisely", classes=listed, problems=folder.broken_json)
    for path in _annotation_files(folder):
        content = folder.json[path]
        picture = folder.by_path.get(path.parent.with_name("img") / path.stem)
        shapes = (_shape(thing, label_of) for thing in content["objects"])
        size = (content["size"]["height"], content["size"]["width"])
        reading.add_drawn(path, f"img/{path.stem}", [picture] if picture else [], shapes, folder.split_of(path), size)
    missing = set(folder.pictures) - reading.listed_in.keys()
    reading.problems += [f"{path} has no annotation in ann/" for path in sorted(missing) if path.parent.name == "img"]
    return reading


def _shape(thing: dict[str, Any], label_of: dict[str, int]) -> Shape:
    if (title := thing["classTitle"]) not in label_of:
        raise ValueError(f"meta.json does not list {title}")
    label, kind = label_of[title], thing["geometryType"]
    if kind == "bitmap":
        packed = io.BytesIO(zlib.decompress(base64.b64decode(thing["bitmap"]["data"])))
        with Image.open(packed) as png:
            drawn = np.asarray(png.getchannel("A") if "A" in png.getbands() else png.convert("L")) > 0
        return Shape(label, bitmap=drawn, corner=tuple(thing["bitmap"]["origin"]))
    exterior = np.array(thing["points"]["exterior"], float)
    if kind == "rectangle":
        exterior = rectangle(*exterior.ravel())
    elif kind != "polygon":
        raise ValueError(f"a {kind} has no area")
    holes = tuple(np.array(hole, float) for hole in thing["points"].get("interior", ()))
    return Shape(label, (exterior,), holes, pixel_corners=True)  # its SDK fills them by OpenCV, outlines included


def _metas(folder: Folder) -> list[Path]:
    found = folder.json_where(lambda content: isinstance(content.get("classes"), list))
    return [path for path in found if path.name.lower() == "meta.json"]


def _annotation_files(folder: Folder) -> list[Path]:
    return [path for path in folder.json_where(lambda content: "objects" in content) if path.parent.name == "ann"]
