"""Pairs of pictures and annotations, and class lists."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from unet.formats import PICTURE_ENDINGS, open_picture, orientation, tagged_orientation
from unet.images import black_or_white, image_size, read_annotation, read_image
from unet.metrics import IGNORE_INDEX

#: Names of classes that are neither learnt nor scored.
VOID_NAMES = frozenset(("void", "ignore", "ignored", "unlabeled", "unlabelled", "unlabel"))


class DataError(ValueError):
    """A data set cannot be trained on; why, for every file."""


@dataclass(frozen=True)
class ClassList:
    """What the labels in annotation files mean.

    names: of the classes, in the order of their indices; () where no file says so. source: that file.
    values: {number in the files: class index or IGNORE_INDEX}; None where numbers are class indices.
    palette: colours of the classes; None where no file says so. void_colors: colours of no class.
    """

    names: tuple[str, ...] = ()
    source: str = ""
    values: Mapping[int, int] | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    void_colors: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[int, str, tuple[int, int, int] | None]], source: str) -> ClassList:
        """Of (number, name, colour) each; "void" is no class."""
        kept, void = [], []
        for number, name, color in sorted((number, name.strip(), color) for number, name, color in rows):
            (void if name.strip("_ ").lower() in VOID_NAMES else kept).append((number, name, color))
        names = tuple(name.strip("_ ") if name in ("_background_", "__background__") else name for _, name, _ in kept)
        values = {number: i for i, (number, _, _) in enumerate(kept)} | {number: IGNORE_INDEX for number, _, _ in void}
        colors = tuple(color for _, _, color in kept)
        _check_listed("number", [number for number, _, _ in (*kept, *void)], source)
        _check_listed("name", names, source)
        if None in colors:
            return cls(names, source, values)
        _check_listed("colour", colors, source)
        return cls(names, source, values, colors, tuple(color for _, _, color in void if color))

    @classmethod
    def of_shapes(cls, names: Iterable[str], source: str, palette: Iterable = ()) -> ClassList:
        """The classes of drawn shapes, after background."""
        _check_listed("name", names := ("background", *(name for name in names if not is_background(name))), source)
        colors = tuple(map(tuple, palette))
        return cls(names, source, None, ((0, 0, 0), *colors) if colors else None)


def is_background(name: str) -> bool:
    """Whether a name means the first class of drawn shapes."""
    return name.strip("_ ").lower() == "background"


def labels_of(names: Iterable[str]) -> dict[str, int]:
    """The index of each name in `ClassList.of_shapes`."""
    numbers = itertools.count(1)
    return {name: 0 if is_background(name) else next(numbers) for name in names}


def _check_listed(what: str, listed: Sequence, source: str) -> None:
    """Raises DataError for repeated, no, or too many classes."""
    if repeated := [x for i, x in enumerate(listed) if x in listed[:i]]:
        raise DataError(f"{source} lists the {what} {repeated[0]!r} twice: list every class once")
    if not 1 <= len(listed) <= IGNORE_INDEX:
        raise DataError(f"{source} lists {len(listed)} classes: at least one and at most {IGNORE_INDEX} are needed")


@dataclass(frozen=True)
class Annotation:
    """An annotation as its file holds it.

    labels: uint8 (H, W), numbers, or (H, W, 3), colours. lossy: from a JPEG, which changes numbers.
    table: uint8 (256, 3), the colours of a palette file's numbers.
    """

    labels: np.ndarray
    table: np.ndarray | None = None
    lossy: bool = False

    def as_colors(self) -> Annotation:
        """Palette files in their colours, others as they are."""
        if self.table is None or self.labels.ndim == 3:
            return self
        return dataclasses.replace(self, labels=self.table[self.labels])

    def as_numbers(self) -> Annotation:
        """Greys in three channels as numbers, others as they are."""
        # OpenCV writes numbers into three equal channels.
        if self.labels.ndim == 2 or not self.labels.size or (self.labels != self.labels[..., :1]).any():
            return self
        return dataclasses.replace(self, labels=self.labels[..., 0])


@dataclass(frozen=True)
class Pair:
    """A picture, and the file of its mask."""

    image: Path
    annotation: Path

    def size(self) -> tuple[int, int]:
        """(H, W) of the picture, from its header alone. Raises ImageError."""
        return image_size(self.image)

    def files(self) -> tuple[Path, ...]:
        """Every file that it is read from."""
        return self.image, self.annotation

    def exif_turn(self) -> int:
        """The EXIF orientation that the annotation may not follow.

        1 to 8; 1 is upright, and a picture whose mask has an orientation too. Raises ImageError.
        """
        with open_picture(self.image, self.image.name) as picture:
            turn = orientation(picture)
        if turn > 1 and self.annotation.suffix.lower() in PICTURE_ENDINGS:
            with open_picture(self.annotation, self.annotation.name) as mask:
                return turn if tagged_orientation(mask) == 1 else 1
        return turn

    def read_image(self) -> np.ndarray:
        """uint8 (H, W, 3). Raises ImageError."""
        return read_image(self.image)

    def read_annotation(self) -> Annotation:
        """Raises ImageError, DataError."""
        labels, name = read_annotation(self.annotation), self.annotation.name
        with open_picture(self.annotation, name) as picture:  # its header
            lossy = picture.format == "JPEG"
            palette = picture.getpalette("RGB") if picture.mode == "P" else None
        if palette is not None:
            table = np.zeros((256, 3), np.uint8)
            table[: len(palette) // 3] = np.reshape(palette, (-1, 3))
            return Annotation(labels, table)
        if lossy and labels.ndim == 3 and np.ptp(labels, axis=2).max() <= 8:
            labels = black_or_white(labels[..., 0], name)
        return Annotation(labels, lossy=lossy)


class SideBySide(Pair):
    """Picture left and mask right, in one file."""

    def size(self) -> tuple[int, int]:
        """(H, W) of the left half."""
        height, width = image_size(self.image)
        return height, width // 2

    def read_image(self) -> np.ndarray:
        """The left half. Raises ImageError, DataError."""
        return self.halves()[0]

    def read_annotation(self) -> Annotation:
        """The right half. Raises ImageError, DataError."""
        return Annotation(self.halves()[1])

    def halves(self) -> list[np.ndarray]:
        """Picture and mask, uint8 (H, W / 2, 3). Raises ImageError, DataError."""
        picture = read_image(self.image)
        if (width := picture.shape[1]) % 2:
            raise DataError(
                f"{self.image.name} is {width} pixels wide; photo and mask side by side need an even number"
            )
        return [np.ascontiguousarray(half) for half in np.split(picture, 2, axis=1)]


@dataclass(frozen=True)
class ObjectMasks(Pair):
    """A picture with a black-and-white mask an object: class 1."""

    masks: tuple[Path, ...]

    def files(self) -> tuple[Path, ...]:
        """The picture and every mask."""
        return self.image, *self.masks

    def read_annotation(self) -> Annotation:
        """Raises ImageError, and DataError for masks of several sizes."""
        masks = [read_annotation(path, binary=True) for path in self.masks]
        if other := [p for p, mask in zip(self.masks, masks, strict=True) if mask.shape != masks[0].shape]:
            raise DataError(f"{other[0]} has another size than {self.masks[0].name} beside it")
        return Annotation(np.maximum.reduce(masks))


@dataclass(frozen=True)
class Shape:
    """A labelled region: polygons with holes, or a bitmap.

    polygons, holes: (x, y) corners, (n, 2) each, where pixel (0, 0) covers 0 to 1 on both axes. corner: (left, top) of
    the bitmap. relative: corners are shares of the picture's width and height. pixel_corners: corners are pixels, and
    what an outline touches belongs to the shape.
    """

    label: int
    polygons: tuple[np.ndarray, ...] = ()
    holes: tuple[np.ndarray, ...] = ()
    bitmap: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    relative: bool = False
    pixel_corners: bool = False

    def mask(self, size: tuple[int, int]) -> tuple[np.ndarray, tuple[slice, slice]]:
        """Its mask within its box, bool (h, w), and the box's rows and columns."""
        canvas = Image.new("1", size[::-1])
        if self.bitmap is not None:
            canvas.paste(Image.fromarray(self.bitmap), self.corner)
        draw = ImageDraw.Draw(canvas)
        for fill, outlines in ((1, self.polygons), (0, self.holes)):
            for corners in outlines:
                points = corners * size[::-1] if self.relative else corners
                if self.pixel_corners:
                    draw.polygon([tuple(point) for point in points.tolist()], fill=fill, outline=fill)
                else:
                    inside, corner = _inside(points, size)
                    canvas.paste(fill, corner, Image.fromarray(inside))
        left, top, right, bottom = box = canvas.getbbox() or (0, 0, 0, 0)
        return np.asarray(canvas.crop(box)), np.s_[top:bottom, left:right]


