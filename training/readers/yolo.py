"""YOLO segmentation: text files of polygons, and data.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from .base import ClassList, DataError, Drawn, Reading, Shape, labels_of
from .class_lists import find_classes
from .folder import SPLITS, Folder, read_text, same_name

NAME = "yolo"
LARGEST_SHARE = 2  # outlines may leave the picture; those that go further are in pixels


def fits(folder: Folder) -> str:
    """Why this is a YOLO folder, or ""."""
    labels = list(_labels(folder).values())
    if labels and (yamls := _yamls(folder)):
        return f"{yamls[0].name} and text files of labels"
    return "text files that begin with a class number and coordinates" if labels and _is_label(labels[0]) else ""


def read(folder: Folder) -> Reading:
    """Read every picture; without a label it is background."""
    yamls = _yamls(folder)
    names, source = _names(folder, yamls)
    reading, labels = Reading("YOLO segmentation", classes=ClassList.of_shapes(names.values(), source)), _labels(folder)
    known = labels_of(names.values())
    label_of = {number: known[name] for number, name in names.items()}
    splits = _splits(folder, yamls[0], reading) if yamls else {}
    listed = [picture for picture in folder.pictures if not splits or picture in splits or folder.split_of(picture)]
    for picture in listed:
        path = labels.get(picture)
        try:
            lines = read_text(path).splitlines() if path else ()
            shapes = tuple(_shape(line, path, label_of) for line in lines if line.strip())
        except DataError as error:
            reading.problems.append(str(error))
        else:
            split = splits.get(picture) or folder.split_of(picture)
            reading.splits[split].append(Drawn(picture, path or picture, shapes))
    if unlabelled := len(set(listed) - labels.keys()):
        reading.notes.append(f"{unlabelled} pictures without a label file are all background, as YOLO has it")
    if left := len(folder.pictures) - len(listed):
        reading.notes.append(f"{left} pictures that {yamls[0].name} puts into no split are left out")
    folders = {_label_file(folder.root, picture).parent for picture in folder.pictures}
    stems = {picture.stem for picture in folder.pictures}
    others = sorted(set(folder.with_ending(".txt")) - set(labels.values()))
    reading.problems += [
        f"{path} has no picture"
        for path in others
        if path.parent in folders and (path.stem in stems or _is_label(path))
    ]
    return reading


def _splits(folder: Folder, yaml_file: Path, reading: Reading) -> dict[Path, str]:
    """The splits of the pictures that data.yaml lists."""
    content, splits = _content(yaml_file), {}
    for split in ("train", "val", "test"):
        entries = content.get(split) or ()
        for entry in map(str, entries if isinstance(entries, (list, tuple)) else [entries]):
            found = list(_listed(folder, entry, split, reading))
            if again := sum(splits.setdefault(picture, split) != split for picture in found):
                reading.notes.append(f"{again} pictures that {yaml_file.name} has in {split} are in another split, too")
            if not found and split != "test":
                reading.notes.append(f"{split}: {entry} of {yaml_file.name} is not here")
    return splits


def _listed(folder: Folder, entry: str, split: str, reading: Reading) -> Iterator[Path]:
    """The pictures under a folder, or in a list, of data.yaml."""
    parts = [part for part in PurePosixPath(entry.replace("\\", "/")).parts if part not in ("..", "/")]
    for file in (file for file in folder.with_ending(".txt") if parts[-1:] == [file.name]):
        for line in filter(None, map(str.strip, read_text(file).splitlines())):
            found = folder.find(line, file, split)
            yield from found[:1]
            if len(found) > 1:
                reading.add_ambiguous(file, line, found)
        return
    paths = {picture: f"/{same_name(picture.relative_to(folder.root).as_posix())}" for picture in folder.pictures}
    # Where the file was written, other folders may have led there; the one that says the split is not among those.
    last = max((i for i, part in enumerate(parts) if part.lower() in SPLITS), default=len(parts) - 1)
    for skipped in range(max(0, last) + 1):
        inside = "/".join(["", *map(same_name, parts[skipped:]), ""])
        if found := [picture for picture, path in paths.items() if inside in path]:
            yield from found
            return


def _shape(line: str, path: Path, label_of: dict[int, int]) -> Shape:
    number, *coordinates = line.split()
    if len(coordinates) == 4:
        raise DataError(f"{path} holds boxes, not outlines: export the data set for segmentation")
    try:
        number, corners = int(number), np.array(coordinates, float).reshape(-1, 2)
    except ValueError as error:
        raise DataError(f"{path} has a line that is no class number and polygon, {line[:40]!r}: export it") from error
    if number not in label_of or not np.isfinite(corners).all() or len(corners) < 3:
        known = ", ".join(map(str, label_of))
        raise DataError(f"{path} has the class {number} with {len(corners)} corners; the classes are {known}")
    if np.abs(corners).max() > LARGEST_SHARE:
        raise DataError(f"{path} has a corner at {corners.max():g}: corners are shares of the picture, 0 to 1")
    return Shape(label_of[number], (corners,), relative=True)


def _names(folder: Folder, yamls: Sequence[Path]) -> tuple[dict[int, str], str]:
    """The classes by their numbers, and the file that lists them."""
    if not yamls and (listed := find_classes(folder)).values == dict(enumerate(range(len(listed.names)))):
        return dict(enumerate(listed.names)), listed.source  # classes.txt, as Label Studio writes it
    if len(yamls) != 1:
        found = " and ".join(map(str, yamls[:2])) or "none is there"
        raise DataError(f"YOLO labels need one data.yaml that names the classes ({found})")
    path = yamls[0]
    try:
        names = _content(path)["names"]
        names = sorted(names.items()) if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in names}, path.name
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not list the classes as names: [a, b]") from error


def _content(path: Path) -> dict[str, Any]:
    """What data.yaml says. Raises DataError."""
    try:
        return dict(yaml.safe_load(read_text(path)))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no readable YAML ({error}): write it as names: [a, b]") from error


def _yamls(folder: Folder) -> list[Path]:
    return [path for path in folder.with_ending(".yaml", ".yml") if "names:" in path.read_text(errors="replace")]


def _labels(folder: Folder) -> dict[Path, Path]:
    """The label files by their pictures."""
    texts = set(folder.with_ending(".txt"))
    return {picture: path for picture in folder.pictures if (path := _label_file(folder.root, picture)) in texts}


def _label_file(root: Path, picture: Path) -> Path:
    """Where its label is: "labels" in place of "images"."""
    name = picture.relative_to(root).with_suffix(".txt").as_posix()
    return root / re.sub("^(.*/)?images/", r"\1labels/", name)


def _is_label(path: Path) -> bool:
    words = path.read_text(errors="replace").partition("\n")[0].split()
    try:
        return len(words) > 4 and words[0].isdigit() and max(map(float, words[1:])) <= 1
    except ValueError:
        return False
