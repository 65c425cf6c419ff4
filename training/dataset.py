"""Read a folder of pictures and annotations as label maps.

Layouts that are read as they are (annotation folders may be called labels, masks or annotations):

    <root>/train/images/*  <root>/train/labels/*  <root>/val/images/*  <root>/val/labels/*     split given
    <root>/images/*        <root>/labels/*                                                     split by a seed
    <root>/train/*         <root>/val/*      photo left, colour mask right, in one picture     (Cityscapes pairs)

A picture and its annotation share a name (the ending may differ). Annotations are class indices (grey or palette
files), masks of 0 and 1 or of 0 and 255, or masks in colours, whose classes are found (see ``Palette.of_masks``).
``classes.json`` at the root names the classes and their colours, and says which index is void.
"""

from __future__ import annotations

import io
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from unet.images import ImageError, image_size, read_annotation, read_image, save_png
from unet.metrics import IGNORE_INDEX
from unet.palette import Palette

from .datasets import Task

ANNOTATION_FOLDERS = ("labels", "masks", "annotations")
PICTURE_ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp", ".gif", ".ppm",
    ".pgm", ".pbm",
))  # fmt: skip
#: What may lie among pictures without being one of them. Anything else there was meant to be one.
NOTE_ENDINGS = frozenset((".txt", ".md", ".json", ".xml", ".csv", ".html", ".yml", ".yaml", ".log", ".ini", ".db"))
#: Labels as high as this are smoothed edges or object numbers rather than classes, unless the classes have names.
MAX_NAMELESS_CLASSES = 100
VAL_SHARE = 0.2
MAX_PROBLEMS_SHOWN = 50


class DataError(ValueError):
    """A data set that cannot be trained on; the message lists every offending file and what to do."""


