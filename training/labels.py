"""What labels mean, decided from all annotations together."""

from __future__ import annotations

import dataclasses
import itertools
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
BINARY = ("background", "object")
GREY_STEP = 16  # numbers that lie so far apart are shades for the eye
#: Colour masks with more classes than this, and with blended edges, are compared with the pictures.
MAX_BLURRED_CLASSES = 12


@dataclass(frozen=True, kw_only=True)
class Scan(Annotation):
    """What one annotation holds.

    labels: its different labels, uint8 (1, n), or (1, n, 3); none where there are more than 256 colours.
    size: (H, W); None if it cannot be read, and problem says why. strange: colours that the class list lacks.
    is_trimap: it holds 1, 2 and 3, and 3 always lies between 1 and 2.
    """

    pair: Pair
    size: tuple[int, int] | None = None
    strange: tuple[tuple[int, int, int], ...] = ()
    is_trimap: bool = False
    problem: str = ""

    @property
    def path(self) -> Path:
        """The file of the annotation."""
        return self.pair.annotation

    def distinct(self) -> set:
        """Its different numbers, or colours (red, green, blue)."""
        return {tuple(label) if self.labels.ndim == 3 else label for label in self.labels[0].tolist()}


@dataclass(frozen=True)
class Coding:
    """How annotations become label maps.

    lookup: for every number, or for every colour of ``palette``: the class index, IGNORE_INDEX, or -1 for no class.
    palette: annotations are masks in these colours. by_table: palette files count by their colours, not by numbers.
    exact: masks hold exactly these colours. source: where the classes are listed. note: how they were found.
    """

    class_names: tuple[str, ...]
    colors: np.ndarray
    lookup: tuple[int, ...]
    palette: Palette | None = None
    by_table: bool = False
    exact: bool = False
    source: str = ""
    note: str = ""

    def encode(self, annotation: Annotation, name: str, *, ambiguous: str = "nearest") -> np.ndarray:
        """Class indices and IGNORE_INDEX, uint8 (H, W). Raises DataError.

        ambiguous: see ``unet.masks.encode_mask``.
        """
        labels = self._labels(annotation, name)
        if self.palette is not None:
            labels = encode_mask(labels, self.palette, ambiguous=ambiguous)
        return self._classes(labels, name)

    def classes_in(self, seen: Scan) -> set[int] | None:
        """The classes in an annotation; None if only its pixels tell. Raises DataError."""
        if seen.problem:
            raise DataError(seen.problem)
        labels = self._labels(seen, seen.path.name)[0]
        if self.palette is not None:
            distances = np.linalg.norm(labels[:, None].astype(float) - self.palette.colors, axis=2)
            strange = [*seen.strange]
            if self.exact or seen.table is not None:
                strange += labels[distances.min(axis=1, initial=np.inf) > SAME_COLOR].tolist()
            if strange:
                shown = ", ".join(Palette(np.array(strange[:3])).hex) + (" and others" if len(strange) > 3 else "")
                raise DataError(
                    f"{seen.path.name} has colours that are not in {self.source or 'the training masks'}, {shown}: "
                    "list them in classes.json, as ignore_index too what is no class, or paint them in its colours"
                )
            if not len(labels):
                return None
            labels = distances.argmin(axis=1)
        return set(self._classes(labels, seen.path.name).tolist()) - {IGNORE_INDEX}

    def is_void(self, seen: Scan) -> bool:
        """Whether an annotation has nothing but void."""
        try:
            return self.classes_in(seen) == set()
        except DataError:
            return False

    def _labels(self, annotation: Annotation, name: str) -> np.ndarray:
        """Numbers, or colours if there is a palette."""
        if self.by_table:
            annotation = annotation.as_colors()
        labels = (annotation if self.palette is not None else annotation.as_numbers()).labels
        if (labels.ndim == 3) != (self.palette is not None):
            here, most = ("colours", "class indices") if labels.ndim == 3 else ("class indices", "colours")
            raise DataError(f"{name} holds {here}, most hold {most}: save all alike")
        return labels

    def _classes(self, labels: np.ndarray, name: str) -> np.ndarray:
        lookup = np.array(self.lookup)
        if (unknown := (lookup < 0)[labels]).any():
            classes = np.flatnonzero((lookup >= 0) & (lookup < IGNORE_INDEX))
            raise DataError(
                f"{name} has the label {labels[unknown].min()}; with {len(self.class_names)} classes labels are "
                f"{classes[0]} to {classes[-1]}, and {np.flatnonzero(lookup == IGNORE_INDEX)[-1]} for void"
            )
        return lookup.astype(np.uint8)[labels]


