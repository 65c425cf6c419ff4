"""The files under a folder and what names say."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from unet.formats import PICTURE_ENDINGS

from .base import DataError

#: Words in the names of folders and lists that say to which split pictures belong.
SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "ts"), "test"),
}


class Folder:
    """All files under a folder, looked up once.

    Links to folders are followed. Raises DataError for a folder that is found twice, which could be learnt and scored.
    json: contents of the JSON files. broken_json: a sentence about each that cannot be read.
    pictures: by their endings. by_path: pictures with and without ending. by_name: pictures by their `same_name`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[Path] = []
        found: dict[str, str] = {}
        for folder, subfolders, files in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if found.setdefault(real, folder) != folder:
                raise DataError(f"{folder} and {found[real]} are one folder: take out the link, or what it points to")
            subfolders[:] = sorted(
                name
                for name in subfolders
                if not name.startswith((".", "__MACOSX"))
                and not Path(real).is_relative_to(os.path.realpath(os.path.join(folder, name)))  # a link upwards
            )
            # A folder named like a picture was meant to be one.
            named = [name for name in subfolders if Path(name).suffix.lower() in PICTURE_ENDINGS]
            self.files += [Path(folder, name) for name in sorted(files + named) if not name.startswith(".")]
        self.json: dict[Path, Any] = {}
        self.broken_json: list[str] = []
        for path in self.with_ending(".json"):
            try:
                content = self.json[path] = json.loads(path.read_text(encoding="utf-8-sig"))
            except (OSError, ValueError, RecursionError) as error:
                self.broken_json.append(f"{path} is no readable JSON ({error}): export it again")
                continue
            if isinstance(content, dict):
                content.pop("imageData", None)  # LabelMe's copy of the photo: megabytes each
        self.pictures = self.with_ending(*PICTURE_ENDINGS)
        self.by_path = {path.with_suffix(""): path for path in reversed(self.pictures)}
        self.by_name = defaultdict(list)
        for path in self.pictures:
            self.by_path[path] = path
            self.by_name[same_name(path.name)].append(path)

    def with_ending(self, *endings: str) -> list[Path]:
        """Files with one of these endings, such as ".json"."""
        return [path for path in self.files if path.suffix.lower() in endings]

    def named(self, name: str) -> list[Path]:
        """Files of this name, in any folder."""
        return [path for path in self.files if path.name.lower() == name.lower()]

    def split_of(self, path: Path) -> str:
        """The split that its innermost folder says, or ""."""
        parts = path.relative_to(self.root).parts[:-1]
        return next((split for part in reversed(parts) if (split := split_in(part))), "")

    def json_where(self, fits: Callable[[dict], bool]) -> list[Path]:
        """The JSON files that hold an object which fits."""
        return [path for path, content in self.json.items() if isinstance(content, dict) and fits(content)]

    def find(self, name: str, near: Path, split: str = "") -> list[Path]:
        """The pictures that a name listed in ``near`` can mean.

        Of those with this name, the ones whose folders agree most with the listed ones, then whose split and place do.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        beside = Path(os.path.normpath(near.parent / path))
        if self.by_path.get(beside) == beside:
            return [beside]
        listed = same_name(path.as_posix()).split("/")

        def likeness(picture: Path) -> tuple:
            return (
                same_name(str(picture)) == same_name(str(beside)),
                shared_tail(same_name(picture.as_posix()).split("/"), listed),
                picture.name == path.name,
                self.split_of(picture) == split,
                len(os.path.commonpath([picture, near])),
            )

        found = {picture: likeness(picture) for picture in self.by_name.get(listed[-1], ())}
        best = max(found.values(), default=None)
        return [picture for picture, alike in found.items() if alike == best]


def shared_tail(parts: Sequence[str], others: Sequence[str]) -> int:
    """How many parts two paths share at their ends."""
    return [*(a == b for a, b in zip(parts[::-1], others[::-1], strict=False)), False].index(False)


def same_name(name: str) -> str:
    """A name in small letters, as every system spells it."""
    # macOS spells é as two characters, others as one.
    return unicodedata.normalize("NFC", name).casefold()


def words_in(name: str) -> list[str]:
    """The words of a name: images, tr of "imagesTr"."""
    words = []
    for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+", name):
        # As in CamVid's "trainannot".
        glued = re.fullmatch(r"(train|val|test|default)(annots?|masks?|labels?|images?|imgs?|set)", part.lower())
        words += glued.groups() if glued else [part.lower()]
    return words


def split_in(name: str) -> str:
    """The split that a name says, or ""."""
    return next((SPLITS[word] for word in words_in(name) if word in SPLITS), "")


def read_text(path: Path) -> str:
    """The text of a file, UTF-8. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}): save it as UTF-8") from error
