"""Folders are read as laid out, or refused with all that is wrong."""

import json
import os
import shutil

import numpy as np
import pytest
from folders import CLASS_COLORS, colour_scene, disc, write_dataset, write_pairs, write_side_by_side
from PIL import Image

from training.dataset import DataError, load_dataset
from training.datasets import TASKS
from training.readers import base
from unet.metrics import IGNORE_INDEX


@pytest.mark.parametrize("annotations", ["labels", "masks", "annotations"])
@pytest.mark.parametrize("scale", [1, 255])
def test_a_split_folder(tmp_path, annotations, scale):
    dataset = load_dataset(write_dataset(tmp_path, annotations=annotations, scale=scale))
    dataset.check()
    assert (len(dataset.train), len(dataset.val)) == (6, 2)
    assert dataset.class_names == ("background", "object")
    image, labels = dataset.val[1]
    expected_image, expected_labels = disc(40, 48, 101)
    assert (image == expected_image).all()
    assert (labels == expected_labels).all(), "0 and 255 alone is a mask of 0 and 1"


def test_a_folder_without_a_split_is_split_by_the_seed_alone(tmp_path):
    write_pairs(tmp_path, [(20, 24)] * 10)
    one, again, other = (load_dataset(tmp_path, seed=seed) for seed in (3, 3, 4))
    assert (len(one.train), len(one.val)) == (8, 2)
    assert not set(one.train.images) & set(one.val.images)
    assert one.val.images == again.val.images
    assert one.val.images != other.val.images


def test_classes_json_names_classes_colours_and_void(tmp_path):
    classes = {"class_names": ["a", "b", "c"], "palette": [[0, 0, 0], [9, 9, 9], [255, 0, 0]], "ignore_index": 1}
    dataset = load_dataset(write_dataset(tmp_path, classes=classes))
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.palette.tolist() == classes["palette"]
    assert set(np.unique(dataset.train.label_map(0))) == {0, IGNORE_INDEX}


def test_index_maps_with_255_as_void(tmp_path):
    write_dataset(tmp_path)
    labels = np.full((40, 48), 2, np.uint8)
    labels[:3] = 255
    Image.fromarray(labels).save(tmp_path / "train/labels/000.png")
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert len({tuple(color) for color in dataset.palette.tolist()}) == 3
    assert set(np.unique(dataset.train.label_map(0))) == {2, IGNORE_INDEX}


def test_a_known_task_brings_names_colours_and_terms(tmp_path):
    dataset = load_dataset(write_dataset(tmp_path), task=TASKS["nuclei"])
    assert dataset.class_names == ("background", "nucleus")
    assert dataset.record["license"] == "cc0-1.0"


def test_everything_that_is_wrong_is_listed_at_once(tmp_path):
    write_dataset(tmp_path, classes={"class_names": ["a", "b"]})
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(tmp_path / "train/labels/000.png")
    Image.fromarray(np.zeros((40, 47), np.uint8)).save(tmp_path / "train/labels/001.png")
    (tmp_path / "val/images/000.png").write_bytes(b"no picture")
    (tmp_path / "val/labels/001.png").write_bytes((tmp_path / "val/labels/001.png").read_bytes()[:60])
    with pytest.raises(DataError) as error:
        load_dataset(tmp_path).check()
    message = str(error.value)
    assert message.startswith("4 problems in the data; nothing was started")
    for part in ("000.png has the label 7", "(40, 47)", "'000.png'", "'001.png'"):
        assert part in message
    # One without a partner is listed with all the others, not before them.
    (tmp_path / "train/labels/002.png").unlink()
    with pytest.raises(DataError) as error:
        load_dataset(tmp_path)
    message = str(error.value)
    assert message.startswith("5 problems in the data; nothing was started")
    for part in ("002.png has no annotation", "000.png has the label 7", "(40, 47)", "'000.png'", "'001.png'"):
        assert part in message


def test_a_folder_in_which_nothing_fits_lists_all_of_it(tmp_path):
    write_pairs(tmp_path, [(20, 24)] * 3)
    for i in range(3):
        (tmp_path / f"labels/{i:03}.png").rename(tmp_path / f"labels/other{i}.png")
    with pytest.raises(DataError, match="6 problems"):
        load_dataset(tmp_path)


