"""Supervisely: ann/<picture>.json beside img/, and meta.json."""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from .base import ClassList, Folder, Pair, Reading, Shape, Shapes

NAME = "supervisely"


def fits(folder: Folder) -> str:
    """Why this is a Supervisely folder, or ""."""
    return "meta.json with classes, and ann/ beside img/" if _meta(folder) and _annotation_files(folder) else ""


def read(folder: Folder) -> Reading:
    """Read the objects of every picture.

    Classes and their colours are those of meta.json.
    """
    classes = _meta(folder)["classes"]
    names = [entry["title"] for entry in classes]
    colors = [tuple(bytes.fromhex(entry["color"].lstrip("#"))) for entry in classes if entry.get("color")]
    palette = colors if len(set(colors)) == len(names) and (0, 0, 0) not in colors else ()
    reading = Reading("Supervisely (meta.json)", classes=ClassList.of_shapes(names, "meta.json", palette))
    reading.problems += folder.broken_json()
    annotations = set(_annotation_files(folder))
    for picture in folder.pictures:
        if picture.parent.name != "img":
            continue
        beside = picture.parent.parent / "ann"
        path = next(
            (p for p in (beside / f"{picture.name}.json", beside / f"{picture.stem}.json") if p in annotations), 0
        )
        if not path:
            reading.problems.append(f"{picture} has no annotation in ann/")
            continue
        annotations.discard(path)
        content = folder.json[path]
        try:
            shapes = tuple(_shape(thing, names) for thing in content["objects"])
            size = (content["size"]["height"], content["size"]["width"])
        except (KeyError, TypeError, ValueError, UnidentifiedImageError, binascii.Error, zlib.error) as error:
            reading.problems.append(f"{path} has an object that cannot be read ({error}): export it again")
            continue
        reading.add(folder.split_of(picture), Pair(picture, Shapes(path, shapes, size)))
    reading.problems += [f"{path} has no picture in img/" for path in sorted(annotations)]
    return reading


def _shape(thing: dict[str, Any], names: list[str]) -> Shape:
    label, kind = names.index(thing["classTitle"]) + 1, thing["geometryType"]
    if kind == "bitmap":
        packed = zlib.decompress(base64.b64decode(thing["bitmap"]["data"]))
        return Shape(label, bitmap=_drawn(packed), corner=tuple(thing["bitmap"]["origin"]))
    exterior = np.array(thing["points"]["exterior"], float)
    if kind == "rectangle":
        (left, top), (right, bottom) = exterior
        exterior = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif kind != "polygon":
        raise ValueError(f"a {kind} has no area")
    holes = tuple(np.array(hole, float) for hole in thing["points"].get("interior", ()))
    return Shape(label, (exterior,), holes)


def _drawn(png: bytes) -> np.ndarray:
    """bool (H, W): the pixels of a bitmap that are drawn."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        alpha = picture.getchannel("A") if "A" in picture.getbands() else picture.convert("L")
        return np.asarray(alpha) > 0


def _meta(folder: Folder) -> dict[str, Any] | None:
    for path in folder.named("meta.json"):
        content = folder.json[path]
        if isinstance(content, dict) and isinstance(content.get("classes"), list):
            return content
    return None


def _annotation_files(folder: Folder) -> list[Path]:
    return [p for p, content in folder.json.items() if p.parent.name == "ann" and "objects" in _keys(content)]


def _keys(content: Any) -> set[str]:
    return set(content) if isinstance(content, dict) else set()
