"""Find objects in a label map, and write them.

An object is a connected component of one class; pixels that touch at a corner only are not connected. Coordinates are
(x, y) in pixels, and pixel (0, 0) covers 0 to 1 on both axes.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from contourpy import FillType, contour_generator
from scipy import ndimage

from .images import save_png
from .overlay import unpainted_classes
from .predict import Segmentation

# Touching objects are parted by the peaks of the distance to the background, smoothed by SIGMA pixels, largest in a
# window of WINDOW pixels, and further apart than APART times the deeper one's distance: round objects overlap less.
SIGMA, WINDOW, APART = 1, 7, 1.25


@dataclass(frozen=True)
class Object:
    """A connected component of one class.

    mask: bool (h, w), within its box. box: left, top, width, height. area: pixels. centroid: (x, y).
    confidence: mean over its pixels.
    """

    class_index: int
    class_name: str
    mask: np.ndarray
    box: tuple[int, int, int, int]
    area: int
    centroid: tuple[float, float]
    confidence: float


def find_objects(
    segmentation: Segmentation, classes: Collection[str] = (), *, min_area: int = 1, split: bool = False
) -> list[Object]:
    """Find the objects of the named classes.

    classes: () for all but the background. min_area: smaller ones are left out. split: part touching objects where
    they narrow. Sorted by class, then from top to bottom. Raises ValueError for an unknown class.
    """
    names = segmentation.class_names
    if unknown := [name for name in classes if name not in names]:
        raise ValueError(f"there is no class {unknown[0]!r}; the classes are {', '.join(names)}")
    unpainted = unpainted_classes(names)
    objects = []
    for index, name in enumerate(names):
        if name not in classes if classes else index in unpainted:
            continue
        mask = segmentation.label_map == index
        numbers, _ = ndimage.label(mask)
        numbers = _split(mask, numbers) if split else numbers
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), 1):
            part = numbers[rows, columns] == number
            area = int(np.count_nonzero(part))
            if area < min_area:
                continue
            top, left = rows.start, columns.start
            y, x = (float(start + where.mean() + 0.5) for start, where in zip((top, left), part.nonzero(), strict=True))
            box = (left, top, columns.stop - left, rows.stop - top)
            confidence = float(segmentation.confidence[rows, columns][part].mean())
            objects.append(Object(index, name, part, box, area, (x, y), confidence))
    return objects


class Counted(NamedTuple):
    """Areas int64 (n,), centroids (x, y) float64 (n, 2)."""

    areas: np.ndarray
    centroids: np.ndarray

    @classmethod
    def of(cls, objects: Sequence[Object]) -> Counted:
        """Those that `find_objects` found."""
        return cls(np.array([o.area for o in objects]), np.array([o.centroid for o in objects]).reshape(-1, 2))

    @property
    def median_area(self) -> float:
        """In square pixels; NaN without objects."""
        return float(np.median(self.areas)) if len(self.areas) else float("nan")


def count_objects(label_map: np.ndarray, class_names: Sequence[str], *, min_area: int = 1) -> Counted | None:
    """Count the objects of class 1 of two.

    label_map: uint8 (H, W). min_area: smaller objects are left out. None for tasks of several classes.
    """
    if len(class_names) != 2:
        return None
    numbers, count = ndimage.label(label_map == 1)
    ys, xs = numbers.nonzero()
    found = numbers[ys, xs] - 1
    areas = np.bincount(found, minlength=count)
    sums = [np.bincount(found, position + 0.5, count) for position in (xs, ys)]
    centroids = np.stack(sums, axis=1) / areas[:, None]
    return Counted(areas[areas >= min_area], centroids[areas >= min_area])


def _split(mask: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Split components, a pixel to its nearest centre.

    Centres are peaks of the smoothed distance to the background, deepest first; one that is within APART times the
    depth of a deeper one of its component is no centre of its own.
    """
    solid = ndimage.binary_fill_holes(mask)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(solid), SIGMA)
    peaks, _ = ndimage.label((depth == ndimage.maximum_filter(depth, WINDOW)) & mask, np.ones((3, 3)))
    numbers, count = numbers.copy(), int(numbers.max(initial=0))
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        part = numbers[box] == number
        own = np.where(part, peaks[box], 0)
        indices = np.unique(own[own > 0])
        positions = np.array(ndimage.center_of_mass(part, own, indices)).reshape(-1, 2)
        depths = np.array(ndimage.maximum(depth[box], own, indices))
        centres: list[int] = []
        for i in np.argsort(-depths, kind="stable"):
            if all(np.hypot(*(positions[i] - positions[j])) > APART * depths[j] for j in centres):
                centres.append(i)
        if len(centres) > 1:
            pixels = np.argwhere(part)
            nearest, least = np.zeros(len(pixels), int), np.full(len(pixels), np.inf)
            for i, centre in enumerate(positions[centres]):  # one by one, for memory; a k-d tree breaks ties by luck
                squares = ((pixels - centre) ** 2).sum(axis=1)
                closer = squares < least
                nearest[closer], least[closer] = i, squares[closer]
            numbers[box][part] = np.where(nearest == 0, number, count + nearest)
            count += len(centres) - 1
    return numbers