def test_who_only_evaluates_need_not_have_sound_training_pictures(tmp_path):
    write_dataset(tmp_path, classes={"class_names": ["ground", "disc"]})
    (tmp_path / "train/images/000.png").write_bytes(b"no picture")
    dataset = load_dataset(tmp_path)
    dataset.check(train=False)
    with pytest.raises(DataError, match="1 problem in"):
        dataset.check()


def test_pictures_without_annotation_and_the_reverse_are_all_named(tmp_path):
    write_dataset(tmp_path)
    (tmp_path / "train/labels/002.png").unlink()
    (tmp_path / "train/labels/003.png").rename(tmp_path / "train/labels/extra.png")
    with pytest.raises(DataError, match="3 problems") as error:
        load_dataset(tmp_path)
    assert "002.png has no annotation" in str(error.value)
    assert "extra.png has no picture" in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not a class list"),
        ("", "not a class list"),
        ("[" * 100_000, "recursion"),
        (b'{"class_names": ["\xe4", "b"]}', "utf-8"),
        ("[1]", "begin with {"),
        ("null", "begin with {"),
        ('{"classes": ["a", "b"]}', "unknown key 'classes'"),
        ('{"class_names": "ab"}', "list of words"),
        ('{"class_names": [1, 2]}', "list of words"),
        ('{"class_names": ["a", " "]}', "list of words"),
        ('{"class_names": []}', "different words"),
        ('{"class_names": ["a", "a"]}', "different words"),
        (json.dumps({"class_names": [str(i) for i in range(256)]}), "at most 255"),
        ('{"palette": [[0, 0, 0], [1, 1, 1]]}', "one .r, g, b."),
        ('{"class_names": ["a"], "palette": [[1, 2]]}', "one .r, g, b."),
        ('{"class_names": ["a", "b"], "palette": ["#000", "#fff"]}', "one .r, g, b."),
        ('{"class_names": ["a", "b"], "palette": [[0, 0, 0.5], [1, 1, 1]]}', "one .r, g, b."),
        ('{"class_names": ["a", "b"], "palette": [[0, 0, 0], [1, 1, 256]]}', "one .r, g, b."),
        ('{"class_names": ["a", "b"], "palette": [[0, 0, NaN], [1, 1, 1]]}', "one .r, g, b."),
        ('{"class_names": ["a", "b"], "palette": [[0, 0, 0], [0, 0, 0]]}', "one colour"),
        ('{"ignore_index": "255"}', "0 to 255"),
        ('{"ignore_index": 256}', "0 to 255"),
        ('{"ignore_index": true}', "0 to 255"),
        ('{"class_names": ["a", "b"], "class_names": ["b", "a"]}', "'class_names' is there twice"),
    ],
)
def test_a_wrong_classes_json_is_refused(tmp_path, content, reason):
    write_dataset(tmp_path, train=1, val=1)
    (tmp_path / "classes.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=reason):
        load_dataset(tmp_path)


def test_a_classes_json_that_is_no_file_is_refused(tmp_path):
    write_dataset(tmp_path, train=1, val=1)
    (tmp_path / "classes.json").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        load_dataset(tmp_path)
    (tmp_path / "classes.json").rmdir()
    (tmp_path / "classes.json").symlink_to("moved away.json")
    with pytest.raises(DataError, match="No such file"):
        load_dataset(tmp_path)


def test_a_classes_json_as_editors_on_windows_save_it(tmp_path):
    write_dataset(tmp_path, train=1, val=1)
    (tmp_path / "classes.json").write_text('\ufeff{"class_names": ["ground", "disc"]}', encoding="utf-8")
    assert load_dataset(tmp_path).class_names == ("ground", "disc")


def test_everything_that_is_no_picture_is_listed(tmp_path):
    """One picture of each kind of trouble; none of them stops the others from being named."""
    write_dataset(tmp_path, train=9, val=1, size=(20, 24))
    images, labels = (sorted((tmp_path / "train" / kind).iterdir()) for kind in ("images", "labels"))
    for path in (images[0], labels[1]):
        path.unlink()
        path.mkdir()
    images[2].unlink()
    images[2].symlink_to("nowhere.png")
    images[3].unlink()
    images[3].symlink_to(images[3].name)
    images[4].unlink()
    os.mkfifo(images[4])
    labels[5].write_bytes(b"")
    Image.fromarray(np.full((20, 24), 300, np.uint16)).save(labels[6])
    Image.fromarray(np.full((20, 24), 0.5, np.float32)).save(labels[7].with_suffix(".tif"))
    labels[7].unlink()
    Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24).astype(np.uint8)).save(
        labels[8].with_suffix(".jpg")
    )
    labels[8].unlink()
    with pytest.raises(DataError, match="9 problems in the data; nothing was started") as error:
        load_dataset(tmp_path).check()
    for number, reason in enumerate(
        ("is a folder", "is a folder", "no file", "Too many levels of symbolic links", "no regular file", "is empty",
         "values from 300 to 300", "values from 0.5 to 0.5", "a grey JPEG, which changes")
    ):  # fmt: skip
        (line,) = (line for line in str(error.value).splitlines() if f"00{number}." in line)
        assert reason in line


