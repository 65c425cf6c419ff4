"""Objects of a label map: how many, how large, where, and the files that hold them."""

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from training.readers import read_folder
from unet.images import save_png
from unet.metrics import ConfusionMatrix
from unet.objects import coco_annotation, count_objects, find_objects, geojson, labelme, outlines
from unet.predict import Segmentation
from unet.tables import Row, coco

NAMES = ("background", "nucleus", "cell")


def segmentation(labels, confidence=None):
    confidence = np.ones(labels.shape, np.float32) if confidence is None else confidence
    return Segmentation(labels.astype(np.uint8), confidence, NAMES, np.zeros((3, 3), np.uint8), 0.0, "cpu")


def disc(size, row, column, radius):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def blobs(seed, size=(60, 80)):
    """bool (H, W): ragged areas, some with holes, some at the border."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 1 + seed % 3)
    return field > np.quantile(field, 0.6)


def drawn(polygon, size):
    """bool (H, W): a polygon as LabelMe fills it."""
    canvas = Image.new("L", size[::-1])
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in polygon.tolist()], fill=1, outline=1)
    return np.asarray(canvas) > 0


def whole(found, size):
    left, top, width, height = found.box
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = found.mask
    return mask


def test_worked_numbers():
    labels = np.zeros((6, 8), np.uint8)
    labels[1:3, 2:6] = 1
    labels[4, 4] = 2
    confidence = np.full((6, 8), 0.5, np.float32)
    confidence[1, 2:6] = 1
    first, second = find_objects(segmentation(labels, confidence))
    assert (first.class_name, first.area, first.box, first.confidence) == ("nucleus", 8, (2, 1, 4, 2), 0.75)
    assert first.centroid == (4, 2)
    assert (second.class_name, second.area, second.centroid, second.box) == ("cell", 1, (4.5, 4.5), (4, 4, 1, 1))


@pytest.mark.parametrize("seed", range(3))
def test_counting_alone_gives_the_same_objects(seed):
    labels = blobs(seed).astype(np.uint8)
    counted = count_objects(labels, ("background", "nucleus"))
    found = find_objects(segmentation(labels))
    assert counted.areas.tolist() == [o.area for o in found]
    np.testing.assert_allclose(counted.centroids, [o.centroid for o in found])
    assert counted.median_area == np.median(counted.areas)
    larger = count_objects(labels, ("background", "nucleus"), min_area=9)
    assert larger.areas.tolist() == [area for area in counted.areas.tolist() if area >= 9]
    assert len(larger.centroids) == len(larger.areas)
    assert count_objects(labels, NAMES) is None


def test_pixels_that_touch_at_a_corner_are_two_objects():
    assert len(find_objects(segmentation(np.eye(4)))) == 4


def test_classes_and_smallest_area_are_chosen():
    labels = np.zeros((9, 9), np.uint8)
    labels[0, 0], labels[2:4, 2:4], labels[6:8, 6:9] = 1, 1, 2
    found = segmentation(labels)
    assert [o.area for o in find_objects(found, ["nucleus"])] == [1, 4]
    assert [o.area for o in find_objects(found, min_area=4)] == [4, 6]
    assert sum(o.area for o in find_objects(found, NAMES)) == 81
    with pytest.raises(ValueError, match="there is no class 'tree'; the classes are background, nucleus, cell"):
        find_objects(found, ["tree"])
    assert find_objects(segmentation(np.zeros((3, 3)))) == []


def test_touching_discs_are_parted_only_where_asked():
    size = (40, 90)
    labels = disc(size, 20, 20, 12) | disc(size, 20, 40, 12) | disc(size, 20, 60, 12)
    assert len(find_objects(segmentation(labels))) == 1
    parts = find_objects(segmentation(labels), split=True)
    assert sorted(part.centroid[0] for part in parts) == pytest.approx([20.5, 40.5, 60.5], abs=1)
    assert sum(part.area for part in parts) == labels.sum()


def test_pixels_as_near_to_two_centres_belong_to_the_deeper():
    size = (40, 60)
    labels = disc(size, 20, 20, 12) | disc(size, 20, 36, 9)
    left, right = sorted(find_objects(segmentation(labels), split=True), key=lambda part: part.centroid)
    assert left.box[0] + left.box[2] - 1 == 28
    assert right.box[0] == 29


def test_many_touching_objects_need_the_memory_of_one_picture():
    labels = disc((20, 20), 9.5, 9.5, 9.5)
    labels[9:11] = True
    labels = segmentation(np.tile(labels, 100))
    tracemalloc.start()
    assert len(find_objects(labels, split=True)) == 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * labels.label_map.size


@pytest.mark.parametrize("radius", [3, 10, 30])
def test_one_disc_stays_one_with_a_hole_and_a_ragged_edge_too(radius):
    size = (70, 70)
    labels = disc(size, 35, 35, radius)
    labels[35, 35] = 0
    labels &= np.random.default_rng(0).random(size) > 0.02
    largest = max(find_objects(segmentation(labels), split=True), key=lambda found: found.area)
    assert largest.area > 0.97 * labels.sum()


@pytest.mark.parametrize("seed", range(6))
def test_outlines_hold_exactly_the_objects_pixels(seed):
    mask = blobs(seed)
    centres = np.stack(np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5), axis=2).reshape(-1, 2)
    for found in find_objects(segmentation(mask)):
        inside = np.zeros(mask.size, int)
        for piece in outlines(found):
            for ring in piece:
                inside += crossings(ring, centres)
        np.testing.assert_array_equal((inside % 2 == 1).reshape(mask.shape), whole(found, mask.shape))


def crossings(ring, points):
    """How often a ray to the right of each point crosses a closed polygon."""
    count = np.zeros(len(points), int)
    for (x0, y0), (x1, y1) in itertools.pairwise(ring):
        spans = (y0 > points[:, 1]) != (y1 > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            count += spans & (points[:, 0] < x0 + (points[:, 1] - y0) * (x1 - x0) / (y1 - y0))
    return count


@pytest.mark.parametrize("seed", range(6))
def test_polygons_filled_by_pillow_are_the_masks(seed):
    mask = ndimage.binary_fill_holes(blobs(seed))
    for found in find_objects(segmentation(mask)):
        ((outer, *_),) = outlines(found)
        np.testing.assert_array_equal(drawn(outer[:-1], mask.shape), whole(found, mask.shape))


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_and_masks_keep_holes(seed):
    mask = blobs(seed)
    for found in find_objects(segmentation(mask)):
        segment = coco_annotation(found, mask.shape)["segmentation"]
        (shape,) = labelme([found], "a.png", mask.shape)["shapes"]
        if isinstance(segment, list):
            assert shape["shape_type"] == "polygon"
            continue
        assert shape["shape_type"] == "mask"
        runs = np.repeat(np.arange(len(segment["counts"])) % 2 == 1, segment["counts"])
        np.testing.assert_array_equal(runs.reshape(mask.shape[::-1]).T, whole(found, mask.shape))


def test_geojson_is_json_with_closed_rings():
    ring = disc((20, 20), 10, 10, 8) & ~disc((20, 20), 10, 10, 3)
    collection = json.loads(json.dumps(geojson(find_objects(segmentation(ring)))))
    (feature,) = collection["features"]
    (piece,) = feature["geometry"]["coordinates"]
    assert len(piece) == 2
    assert all(polygon[0] == polygon[-1] for polygon in piece)
    assert feature["properties"]["area"] == ring.sum()


@pytest.mark.parametrize("layout", ["coco", "labelme"])
def test_what_is_written_here_is_read_for_training_as_the_same_masks(layout, tmp_path):
    rows, truths = [], []
    for seed in range(4):
        labels = np.where(blobs(seed), 1, 0)
        labels[blobs(seed + 10)] = 2
        objects, name = find_objects(segmentation(labels), split=seed % 2 == 0), f"{seed}.png"
        save_png(np.zeros((*labels.shape, 3), np.uint8), tmp_path / name)
        if layout == "labelme":
            (tmp_path / f"{seed}.json").write_text(json.dumps(labelme(objects, name, labels.shape)))
        rows.append(
            Row(name, str(seed), labels.shape, annotations=[[coco_annotation(o, labels.shape) for o in objects]])
        )
        truths.append(labels.astype(np.uint8))
    if layout == "coco":
        (tmp_path / "coco.json").write_text(json.dumps(coco(rows, 0, NAMES)))
    reading = read_folder(tmp_path)
    counts = ConfusionMatrix(3)
    pairs = sorted((pair for split in reading.splits.values() for pair in split), key=lambda pair: pair.image)
    for truth, pair in zip(truths, pairs, strict=True):
        labels = pair.read_annotation().labels
        # Readers number classes as their file lists them: by name in LabelMe, as here in COCO.
        order = np.array([0, *(reading.classes.names.index(name) for name in NAMES[1:])])
        counts.update(order[truth].astype(np.uint8), labels)
    assert counts.iou().min() == 1
