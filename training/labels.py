"""Decide what the labels in annotation files mean, from all files together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from unet.images import ImageError
from unet.masks import SAME_COLOR, encode_mask, palette_of_masks, strange_colors
from unet.metrics import IGNORE_INDEX
from unet.palette import Palette

from .datasets import TASKS, Task
from .readers.base import Annotation, ClassList, DataError, Pair
from .readers.class_lists import TRIMAPS
from .readers.side_by_side import covered

#: Labels as high as this are smoothed edges or object numbers rather than classes, unless the classes have names.
MAX_NAMELESS_CLASSES = 100
#: The values that masks of background and object have, beside 0 and 1.
TWO_VALUES = ({0, 255}, {0, 254}, {0, 127})
#: Colour masks with more classes than this, and with blended edges, are compared with the pictures.
MAX_BLURRED_CLASSES = 12


@dataclass(frozen=True)
class Seen:
    """What one annotation holds.

    size: (H, W); None if it cannot be read, and problem says why. lossy: it is a JPEG.
    numbers: the labels, if it holds numbers. table: {number: colour}, if it is a palette file.
    colors: if it holds colours, at most 256 different ones. strange: colours that the class list lacks.
    is_trimap: it holds 1, 2 and 3, and 3 always lies between 1 and 2.
    """

    path: Path
    size: tuple[int, int] | None = None
    numbers: frozenset[int] | None = None
    table: tuple[tuple[int, tuple[int, int, int]], ...] = ()
    colors: frozenset[tuple[int, int, int]] | None = None
    strange: tuple[tuple[int, int, int], ...] = ()
    lossy: bool = False
    is_trimap: bool = False
    problem: str = ""

    def as_colors(self) -> Seen:
        """A palette file, seen as colours."""
        return dataclasses.replace(self, numbers=None, colors=frozenset(color for _, color in self.table))

    def as_numbers(self) -> Seen:
        """A file with three equal channels, seen as numbers.

        OpenCV writes such files. Other files as they are.
        """
        if self.colors is None or any(len(set(color)) > 1 for color in self.colors):
            return self
        return dataclasses.replace(self, numbers=frozenset(color[0] for color in self.colors), colors=None)


@dataclass(frozen=True)
class Coding:
    """How annotations become label maps.

    values: for every number, or for every colour of ``palette``: the class index, IGNORE_INDEX, or -1 for no class.
    palette: annotations are masks in these colours. by_table: palette files count by their colours, not by numbers.
    exact: masks hold exactly these colours. source: where the classes are listed. note: how they were found.
    """

    class_names: tuple[str, ...]
    colors: np.ndarray
    values: tuple[int, ...]
    palette: Palette | None = None
    by_table: bool = False
    exact: bool = False
    source: str = ""
    note: str = ""

    def encode(self, annotation: Annotation, name: str, *, ambiguous: str = "nearest") -> np.ndarray:
        """The label map of an annotation.

        Returns uint8 (H, W), class indices and IGNORE_INDEX. Raises DataError for a label that is no class.
        ambiguous: see ``unet.masks.encode_mask``.
        """
        labels = annotation.colors() if self.by_table and annotation.table is not None else annotation.labels
        if self.palette is None and labels.ndim == 3 and (labels == labels[..., :1]).all():
            labels = labels[..., 0]
        self._check_kind(labels.ndim == 3, name)
        if self.palette is not None:
            labels = encode_mask(labels, self.palette, ambiguous=ambiguous)
        self._check(np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256)), name)
        return np.array(self.values).astype(np.uint8)[labels]

    def classes_in(self, seen: Seen) -> set[int] | None:
        """The classes in an annotation that was seen.

        None if only its pixels tell. Raises DataError for labels that are no classes.
        """
        if seen.problem:
            raise DataError(seen.problem)
        if self.by_table and seen.table:
            seen = seen.as_colors()
        seen = seen if self.palette is not None else seen.as_numbers()
        self._check_kind(seen.numbers is None, seen.path.name)
        labels = seen.numbers
        if self.palette is not None:
            colors = np.array(sorted(seen.colors or ()), np.uint8).reshape(-1, 3)
            distances = _distances(colors, self.palette.colors)
            strange = list(seen.strange)
            if self.exact or seen.table:
                strange += colors[distances.min(axis=1, initial=np.inf) > SAME_COLOR].tolist()
            if strange:
                shown = ", ".join(Palette(np.array(strange[:3])).hex) + (" and others" if len(strange) > 3 else "")
                raise DataError(
                    f"{seen.path.name} has colours that are not in {self.source or 'the training masks'}, {shown}: "
                    "list them in classes.json, as ignore_index too what is no class, or paint them in its colours"
                )
            if seen.colors is None:
                return None
            labels = distances.argmin(axis=1).tolist()
        self._check(labels, seen.path.name)
        return {self.values[label] for label in labels} - {IGNORE_INDEX}

    def is_labelled(self, seen: Seen) -> bool:
        """Whether an annotation has anything but void."""
        try:
            return self.classes_in(seen) != set()
        except DataError:
            return True

    def _check_kind(self, is_colors: bool, name: str) -> None:
        if is_colors != (self.palette is not None):
            here, most = ("colours", "class indices") if is_colors else ("class indices", "colours")
            raise DataError(f"{name} holds {here}, most hold {most}: save all alike")

    def _check(self, labels: Sequence[int], name: str) -> None:
        if unknown := [int(label) for label in labels if self.values[label] < 0]:
            classes = [label for label, value in enumerate(self.values) if 0 <= value < IGNORE_INDEX]
            void = next(label for label in reversed(range(len(self.values))) if self.values[label] == IGNORE_INDEX)
            raise DataError(
                f"{name} has the label {unknown[0]}; with {len(self.class_names)} classes labels are {classes[0]} to "
                f"{classes[-1]}, and {void} for void"
            )


def look(pair: Pair, listed: ClassList) -> Seen:
    """Read an annotation once and say what it holds."""
    path = pair.annotation.path
    try:
        annotation = pair.read_annotation()
    except (ImageError, DataError) as error:
        return Seen(path, problem=str(error))
    labels, size, lossy = annotation.labels, annotation.labels.shape[:2], annotation.lossy
    if labels.ndim == 3:
        colors = Image.fromarray(labels).getcolors(256)
        strange = ()
        if listed.palette:
            known = Palette(np.array((*listed.palette, *listed.void_colors)))
            strange = tuple(map(tuple, strange_colors(labels, known).tolist()))
        colors = None if colors is None else frozenset(color for _, color in colors)
        return Seen(path, size, colors=colors, strange=strange, lossy=lossy)
    numbers = frozenset(np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256)).tolist())
    table = () if annotation.table is None else tuple((n, tuple(annotation.table[n].tolist())) for n in sorted(numbers))
    is_trimap = numbers == {1, 2, 3} and not (
        (labels[1:] * labels[:-1] == 2).any() or (labels[:, 1:] * labels[:, :-1] == 2).any()
    )
    return Seen(path, size, numbers, table, lossy=lossy, is_trimap=is_trimap)


def decide(
    seen: dict[str, list[Seen]], pairs: dict[str, list[Pair]], listed: ClassList, task: Task | None, count: int | None
) -> tuple[Coding, list[str]]:
    """The coding of all annotations, and problems with labels.

    seen, pairs: of every split. listed: the class list of the folder. count: how many classes masks in colours have.
    """
    by_table = _tables_count([one for split in seen.values() for one in split if one.size], listed)
    viewed = {
        name: [one.as_colors() if by_table and one.table else one for one in split if one.size]
        for name, split in seen.items()
    }
    every = [one for split in viewed.values() for one in split]
    numbers = [one.as_numbers() for one in every]
    values = set().union(*(one.numbers for one, old in zip(numbers, every, strict=True) if one is not old))
    are_numbers = values in TWO_VALUES or _count_from_0(values - {IGNORE_INDEX})
    if not are_numbers or any(one.numbers is None for one in numbers):
        numbers = every  # greys among the colours of masks
    if sum(one.numbers is None for one in numbers) * 2 > len(numbers):
        if listed.values is not None and listed.palette is None and any(one.lossy for one in every):
            raise DataError(f"{every[0].path.name} is a JPEG, which changes class numbers: export the masks as PNG")
        coding = _of_colors(pairs["train"], viewed["train"], listed, task, count)
        return dataclasses.replace(coding, by_table=by_table), []
    coding, problems = _of_numbers([one for one in numbers if one.numbers is not None], listed, task)
    if not (listed.names or task) and len(coding.class_names) > 8 and _are_object_numbers(pairs["train"]):
        raise DataError(
            f"{every[0].path.name} and the others number objects one by one, and are no masks of classes: save each as "
            "a mask of 0 and 255, or name every class in classes.json"
        )
    return dataclasses.replace(coding, by_table=by_table), problems


def _tables_count(seen: list[Seen], listed: ClassList) -> bool:
    """Whether palette files mean colours, not numbers.

    They do where they are those of the class list, where they are black and white, and where files number them
    differently: programs that save a palette file may put its colours into another order.
    """
    tables = [dict(one.table) for one in seen if one.table]
    used = {color for table in tables for color in table.values()}
    if not tables or used <= {*(listed.palette or ()), *listed.void_colors}:
        return bool(tables)
    first: dict[int, tuple[int, int, int]] = {}
    differ = any(first.setdefault(number, color) != color for table in tables for number, color in table.items())
    return differ or used <= {(0, 0, 0), (255, 255, 255)}


def _of_numbers(seen: list[Seen], listed: ClassList, task: Task | None) -> tuple[Coding, list[str]]:
    values = set().union(*(one.numbers for one in seen))
    void = next((n for n, value in (listed.values or {}).items() if value == IGNORE_INDEX), None)
    names, problems = listed.names or (task.class_names if task else ()), []
    # 0 and 255 alone is a black-and-white mask; with further labels, 255 is void.
    binary = values in TWO_VALUES and void not in values
    if void is None and values == {0, 1, 255} and (problems := _masks_of_two_kinds(seen)):
        binary = True
    if not names and seen and all(one.is_trimap or len(one.numbers) < 3 for one in seen) and values == {1, 2, 3}:
        listed, names = TRIMAPS, TRIMAPS.names
    from_1 = sorted(values - {IGNORE_INDEX})
    if not names and void is None and len(from_1) > 1 and from_1 == list(range(1, len(from_1) + 1)):  # 0 is nowhere
        listed = ClassList(tuple(f"class {n}" for n in from_1), "", {n: n - 1 for n in from_1})
        names = listed.names
    if not names:
        numbers = {0, 1} if binary else values - {IGNORE_INDEX, void}
        problems += _no_class_indices(seen, numbers, void)
        highest = max(numbers, default=0)
        names = ("background", "object") if highest <= 1 else tuple(f"class {i}" for i in range(highest + 1))
    _check_two_classes(names)
    meant = {n: int(n > 0) for n in values} if binary else listed.values or {i: i for i in range(len(names))}
    table = [({IGNORE_INDEX: IGNORE_INDEX} | dict(meant)).get(number, -1) for number in range(256)]
    known = next((t.palette for t in (task, *TASKS.values()) if t and t.class_names == names), None)
    colors = (task and known) or listed.palette or known or distinct_colors(len(names))
    coding = Coding(tuple(names), np.array(colors, np.uint8), tuple(table), source=listed.source)
    return coding, problems


def _of_colors(train: list[Pair], seen: list[Seen], listed: ClassList, task: Task | None, count: int | None) -> Coding:
    """The coding of masks in colours.

    The colours are those of the class list, of the known set, or those that the masks hold.
    """
    if listed.palette:
        colors, names = (*listed.palette, *listed.void_colors), listed.names
        note, exact = f"the colours of {listed.source}", False
    elif listed.names:
        raise DataError(
            f"{listed.source} names the classes of masks in colours, but not the colours: add them as palette in "
            "classes.json"
        )
    elif task and task.void_colors:
        colors, names = (*task.palette, *task.void_colors), task.class_names
        note, exact = f"the colours of {task.title}; those of no class are void", False
    else:
        known = dict(zip(task.class_names, task.palette, strict=True)) if task else None
        try:
            palette, note = palette_of_masks(_masks(train), count, names=known)
        except ValueError as error:
            raise DataError(f"the colours of the masks do not make classes: {error}") from error
        if count is None and len(palette) > MAX_BLURRED_CLASSES and _are_photos(train, palette):
            raise DataError(
                f"{seen[0].path} and the others look like photos, not like masks: {note}. If they are masks, "
                "say how many classes they have with --classes"
            )
        colors = palette.colors
        exact = count is None and all(one.colors and one.colors <= {*map(tuple, colors.tolist())} for one in seen)
        names = palette.names or tuple(f"class {i}" for i in range(len(palette)))
    _check_two_classes(names)
    void = listed.values if listed.source == "classes.json" else None  # its void class keeps its index and colour
    values = [(void or {}).get(i, i) for i in range(len(names))]
    values += [IGNORE_INDEX] * (256 - len(values))
    palette = Palette(np.array(colors, np.uint8))
    colors = palette.colors[: len(names)]
    return Coding(tuple(names), colors, tuple(values), palette, exact=exact, source=listed.source, note=note)


def _masks(pairs: list[Pair]) -> Iterator[np.ndarray]:
    for pair in tqdm(pairs, "finding classes", leave=False, disable=None):
        try:
            colors = pair.read_annotation().colors()
        except (ImageError, DataError):
            continue  # named by Dataset.check
        if colors is not None:
            yield colors


def _are_photos(pairs: list[Pair], palette: Palette) -> bool:
    """Whether the colours that fill the masks fill the pictures as well."""
    alike = 0
    for pair in pairs[:10]:
        mask, picture = pair.read_annotation().colors(), pair.read_image()
        alike += mask is not None and covered(palette, mask) - covered(palette, picture) < 0.1
    return alike * 2 > len(pairs[:10])


def _distances(colors: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """RGB distances of (n, 3) from (k, 3): float (n, k)."""
    return np.linalg.norm(colors[:, None].astype(float) - palette[None].astype(float), axis=2)


def _masks_of_two_kinds(seen: list[Seen]) -> list[str]:
    """Problems: masks of 0 and 1 among masks of 0 and 255.

    None where 255 stands beside a 1, and so is void.
    """
    of_one, of_white = ([one for one in seen if value in one.numbers] for value in (1, 255))
    if any(1 in one.numbers for one in of_white):
        return []
    here, most = (1, 255) if len(of_one) < len(of_white) else (255, 1)
    return [
        f"{one.path} is a mask of 0 and {here}, most are of 0 and {most}: save all alike, or, where 255 is void, write "
        '"ignore_index": 255 in classes.json'
        for one in (of_one if here == 1 else of_white)
    ]


def _no_class_indices(seen: list[Seen], numbers: set[int], void: int | None) -> list[str]:
    """Problems: labels that are no indices of nameless classes."""
    if _count_from_0(numbers):
        return []
    gaps = set(range(MAX_NAMELESS_CLASSES)) - numbers - {void}
    first_gap = min(gaps, default=MAX_NAMELESS_CLASSES)
    return [
        f"{one.path} has the label {highest}, and labels are class indices that count from 0: save the mask without "
        "smoothing or object numbers, or name every class in classes.json"
        for one in seen
        if (highest := max(one.numbers & numbers, default=0)) > first_gap
    ]


def _count_from_0(numbers: set[int]) -> bool:
    """Whether these may be indices of nameless classes.

    These count from 0; few are left out, and there are not too many.
    """
    highest = max(numbers, default=0)
    return highest < MAX_NAMELESS_CLASSES and 2 * len(numbers) >= highest


def _are_object_numbers(pairs: list[Pair]) -> bool:
    """Whether every number is one connected region.

    In each of a few annotations, of many numbers each.
    """
    for pair in pairs[:5]:
        labels = pair.read_annotation().labels
        labels = labels if labels.ndim == 2 else labels[..., 0]
        regions = [(i + 1, part) for i, part in enumerate(ndimage.find_objects(labels)) if part]
        if len(regions) < 6 or any(ndimage.label(labels[part] == number)[1] > 1 for number, part in regions):
            return False
    return True


def _check_two_classes(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise DataError(f"there is nothing to tell apart: only one class was found or listed, {', '.join(names)}")


def distinct_colors(count: int) -> np.ndarray:
    """Colours for classes that bring none.

    uint8 (count, 3): black for the first, then hues a golden ratio apart.
    """
    hues = [int(255 * ((i * 0.618) % 1)) for i in range(count)]
    colors = [Image.new("HSV", (1, 1), (hue, 180, 250)).convert("RGB").getpixel((0, 0)) for hue in hues]
    return np.array([(0, 0, 0), *colors[1:]], np.uint8)
