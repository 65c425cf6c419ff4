"""Readers of annotation formats, one file a family.

A reader is a module with NAME, for ``--layout``; ``fits(folder)``, why a folder is its own; and ``read(folder)``.
"""

from __future__ import annotations

from pathlib import Path

from . import coco, labelme, masks, side_by_side, supervisely, via, yolo
from .base import ClassList, DataError, Pair, Reading
from .folder import Folder

__all__ = ["READERS", "ClassList", "DataError", "Pair", "Reading", "read_folder"]

READERS = {reader.NAME: reader for reader in (masks, yolo, coco, labelme, via, supervisely, side_by_side)}


def read_folder(root: Path, layout: str | None = None) -> Reading:
    """Read a folder with the one reader that fits.

    layout: the name of the reader to use. Raises DataError if none or several fit.
    """
    folder = Folder(root)
    if layout is None:
        layout = _fitting(folder)
    elif layout != side_by_side.NAME and not READERS[layout].fits(folder):
        raise DataError(f"{root} holds nothing for the layout {layout}: {READERS[layout].__doc__.splitlines()[0]}")
    try:
        return READERS[layout].read(folder)
    except DataError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # JSON of another form than the tool writes
        raise DataError(f"{root} cannot be read as {layout} ({error!r}): export it again") from error


def _fitting(folder: Folder) -> str:
    """The name of the reader that fits. Raises DataError."""
    fitting = {}
    for name, reader in READERS.items():  # side_by_side is the last
        if (reader is not side_by_side or not fitting) and (why := reader.fits(folder)):
            fitting[name] = why
    if len(fitting) == 1:
        return next(iter(fitting))
    if fitting:
        reasons = "; ".join(f"{name}, for {why}" for name, why in fitting.items())
        raise DataError(
            f"{folder.root} can be read in several ways: {reasons}. Say which one is meant, such as --layout "
            f"{next(iter(fitting))}"
        )
    count = len(folder.pictures)
    holds = [f"{count} picture{'s' * (count != 1)}, but no annotations that belong to them" if count else "no pictures"]
    if volumes := folder.with_ending(".nii", ".gz", ".dcm", ".npy", ".mha", ".nrrd"):
        holds.append(f"files such as {volumes[0].name} cannot be read here, export them as PNG")
    raise DataError(
        f"{folder.root} holds {'; '.join(holds + folder.broken_json[:1])}. Put pictures into images/ and masks of "
        "the same names into labels/, or export YOLO segmentation, COCO, LabelMe, VIA or Supervisely annotations; "
        "docs/training.md lists the layouts"
    )