def test_names_that_are_no_utf_8_and_names_that_two_pictures_share(tmp_path):
    write_dataset(tmp_path, train=3, val=1, size=(20, 24))
    labels = tmp_path / "train/labels"
    os.rename(labels / "000.png", os.fsencode(labels) + b"/\xff.png")
    shutil.copy(tmp_path / "train/images/001.png", tmp_path / "train/images/001.bmp")
    with pytest.raises(DataError, match="3 problems") as error:
        load_dataset(tmp_path)
    assert "000.png has no annotation in labels/" in str(error.value)
    assert "001.png and 001.bmp have one name" in str(error.value)
    assert r"\udcff.png has no picture in images/" in str(error.value)


def test_names_stay_on_their_line_and_leave_the_terminal_alone(tmp_path):
    write_dataset(tmp_path, train=3, val=1, size=(20, 24))
    (tmp_path / "train/labels/000.png").rename(tmp_path / "train/labels/a\n\x1b[31m\u202egnp.png")
    _, *lines = problems(tmp_path)
    assert len(lines) == 2
    assert lines[1].endswith(r"a\n\x1b[31m\u202egnp.png has no picture in images/")


def test_index_maps_of_16_bits_and_with_alpha_are_index_maps(tmp_path):
    write_dataset(tmp_path, train=2, val=1)
    expected = load_dataset(tmp_path).train.label_map(0)
    for i, kind in enumerate(("deep", "with alpha")):
        path = tmp_path / f"train/labels/00{i}.png"
        labels = np.asarray(Image.open(path))
        stored = labels.astype(np.uint16) if kind == "deep" else np.dstack([labels, np.full_like(labels, 255)])
        Image.fromarray(stored).save(path)
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert dataset.class_names == ("background", "object")
    assert (dataset.train.label_map(0) == expected).all()


def test_a_folder_laid_out_otherwise_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no pictures.*Put pictures into images/"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        load_dataset(tmp_path / "nowhere")


def test_every_known_task_is_complete():
    for task in TASKS.values():
        assert len(task.class_names) == len(task.palette) == len(set(task.palette)) >= 2
        assert task.record()["terms"]
    assert json.dumps([task.record() for task in TASKS.values()])


def test_photo_and_colours_side_by_side_in_jpegs(tmp_path):
    truths = write_side_by_side(tmp_path)
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert len(dataset.class_names) == 4
    assert "found 4 classes" in dataset.note
    assert dataset.train.size(0) == (64, 96)
    colors = dataset.palette.astype(int)
    order = [np.abs(colors - color).sum(axis=1).argmin() for color in CLASS_COLORS.astype(int)]
    for i in range(2):
        image, labels = dataset.val[i]
        assert image.shape == (64, 96, 3)
        assert (labels == np.array(order)[truths["val", i]]).mean() > 0.995
    train = dataset.train.label_map(0)
    counted = train != IGNORE_INDEX
    assert counted.mean() > 0.9
    assert (train[counted] == np.array(order)[truths["train", 0]][counted]).mean() > 0.998