def scan(pair: Pair, listed: ClassList) -> Scan:
    """Read an annotation once and say what it holds."""
    try:
        annotation = pair.read_annotation()
    except (ImageError, DataError) as error:
        return Scan(np.empty((1, 0), np.uint8), pair=pair, problem=str(error))
    labels, found = annotation.labels, {}
    if labels.ndim == 3:
        counted = Image.fromarray(labels).getcolors(256) or ()
        distinct = np.array(sorted(color for _, color in counted), np.uint8).reshape(1, -1, 3)
        if listed.palette:
            known = Palette(np.array((*listed.palette, *listed.void_colors)))
            found["strange"] = tuple(map(tuple, strange_colors(labels, known).tolist()))
    else:
        distinct = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256)).astype(np.uint8)[None]
        touching = ((a * b == 2).any() for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])))
        found["is_trimap"] = distinct.tolist() == [[1, 2, 3]] and not any(touching)
    return Scan(distinct, annotation.table, annotation.lossy, pair=pair, size=labels.shape[:2], **found)


def find_coding(
    seen: dict[str, list[Scan]], listed: ClassList, task: Task | None, count: int | None
) -> tuple[Coding, list[str]]:
    """The coding of all annotations, and problems with labels.

    seen: of every split. listed: the class list of the folder. count: how many classes masks in colours have.
    """
    every = [one for split in seen.values() for one in split if one.size]
    train = [one for one in seen["train"] if one.size]
    if by_table := _tables_are_colors(every, listed):
        every, train = ([one.as_colors() for one in some] for some in (every, train))
    numbers = [one.as_numbers() for one in every]
    greys = set().union(*(one.distinct() for one, old in zip(numbers, every, strict=True) if one is not old))
    are_numbers = greys in TWO_VALUES or _count_from_0(greys - {IGNORE_INDEX})
    if not are_numbers or any(one.labels.ndim == 3 for one in numbers):
        numbers = every  # greys among the colours of masks
    if sum(one.labels.ndim == 3 for one in numbers) * 2 > len(numbers):
        if listed.values is not None and listed.palette is None and any(one.lossy for one in every):
            raise DataError(f"{every[0].path.name} is a JPEG, which changes class numbers: export the masks as PNG")
        coding, problems = _of_colors(train, listed, task, count), []
    else:
        coding, problems = _of_numbers([one for one in numbers if one.labels.ndim == 2], listed, task)
        if not (listed.names or task) and len(coding.class_names) > 8 and _are_object_numbers(every[:5]):
            raise DataError(
                f"{every[0].path.name} and the others number objects one by one, and are no masks of classes: save "
                "each as a mask of 0 and 255, or name every class in classes.json"
            )
    if len(coding.class_names) < 2:
        names = ", ".join(coding.class_names)
        raise DataError(f"there is nothing to tell apart: only one class was found or listed, {names}")
    return dataclasses.replace(coding, by_table=by_table), problems


def _tables_are_colors(seen: list[Scan], listed: ClassList) -> bool:
    """Whether palette files mean colours, not numbers.

    They do where the class list has them, where they are black and white, and where files number them differently:
    programs that save a palette file may put its colours into another order.
    """
    used = {(n, tuple(one.table[n].tolist())) for one in seen if one.table is not None for n in one.distinct()}
    colors = {color for _, color in used}
    if not used or colors <= {*(listed.palette or ()), *listed.void_colors}:
        return bool(used)
    return len(used) > len({n for n, _ in used}) or colors <= {(0, 0, 0), (255, 255, 255)}


