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
    """Read a folder with the one reader that fits it.

    layout: the name of the reader to use.
    Side-by-side pairs are looked for only where no other reader fits. Raises DataError if none or several fit.
    """
    folder = Folder(root)
    if layout is None:
        layout = _fitting(folder)
    elif layout != side_by_side.NAME and not READERS[layout].fits(folder):
        raise DataError(f"{root} holds nothing for the layout {layout}: {READERS[layout].__doc__.splitlines()[0]}")
    try:
        return READERS[layout].read(folder)
    except (KeyError, TypeError, AttributeError, IndexError) as error:  # JSON of another form than the tool writes
        raise DataError(f"{root} cannot be read as {layout} ({error!r}): export it again") from error


def _fitting(folder: Folder) -> str:
    """The name of the reader that fits. Raises DataError."""
    specific = {name: reader for name, reader in READERS.items() if reader is not side_by_side}
    fitting = {name: why for name, reader in specific.items() if (why := reader.fits(folder))}
    if not fitting and (why := side_by_side.fits(folder)):
        fitting = {side_by_side.NAME: why}
    if len(fitting) > 1:
        reasons = "; ".join(f"{name}, for {why}" for name, why in fitting.items())
        raise DataError(
            f"{folder.root} can be read in several ways: {reasons}. Say which one is meant, such as --layout "
            f"{next(iter(fitting))}"
        )
    if not fitting:
        raise DataError(_nothing_fits(folder))
    return next(iter(fitting))


def _nothing_fits(folder: Folder) -> str:
    """What a folder without annotations holds, and what was looked for."""
    count = len(folder.pictures)
    holds = f"{count} picture{'s' * (count != 1)}, but no annotations that belong to them" if count else "no pictures"
    volumes = folder.with_ending(".nii", ".gz", ".dcm", ".npy", ".mha", ".nrrd")
    hint = f"; files such as {volumes[0].name} cannot be read here, export them as PNG" if volumes else ""
    if broken := folder.broken_json():
        hint += "; " + broken[0]
    return (
        f"{folder.root} holds {holds}{hint}. Put pictures into images/ and masks of the same names into labels/, or "
        f"export YOLO segmentation, COCO, LabelMe, VIA or Supervisely annotations; docs/training.md lists the layouts"
    )