def test_table_of_a_known_set_decides_classes_and_void(tmp_path):
    truths = write_side_by_side(tmp_path)
    task = TASKS["cityscapes"]
    path = tmp_path / "train/0.jpg"
    pair = np.array(Image.open(path))
    pair[4:24, 100:140] = (250, 170, 160)  # parking, which is void
    Image.fromarray(pair).save(path, quality=90)
    dataset = load_dataset(tmp_path, task=task)
    dataset.check()
    assert dataset.class_names == task.class_names
    assert len(dataset.class_names) == 19
    assert (dataset.train.label_map(0)[8:20, 8:40] == IGNORE_INDEX).all()
    order = [task.class_names.index(name) for name in ("road", "sky", "vegetation", "car")]
    assert (dataset.val.label_map(0) == np.array(order)[truths["val", 0]]).mean() > 0.99


def test_broken_pairs_are_listed_all_at_once(tmp_path):
    write_side_by_side(tmp_path)
    for name in ("train/1.jpg", "val/0.jpg"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:500])
    Image.new("RGB", (97, 40)).save(tmp_path / "train/odd.png")
    with pytest.raises(DataError, match="3 problems") as error:
        load_dataset(tmp_path).check()
    assert "odd.png is 97 pixels wide" in str(error.value)


def test_one_class_is_nothing_to_learn(tmp_path):
    with pytest.raises(DataError, match="only one class"):
        load_dataset(write_dataset(tmp_path, classes={"class_names": ["all"]}))


