"""Pairs of pictures and annotations, and class lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from unet.formats import open_picture, orientation, tagged_orientation
from unet.images import black_or_white, image_size, read_annotation, read_image
from unet.metrics import IGNORE_INDEX

#: Names of classes that are neither learnt nor scored.
VOID_NAMES = frozenset(("void", "ignore", "ignored", "unlabeled", "unlabelled", "unlabel"))


class DataError(ValueError):
    """A data set that cannot be trained on.

    The message lists every offending file and what to do.
    """


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
        """Build it from (number, name, colour) of each class.

        Names such as "void" are no classes.
        """
        kept, void = [], []
        for number, name, color in sorted((number, name.strip(), color) for number, name, color in rows):
            (void if name.strip("_ ").lower() in VOID_NAMES else kept).append((number, name, color))
        names = tuple(name.strip("_ ") if name in ("_background_", "__background__") else name for _, name, _ in kept)
        _check_listed("number", [number for number, _, _ in (*kept, *void)], source)
        _check_listed("name", names, source)
        values = {number: i for i, (number, _, _) in enumerate(kept)} | {number: IGNORE_INDEX for number, _, _ in void}
        colors = tuple(color for _, _, color in kept)
        if None in colors:
            return cls(names, source, values)
        if len(set(colors)) < len(colors):
            raise DataError(f"{source} gives two classes one colour: give each its own")
        return cls(names, source, values, colors, tuple(color for _, _, color in void if color))

    @classmethod
    def of_shapes(cls, names: Iterable[str], source: str, palette: Iterable = ()) -> ClassList:
        """The classes of drawn shapes, after background."""
        _check_listed("name", names := ("background", *names), source)
        colors = tuple(map(tuple, palette))
        return cls(names, source, None, ((0, 0, 0), *colors) if colors else None)


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

    def colors(self) -> np.ndarray | None:
        """uint8 (H, W, 3); None for numbers."""
        if self.table is not None:
            return self.table[self.labels]
        return self.labels if self.labels.ndim == 3 else None


@dataclass(frozen=True)
class Mask:
    """A mask in a picture file."""

    path: Path

    def read(self, picture_size: object) -> Annotation:
        """Raises ImageError. A mask brings its own size."""
        labels = read_annotation(self.path)
        with open_picture(self.path, self.path.name) as picture:  # its header
            lossy = picture.format == "JPEG"
            palette = picture.getpalette("RGB") if picture.mode == "P" else None
        if palette is not None:
            table = np.zeros((256, 3), np.uint8)
            table[: len(palette) // 3] = np.reshape(palette, (-1, 3))
            return Annotation(labels, table)
        if lossy and labels.ndim == 3 and np.ptp(labels, axis=2).max() <= 8:
            labels = black_or_white(labels[..., 0], self.path.name)
        return Annotation(labels, lossy=lossy)


@dataclass(frozen=True)
class RightHalf:
    """A mask in the right half of its picture's file."""

    path: Path

    def read(self, picture_size: object) -> Annotation:
        """Raises ImageError, DataError."""
        return Annotation(half(self.path, 1))


@dataclass(frozen=True)
class ObjectMasks:
    """One black-and-white mask an object; together, class 1."""

    path: Path
    paths: tuple[Path, ...]

    def read(self, picture_size: object) -> Annotation:
        """Raises ImageError, and DataError for masks of several sizes."""
        masks = [read_annotation(path, binary=True) for path in self.paths]
        if other := [p for p, mask in zip(self.paths, masks, strict=True) if mask.shape != masks[0].shape]:
            raise DataError(f"{other[0]} has another size than {self.paths[0].name} beside it")
        return Annotation(np.maximum.reduce(masks))


