"""Folders are read as exported, or refused in one sentence; none is read as something else."""

import contextlib
import json
import shutil
import tracemalloc

import numpy as np
import pytest
from layouts import LAYOUTS, SIZE, coco, corners, dump, save, scene, scenes, splits_of, text, write, write_yolo
from matplotlib.path import Path as Outline
from PIL import Image

from training.dataset import DataError, load_dataset
from training.readers import READERS, read_folder
from training.readers.base import Drawn, Shape, rectangle
from training.readers.folder import Folder


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_read_as_exported(tmp_path, name):
    truth = LAYOUTS[name](tmp_path)
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert truth.read_as in dataset.layout
    assert dataset.class_names == truth.names
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    read = {split: dict(zip(pairs.images, pairs, strict=True)) for split, pairs in splits.items()}
    if truth.unsplit:
        assert read["val"]
        assert read["train"].keys() | read["val"].keys() == truth.unsplit.keys()
        both = {None: (read["train"] | read["val"], truth.unsplit), "test": (read["test"], truth.test)}
    else:
        both = {split: (read[split], pictures) for split, pictures in splits_of(truth).items()}
    for found, expected in both.values():
        assert found.keys() == expected.keys()
        for path, (image, labels) in found.items():
            np.testing.assert_array_equal(labels, expected[path], err_msg=str(path))
            assert image.shape == (*SIZE, 3)
    counts = ", ".join(f"{split} {len(pairs)}" for split, pairs in splits.items())
    assert dataset.summary() == (
        f"read as: {dataset.layout}; {counts}; {len(truth.names)} classes: {', '.join(truth.names)}"
    )


def refusal(root, **options):
    with pytest.raises(DataError) as error:
        load_dataset(root, **options).check()
    return str(error.value)


