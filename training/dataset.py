"""Read a folder of pictures and annotations.

``training/readers`` says which file is what, ``training/labels.py`` what the labels mean.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unet.images import ImageError, hex_code, read_annotation, save_png

from .datasets import Task
from .labels import Coding, Scan, find_coding, scan
from .readers import DataError, Pair, Reading, read_folder
from .readers.folder import same_name
from .working_size import sample_indices

__all__ = ["DataError", "Dataset", "Pairs", "load_dataset"]

VAL_SHARE = 0.2
MAX_PROBLEMS_SHOWN = 50


@dataclass(frozen=True)
class Pairs(Sequence):
    """Pictures with label maps, read one at a time.

    Each is uint8 (H, W, 3) and uint8 (H, W).
    ambiguous: what becomes of blurred edges between colours, see ``unet.masks.encode_mask``.
    """

    pairs: tuple[Pair, ...]
    coding: Coding
    ambiguous: str = "nearest"
    _known: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.image(index), self.label_map(index)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[i] for i in range(len(self)))

    @property
    def images(self) -> tuple[Path, ...]:
        """The files of the pictures."""
        return tuple(pair.image for pair in self.pairs)

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3)."""
        return self.pairs[index].read_image()

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of a picture, from its header alone."""
        return self.pairs[index].size()

    def label_map(self, index: int) -> np.ndarray:
        """uint8 (H, W), class indices and IGNORE_INDEX. Raises DataError."""
        if index in self._known:
            return read_annotation(self._known[index])
        pair = self.pairs[index]
        labels = self.coding.encode(pair.read_annotation(), pair.annotation.name, ambiguous=self.ambiguous)
        if self.coding.palette is not None:
            # Decoding colours takes a tenth of a second, at every validation: keep the few KB of a PNG.
            packed = io.BytesIO()
            save_png(labels, packed)
            self._known[index] = packed.getvalue()
        return labels

    def class_shares(self) -> np.ndarray:
        """Each class's share of the labelled pixels, float (k,)."""
        counts = np.zeros(256, np.int64)
        # Masks in colours take long to decode: a sample is counted.
        indices = range(len(self)) if self.coding.palette is None else sample_indices(len(self))
        for i in tqdm(indices, "counting", leave=False, disable=None):
            counts += np.bincount(self.label_map(i).reshape(-1), minlength=256)
        counts = counts[: len(self.coding.class_names)]
        return counts / max(1, counts.sum())

    def fingerprint(self) -> str:
        """Changes with the files and how they are read."""
        files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for pair in self.pairs for p in pair.files()]
        palette = self.coding.palette.colors.tolist() if self.coding.palette else None
        return repr((files, self.coding.lookup, palette, self.coding.by_table, self.ambiguous))


@dataclass(frozen=True)
class Dataset:
    """Splits and what their labels mean.

    test: pictures that are scored once, at the end; may be empty. layout: how the folder was read, in words.
    note: how the classes were found, and what was left out. task: the known set, if it is one.
    root: the folder. held_out: whether val was drawn from the training pictures, because the folder has none.
    """

    train: Pairs
    val: Pairs
    test: Pairs
    class_names: tuple[str, ...]
    palette: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)
    layout: str = ""
    note: str = ""
    task: Task | None = None
    root: Path = Path()
    held_out: bool = False
    _seen: dict[str, list[Scan]] = field(default_factory=dict, repr=False)
    _problems: list[str] = field(default_factory=list, repr=False)

    def training_digest(self) -> str:
        """A digest of the training pictures' paths in the folder."""
        names = sorted(same_name(path.relative_to(self.root).as_posix()) for path in self.train.images)
        return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16]

    def summary(self) -> str:
        """One line: layout, pictures and classes."""
        counts = f"train {len(self.train)}, val {len(self.val)}, test {len(self.test)}"
        return f"read as: {self.layout}; {counts}; {len(self.class_names)} classes: {', '.join(self.class_names)}"

    def table(self, shares: Sequence[float]) -> str:
        """One line a class: index, colour, name and share. shares: (k,), 0..1."""
        width = max(map(len, [*self.class_names, "name"]))
        lines = [f"class  colour   {'name':{width}}    share"]
        for i, (color, name, share) in enumerate(zip(self.palette, self.class_names, shares, strict=True)):
            lines.append(f"{i:5}  {hex_code(color)}  {name:{width}}  {share:7.3%}")
        return "\n".join(lines)

    def check(self, *, train: bool = True) -> None:
        """Read every picture once.

        Raises DataError that lists every pair that cannot be trained on.
        train: check the training pictures too; False for an evaluation.
        """
        splits = ("train", "val", "test") if train else ("val", "test")
        _raise_if_any([*self._problems, *(problem for split in splits for problem in self._problems_of(split))])

    def _problems_of(self, split: str) -> list[str]:
        annotations, found, classes = self._seen[split], [], set()
        undecided, follows = [], False  # whether annotations are turned as EXIF tags say
        for seen in tqdm(annotations, "checking", leave=False, disable=None):
            name = seen.pair.image.name
            try:
                inside = self.train.coding.classes_in(seen)
                classes |= set(range(len(self.class_names))) if inside is None else inside
                size, turn = seen.pair.read_image().shape[:2], seen.pair.exif_turn()
                if size != seen.size:
                    why = "they must have one size"
                    if turn > 1 and size == seen.size[::-1]:
                        why = "the EXIF tag turns the photo, not the annotation: save it upright, without the tag"
                    raise DataError(f"{name} is {size}, its annotation {seen.size}; {why}")
                # Some annotation tools turn a photo as its tag says, some do not. Where turning changes the size, the
                # size tells; what the others are is known from those.
                if turn >= 5 and size[0] != size[1]:
                    follows = True
                elif turn > 1:
                    undecided.append(name)
            except (ImageError, DataError) as error:
                found.append(str(error))
        if not follows:
            why = "nothing says whether its annotation is: save the photo as it was annotated, without the tag"
            found += [f"{name} is turned by its EXIF tag, and {why}" for name in undecided]
        if found or len(classes) > 1 or (classes and split != "train"):
            return found
        holds = f"nothing but “{self.class_names[classes.pop()]}”" if classes else "nothing but void"
        lossy = all(seen.lossy for seen in annotations)
        advice = "export the masks as PNG, a JPEG keeps no class numbers" if lossy else "label other classes too"
        return [
            f"{seen.path.name} holds {holds}, like every annotation of {split}: there is nothing to "
            f"{'learn from' if split == 'train' else 'score'}, so {advice}, or mend classes.json"
            for seen in annotations
        ]


