"""Class lists, as tools and known data sets write them."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from unet.metrics import IGNORE_INDEX

from ..datasets import CITYSCAPES_CLASSES
from .base import ClassList, DataError
from .folder import Folder, read_text

Row = tuple[int, str, "tuple[int, int, int] | None"]


def find_classes(folder: Folder) -> ClassList:
    """The class list of a folder, maybe empty. Raises DataError."""
    own = folder.root / "classes.json"
    if os.path.lexists(own):
        return _own_classes(own)
    for name, parse in PARSERS.items():
        paths = folder.named(name)
        try:
            lists = [list(parse(path)) for path in paths]
        except DataError:
            raise
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise DataError(f"{paths[0]} is not a class list as {name} should be ({error}); correct it") from error
        if different := [path for path, rows in zip(paths, lists, strict=True) if rows != lists[0]]:
            raise DataError(f"{paths[0]} and {different[0]} list different classes: make them alike")
        if lists and lists[0]:
            return ClassList.of_rows(lists[0], name)
    return ClassList()


def _color(values: Iterable[Any]) -> tuple[int, int, int]:
    red, green, blue = bytes(int(value) for value in values)  # of 0 to 255
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


def _table(path: Path) -> Iterator[Row]:
    """name, r, g, b, or Roboflow's "Pixel Value", "Class"."""
    rows = csv.DictReader(_lines(path), skipinitialspace=True, restkey="")
    for number, row in enumerate({key.strip().lower(): value for key, value in row.items()} for row in rows):
        if "pixel value" in row:
            yield int(row["pixel value"]), row["class"], None
        else:
            yield number, row["name"], _color((row["r"], row["g"], row["b"]))


def _numbers(path: Path) -> Iterator[Row]:
    """{"number": name}, or nnU-Net's "labels", {name: number}."""
    content = json.loads(read_text(path))
    for key, value in (content.get("labels", {}) if path.name.lower() == "dataset.json" else content).items():
        if isinstance(value, list):
            raise DataError(f"{path} has regions of several labels ({key}), which cannot be read here")
        yield (int(key), value, None) if str(key).isdigit() else (int(value), key, None)


def _datumaro(path: Path) -> Iterator[Row]:
    """Datumaro's "label_map", {"number": name}, with "segmentation_colors"."""
    content = json.loads(read_text(path))
    names = content.get("label_map") or dict(enumerate(content["labels"]))
    colors = content.get("segmentation_colors", [])
    for (number, name), color in itertools.zip_longest(names.items(), colors[: len(names)]):
        yield int(number), name, None if color is None else _color(color)


def _ade20k(path: Path) -> Iterator[Row]:
    """ADE20K's table with Idx and Name; 0 is void."""
    yield 0, "void", None
    for line in _lines(path)[1:]:
        number, *_, name = line.split("\t")
        yield int(number), name.strip(), None


#: How each class list is read, by its file's name; the first that is found counts.
PARSERS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "labelmap.txt": _labelmap,
    "_classes.csv": _table,
    "class_dict.csv": _table,
    "label_colors.txt": _label_colors,
    "class_names.txt": _names,
    "label_names.txt": _names,
    "codes.txt": _names,
    "dataset_meta.json": _datumaro,
    "dataset.json": _numbers,
    "id2label.json": _numbers,
    "objectInfo150.txt": _ade20k,
    "labels.txt": _names,
    "classes.txt": _names,
}


def _numbered(names: Iterable[str], source: str) -> ClassList:
    """Classes that count from 1; 0 is void."""
    return ClassList.of_rows(((i, name, None) for i, name in enumerate(("void", *names))), source)


_CITYSCAPES = tuple(name for _, name, _ in CITYSCAPES_CLASSES)
_CITYSCAPES_IDS = {number: i for i, (number, _, _) in enumerate(CITYSCAPES_CLASSES)}
_LOVEDA = ("background", "building", "road", "water", "barren", "forest", "agricultural")
TRIMAPS = ClassList(("background", "foreground"), "trimaps, the border is void", {1: 1, 2: 0, 3: IGNORE_INDEX})
#: Numbers that well-known data sets use, by words in the paths of their masks.
CONVENTIONS = {
    "labelIds": ClassList(
        _CITYSCAPES, "Cityscapes label ids", dict.fromkeys(range(34), IGNORE_INDEX) | _CITYSCAPES_IDS
    ),
    "labelTrainIds": ClassList(_CITYSCAPES, "Cityscapes train ids", {i: i for i in range(19)} | {19: IGNORE_INDEX}),
    r"ADE_(?:train|val)_\d+$": _numbered((f"class {i}" for i in range(1, 151)), "ADE20K, 0 is void"),
    r"trimaps?\b": TRIMAPS,
    r"(?:Rural|Urban)/masks_png": _numbered(_LOVEDA, "LoveDA, 0 is void"),
}


def _own_classes(path: Path) -> ClassList:
    """Read classes.json, the project's own form. Raises DataError."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
        _require(isinstance(listed, dict), "it has to begin with { and end with }")
        unknown = sorted(listed.keys() - {"class_names", "palette", "ignore_index"})
        _require(not unknown, f"unknown key {', '.join(map(repr, unknown))}")
        names, palette, void = (listed.get(key) for key in ("class_names", "palette", "ignore_index"))
        if names is not None:
            words = isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names)
            _require(words, "class_names is a list of words")
            few = 1 <= len(names) == len(set(names)) <= IGNORE_INDEX
            _require(few, f"class_names are different words, at most {IGNORE_INDEX}")
        if palette is not None:
            lists = isinstance(palette, list) and all(isinstance(color, list) and len(color) == 3 for color in palette)
            colors = lists and len(palette) == len(names or ()) and all(_is_byte(v) for color in palette for v in color)
            _require(colors, "palette needs one [r, g, b] of 0 to 255 a class name")
            palette = tuple(map(tuple, palette))
            _require(len(set(palette)) == len(palette), "two classes have one colour in palette")
        _require(void is None or _is_byte(void), "ignore_index is a whole number from 0 to 255")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a class list ({error}); see docs/training.md for its form") from error
    names = tuple(names or ())
    values = {i: i for i in range(len(names) or IGNORE_INDEX)} | {void: IGNORE_INDEX}
    return ClassList(names, path.name, None if void is None else values, palette)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    repeated = [key for key in keys if keys.count(key) > 1]  # Python would keep the last
    _require(not repeated, f"{', '.join(map(repr, dict.fromkeys(repeated)))} is there twice")
    return dict(pairs)