@dataclass(frozen=True)
class Shape:
    """A labelled region: polygons with holes, or a bitmap.

    polygons, holes: (x, y) corners, (n, 2) each. corner: (left, top) of the bitmap.
    relative: corners are shares of the picture's width and height.
    """

    label: int
    polygons: tuple[np.ndarray, ...] = ()
    holes: tuple[np.ndarray, ...] = ()
    bitmap: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    relative: bool = False

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W)."""
        h, w = size
        if self.bitmap is not None:
            left, top = self.corner
            mask = np.zeros(size, bool)
            part = self.bitmap[max(0, -top) : h - top, max(0, -left) : w - left]
            mask[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]] = part
            return mask
        canvas = Image.new("L", (w, h))
        draw = ImageDraw.Draw(canvas)
        for fill, outlines in ((1, self.polygons), (0, self.holes)):
            for corners in outlines:
                points = corners * (w, h) if self.relative else corners
                draw.polygon([tuple(point) for point in points.tolist()], fill=fill, outline=fill)
        return np.asarray(canvas) > 0


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The corners of a rectangle, float (4, 2)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """The outline of an ellipse, 64 points (x, y)."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)


@dataclass(frozen=True)
class Shapes:
    """An annotation as shapes, small ones over large ones.

    What none covers is class 0.
    size: (H, W) that its file says the picture has; None where it says nothing.
    """

    path: Path
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None

    def read(self, picture_size: Callable[[], tuple[int, int]]) -> Annotation:
        """Draw the shapes. Raises ImageError, DataError."""
        size = self.size or picture_size()
        try:
            masks = [(shape.label, shape.mask(size)) for shape in self.shapes]
            labels = np.zeros(size, np.uint8)
        except (TypeError, ValueError, IndexError, OverflowError, MemoryError) as error:
            raise DataError(
                f"{self.path} has shapes or a size that cannot be drawn ({error}): export it again"
            ) from error
        for label, mask in sorted(masks, key=lambda drawn: -np.count_nonzero(drawn[1])):
            labels[mask] = label
        return Annotation(labels)


@dataclass(frozen=True)
class Pair:
    """A picture with its annotation."""

    image: Path
    annotation: Mask | RightHalf | ObjectMasks | Shapes

    @property
    def _is_left_half(self) -> bool:
        return isinstance(self.annotation, RightHalf)

    def size(self) -> tuple[int, int]:
        """(H, W) of the picture, from its header alone. Raises ImageError."""
        height, width = image_size(self.image)
        return (height, width // 2) if self._is_left_half else (height, width)

    def files(self) -> tuple[Path, ...]:
        """Every file that it is read from."""
        return (self.image, *getattr(self.annotation, "paths", (self.annotation.path,)))

    def exif_turn(self) -> int:
        """The EXIF orientation that the annotation may not follow.

        2 to 8; 0 for a picture without one, and where the mask has one too. Raises ImageError.
        """
        if self._is_left_half:
            return 0
        with open_picture(self.image, self.image.name) as picture:
            turn = orientation(picture)
        if turn > 1 and isinstance(self.annotation, Mask):
            with open_picture(self.annotation.path, self.annotation.path.name) as mask:
                if tagged_orientation(mask) > 1:
                    return 0
        return turn if turn > 1 else 0

    def read_annotation(self) -> Annotation:
        """Raises ImageError, DataError."""
        return self.annotation.read(self.size)

    def read_image(self) -> np.ndarray:
        """uint8 (H, W, 3). Raises ImageError."""
        return half(self.image, 0) if self._is_left_half else read_image(self.image)


@dataclass
class Reading:
    """A folder as a reader understands it.

    layout: in words. splits: {"train", "val" or "test": pairs}, or {"": pairs} where nobody has split them.
    problems: sentences about what keeps it from being trained on. notes: about what was left out and why.
    """

    layout: str
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    classes: ClassList = field(default_factory=ClassList)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, split: str, pair: Pair) -> None:
        """Put a pair into a split."""
        self.splits.setdefault(split, []).append(pair)


def half(path: Path, side: int) -> np.ndarray:
    """The left (0) or right (1) half of a picture.

    Returns uint8 (H, W / 2, 3). Raises ImageError, DataError.
    """
    picture = read_image(path)
    width = picture.shape[1] // 2
    if picture.shape[1] % 2:
        raise DataError(
            f"{path.name} is {picture.shape[1]} pixels wide; photo and mask side by side need an even number"
        )
    return np.ascontiguousarray(picture[:, side * width : (side + 1) * width])
