"""YOLO segmentation: text files of polygons, and data.yaml."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from .base import ClassList, DataError, Drawn, Reading, Shape
from .class_lists import find_classes
from .folder import Folder, read_text

NAME = "yolo"


def fits(folder: Folder) -> str:
    """Why this is a YOLO folder, or ""."""
    labels = list(_labels(folder).values())
    if labels and (yamls := _yamls(folder)):
        return f"{yamls[0].name} and text files of labels"
    return "text files that begin with a class number and coordinates" if labels and _is_label(labels[0]) else ""


def read(folder: Folder) -> Reading:
    """Read every picture; without a label it is background."""
    names, source = _names(folder)
    reading, labels = Reading("YOLO segmentation", classes=ClassList.of_shapes(names, source)), _labels(folder)
    for picture in folder.pictures:
        path = labels.get(picture)
        try:
            lines = read_text(path).splitlines() if path else ()
            shapes = tuple(_shape(line, path, len(names)) for line in lines if line.strip())
        except DataError as error:
            reading.problems.append(str(error))
        else:
            reading.splits[folder.split_of(picture)].append(Drawn(picture, path or picture, shapes))
    if unlabelled := len(folder.pictures) - len(labels):
        reading.notes.append(f"{unlabelled} pictures without a label file are all background, as YOLO has it")
    folders = {_label_file(folder.root, picture).parent for picture in folder.pictures}
    stems = {picture.stem for picture in folder.pictures}
    others = sorted(set(folder.with_ending(".txt")) - set(labels.values()))
    reading.problems += [f"{path} has no picture" for path in others if path.parent in folders and path.stem in stems]
    return reading


def _shape(line: str, path: Path, classes: int) -> Shape:
    number, *coordinates = line.split()
    if len(coordinates) == 4:
        raise DataError(f"{path} holds boxes, not outlines: export the data set for segmentation")
    try:
        number, corners = int(number), np.array(coordinates, float).reshape(-1, 2)
    except ValueError as error:
        raise DataError(f"{path} has a line that is no class number and polygon, {line[:40]!r}: export it") from error
    if not 0 <= number < classes or not np.isfinite(corners).all() or len(corners) < 3:
        raise DataError(f"{path} has the class {number} with {len(corners)} corners; data.yaml names {classes} classes")
    return Shape(number + 1, (corners,), relative=True)


def _names(folder: Folder) -> tuple[Sequence[str], str]:
    """The classes, and the file that lists them."""
    yamls = _yamls(folder)
    if not yamls and (listed := find_classes(folder)).values == dict(enumerate(range(len(listed.names)))):
        return listed.names, listed.source  # classes.txt, as Label Studio writes it
    if len(yamls) != 1:
        found = " and ".join(map(str, yamls[:2])) or "none is there"
        raise DataError(f"YOLO labels need one data.yaml that names the classes ({found})")
    path = yamls[0]
    try:
        names = yaml.safe_load(read_text(path))["names"]
        names = [names[number] for number in sorted(names)] if isinstance(names, dict) else list(names)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not list the classes as names: [a, b]") from error
    return [str(name) for name in names], path.name


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
