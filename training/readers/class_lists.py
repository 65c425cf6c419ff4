"""Class lists as annotation tools and well-known data sets leave them."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from unet.metrics import IGNORE_INDEX

from .base import ClassList, DataError, Folder, read_text

Row = tuple[int, str, "tuple[int, int, int] | None"]


def find_classes(folder: Folder) -> ClassList:
    """The class list of a folder, or an empty one.

    Of several kinds the first of ``PARSERS`` counts. Raises DataError for one that cannot be read, and for lists of one
    kind that differ.
    """
    own = folder.root / "classes.json"
    if os.path.lexists(own):
        return _own_classes(own)
    for name, parse in PARSERS.items():
        paths = folder.named(name)
        if not paths:
            continue
        try:
            lists = [list(parse(path)) for path in paths]
        except (KeyError, TypeError, ValueError, AttributeError, LookupError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{paths[0]} is not a class list as {name} should be ({error}); correct it") from error
        if different := [path for path, rows in zip(paths, lists, strict=True) if rows != lists[0]]:
            raise DataError(f"{paths[0]} and {different[0]} list different classes: make them alike")
        if lists[0]:
            return ClassList.of_rows(lists[0], name)
    return ClassList()


def _color(values: Iterable[Any]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"{(red, green, blue)} is no colour of 0 to 255")
    return red, green, blue


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]


def _names(path: Path) -> Iterator[Row]:
    """One name a line. LabelMe begins with __ignore__, whose number is -1."""
    names = _lines(path)
    for number, name in enumerate(names[1:] if names[:1] == ["__ignore__"] else names):
        yield number, name, None


def _labelmap(path: Path) -> Iterator[Row]:
    """CVAT's "name:r,g,b:parts:actions" lines."""
    for number, line in enumerate(_lines(path)):
        name, color = line.split(":")[:2]
        yield number, name, _color(color.split(",")) if color else None


def _label_colors(path: Path) -> Iterator[Row]:
    """CamVid's "r g b name" lines."""
    for number, line in enumerate(_lines(path)):
        *color, name = line.split(None, 3)
        yield number, name, _color(color)


def _class_dict(path: Path) -> Iterator[Row]:
    """A table with the columns name, r, g, b."""
    rows = csv.DictReader(_lines(path), skipinitialspace=True)
    for number, row in enumerate({key.strip().lower(): value for key, value in row.items()} for row in rows):
        yield number, row["name"], _color((row["r"], row["g"], row["b"]))


def _roboflow(path: Path) -> Iterator[Row]:
    """Roboflow's table with the columns "Pixel Value" and "Class"."""
    for row in csv.reader(_lines(path)[1:], skipinitialspace=True):
        yield int(row[0]), row[1], None


def _nnunet(path: Path) -> Iterator[Row]:
    """nnU-Net's "labels", {name: number} (version 2) or {"number": name} (version 1)."""
    content = json.loads(read_text(path))
    for key, value in content.get("labels", {}).items():
        if isinstance(value, list):
            raise DataError(f"{path} has regions of several labels ({key}), which cannot be read here")
        yield (int(key), value, None) if str(key).isdigit() else (int(value), key, None)


def _datumaro(path: Path) -> Iterator[Row]:
    """Datumaro's "label_map", {"number": name}, with "segmentation_colors"."""
    content = json.loads(read_text(path))
    colors = content.get("segmentation_colors", [])
    names = content.get("label_map") or dict(enumerate(content["labels"]))
    for i, (number, name) in enumerate(names.items()):
        yield int(number), name, _color(colors[i]) if i < len(colors) else None


def _id2label(path: Path) -> Iterator[Row]:
    """Hugging Face's {"number": name}."""
    for number, name in json.loads(read_text(path)).items():
        yield int(number), name, None


def _ade20k(path: Path) -> Iterator[Row]:
    """ADE20K's table with the columns Idx and Name; number 0 is void."""
    yield 0, "void", None
    for line in _lines(path)[1:]:
        number, *_, name = re.split(r"\t+", line)
        yield int(number), name.strip(), None


#: How each class list is read, by its file's name; the first that is found counts.
PARSERS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "labelmap.txt": _labelmap,
    "_classes.csv": _roboflow,
    "class_dict.csv": _class_dict,
    "label_colors.txt": _label_colors,
    "class_names.txt": _names,
    "label_names.txt": _names,
    "codes.txt": _names,
    "dataset_meta.json": _datumaro,
    "dataset.json": _nnunet,
    "id2label.json": _id2label,
    "objectInfo150.txt": _ade20k,
    "labels.txt": _names,
    "classes.txt": _names,
}


def _own_classes(path: Path) -> ClassList:
    """Read classes.json, the project's own form.

    Raises DataError with what is wrong in it.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
        wrong = _wrong_in(listed)
    except (OSError, ValueError, RecursionError) as error:
        wrong = str(error)
    if wrong:
        raise DataError(f"{path} is not a class list ({wrong}); see docs/training.md for its form")
    void, names = listed.get("ignore_index"), tuple(listed.get("class_names") or ())
    values = None
    if void is not None:
        values = {i: i for i in range(len(names) or IGNORE_INDEX)} | {void: IGNORE_INDEX}
    palette = listed.get("palette")
    return ClassList(names, path.name, values, tuple(map(tuple, palette)) if palette else None)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated keys.

    Python would keep the last of them. Raises ValueError.
    """
    if repeated := [key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i])]:
        raise ValueError(f"{repeated[0]!r} is there twice")
    return dict(pairs)


def _wrong_in(listed: Any) -> str | None:
    """What keeps this from being a class list, or None."""

    def is_byte(value: Any) -> bool:
        return type(value) is int and 0 <= value <= 255

    if not isinstance(listed, dict):
        return "it has to begin with { and end with }"
    if unknown := sorted(listed.keys() - {"class_names", "palette", "ignore_index"}):
        return f"unknown key {unknown[0]!r}"
    names, palette, void = (listed.get(key) for key in ("class_names", "palette", "ignore_index"))
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            return "class_names is a list of words"
        if not 1 <= len(names) <= IGNORE_INDEX or len(set(names)) < len(names):
            return f"class_names are different words, at most {IGNORE_INDEX}"
    if palette is not None:
        lists = isinstance(palette, list) and all(isinstance(color, list) and len(color) == 3 for color in palette)
        if not names or not lists or len(palette) != len(names) or not all(is_byte(v) for c in palette for v in c):
            return "palette needs one [r, g, b] of 0 to 255 a class name"
        if len({tuple(color) for color in palette}) < len(palette):
            return "two classes have one colour in palette"
    if void is not None and not is_byte(void):
        return "ignore_index is a whole number from 0 to 255"
    return None