def photo(seed, size=(48, 64), noise=4):
    """Blurred noise with soft areas, like a photo out of focus."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse) + rng.normal(0, noise, (*size, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("folders", [("",), ("holiday", "garden"), ("train", "val"), ("images",)])
def test_ordinary_photos_are_no_data_set(tmp_path, folders):
    for folder in folders:
        for i in range(6):
            save(tmp_path / folder / f"IMG_{i}.jpg", photo(i))
    assert "no annotations that belong to them" in refusal(tmp_path)
    assert "--data needs" in refusal(tmp_path / "nowhere")


def test_flat_pictures_are_not_taken_for_side_by_side_pairs(tmp_path):
    for i in range(6):  # cells on a black slide: few colours on both sides
        slide = np.zeros((48, 64, 3), np.uint8)
        slide[10 + i : 20 + i, 8:20] = slide[20 - i : 30 - i, 40:55] = (40, 200, 90)
        save(tmp_path / f"{i}.png", slide)
    assert "no annotations that belong to them" in refusal(tmp_path)


def test_volumes_are_named(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr/heart_0000.nii.gz").write_bytes(b"volume")
    assert "heart_0000.nii.gz cannot be read here, export them as PNG" in refusal(tmp_path)


def test_two_fitting_readers_are_named_and_layout_decides(tmp_path):
    LAYOUTS["labelme"](tmp_path)
    for path in (tmp_path / "data_annotated").glob("[0-9].jpg"):
        save(tmp_path / f"masks/{path.stem}.png", scene(int(path.stem))[1])
        shutil.copy(path, (tmp_path / "images").mkdir(exist_ok=True) or tmp_path / "images")
    message = refusal(tmp_path)
    assert "can be read in several ways: masks, for pictures such as" in message
    assert "labelme, for 0.json with imagePath and shapes" in message
    assert "--layout masks" in message
    assert load_dataset(tmp_path, layout="labelme").layout == "LabelMe JSON (labels.txt)"
    assert load_dataset(tmp_path, layout="masks").layout.startswith("pictures in images/")


@pytest.mark.parametrize("layout", READERS)
def test_layout_that_does_not_fit_is_refused(tmp_path, layout):
    for i in range(3):
        save(tmp_path / f"{i}.jpg", photo(i))
    assert refusal(tmp_path, layout=layout)


def test_damaged_masks_are_named(tmp_path):
    """A change of line ends, as git makes it in files that it takes for text, spoils a PNG."""
    LAYOUTS["roboflow_masks"](tmp_path)
    masks = sorted(tmp_path.glob("*/*_mask.png"))
    for path in masks:
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    message = refusal(tmp_path)
    assert message.startswith(f"{len(masks)} problems")
    assert all(path.name in message for path in masks)


@pytest.mark.parametrize("gray", [False, True])
def test_class_numbers_in_jpeg_are_refused(tmp_path, gray):
    colors = np.repeat(np.arange(0, 255, 80)[:, None], 3, axis=1) if gray else np.eye(3) * 200
    names = ("{split}/leftImg/{n}.jpg", "{split}/labelIds/{n}.jpg")
    write(tmp_path, *names, {"train": 3, "val": 2}, encode=lambda labels: colors[labels].astype(np.uint8))
    assert "JPEG" in refusal(tmp_path)


def test_pictures_that_a_list_names_and_nobody_has_are_named(tmp_path):
    for name, missing in (
        ("coco_cvat", "images/default/2.jpg"),
        ("via", "train/2.jpg"),
        ("labelme", "data_annotated/2.jpg"),
    ):
        LAYOUTS[name](tmp_path / name)
        (tmp_path / name / missing).unlink()
        assert "2.jpg" in refusal(tmp_path / name)
    LAYOUTS["cvat_segmentation_mask"](tmp_path / "cvat")
    (tmp_path / "cvat/JPEGImages/p03.png").unlink()
    (tmp_path / "cvat/SegmentationClass/p03.png").unlink()
    assert "p03 is listed for training" in refusal(tmp_path / "cvat")


@pytest.mark.parametrize(
    "line", ["seq{}/{}", "images/seq{}/{}.png masks/seq{}/{}.png", "/data/seq{}/images/{}.png", "images/seq{}/{}"]
)
@pytest.mark.parametrize("folders", [("images/seq{}", "masks/seq{}"), ("seq{}/images", "seq{}/masks")])
def test_lists_split_pictures_of_one_name_by_their_folders(tmp_path, line, folders):
    counts = {1: 10, 2: 5}
    for seq, count in counts.items():
        write(tmp_path, *(f"{folder.format(seq)}/{{n}}.png" for folder in folders), {"": count})
        name = {1: "train", 2: "val"}[seq]
        text(tmp_path / f"splits/{name}.txt", *(line.format(*(seq, n) * 2) for n in range(count)))
    dataset = load_dataset(tmp_path)
    dataset.check()
    for pairs, seq in ((dataset.train, 1), (dataset.val, 2)):
        assert len(pairs) == counts[seq]
        assert all(f"seq{seq}" in path.parts for path in pairs.images)


def test_lists_of_names_that_several_pictures_have_are_refused(tmp_path):
    for seq in (1, 2):
        write(tmp_path, f"images/seq{seq}/{{n}}.png", f"masks/seq{seq}/{{n}}.png", {"": 3})
    text(tmp_path / "splits/train.txt", "seq1/0", "1", "seq2/2")
    text(tmp_path / "splits/val.txt", "seq2/0", "seq1/7")
    message = refusal(tmp_path)
    assert message.startswith("2 problems")
    assert "train.txt lists 1, which can be images/seq1/1.png or images/seq2/1.png: list it with its fold" in message
    assert "seq1/7 is listed for training" in message


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("images\\{}.png", "."),
        ('"{}.png"', "."),
        ("{0}.png,{0}.png", "splits"),
        ("P{}.PNG", "Splits"),
        ("{}", "ImageSets"),
    ],
)
def test_lists_are_read_as_people_write_them(tmp_path, line, folder):
    write(tmp_path, "images/{name}.png", "masks/{name}.png", {"": 5})
    for name, numbers in (("train", (0, 1, 2)), ("val", (3, 4))):
        words = (line.format(f"{number:02}" if line.startswith("P") else f"p{number:02}") for number in numbers)
        text(tmp_path / folder / f"{name}.txt", *words)
    dataset = load_dataset(tmp_path)
    assert [path.stem for path in dataset.val.images] == ["p03", "p04"]


def test_names_that_only_capitals_tell_apart(tmp_path):
    truth = write(tmp_path, "images/{name}.png", "masks/{name}.png", {"": 3})[""]
    for kind in ("images", "masks"):
        (tmp_path / kind / "p01.png").rename(tmp_path / kind / "P00.png")
    assert len(read_folder(tmp_path).splits[""]) == len(truth)
    (tmp_path / "images/p02.png").rename(tmp_path / "images/P02.PNG")
    (tmp_path / "images/P00.png").unlink()
    (tmp_path / "masks/P00.png").unlink()
    assert len(read_folder(tmp_path).splits[""]) == 2


def test_many_pictures_of_one_name_are_found_in_little_time(tmp_path):
    for n in range(300):
        save(tmp_path / f"case{n}/image.png", np.zeros((2, 2), np.uint8))
    folder = Folder(tmp_path)
    for n in range(300):
        assert folder.find(f"case{n}/image.png", tmp_path / "coco/instances.json") == [tmp_path / f"case{n}/image.png"]


def test_a_list_of_other_pictures_is_not_passed_over_in_silence(tmp_path):
    write(tmp_path, "images/{name}.png", "masks/{name}.png", {"": 5})
    text(tmp_path / "val.txt", "frame7")
    assert "val.txt is not used: it lists none of these pictures, such as frame7" in load_dataset(tmp_path).note


@pytest.mark.parametrize(
    ("name", "file", "copy"),
    [("coco_cvat", "annotations/instances_default.json", "annotations/instances_all.json"),
     ("via", "train/via_region_data.json", "train/via_export.json"),
     ("labelme", "data_annotated/2.json", "data_annotated/2 again.json")],
)  # fmt: skip
def test_pictures_that_two_files_list_are_refused(tmp_path, name, file, copy):
    LAYOUTS[name](tmp_path)
    shutil.copy(tmp_path / file, tmp_path / copy)
    assert "2.jpg, which is listed in" in refusal(tmp_path)


def test_boxes_are_no_masks(tmp_path):
    write_yolo(tmp_path / "yolo", "images/train/{n}.jpg", "labels/train/{n}.txt", {"train": 3})
    text(tmp_path / "yolo/data.yaml", "names: [a, b]")
    text(tmp_path / "yolo/labels/train/1.txt", "0 0.5 0.5 0.2 0.2")
    assert "1.txt holds boxes, not outlines" in refusal(tmp_path / "yolo")
    pictures = list(scenes(tmp_path / "coco", "{n}.jpg", {"": 3}))
    dump(tmp_path / "coco/boxes.json", coco([(p[2].name, p[4]) for p in pictures], encode=lambda box: []))
    assert "annotations without an outline" in refusal(tmp_path / "coco")


@pytest.mark.parametrize(
    ("line", "reason"),
    [("5 0.1 0.1 0.5 0.1 0.5 0.5", "has the class 5"), ("0 0.1 0.1 0.5 0.1 x 0.5", "no class number and polygon"),
     ("0 0.1 nan 0.5 0.1 0.5 0.5", "has the class 0"), ("0 0.1 0.1 0.5", "no class number and polygon"),
     ("0 3 3 20 3 20 15", "corners are shares of the picture")],
)  # fmt: skip
def test_broken_yolo_lines_are_named(tmp_path, line, reason):
    LAYOUTS["yolo_roboflow"](tmp_path)
    text(tmp_path / "train/labels/1.txt", line)
    message = refusal(tmp_path)
    assert "train/labels/1.txt" in message
    assert reason in message


def test_what_belongs_to_no_picture_is_said(tmp_path):
    LAYOUTS["yolo_ultralytics"](tmp_path / "yolo")
    (tmp_path / "yolo/labels/train/1.txt").rename(tmp_path / "yolo/labels/train/other.txt")
    assert "train/other.txt has no picture" in refusal(tmp_path / "yolo")
    LAYOUTS["coco_cvat"](tmp_path / "coco")
    save(tmp_path / "coco/images/default/new.jpg", scene(99)[0])
    path = tmp_path / "coco/annotations/instances_default.json"
    content = json.loads(path.read_text())
    content["annotations"] += [content["annotations"][0] | {"image_id": 70}] * 3
    dump(path, content)
    note = load_dataset(tmp_path / "coco").note
    assert "1 pictures that no JSON file lists are left out" in note
    assert "3 annotations in instances_default.json are of pictures that it does not list" in note
    for image in content["images"]:
        image["file_name"] = "new.jpg"
    dump(path, content)
    save(tmp_path / "coco/images/again/new.jpg", scene(99)[0])
    assert "lists new.jpg, which can be" in refusal(tmp_path / "coco")
    truth = LAYOUTS["yolo_lists_of_cvat"](tmp_path / "cvat")
    text(tmp_path / "cvat/train.txt", *(path.name for path in truth.train))
    (tmp_path / "cvat/images/train").rename(tmp_path / "cvat/images/first")
    assert "train.txt lists 0.png, which can be" in refusal(tmp_path / "cvat")


def test_splits_that_data_yaml_names_and_nobody_has_are_said(tmp_path):
    LAYOUTS["yolo_splits_of_any_name"](tmp_path)
    shutil.rmtree(tmp_path / "images/other")
    shutil.rmtree(tmp_path / "labels/other")
    assert "val: images/other/ of data.yaml is not here" in load_dataset(tmp_path).note
    text(tmp_path / "data.yaml", "train: images/one", "val: images/one", "names: {2: a, 3: b}")
    dataset = load_dataset(tmp_path)
    assert "3 pictures that data.yaml has in val are in another split, too" in dataset.note
    assert not set(dataset.train.images) & set(dataset.val.images)


def test_run_lengths_of_another_size_are_refused(tmp_path):
    pictures = list(scenes(tmp_path, "{n}.jpg", {"": 3}))
    content = coco([(p[2].name, p[4]) for p in pictures], encode=lambda box: {"size": [9, 9], "counts": [40, 41]})
    dump(tmp_path / "a.json", content)
    assert f"gives 0.jpg the sizes (9, 9) and {SIZE}" in refusal(tmp_path)
    content["images"] = [{key: image[key] for key in ("id", "file_name")} for image in content["images"]]
    dump(tmp_path / "a.json", content)
    assert "its annotation (9, 9); they must have one size" in refusal(tmp_path)


def test_a_shape_without_a_label_is_named(tmp_path):
    LAYOUTS["labelme"](tmp_path)
    path = tmp_path / "data_annotated/2.json"
    path.write_text(path.read_text().replace('"label": "a"', '"label": null'))
    assert "2.json: a shape of 2.jpg cannot be read (it has no label)" in refusal(tmp_path)


def test_broken_json_is_named(tmp_path):
    LAYOUTS["labelme"](tmp_path)
    path = tmp_path / "data_annotated/2.json"
    path.write_text(path.read_text()[:100])
    assert f"{path} is no readable JSON" in refusal(tmp_path)


def test_object_numbers_are_no_classes(tmp_path):
    for i in range(4):
        labels = np.zeros((40, 60), np.uint8)
        for n in range(12 + i):
            labels[3 + 10 * (n // 5) :, :][:6, 2 + 11 * (n % 5) : 9 + 11 * (n % 5)] = n + 1
        save(tmp_path / f"images/{i}.png", photo(i, (40, 60)))
        save(tmp_path / f"masks/{i}.png", labels)
    assert "number objects one by one" in refusal(tmp_path)


def test_small_shapes_lie_on_large_ones_and_holes_are_background(tmp_path):
    small, large = (10, 10, 14, 14), (2, 2, 30, 25)
    for i in range(3):
        save(tmp_path / f"img/{i}.png", scene(i)[0])
        objects = [
            {"classTitle": "small", "geometryType": "polygon", "points": {"exterior": corners(small), "interior": []}},
            {"classTitle": "large", "geometryType": "polygon",
             "points": {"exterior": corners(large), "interior": [corners((20, 5, 24, 9))]}},
        ]  # fmt: skip
        dump(tmp_path / f"ann/{i}.png.json", {"size": {"height": SIZE[0], "width": SIZE[1]}, "objects": objects})
    dump(tmp_path / "meta.json", {"classes": [{"title": "small"}, {"title": "large"}]})
    dataset = load_dataset(tmp_path)
    dataset.check()
    expected = np.zeros(SIZE, np.uint8)
    expected[2:26, 2:31] = 2
    expected[5:10, 20:25] = 0
    expected[10:15, 10:15] = 1
    np.testing.assert_array_equal(dataset.train.label_map(0), expected)


@pytest.mark.parametrize("tool", ["coco", "via", "yolo"])
def test_polygons_cover_the_pixels_whose_centres_they_hold(tmp_path, tool):
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle, square = np.stack([np.cos(turn), np.sin(turn)], axis=1) * 5 + (14.3, 15.8), np.array(corners((0, 0, 9, 9)))
    ragged = [np.random.default_rng(n).uniform(-9, 49, (n, 2)) for n in range(3, 9)]  # they leave the picture
    polygons = {f"{n}.png": polygon.tolist() for n, polygon in enumerate((circle, square, *ragged))}
    for name, polygon in polygons.items():
        save(tmp_path / name, scene(0)[0])
        if tool == "yolo":
            shares = (np.array(polygon) / SIZE[::-1]).ravel()
            text((tmp_path / name).with_suffix(".txt"), " ".join(map(repr, [0, *shares.tolist()])))
    if tool == "yolo":
        text(tmp_path / "data.yaml", "names: [a]")
    elif tool == "coco":
        boxes = [(name, [(1, polygon)]) for name, polygon in polygons.items()]
        dump(tmp_path / "coco.json", coco(boxes, encode=lambda polygon: [np.ravel(polygon).tolist()]))
    else:
        entries = {}
        for name, polygon in polygons.items():
            xs, ys = zip(*polygon, strict=True)
            form = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
            entries[name] = {"filename": name, "regions": [{"shape_attributes": form}]}
        dump(tmp_path / "via.json", entries)
    masks = {pair.image.name: pair.read_annotation().labels for pair in read_folder(tmp_path).splits[""]}
    centres = np.stack(np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5), axis=2).reshape(-1, 2)
    for name, polygon in polygons.items():
        inside = Outline([*polygon, polygon[0]], closed=True).contains_points(centres).reshape(SIZE)
        np.testing.assert_array_equal(masks[name], inside)
    assert masks["0.png"].sum() == pytest.approx(25 * np.pi, rel=0.03)
    assert masks["1.png"].sum() == 81


def test_many_shapes_of_a_large_picture_need_little_memory(tmp_path):
    size = (1500, 2000)
    shapes = [Shape(n, (rectangle(9 * n, 9 * n, 9 * n + 5, 9 * n + 5),)) for n in range(1, 101)]
    pair = Drawn(tmp_path / "a.png", tmp_path / "a.json", tuple(shapes), size)
    tracemalloc.start()
    labels = pair.read_annotation().labels
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], [25] * 100)
    assert peak < 4 * labels.nbytes


@pytest.mark.parametrize(
    "name", ["fastai_camvid", "kaggle_camvid", "cvat_segmentation_mask", "roboflow_masks", "nnunet"]
)
def test_broken_class_list_is_named(tmp_path, name):
    LAYOUTS[name](tmp_path)
    lists = ("codes.txt", "class_dict.csv", "labelmap.txt", "_classes.csv", "dataset.json")
    path = next(path for file in lists for path in sorted(tmp_path.rglob(file)))
    path.write_bytes(b"a\na\n\xff")
    assert path.name in refusal(tmp_path)


def test_lists_that_differ_are_refused(tmp_path):
    LAYOUTS["roboflow_masks"](tmp_path)
    text(tmp_path / "valid/_classes.csv", "Pixel Value, Class", "0, background", "1, b", "2, a")
    assert "list different classes" in refusal(tmp_path)


def test_palette_files_count_by_their_colours_where_files_number_them_differently(tmp_path):
    colors = np.uint8([(0, 0, 0), (255, 0, 0), (0, 0, 255)])
    for i in range(6):
        order = np.array([0, 1, 2] if i % 2 else [2, 0, 1])
        save(tmp_path / f"images/{i}.png", scene(i)[0])
        save(tmp_path / f"labels/{i}.png", order.argsort()[scene(i)[1]].astype(np.uint8), colors=colors[order])
    dataset = load_dataset(tmp_path)
    dataset.check()
    for pairs in (dataset.train, dataset.val):
        for i, path in enumerate(pairs.images):
            painted = dataset.palette[pairs.label_map(i)]
            np.testing.assert_array_equal(painted, colors[scene(int(path.stem))[1]])


def test_white_is_the_object_where_the_palette_begins_with_white(tmp_path):
    for i in range(5):
        save(tmp_path / f"images/{i}.png", scene(i, 2)[0])
        save(tmp_path / f"labels/{i}.png", 1 - scene(i, 2)[1], colors=[(255, 255, 255), (0, 0, 0)])
    dataset = load_dataset(tmp_path)
    dataset.check()
    path = dataset.train.images[0]
    np.testing.assert_array_equal(dataset.train.label_map(0), scene(int(path.stem), 2)[1])


def test_colour_that_only_val_has_is_refused(tmp_path):
    colors = np.uint8([(0, 0, 0), (255, 0, 0), (0, 0, 255)])
    write(
        tmp_path, "{split}/images/{n}.png", "{split}/labels/{n}.png", {"train": 4, "val": 2}, encode=lambda x: colors[x]
    )
    mask = colors[scene(30)[1]]
    mask[:5, :5] = (0, 255, 0)
    save(tmp_path / "val/labels/1.png", mask)
    assert "1.png has colours that are not in the training masks, #00ff00" in refusal(tmp_path)


@pytest.mark.parametrize("turn", [3, 6])
def test_photo_turned_by_exif_and_mask_that_is_not_are_refused(tmp_path, turn):
    exif = Image.Exif()
    exif[0x112] = turn
    for i in range(4):
        image, labels, _ = scene(i, 2)
        save(tmp_path / f"images/{i}.jpg", image, exif=exif)
        save(tmp_path / f"labels/{i}.png", labels)
    message = refusal(tmp_path)
    assert message.startswith("4 problems")
    assert message.count("EXIF tag") == 4


def test_masks_that_follow_the_exif_turn_of_photos_are_read(tmp_path):
    for i, (turn, quarters) in enumerate(((6, 3), (3, 2), (1, 0), (6, 3))):
        exif = Image.Exif()
        exif[0x112] = turn
        image, labels, _ = scene(i, 2)
        save(tmp_path / f"images/{i}.png", image, exif=exif)
        save(tmp_path / f"labels/{i}.png", np.rot90(labels, quarters))
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert {dataset.train.size(i) for i in range(3)} <= {SIZE, SIZE[::-1]}


@pytest.mark.parametrize("turn", [3, 6])
def test_yolo_outlines_lie_on_photos_as_they_are_turned(tmp_path, turn):
    truth = LAYOUTS["yolo_lists"](tmp_path)
    exif = Image.Exif()
    exif[0x112] = turn
    for path in truth.train | truth.val:
        with Image.open(path) as photo:
            upright = np.asarray(photo)
        save(path, np.rot90(upright, {3: 2, 6: 1}[turn]), exif=exif)
    dataset = load_dataset(tmp_path)
    dataset.check()
    for path, labels in zip(dataset.val.images, map(dataset.val.label_map, range(2)), strict=True):
        np.testing.assert_array_equal(labels, truth.val[path])


def test_test_split_is_checked_and_kept_apart(tmp_path):
    LAYOUTS["singular_folders_with_valid"](tmp_path)
    assert len(load_dataset(tmp_path).test) == 1
    (tmp_path / "test/label/p40.png").write_bytes(b"broken")
    assert "p40.png" in refusal(tmp_path)


def test_every_reader_says_why_a_folder_is_its_own(tmp_path):
    assert len(READERS) == len({reader.NAME for reader in READERS.values()})
    for name, reader in READERS.items():
        assert name == reader.NAME
        assert reader.__doc__


def test_broken_pictures_are_not_hidden_by_shapes(tmp_path):
    LAYOUTS["coco_cvat"](tmp_path)
    (tmp_path / "images/default/1.jpg").write_bytes(b"\xff\xd8\xff cut off")
    message = refusal(tmp_path)
    assert message.startswith("1 problem")
    assert "1.jpg" in message
    content = json.loads((tmp_path / "annotations/instances_default.json").read_text())
    content["images"][0]["height"] += 1
    dump(tmp_path / "annotations/instances_default.json", content)
    assert "0.jpg is (32, 40), its annotation (33, 40)" in refusal(tmp_path)


def test_photos_in_place_of_masks_are_refused(tmp_path):
    """Pictures for restoration: noisy ones in input/, clean ones in target/; and photos in two formats."""
    for i in range(6):
        save(tmp_path / f"pairs/input/{i}.png", photo(i, (240, 320)))
        save(tmp_path / f"pairs/target/{i}.png", photo(i, (240, 320), noise=0))
        for ending in ("jpg", "png"):
            save(tmp_path / f"twice/{i}.{ending}", photo(i))
    assert "look like photos, not like masks" in refusal(tmp_path / "pairs")
    assert "no annotations that belong to them" in refusal(tmp_path / "twice")


def test_test_split_without_labels_is_left_out(tmp_path):
    """Cityscapes keeps its test labels back: every pixel of them is void."""
    LAYOUTS["cityscapes"](tmp_path)
    for n in range(2):
        name = f"test/bonn/bonn_{n}"
        save(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", scene(n)[0])
        save(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", np.full(SIZE, 3, np.uint8))
    (tmp_path / "leftImg8bit/test/aachen/aachen_p40_leftImg8bit.png").unlink()
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert len(dataset.test) == 0
    assert "test are all void" in dataset.note


def test_pictures_of_a_split_without_annotations_are_left_out(tmp_path):
    LAYOUTS["a_mask_an_object"](tmp_path)
    for n in range(2):
        save(tmp_path / f"stage1_test/{n}a/images/{n}a.png", scene(n)[0])
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert "2 pictures have no annotation and are left out" in dataset.note


def test_full_ade20k_is_refused(tmp_path):
    for n in range(3):
        save(tmp_path / f"training/street/{n}.jpg", scene(n)[0])
        save(tmp_path / f"training/street/{n}_seg.png", scene(n)[0])
        save(tmp_path / f"training/street/{n}_parts_1.png", scene(n)[0])
    assert "full ADE20K" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["coco_cvat", "labelme", "via", "supervisely"])
def test_json_of_another_form_is_refused_in_a_sentence(tmp_path, name):
    """Every value of every file is replaced in turn by one of another kind."""

    def variants(value, path=()):
        items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
        for key, inner in items:
            yield (*path, key)
            yield from variants(inner, (*path, key))

    LAYOUTS[name](tmp_path)
    file = max(tmp_path.rglob("*.json"), key=lambda path: path.stat().st_size)
    sound = json.loads(file.read_text())
    for path in variants(sound):
        content = json.loads(json.dumps(sound))
        place = content
        for key in path[:-1]:
            place = place[key]
        for wrong in (None, "x", -1, {}):
            place[path[-1]] = wrong
            dump(file, content)
            with contextlib.suppress(DataError):  # any other error fails the test
                load_dataset(tmp_path).check()


def test_too_many_and_repeated_names_are_refused(tmp_path):
    LAYOUTS["yolo_roboflow"](tmp_path)
    text(tmp_path / "data.yaml", f"names: {[str(i) for i in range(300)]}")
    assert "at most 255" in refusal(tmp_path)
    text(tmp_path / "data.yaml", "names: [a, a]")
    assert "lists the name 'a' twice" in refusal(tmp_path)


def test_numbers_after_the_words_image_and_mask_pair_files(tmp_path):
    write(tmp_path, "images/image{n}.jpg", "masks/mask{n}.png", {"": 4})
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert len(dataset.train) + len(dataset.val) == 4
