"""What the readers of JSON exports share: from listed shapes to pairs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .base import Drawn, Reading, Shape
from .folder import Folder


class Export(NamedTuple):
    """What a JSON file says about one picture.

    path: of the JSON file. picture: None if it is not there. things: one a shape. size: (H, W), or None and zeros.
    """

    path: Path
    name: str
    picture: Path | None
    things: Iterable[Any]
    split: str
    size: tuple[int | None, int | None] = (None, None)


def add_exports(
    folder: Folder, reading: Reading, exports: Iterable[Export], shape_of: Callable[[Any], Shape | None]
) -> None:
    """Add every picture with its shapes, or a problem.

    shape_of: what a thing of the JSON file is; None for what has no area.
    """
    reading.problems += folder.broken_json()
    listed_in: dict[Path, Path] = {}
    for export in exports:
        if export.picture is None:
            reading.problems.append(
                f"{export.path} lists {export.name}, which is not there: put it back, or take it out"
            )
            continue
        if export.picture in listed_in:  # it could be learnt from and scored
            other = listed_in[export.picture]
            reading.problems.append(f"{export.path} lists {export.name}, which is listed in {other.name}: leave one")
            continue
        listed_in[export.picture] = export.path
        try:
            shapes = tuple(shape for thing in export.things if (shape := shape_of(thing)))
        except (KeyError, TypeError, ValueError, IndexError, OSError, zlib.error) as error:
            why = error if isinstance(error, ValueError) else repr(error)
            reading.problems.append(f"{export.path}: a shape of {export.name} cannot be read ({why}): export it again")
            continue
        size = export.size if all(export.size) else None
        reading.splits[export.split].append(Drawn(export.picture, export.path, shapes, size))