@dataclass(frozen=True)
class Pairs(Sequence):
    """Pictures with their label maps, read from disk one at a time: uint8 (H, W, 3) and uint8 (H, W).

    binary: annotations are masks of 0 and 255. void: the index that means no class. palette: annotations are masks in
    these colours; complete: and in no others; ambiguous: what becomes of their blurred edges, see
    ``Palette.encode_mask``. Where a picture is its own annotation, the photo is its left half and the mask its right.
    """

    images: tuple[Path, ...]
    annotations: tuple[Path, ...]
    num_classes: int
    binary: bool = False
    void: int | None = None
    palette: Palette | None = None
    ambiguous: str = "nearest"
    complete: bool = False
    _known: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.image(index), self.label_map(index)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[i] for i in range(len(self)))

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3)."""
        path = self.images[index]
        return _half(path, 0) if path == self.annotations[index] else read_image(path)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of a picture, from its header alone."""
        path = self.images[index]
        height, width = image_size(path)
        return (height, width // 2) if path == self.annotations[index] else (height, width)

    def label_map(self, index: int) -> np.ndarray:
        """uint8 (H, W), class indices and IGNORE_INDEX. Raises DataError for a label that is no class."""
        path = self.annotations[index]
        if self.palette is not None:
            # A tenth of a second each, and asked for at every validation: kept, as the few KB of a PNG.
            if index not in self._known:
                mask = _read_mask(self.images[index], path)
                packed = io.BytesIO()
                encoded = self.palette.encode_mask(mask, ambiguous=self.ambiguous)
                encoded[encoded >= self.num_classes] = IGNORE_INDEX
                save_png(encoded, packed)
                self._known[index] = packed.getvalue()
            labels = read_annotation(self._known[index])
        else:
            labels = _numbers_in(read_annotation(path, binary=self.binary))
            if labels is None:
                raise DataError(f"{path.name} holds colours, most hold class indices: save all alike")
        if self.void is not None:
            labels = np.where(labels == self.void, IGNORE_INDEX, labels).astype(np.uint8)
        unknown = np.unique(labels[(labels >= self.num_classes) & (labels != IGNORE_INDEX)])
        if unknown.size:
            raise DataError(
                f"{path.name} has the label {unknown[0]}; with {self.num_classes} classes labels are 0 to "
                f"{self.num_classes - 1}, and {IGNORE_INDEX if self.void is None else self.void} for void"
            )
        return labels

    def classes_in(self, index: int) -> set[int]:
        """Read a pair -> the classes that occur in it. Raises ImageError, DataError if it cannot be trained on."""
        size, labels = self.image(index).shape[:2], self.label_map(index)
        if labels.shape != size:
            raise DataError(
                f"{self.images[index].name} is {size}, its annotation {labels.shape}; they must have one size"
            )
        if self.complete:
            strange = self.palette.strange_colors(_read_mask(self.images[index], self.annotations[index]))
            if len(strange):
                shown = ", ".join(Palette(strange[:3]).hex) + (" and others" if len(strange) > 3 else "")
                raise DataError(
                    f"{self.annotations[index].name} has colours that are not in classes.json, {shown}: list them "
                    "there, what means nothing as ignore_index too, or paint them in its colours"
                )
        return set(np.unique(labels[labels != IGNORE_INDEX]).tolist())


@dataclass(frozen=True)
class Dataset:
    """Two splits and what their labels mean. note: how the classes were found, where they had to be."""

    train: Pairs
    val: Pairs
    class_names: tuple[str, ...]
    palette: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def check(self, *, train: bool = True) -> None:
        """Read every file once. Raises DataError that lists every pair that cannot be trained on.

        train: look at the training pictures too, which nobody needs who only evaluates.
        """
        _raise_if_any(self.problems(train=train))

    def problems(self, *, train: bool = True) -> list[str]:
        """What ``check`` raises, one sentence a pair."""
        found = []
        for name, split in (("train", self.train), ("val", self.val)):
            if split is self.val or train:
                found += self._problems_of(split, name)
        return found

    def _problems_of(self, split: Pairs, name: str) -> list[str]:
        found, seen = [], set()
        for i in tqdm(range(len(split)), "checking", leave=False, disable=None):
            try:
                seen |= split.classes_in(i)
            except (ImageError, DataError) as error:
                found.append(str(error))
        if found or len(seen) > 1 or (seen and split is self.val):
            return found
        holds = f"nothing but “{self.class_names[seen.pop()]}”" if seen else "nothing but void"
        return [
            f"{path.name} holds {holds}, like every annotation of {name}: there is nothing to "
            f"{'learn from' if split is self.train else 'score'}, so label other classes too, or mend classes.json"
            for path in split.annotations
        ]


def load_dataset(root: str | Path, *, task: Task | None = None, seed: int = 0, classes: int | None = None) -> Dataset:
    """Find pictures, annotations and classes under ``root``; see the module's head for the layouts.

    classes: how many classes masks in colours have; None to find out.
    Raises DataError for a folder that is laid out otherwise, and for pictures without annotation or the reverse; then
    all else that ``Dataset.check`` would find is listed with them.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; --data needs one with images/ and labels/, or with train/ and val/")
    wrong: list[str] = []
    if (root / "train").is_dir() and (root / "val").is_dir():
        splits = [_pair_up(root / "train", wrong), _pair_up(root / "val", wrong)]
    elif (root / "train").is_dir() and not (root / "images").is_dir():
        raise DataError(f"{root} has train/ but no val/ beside it; without a split, images/ and labels/ lie in {root}")
    else:
        pairs = _pair_up(root, wrong)
        if len(pairs) < 2:
            _raise_if_any(wrong)
        splits = _split(pairs, seed)
    if not all(splits):
        _raise_if_any(wrong)
    if len({image == annotation for split in splits for image, annotation in split}) > 1:
        raise DataError(f"{root} has photo and mask side by side in one split, and apart in the other: make both alike")
    dataset = _with_classes(splits, _read_classes(root), task, classes, wrong, name=root.name)
    if wrong:
        _raise_if_any(wrong + dataset.problems())
    return dataset


def _with_classes(
    splits: list[list[tuple[Path, Path]]],
    listed: dict[str, Any],
    task: Task | None,
    classes: int | None,
    wrong: list[str],
    *,
    name: str,
) -> Dataset:
    """Say what the labels of the two splits mean.

    listed: classes.json. name: of the folder. wrong: labels that cannot be meant are added to it, in words.
    """
    labels, colored = _labels_in([annotation for split in splits for image, annotation in split if image != annotation])
    record = task.record() if task else {"name": name, "source": f"the folder {name}"}
    void = listed.get("ignore_index")
    if colored or splits[0][0][0] == splits[0][0][1]:
        palette = _mask_palette(splits[0], listed, task, classes)
        complete = bool(listed.get("palette"))
        num_classes = len(palette) - (len(task.void_colors) if task and not listed else 0)
        train, val = (
            Pairs(*zip(*split, strict=True), num_classes, False, void, palette, ambiguous, complete)
            # A wrong label on a blurred edge teaches a wrong outline; in a score every pixel counts.
            for split, ambiguous in zip(splits, ("ignore", "nearest"), strict=True)
        )
        names = (palette.names or tuple(f"class {i}" for i in range(len(palette))))[:num_classes]
        _check_two_classes(names)
        return Dataset(train, val, names, palette.colors[:num_classes], record, palette.reason)
    values = set().union(*labels.values())
    # 0 and 255 alone is a black-and-white mask; with further labels, 255 is void.
    binary = values == {0, IGNORE_INDEX} and void != IGNORE_INDEX
    if void is None and values == {0, 1, IGNORE_INDEX} and (two_kinds := _masks_of_two_kinds(labels)):
        wrong += two_kinds
        binary = True
    names = tuple(listed.get("class_names") or (task.class_names if task else ()))
    if not names:
        numbers = {0, 1} if binary else values - {IGNORE_INDEX, void}
        wrong += _no_class_indices(labels, numbers, void)
        highest = max(numbers, default=0)
        names = ("background", "object") if highest <= 1 else tuple(f"class {i}" for i in range(highest + 1))
    _check_two_classes(names)
    if task and task.class_names == names:
        colors = task.palette
    else:
        colors = listed.get("palette") or distinct_colors(len(names))
    colors = np.array(colors, np.uint8)
    train, val = (Pairs(*zip(*split, strict=True), len(names), binary, void) for split in splits)
    return Dataset(train, val, names, colors, record)


def _masks_of_two_kinds(labels: dict[Path, set[int]]) -> list[str]:
    """Masks of 0 and 1 among masks of 0 and 255, in words; none where 255 stands beside a 1 and so is void."""
    of_one, of_white = ([path for path, found in labels.items() if value in found] for value in (1, IGNORE_INDEX))
    if set(of_one) & set(of_white):
        return []
    here, most = (1, 255) if len(of_one) < len(of_white) else (255, 1)
    return [
        f"{path} is a mask of 0 and {here}, most are of 0 and {most}: save all alike, or, where 255 is void, write "
        '"ignore_index": 255 in classes.json'
        for path in (of_one if here == 1 else of_white)
    ]


def _no_class_indices(labels: dict[Path, set[int]], numbers: set[int], void: int | None) -> list[str]:
    """Annotations whose labels cannot be those of classes without names, which count from 0, in words."""
    if _count_from_0(numbers):
        return []
    gaps = set(range(MAX_NAMELESS_CLASSES)) - numbers - {void}
    first_gap = min(gaps, default=MAX_NAMELESS_CLASSES)
    return [
        f"{path} has the label {max(found & numbers)}, and labels are class indices that count from 0: save the mask "
        "without smoothing or object numbers, or name every class in classes.json"
        for path, found in labels.items()
        if max(found & numbers, default=0) > first_gap
    ]


def _count_from_0(numbers: set[int]) -> bool:
    """Whether these may be indices of classes without names: few are left out, and there are not too many."""
    highest = max(numbers, default=0)
    return highest < MAX_NAMELESS_CLASSES and 2 * len(numbers) >= highest


def _check_two_classes(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise DataError(f"there is nothing to tell apart: only one class was found or listed, {', '.join(names)}")


def _mask_palette(
    train: list[tuple[Path, Path]], listed: dict[str, Any], task: Task | None, classes: int | None
) -> Palette:
    """The classes of masks in colours: those of classes.json, or what the training masks hold."""
    if listed.get("palette"):
        return Palette(np.array(listed["palette"]), tuple(listed["class_names"]), reason="the colours of classes.json")
    if listed.get("class_names"):
        raise DataError("classes.json names the classes of masks in colours, but not the colours: add them as palette")
    if task and task.void_colors:
        colors = (*task.palette, *task.void_colors)
        names = (*task.class_names, *(f"void {i}" for i in range(len(task.void_colors))))
        return Palette(np.array(colors), names, reason=f"the colours of {task.title}; those of no class are void")
    names = dict(zip(task.class_names, task.palette, strict=True)) if task else None

    def masks() -> Iterator[np.ndarray]:
        for image, mask in tqdm(train, "finding classes", leave=False, disable=None):
            try:
                yield _read_mask(image, mask)
            except (ImageError, DataError):
                continue  # Dataset.check lists it, with all else that is wrong

    try:
        return Palette.of_masks(masks(), classes, names=names)
    except ValueError as error:
        raise DataError(f"the colours of the masks do not make classes: {error}") from error


def _read_mask(image: Path, annotation: Path) -> np.ndarray:
    """uint8 (H, W, 3), the colours of a picture's annotation: the right half of both in one, or a file of its own."""
    mask = _half(annotation, 1) if annotation == image else read_annotation(annotation)
    if mask.ndim == 2:
        raise DataError(f"{annotation.name} holds class indices, most hold colours: save all alike")
    return mask


def _numbers_in(annotation: np.ndarray) -> np.ndarray | None:
    """The numbers (H, W) of an annotation, in all three channels alike too, as OpenCV writes them; None for colours."""
    if annotation.ndim == 2:
        return annotation
    first = annotation[..., 0]
    return first if (annotation == first[..., None]).all() else None


def _half(path: Path, side: int) -> np.ndarray:
    """The left (0) or right (1) half of a picture, uint8 (H, W / 2, 3)."""
    picture = read_image(path)
    width = picture.shape[1] // 2
    if picture.shape[1] % 2:
        raise DataError(
            f"{path.name} is {picture.shape[1]} pixels wide; photo and mask side by side need an even number"
        )
    return np.ascontiguousarray(picture[:, side * width : (side + 1) * width])


def distinct_colors(count: int) -> np.ndarray:
    """uint8 (count, 3): colours for classes that bring none; black for the first, then hues a golden ratio apart."""
    hues = [int(255 * ((i * 0.618) % 1)) for i in range(count)]
    colors = [Image.new("HSV", (1, 1), (hue, 180, 250)).convert("RGB").getpixel((0, 0)) for hue in hues]
    return np.array([(0, 0, 0), *colors[1:]], np.uint8)


def _pair_up(folder: Path, wrong: list[str]) -> list[tuple[Path, Path]]:
    """Pictures and annotations of equal name, sorted; what has no partner is added to ``wrong``, in words."""
    beside = [name for name in ANNOTATION_FOLDERS if (folder / name).is_dir()]
    has_images = (folder / "images").is_dir()
    together = [] if has_images else _pictures(folder)
    if together and not beside:
        return [(path, path) for path in together]
    if together:
        wrong += [f"{path} lies beside {beside[0]}/: move it into images/ there" for path in together]
        return []
    if not has_images or not beside:
        wrong.append(f"{folder} needs a folder images/ and a folder {', '.join(ANNOTATION_FOLDERS)}/ beside it")
        return []
    if len(beside) > 1:
        wrong.append(f"{folder} has the folders {', '.join(beside)}: leave one there, that of the annotations")
        return []
    images, annotations = (_by_name(folder / name, wrong) for name in ("images", beside[0]))
    wrong += [f"{images[n]} has no annotation in {beside[0]}/" for n in sorted(images.keys() - annotations)]
    wrong += [f"{annotations[n]} has no picture in images/" for n in sorted(annotations.keys() - images)]
    if not images:
        wrong.append(f"{folder / 'images'} holds no pictures ({', '.join(sorted(PICTURE_ENDINGS))})")
    return [(images[name], annotations[name]) for name in sorted(images.keys() & annotations)]


def _by_name(folder: Path, wrong: list[str]) -> dict[str, Path]:
    """The pictures of a folder by their names without ending; what else was meant to be one is added to ``wrong``."""
    found: dict[str, Path] = {}
    for path in _pictures(folder):
        name = unicodedata.normalize("NFC", path.stem)  # macOS spells é as two characters, others as one
        if name in found:
            wrong.append(f"{path} and {found[name].name} have one name")
        else:
            found[name] = path
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() in PICTURE_ENDINGS | NOTE_ENDINGS:
            continue
        if path.is_dir():
            wrong.append(f"{path} is a folder: pictures lie in {folder.name}/ itself")
        else:
            wrong.append(f"{path} is no picture that can be read here: export it as PNG, or take it out of the folder")
    return found


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_ENDINGS and not p.name.startswith("."))


