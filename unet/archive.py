"""A ZIP or a folder for many pictures."""

import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from .images import Source

_NAME_BYTES = 120  # file systems take 255; a number and an ending are added
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))]
)


class ZipArchive(zipfile.ZipFile):
    """A ZIP that deflates text; pictures are compressed already."""

    def writestr(self, name: str, text: str) -> None:
        super().writestr(name, text, zipfile.ZIP_DEFLATED)


class FolderArchive:
    """A folder that is written as a ZipArchive is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str, mode: str = "w") -> BinaryIO:
        """A binary file to write."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open(f"{mode}b")

    def writestr(self, name: str, text: str) -> None:
        """Write a whole file, or leave the old one."""
        with self.open(partial := name + ".partial") as file:
            file.write(text.encode())
        (self.folder / partial).replace(self.folder / name)


#: Where files are written.
Archive = ZipArchive | FolderArchive


def match_truths(pictures: Iterable[str], truths: Mapping[str, Source]) -> tuple[dict[str, Source], list[str]]:
    """Match ground truths to pictures by name.

    Ending and capitals may differ. Returns truths by the picture's name, and sentences about the others.
    """
    keys, called = {name: _stem(name).casefold() for name in pictures}, {}
    for name in sorted(truths):
        called.setdefault(_stem(name).casefold(), []).append(name)
    remarks, counts = [], Counter(keys.values())
    for key, names in called.items():
        if not counts[key]:
            remarks += [f"No picture is called like the ground truth {name}." for name in names]
        elif len(names) > 1:
            remarks.append(f"The ground truths {' and '.join(names)} have one name: none of them is used.")
        elif counts[key] > 1:
            remarks.append(f"{counts[key]} pictures are called like the ground truth {names[0]}: none is scored.")
    found = {name: called[key][0] for name, key in keys.items() if counts[key] == len(called.get(key, ())) == 1}
    return {name: truths[truth] for name, truth in found.items()}, remarks


def picture_files(names: Iterable[str]) -> list[str]:
    """File names without ending that every system can store."""
    files: dict[str, str] = {}  # by their small letters: some systems do not tell capitals apart
    for name in names:
        plain = "".join(c if c.isprintable() and c not in _NOT_IN_NAMES else "_" for c in _stem(name))
        plain = plain.encode()[:_NAME_BYTES].decode(errors="ignore").strip(" .") or "picture"
        plain = f"_{plain}" if plain.casefold().partition(".")[0] in _WINDOWS_DEVICES else plain
        unique, number = plain, 1
        while unique.casefold() in files:
            number += 1
            unique = f"{plain}-{number}"
        files[unique.casefold()] = unique
    return list(files.values())


def network_folders(names: Iterable[str]) -> list[str]:
    """Folder names for networks of these names."""
    return picture_files(f"{name}." for name in names)  # a dot in a network's name begins no ending


def _stem(name: str) -> str:
    """A file's name without folders and ending."""
    base = PurePosixPath(name.replace("\\", "/")).name
    return unicodedata.normalize("NFC", base.rpartition(".")[0] or base)  # macOS spells é as two characters
