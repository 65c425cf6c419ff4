"""A ZIP or a folder for the files of many pictures.

File names are such that every system can store them.
"""

from __future__ import annotations

import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from .images import Source

_NAME_BYTES = 120  # file systems take 255; a number and an ending are added
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))]
)


class FolderArchive:
    """A folder with the methods of a ZipFile that are needed here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str, mode: str = "w") -> BinaryIO:
        """A binary file to write."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open(f"{mode}b")

    def writestr(self, name: str, data: bytes, compress_type: int | None = None) -> None:
        """Write a whole file; one that is interrupted leaves the old one."""
        with self.open(partial := name + ".partial") as file:
            file.write(data)
        (self.folder / partial).replace(self.folder / name)


#: Where files are written.
Archive = zipfile.ZipFile | FolderArchive


def write_text(archive: Archive, name: str, text: str) -> None:
    archive.writestr(name, text.encode(), compress_type=zipfile.ZIP_DEFLATED)


def match_truths(pictures: Iterable[str], truths: Mapping[str, Source]) -> tuple[dict[str, Source], list[str]]:
    """Match ground truths to pictures by name.

    Returns those of these pictures, by the picture's name, and sentences about the others.

    A ground truth belongs to the picture of the same name; ending and capitals may differ.
    """
    pictures, called = list(pictures), {}
    for name in sorted(truths):
        called.setdefault(_key(name), []).append(name)
    wanted, remarks = {_key(name) for name in pictures}, []
    for key, names in called.items():
        if key not in wanted:
            remarks += [f"No picture is called like the ground truth {name}." for name in names]
        elif len(names) > 1:
            remarks.append(f"The ground truths {' and '.join(names)} have one name: none of them is used.")
    return {name: truths[names[0]] for name in pictures if len(names := called.get(_key(name), [])) == 1}, remarks


def picture_files(names: Iterable[str]) -> list[str]:
    """File names, without ending, for pictures of these names."""
    taken: set[str] = set()
    return [_file_name(name, taken) for name in names]


def network_folders(names: Iterable[str]) -> list[str]:
    """Folder names for networks of these names."""
    return picture_files(f"{name}." for name in names)  # a dot in a network's name begins no ending


def _stem(name: str) -> str:
    """A file's name without its folders, of whatever system, and without its ending."""
    base = PurePosixPath(name.replace("\\", "/")).name
    return base.rpartition(".")[0] or base


def _key(name: str) -> str:
    """A name normalised across systems.

    macOS spells é as two characters.
    """
    return unicodedata.normalize("NFC", _stem(name)).casefold()


def _file_name(name: str, taken: set[str]) -> str:
    """A file name, without ending, that every system can store.

    A name that is taken gets a number.
    """
    text = unicodedata.normalize("NFC", _stem(name))
    plain = "".join(c if c.isprintable() and c not in _NOT_IN_NAMES else "_" for c in text)
    plain = plain.encode()[:_NAME_BYTES].decode(errors="ignore").strip(" .") or "picture"
    plain = f"_{plain}" if plain.casefold().partition(".")[0] in _WINDOWS_DEVICES else plain
    unique, number = plain, 1
    while unique.casefold() in taken:
        number += 1
        unique = f"{plain}-{number}"
    taken.add(unique.casefold())
    return unique