def test_masks_in_exact_colours_and_a_list_that_names_them(tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
        for i in range(2):
            image, labels = colour_scene(i)
            Image.fromarray(image).save(tmp_path / split / "images" / f"{i}.jpg")
            Image.fromarray(CLASS_COLORS[labels]).save(tmp_path / split / "labels" / f"{i}.png")
    found = load_dataset(tmp_path)
    assert sorted(map(tuple, found.palette.tolist())) == sorted(map(tuple, CLASS_COLORS.tolist()))
    listed = {"class_names": ["road", "sky", "tree", "car"], "palette": CLASS_COLORS.tolist()}
    (tmp_path / "classes.json").write_text(json.dumps(listed))
    named = load_dataset(tmp_path)
    assert named.class_names == ("road", "sky", "tree", "car")
    assert (named.val.label_map(1) == colour_scene(1)[1]).all()


def test_colours_and_indices_in_one_folder_are_refused(tmp_path):
    write_dataset(tmp_path)
    Image.fromarray(CLASS_COLORS[colour_scene(0, (40, 48))[1]]).save(tmp_path / "train/labels/000.png")
    with pytest.raises(DataError, match=r"000\.png holds colours, most hold class indices"):
        load_dataset(tmp_path).check()
    for path in sorted((tmp_path / "train/labels").iterdir()) + sorted((tmp_path / "val/labels").iterdir()):
        seed = int(path.stem) + 1
        Image.fromarray(CLASS_COLORS[colour_scene(seed, (40, 48))[1]]).save(path)
    Image.fromarray(disc(40, 48, 0)[1]).save(tmp_path / "val/labels/001.png")
    with pytest.raises(DataError, match=r"1 problem .*\n  001\.png holds class indices, most hold colours"):
        load_dataset(tmp_path).check()


def problems(root, **options):
    """What is said of a folder, one line a file."""
    with pytest.raises(DataError) as error:
        load_dataset(root, **options).check()
    return str(error.value).splitlines()


def save_labels(root, change):
    """Put ``change(labels, number)`` in the place of every annotation."""
    for number, path in enumerate(sorted(root.glob("*/labels/*.png"))):
        Image.fromarray(np.asarray(change(np.asarray(Image.open(path)), number), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("change", "listed", "reason", "files"),
    [
        (lambda labels, _: labels * 0 + 255, {}, "holds nothing but void", 5),
        (lambda labels, _: labels, {"ignore_index": 1}, "holds nothing but “background”", 3),
        (lambda labels, _: labels * 0, {}, "holds nothing but “background”", 3),
        (lambda labels, _: labels * 0 + 1, {"class_names": ["a", "b"]}, "holds nothing but “b”", 3),
        (lambda labels, _: labels * 255, {"ignore_index": 255}, "holds nothing but “background”", 3),
        (lambda labels, _: labels * 128, {"class_names": ["a", "b", "c"]}, "has the label 128", 5),
        (lambda labels, n: labels * (112 + 4 * n), {}, "labels are class indices that count from 0", 5),
        (lambda labels, _: labels + 5, {}, "has the label 6, and labels", 5),
        (lambda labels, n: labels * (200 if n == 1 else 1), {}, "has the label 200, and labels", 1),
        (lambda labels, n: np.arange(labels.size).reshape(labels.shape) % (255 if n == 2 else 2), {},
         "without smoothing or object numbers", 1),
        (lambda labels, n: labels * (255 if n in (1, 3) else 1), {}, "is a mask of 0 and 255, most are of 0 and 1", 2),
        (lambda labels, n: labels * (1 if n == 4 else 255), {}, "is a mask of 0 and 1, most are of 0 and 255", 1),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_meant_are_refused_file_by_file(tmp_path, change, listed, reason, files):
    write_dataset(tmp_path, train=3, val=2, classes=listed)
    save_labels(tmp_path, change)
    head, *lines = problems(tmp_path)
    assert head.startswith(f"{files} problem")
    assert len(lines) == files
    assert all(reason in line for line in lines)


GREY = [[200, 200, 200], [100, 100, 100], [0, 0, 0]]


@pytest.mark.parametrize(
    ("levels", "listed", "names", "classes"),
    [
        ((0, 128), {}, ("background", "object"), (0, 1)),
        ((0, 100, 200), {}, ("grey 0", "grey 100", "grey 200"), (0, 1, 2)),
        ((0, 127, 255), {}, ("grey 0", "grey 127", "grey 255"), (0, 1, 2)),
        ((0, 127, 255), {"ignore_index": 255}, ("background", "object"), (0, 1, 255)),
        ((0, 100, 200), {"class_names": ["a", "b", "c"]}, ("a", "b", "c"), (0, 1, 2)),
        ((0, 100, 200), {"class_names": ["a", "b", "c"], "palette": GREY}, ("a", "b", "c"), (2, 1, 0)),
    ],
)
def test_greys_that_lie_far_apart_are_classes(tmp_path, levels, listed, names, classes):
    write_dataset(tmp_path, train=3, val=2, classes=listed)
    stripes = np.arange(40)[:, None] // 5 % len(levels)
    save_labels(tmp_path, lambda labels, _: np.uint8(levels)[stripes + 0 * labels])
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert dataset.class_names == names
    assert "the grey levels 0, " in dataset.note
    assert dataset.val.label_map(0)[::5, 7][: len(levels)].tolist() == list(classes)


@pytest.mark.parametrize("resample", [Image.Resampling.BOX, Image.Resampling.BILINEAR])
def test_smoothed_edges_are_no_classes(tmp_path, resample):
    write_dataset(tmp_path, train=3, val=2)
    for path in tmp_path.glob("*/labels/*.png"):
        mask = Image.fromarray(np.asarray(Image.open(path)).repeat(2, 0).repeat(2, 1)[1:, 1:] * np.uint8(255))
        mask.resize((48, 40), resample).save(path)
    assert all("without smoothing or object numbers" in line for line in problems(tmp_path)[1:])


def test_a_sparse_class_beside_void_is_no_shade(tmp_path):
    """One class of Pascal VOC: 255 is left out there, as in most sets."""
    write_dataset(tmp_path, train=3, val=2)
    save_labels(tmp_path, lambda labels, _: np.where(np.arange(40)[:, None] < 6, 255, labels * 17))
    assert all("has the label 17" in line for line in problems(tmp_path)[1:])


def test_void_in_some_files_and_gaps_among_named_classes_are_nobody_s_mistake(tmp_path):
    write_dataset(tmp_path, train=3, val=2)
    save_labels(tmp_path, lambda labels, n: labels * 0 + 255 if n in (1, 3) else np.where(labels, 1, labels))
    Image.fromarray(np.where(np.eye(40, 48) > 0, 255, disc(40, 48, 0)[1]).astype(np.uint8)).save(
        tmp_path / "train/labels/000.png"
    )
    load_dataset(tmp_path).check()
    save_labels(tmp_path, lambda labels, n: np.where(labels == 1, 128, labels))
    (tmp_path / "classes.json").write_text(json.dumps({"class_names": [f"number {i}" for i in range(129)]}))
    load_dataset(tmp_path).check()


@pytest.mark.parametrize("scale", [1, 255])
def test_numbers_in_all_three_channels_are_numbers(tmp_path, scale):
    write_dataset(tmp_path, train=3, val=2, classes={"class_names": ["ground", "disc"]})
    save_labels(tmp_path, lambda labels, _: np.dstack([labels * scale] * 3))
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert dataset.class_names == ("ground", "disc")
    assert (dataset.train.label_map(2) == disc(40, 48, 2)[1]).all()


def write_colours(root, *, kind="png", **options):
    """Pictures with masks in CLASS_COLORS, and the classes.json that lists them."""
    for split, count in (("train", 3), ("val", 2)):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True)
        for i in range(count):
            image, labels = colour_scene(i + 10 * len(split))
            Image.fromarray(image).save(root / split / "images" / f"{i}.png")
            Image.fromarray(CLASS_COLORS[labels]).save(root / split / "labels" / f"{i}.{kind}", **options)
    listed = {"class_names": ["road", "sky", "tree", "car"], "palette": CLASS_COLORS.tolist()}
    (root / "classes.json").write_text(json.dumps(listed))
    return listed


@pytest.mark.parametrize(("kind", "options"), [("png", {}), ("jpg", {"quality": 75}), ("jpg", {"quality": 50})])
def test_colours_that_are_not_in_classes_json_are_refused(tmp_path, kind, options):
    listed = write_colours(tmp_path, kind=kind, **options)
    load_dataset(tmp_path).check()
    for name in ("train/labels/1", "val/labels/0"):
        path = tmp_path / f"{name}.{kind}"
        mask = np.array(Image.open(path))
        mask[5:25, 5:25] = (255, 0, 255)
        Image.fromarray(mask).save(path, **options)
    head, *lines = problems(tmp_path)
    assert head.startswith("2 problems")
    for line, name in zip(lines, ("1", "0"), strict=True):
        assert line.startswith(f"  {name}.{kind} has colours that are not in classes.json, #f")
    listed["palette"][3] = [0, 0, 40]  # another data set's colour for a car
    (tmp_path / "classes.json").write_text(json.dumps(listed))
    assert problems(tmp_path)[0].startswith("5 problems")


def test_names_without_colours_do_not_name_masks_in_colours(tmp_path):
    listed = write_colours(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({"class_names": listed["class_names"]}))
    with pytest.raises(DataError, match="add them as palette"):
        load_dataset(tmp_path)


def test_a_colour_can_be_void(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(write_colours(tmp_path) | {"ignore_index": 1}))
    dataset = load_dataset(tmp_path)
    dataset.check()
    labels = colour_scene(30)[1]
    np.testing.assert_array_equal(dataset.val.label_map(0), np.where(labels == 1, IGNORE_INDEX, labels))


def test_photographs_without_masks_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        photo = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))) + rng.normal(0, 20, (48, 64, 3))
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{i}.jpg")
    with pytest.raises(DataError, match="holds 4 pictures, but no annotations that belong to them"):
        load_dataset(tmp_path)