def load_dataset(
    root: str | Path, *, task: Task | None = None, seed: int = 0, classes: int | None = None, layout: str | None = None
) -> Dataset:
    """Read every annotation under ``root`` and find the classes.

    task: a known set. classes: how many classes masks in colours have; None to find out.
    layout: the name of a reader, where several fit.
    Raises DataError for a folder that no reader fits, and for pictures without annotation or the reverse; then all else
    that ``Dataset.check`` would find is listed with them.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; --data needs one with pictures and annotations")
    reading = read_folder(root, layout)
    splits = _split(reading, seed)
    seen = {
        name: [scan(pair, reading.classes) for pair in tqdm(pairs, f"reading {name}", leave=False, disable=None)]
        for name, pairs in splits.items()
    }
    coding, wrong = find_coding(seen, reading.classes, task, classes)
    if splits["test"] and all(coding.is_void(one) for one in seen["test"]):
        reading.notes.append("the annotations of test are all void, so it is left out")  # as in Cityscapes
        splits["test"], seen["test"] = [], []
    folder = root.resolve().name  # "." has no name of its own
    record = task.record() if task else {"name": folder, "source": f"the folder {folder}"}
    layout = reading.layout + (f" ({coding.source})" if coding.source else "")
    note = "; ".join(filter(None, (coding.note, *reading.notes)))
    # A wrong label on a blurred edge teaches a wrong outline; in a score every pixel counts.
    train, val, test = (
        Pairs(tuple(pairs), coding, "ignore" if name == "train" else "nearest") for name, pairs in splits.items()
    )
    names, palette, problems = coding.class_names, coding.colors, reading.problems + wrong
    held_out = not reading.splits.get("val")
    dataset = Dataset(train, val, test, names, palette, record, layout, note, task, root, held_out, seen, problems)
    if problems:
        dataset.check()
    return dataset


def _split(reading: Reading, seed: int) -> dict[str, list[Pair]]:
    """The pairs of train, val and test, in this order.

    Without a val split, a fifth of the training pictures is held out, the same on every machine.
    """
    splits = {name: sorted(pairs, key=lambda pair: pair.image) for name, pairs in reading.splits.items()}
    unsplit = splits.pop("", [])
    if unsplit and "train" in splits:
        reading.problems.append(
            f"{unsplit[0].image} and {len(unsplit) - 1} others lie in no split: put them into train/ or val/"
        )
    train, val = splits.get("train", unsplit), splits.get("val")
    if not train or (not val and len(train) < 2):
        _raise_if_any(reading.problems)
        few = "one picture cannot be both learnt from and tested on; at least two are needed"
        raise DataError(few if train else "there is no training picture: train/ needs some")
    if not val:
        order = np.random.default_rng(seed).permutation(len(train))
        held_out = set(order[: max(1, round(VAL_SHARE * len(train)))].tolist())
        train, val = ([pair for i, pair in enumerate(train) if (i in held_out) == held] for held in (False, True))
    return {"train": train, "val": val, "test": splits.get("test", [])}


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        more = len(problems) - MAX_PROBLEMS_SHOWN
        # A line each, whatever the names of the files do to a terminal.
        lines = ["".join(c if c.isprintable() else repr(c)[1:-1] for c in text) for text in problems]
        raise DataError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in the data; nothing was started:\n  "
            + "\n  ".join(lines[:MAX_PROBLEMS_SHOWN])
            + (f"\n  and {more} more" if more > 0 else "")
        )