def _of_numbers(seen: list[Scan], listed: ClassList, task: Task | None) -> tuple[Coding, list[str]]:
    values = set().union(*(one.distinct() for one in seen))
    void = next((n for n, value in (listed.values or {}).items() if value == IGNORE_INDEX), None)
    names, problems = listed.names or (task.class_names if task else ()), []
    # 0 and 255 alone is a black-and-white mask; with further labels, 255 is void.
    binary = values in TWO_VALUES and void not in values
    if void is None and values == {0, 1, 255} and (problems := _masks_of_two_kinds(seen)):
        binary = True
    if not names and values == {1, 2, 3} and all(one.is_trimap or one.labels.size < 3 for one in seen):
        listed, names = TRIMAPS, TRIMAPS.names
    from_1 = sorted(values - {IGNORE_INDEX})
    if not names and void is None and len(from_1) > 1 and from_1 == list(range(1, len(from_1) + 1)):  # 0 is nowhere
        names = tuple(f"class {n}" for n in from_1)
        listed = ClassList(names, "", {n: n - 1 for n in from_1})
    levels, note = sorted(values - {void}), ""
    own = listed.source in ("", "classes.json") and not task  # other lists say which number is which class
    if own and not binary and len(names) in (0, len(levels)) and _are_shades(levels) and _are_areas(levels, seen[:10]):
        names = names or (BINARY if len(levels) == 2 else tuple(f"grey {n}" for n in levels))
        listed = dataclasses.replace(listed, values=_numbered(levels, listed, void))
        note = f"the grey levels {', '.join(map(str, levels))} are the classes"
    if not names:
        numbers = {0, 1} if binary else values - {IGNORE_INDEX, void}
        problems += _no_class_indices(seen, numbers, void)
        highest = max(numbers, default=0)
        names = BINARY if highest <= 1 else tuple(f"class {i}" for i in range(highest + 1))
    meant = {n: int(n > 0) for n in values} if binary else listed.values or {i: i for i in range(len(names))}
    lookup = [({IGNORE_INDEX: IGNORE_INDEX} | dict(meant)).get(number, -1) for number in range(256)]
    known = next((t.palette for t in (task, *TASKS.values()) if t and t.class_names == names), None)
    colors = (task and known) or listed.palette or known or distinct_colors(len(names))
    return Coding(tuple(names), np.array(colors, np.uint8), tuple(lookup), source=listed.source, note=note), problems


def _of_colors(train: list[Scan], listed: ClassList, task: Task | None, count: int | None) -> Coding:
    """The colours listed, of the known set, or found."""
    exact = False
    if listed.palette:
        colors, names = (*listed.palette, *listed.void_colors), listed.names
        note = f"the colours of {listed.source}"
    elif listed.names:
        raise DataError(
            f"{listed.source} names the classes of masks in colours, but not the colours: add them as palette in "
            "classes.json"
        )
    elif task and task.void_colors:
        colors, names = (*task.palette, *task.void_colors), task.class_names
        note = f"the colours of {task.title}; those of no class are void"
    else:
        known = dict(zip(task.class_names, task.palette, strict=True)) if task else None
        listing = tqdm(train, "finding classes", leave=False, disable=None)
        masks = (one.pair.read_annotation().as_colors().labels for one in listing)
        try:
            palette, note = palette_of_masks((mask for mask in masks if mask.ndim == 3), count, names=known)
        except ValueError as error:
            raise DataError(f"the colours of the masks do not make classes: {error}") from error
        if count is None and len(palette) > MAX_BLURRED_CLASSES and _are_photos(train[:10], palette):
            raise DataError(
                f"{train[0].path} and the others look like photos, not like masks: {note}. If they are masks, "
                "say how many classes they have with --classes"
            )
        colors = palette.colors
        found = set(map(tuple, colors.tolist()))
        exact = count is None and all(one.labels.size and one.distinct() <= found for one in train)
        names = palette.names or tuple(f"class {i}" for i in range(len(palette)))
    void = listed.values if listed.source == "classes.json" else None  # its void class keeps its index and colour
    lookup = [(void or {}).get(i, i) for i in range(len(names))]
    lookup += [IGNORE_INDEX] * (256 - len(lookup))
    palette = Palette(np.array(colors, np.uint8))
    return Coding(
        tuple(names), palette.colors[: len(names)], tuple(lookup), palette, exact=exact, source=listed.source, note=note
    )