def _split(pairs: list[tuple[Path, Path]], seed: int) -> list[list[tuple[Path, Path]]]:
    """Sorted, then seeded, then split: the same pictures are held out on every machine."""
    if len(pairs) < 2:
        raise DataError("one picture cannot be both learnt from and tested on; at least two are needed")
    order = np.random.default_rng(seed).permutation(len(pairs))
    held_out = set(order[: max(1, round(VAL_SHARE * len(pairs)))].tolist())
    return [[p for i, p in enumerate(pairs) if (i in held_out) == held] for held in (False, True)]


def _read_classes(root: Path) -> dict[str, Any]:
    """classes.json, {} where there is none. Raises DataError with what is wrong in it."""
    path = root / "classes.json"
    if not os.path.lexists(path):
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
        wrong = _wrong_in(listed)
    except (OSError, ValueError, RecursionError) as error:
        wrong = str(error)
    if wrong:
        raise DataError(f"{path} is not a class list ({wrong}); see the README for its form")
    return listed


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which Python would let the last of two equal keys win. Raises ValueError instead."""
    if repeated := [key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i])]:
        raise ValueError(f"{repeated[0]!r} is there twice")
    return dict(pairs)


def _wrong_in(listed: Any) -> str | None:
    """What keeps this from being a class list, or None."""

    def is_byte(value: Any) -> bool:
        return type(value) is int and 0 <= value <= 255

    if not isinstance(listed, dict):
        return "it has to begin with { and end with }"
    if unknown := sorted(listed.keys() - {"class_names", "palette", "ignore_index"}):
        return f"nobody knows what {unknown[0]!r} means"
    names, palette, void = (listed.get(key) for key in ("class_names", "palette", "ignore_index"))
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            return "class_names is a list of words"
        if not 1 <= len(names) <= IGNORE_INDEX or len(set(names)) < len(names):
            return f"class_names are different words, at most {IGNORE_INDEX}"
    if palette is not None:
        lists = isinstance(palette, list) and all(isinstance(color, list) and len(color) == 3 for color in palette)
        if not names or not lists or len(palette) != len(names) or not all(is_byte(v) for c in palette for v in c):
            return "palette needs one [r, g, b] of 0 to 255 a class name"
        if len({tuple(color) for color in palette}) < len(palette):
            return "two classes have one colour in palette"
    if void is not None and not is_byte(void):
        return "ignore_index is a whole number from 0 to 255"
    return None


def _labels_in(annotations: Sequence[Path]) -> tuple[dict[Path, set[int]], bool]:
    """The labels in each file that holds numbers, and whether most files hold colours instead.

    Files of the other kind, and those that cannot be read, are reported by ``Dataset.check``, with all else that is
    wrong.
    """
    indices: dict[Path, set[int]] = {}
    grays: dict[Path, set[int]] = {}
    colors: list[Path] = []
    for path in tqdm(annotations, "looking at labels", leave=False, disable=None):
        try:
            annotation = read_annotation(path)
        except ImageError:
            continue
        numbers = _numbers_in(annotation)
        if numbers is None:
            colors.append(path)
        else:
            (indices if annotation.ndim == 2 else grays)[path] = set(np.unique(numbers).tolist())
    # Three equal channels: numbers, as OpenCV writes them, or the greys among the colours of masks.
    values = set().union(*grays.values())
    if not colors and (values == {0, IGNORE_INDEX} or _count_from_0(values - {IGNORE_INDEX})):
        return indices | grays, False
    return indices, len(colors) + len(grays) > len(indices)


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