def test_layouts_that_are_nearly_right_are_refused_with_what_is_wrong(tmp_path):
    write_dataset(tmp_path / "a", train=3, val=2)
    shutil.rmtree(tmp_path / "a/train/labels")
    shutil.rmtree(tmp_path / "a/val/images")
    assert [line.split(" has no ")[0] for line in problems(tmp_path / "a")[1:]] == [
        *(f"  {tmp_path / 'a/train/images'}/00{i}.png" for i in range(3)),
        *(f"  {tmp_path / 'a/val/labels'}/00{i}.png" for i in range(2)),
    ]
    write_dataset(tmp_path / "b", train=3, val=2)
    shutil.copytree(tmp_path / "b/train/labels", tmp_path / "b/train/masks")
    with pytest.raises(DataError, match="has annotations in labels/ and masks/: leave one there"):
        load_dataset(tmp_path / "b")
    write_dataset(tmp_path / "d", train=3, val=2)
    shutil.rmtree(tmp_path / "d/val")
    write_side_by_side(tmp_path / "d", [("val", 2)])
    assert "2 other pictures are left out, such as val/0.jpg" in load_dataset(tmp_path / "d").note
    write_dataset(tmp_path / "e", train=3, val=2)
    for path in (tmp_path / "e/val/images").iterdir():
        path.unlink()
    assert [line.split(" has ")[1] for line in problems(tmp_path / "e")[1:]] == ["no picture in images/"] * 2
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match="is no folder"):
        load_dataset(tmp_path / "loop")


