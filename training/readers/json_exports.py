"""What the readers of JSON exports share."""

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
    """Add every picture with its shapes, None where it has no area, or a problem."""
    reading.problems += folder.broken_json()
    listed_in: dict[Path, Path] = {}
    for path, name, picture, things, split, size in exports:
        if picture is None:
            reading.problems.append(f"{path} lists {name}, which is not there: put it back, or take it out")
        elif picture in listed_in:  # it could be learnt from and scored
            reading.problems.append(f"{path} lists {name}, which is listed in {listed_in[picture].name}: leave one")
        else:
            listed_in[picture] = path
            try:
                shapes = tuple(shape for thing in things if (shape := shape_of(thing)))
            except (LookupError, TypeError, ValueError, OSError, zlib.error) as error:
                why = error if isinstance(error, ValueError) else repr(error)
                reading.problems.append(f"{path}: a shape of {name} cannot be read ({why}): export it again")
            else:
                reading.splits[split].append(Drawn(picture, path, shapes, size if all(size) else None))