def outlines(found: Object) -> Iterator[list[np.ndarray]]:
    """Each piece's closed polygons (n, 2), holes last.

    The centres of exactly the object's pixels lie inside. Filled by Pillow or LabelMe, which round corners down, they
    give its mask, too.
    """
    left, top, _, _ = found.box
    # Just above a half: pixels that touch at a corner stay apart, and corners lie inside the object's pixels.
    contours = contour_generator(z=np.pad(found.mask, 1).astype(np.float32), fill_type=FillType.OuterOffset)
    for points, offsets in zip(*contours.filled(0.51, 2), strict=True):
        points = points.round(2) - 0.5 + (left, top)
        yield [_corners(points[a:b]) for a, b in itertools.pairwise(offsets)]


def _polygon(found: Object) -> np.ndarray | None:
    """The outline (n, 2), unless it is several polygons."""
    pieces = list(outlines(found))
    return pieces[0][0][:-1].round(2) if len(pieces) == len(pieces[0]) == 1 else None


def _corners(points: np.ndarray) -> np.ndarray:
    """A closed polygon (n, 2) without points along its sides."""
    ring = points[:-1]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    kept = ring[np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-6]
    return np.concatenate([kept, kept[:1]])


def geojson(objects: Sequence[Object]) -> dict[str, Any]:
    """A FeatureCollection in pixels, as QuPath reads it."""
    features = []
    for number, found in enumerate(objects, 1):
        about = {"objectType": "annotation", "classification": {"name": found.class_name}} | measurements(found)
        polygons = [[ring.round(2).tolist() for ring in piece] for piece in outlines(found)]
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
        features.append({"type": "Feature", "id": number, "properties": about, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def measurements(found: Object) -> dict[str, Any]:
    """What objects.csv and GeoJSON say of an object."""
    x, y = (round(value, 2) for value in found.centroid)
    box = dict(zip(("left", "top", "width", "height"), found.box, strict=True))
    return {"area": found.area, "x": x, "y": y, **box, "confidence": round(found.confidence, 4)}


def labelme(objects: Sequence[Object], picture: str, size: tuple[int, int]) -> dict[str, Any]:
    """A LabelMe file for ``picture`` of ``size`` (h, w).

    Polygons, and masks for objects with holes or several pieces.
    """
    shapes = []
    for found in objects:
        shape = {"label": found.class_name, "group_id": None, "flags": {}, "shape_type": "polygon"}
        if (polygon := _polygon(found)) is not None:
            shape["points"] = polygon.tolist()
        else:
            file, (left, top, width, height) = io.BytesIO(), found.box
            save_png(found.mask, file)
            corners = [[left, top], [left + width - 1, top + height - 1]]
            shape |= {"shape_type": "mask", "points": corners, "mask": base64.b64encode(file.getvalue()).decode()}
        shapes.append(shape)
    known = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": picture, "imageData": None}
    return known | {"imageHeight": size[0], "imageWidth": size[1]}


def coco_annotation(found: Object, size: tuple[int, int]) -> dict[str, Any]:
    """A COCO annotation without ids: polygon or run lengths."""
    if (polygon := _polygon(found)) is not None:
        segmentation: Any = [polygon.reshape(-1).tolist()]
    else:
        left, top, width, height = found.box
        whole = np.zeros(size, bool)
        whole[top : top + height, left : left + width] = found.mask
        flat = whole.T.reshape(-1)
        changes = np.flatnonzero(np.diff(flat, prepend=False))  # runs begin with zeros
        counts = np.diff([0, *changes, flat.size])
        segmentation = {"size": list(size), "counts": counts.tolist()}
    return {
        "category_id": found.class_index + 1,
        "segmentation": segmentation,
        "area": found.area,
        "bbox": list(found.box),
        "iscrowd": 0,
        "score": round(found.confidence, 4),
    }