def _are_photos(train: list[Scan], palette: Palette) -> bool:
    """Whether the masks' colours fill the pictures too."""
    alike = 0
    for one in train:
        mask, picture = one.pair.read_annotation().as_colors().labels, one.pair.read_image()
        alike += mask.ndim == 3 and covered(palette, mask) - covered(palette, picture) < 0.1
    return alike * 2 > len(train)


def _masks_of_two_kinds(seen: list[Scan]) -> list[str]:
    """Problems: some masks have 1, others 255."""
    of_one, of_white = ([one for one in seen if value in one.labels] for value in (1, 255))
    if any(1 in one.labels for one in of_white):  # then 255 is void
        return []
    here, most = (1, 255) if len(of_one) < len(of_white) else (255, 1)
    return [
        f"{one.path} is a mask of 0 and {here}, most are of 0 and {most}: save all alike, or, where 255 is void, write "
        '"ignore_index": 255 in classes.json'
        for one in (of_one if here == 1 else of_white)
    ]


def _no_class_indices(seen: list[Scan], numbers: set[int], void: int | None) -> list[str]:
    """Problems: labels that are no indices of nameless classes."""
    if _count_from_0(numbers):
        return []
    first_gap = min(set(range(MAX_NAMELESS_CLASSES)) - numbers - {void}, default=MAX_NAMELESS_CLASSES)
    return [
        f"{one.path} has the label {highest}, and labels are class indices that count from 0: save the mask without "
        "smoothing or object numbers, or name every class in classes.json"
        for one in seen
        if (highest := max(one.distinct() & numbers, default=0)) > first_gap
    ]


def _count_from_0(numbers: set[int]) -> bool:
    """Whether these may be nameless classes, with few gaps."""
    highest = max(numbers, default=0)
    return highest < MAX_NAMELESS_CLASSES and 2 * len(numbers) >= highest


def _numbered(levels: list[int], listed: ClassList, void: int | None) -> dict[int, int]:
    """{level: class}, by the greys of the palette, or in order."""
    greys = {color[0]: i for i, color in enumerate(listed.palette or ()) if len(set(color)) == 1}
    numbers = {n: i for i, n in enumerate(levels)}
    return (greys if greys.keys() >= numbers.keys() else numbers) | ({} if void is None else {void: IGNORE_INDEX})


def _are_shades(levels: list[int]) -> bool:
    """Whether these are greys for the eye, not class numbers."""
    steps = [b - a for a, b in itertools.pairwise(levels)]
    # As in Pascal VOC, 0, 17 and 255: two classes and void.
    void = len(levels) > 2 and levels[-1] == IGNORE_INDEX and steps[-1] > 2 * max(steps[:-1])
    return bool(steps) and min(steps) >= GREY_STEP and not void


def _are_areas(levels: list[int], seen: list[Scan]) -> bool:
    """Whether every level fills 3x3 pixels; smoothed edges do not."""
    found, filling = set(), set()
    for one in seen:
        labels = one.pair.read_annotation().as_numbers().labels
        found |= one.distinct()
        filling |= set(labels[ndimage.maximum_filter(labels, 3) == ndimage.minimum_filter(labels, 3)].tolist())
    return found & set(levels) <= filling


def _are_object_numbers(seen: list[Scan]) -> bool:
    """Whether every number is one connected region, of many."""
    for one in seen:
        labels = one.pair.read_annotation().labels
        labels = labels if labels.ndim == 2 else labels[..., 0]
        regions = [(i + 1, part) for i, part in enumerate(ndimage.find_objects(labels)) if part]
        if len(regions) < 6 or any(ndimage.label(labels[part] == number)[1] > 1 for number, part in regions):
            return False
    return True


def distinct_colors(count: int) -> np.ndarray:
    """Black, and hues far apart: uint8 (count, 3)."""
    # A golden ratio apart.
    hues = [int(255 * ((i * 0.618) % 1)) for i in range(1, count)]
    colors = [Image.new("HSV", (1, 1), (hue, 180, 250)).convert("RGB").getpixel((0, 0)) for hue in hues]
    return np.array([(0, 0, 0), *colors], np.uint8)