def test_links_to_folders_are_followed_once(tmp_path):
    data = write_dataset(tmp_path / "data", train=6, val=2)
    (data / "val").rename(tmp_path / "elsewhere")
    (data / "val").symlink_to(tmp_path / "elsewhere")
    (data / "train/images/up").symlink_to("../..")
    (data / "outside").symlink_to(tmp_path)
    dataset = load_dataset(data)
    dataset.check()
    assert (len(dataset.train), len(dataset.val)) == (6, 2)
    assert all(path.parts[-3] == "val" for path in dataset.val.images)
    (data / "test").symlink_to("train")
    with pytest.raises(DataError, match=r"data/train and .*data/test are one folder: take out the link"):
        load_dataset(data)


def test_pictures_beside_a_folder_of_labels_are_read(tmp_path):
    write_pairs(tmp_path, [(20, 24)] * 3)
    for path in (tmp_path / "images").iterdir():
        path.rename(tmp_path / path.name)
    (tmp_path / "images").rmdir()
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert (len(dataset.train), len(dataset.val)) == (2, 1)


def test_val_is_held_out_of_train_where_there_is_none(tmp_path):
    write_pairs(tmp_path / "train", [(20, 24)] * 10)
    write_pairs(tmp_path / "test", [(20, 24)] * 3, first_seed=50)
    dataset = load_dataset(tmp_path, seed=1)
    dataset.check()
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (8, 2, 3)
    assert all(path.parts[-3] == "train" for path in (*dataset.train.images, *dataset.val.images))


def test_what_is_no_picture_among_pictures_is_named_and_notes_are_not(tmp_path):
    write_dataset(tmp_path, train=3, val=2, size=(20, 24))
    images = tmp_path / "train/images"
    for name in ("Thumbs.db", ".DS_Store", "about these.txt", "001.json"):
        (images / name).write_bytes(b"note")
    load_dataset(tmp_path).check()
    for name in ("drawing.psd", "raw.NEF", "array.npy", "no ending"):
        (images / name).write_bytes(b"something")
    head, *lines = problems(tmp_path)
    assert head.startswith("4 problems")
    assert sum("is no picture that can be read here" in line for line in lines) == 4


def test_names_are_matched_as_people_see_them(tmp_path):
    write_dataset(tmp_path, train=3, val=2, size=(20, 24))
    (tmp_path / "train/images/000.png").rename(tmp_path / "train/images/cafe\u0301.png")
    (tmp_path / "train/labels/000.png").rename(tmp_path / "train/labels/caf\u00e9.png")
    load_dataset(tmp_path).check()
    for name in ("001.k.png", "001.bmp"):  # in the order of names, the first lies between 001.bmp and 001.png
        shutil.copy(tmp_path / "train/images/001.png", tmp_path / "train/images" / name)
    shutil.copy(tmp_path / "train/labels/001.png", tmp_path / "train/labels/001.k.png")
    assert problems(tmp_path)[1:] == [f"  {tmp_path / 'train/images/001.png'} and 001.bmp have one name"]


def test_every_file_is_decoded_once_before_training(tmp_path, monkeypatch):
    write_dataset(tmp_path)
    opened = []
    for name in ("read_image", "read_annotation"):
        read = getattr(base, name)
        monkeypatch.setattr(base, name, lambda path, read=read: opened.append(path) or read(path))
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert sorted(opened) == sorted(tmp_path.rglob("*.png"))


def test_numbers_that_count_from_1_make_no_class_of_0(tmp_path):
    write_dataset(tmp_path)
    save_labels(tmp_path, lambda labels, _: labels + 1)
    dataset = load_dataset(tmp_path)
    dataset.check()
    assert dataset.class_names == ("class 1", "class 2")
    assert (dataset.val.label_map(0) == disc(40, 48, 100)[1]).all()