def _inside(corners: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Which pixels' centres a polygon holds, within its box.

    bool (h, w), and the box's (left, top). Pillow would fill every pixel that the outline touches, half a pixel more
    on all sides. Raises ValueError for corners that are no numbers.
    """
    if not np.isfinite(corners).all():
        raise ValueError("a corner is no number")
    ends = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    (left, top), (right, bottom) = (end.clip(0, size[::-1]).astype(int).tolist() for end in ends)
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    y = np.arange(top, bottom) + 0.5
    sides, rows = np.nonzero((y0[:, None] <= y) != (y1[:, None] <= y))  # that cross the centres of a row
    x = x0[sides] + (y[rows] - y0[sides]) / (y1 - y0)[sides] * (x1 - x0)[sides]
    crossings = np.zeros((bottom - top, right - left + 1), np.uint8)
    np.add.at(crossings, (rows, np.ceil(x - 0.5).clip(left, right).astype(int) - left), 1)
    odd = np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :-1] % 2  # crossed so often from the left
    return odd.astype(bool), (left, top)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The corners of a rectangle, float (4, 2)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """The outline of an ellipse, 64 points (x, y)."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)


@dataclass(frozen=True)
class Drawn(Pair):
    """A picture with shapes, small ones over large ones.

    What none covers is class 0.
    stated_size: (H, W) that the annotation says the picture has; None where it says nothing.
    """

    shapes: tuple[Shape, ...]
    stated_size: tuple[int, int] | None = None

    def exif_turn(self) -> int:
        """As of every pair; 1 where no size is stated."""
        # Tools that write no size show photos as their tags say, and YOLO's own training reads them so.
        return super().exif_turn() if self.stated_size else 1

    def read_annotation(self) -> Annotation:
        """Draw the shapes. Raises ImageError, DataError."""
        size = self.stated_size or self.size()
        try:
            drawn = [(shape.label, *shape.mask(size)) for shape in self.shapes]
            labels = np.zeros(size, np.uint8)
        except (TypeError, ValueError, IndexError, OverflowError, MemoryError) as error:
            raise DataError(f"{self.annotation} has shapes that cannot be drawn ({error}): export it again") from error
        for label, mask, box in sorted(drawn, key=lambda shape: -np.count_nonzero(shape[1])):
            labels[box][mask] = label
        return Annotation(labels)


@dataclass
class Reading:
    """A folder as a reader understands it.

    layout: in words. splits: {"train", "val" or "test": pairs}, or {"": pairs} where nobody has split them.
    problems: sentences about what keeps it from being trained on. notes: about what was left out and why.
    listed_in: the JSON files that list pictures, by picture.
    """

    layout: str
    splits: defaultdict[str, list[Pair]] = field(default_factory=lambda: defaultdict(list))
    classes: ClassList = field(default_factory=ClassList)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    listed_in: dict[Path, Path] = field(default_factory=dict)

    def add_drawn(
        self, path: Path, name: str, found: Sequence[Path], shapes: Iterable, split: str, size: tuple = (None, None)
    ) -> None:
        """Add a picture that a JSON file lists, or a problem.

        path: of the JSON file. found: the pictures that ``name`` can mean. shapes: None for what has no area; what it
        raises becomes a problem. size: (H, W), or None and zeros.
        """
        if not found:
            self.problems.append(f"{path} lists {name}, which is not there: put it back, or take it out")
        elif len(found) > 1:
            self.add_ambiguous(path, name, found)
        elif (picture := found[0]) in self.listed_in:  # it could be learnt from and scored
            self.problems.append(f"{path} lists {name}, which is listed in {self.listed_in[picture].name}: leave one")
        else:
            self.listed_in[picture] = path
            try:
                drawn = tuple(shape for shape in shapes if shape)
            except (LookupError, TypeError, ValueError, OSError, zlib.error) as error:
                why = error if isinstance(error, ValueError) else repr(error)
                self.problems.append(f"{path}: a shape of {name} cannot be read ({why}): export it again")
            else:
                self.splits[split].append(Drawn(picture, path, drawn, size if all(size) else None))

    def add_ambiguous(self, path: Path, name: str, found: Sequence[Path]) -> None:
        """Add the problem that a listed name can mean several pictures."""
        self.problems.append(
            f"{path} lists {name}, which can be {found[0]} or {found[1]}: list it with its folders, as here"
        )

    def note_unlisted(self, pictures: Sequence[Path]) -> None:
        """Note how many pictures no JSON file lists."""
        if left := len(pictures) - len(self.listed_in):
            self.notes.append(f"{left} pictures that no JSON file lists are left out")
