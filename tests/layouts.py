"""Folders as annotation tools and well-known data sets leave them, in small, with their true label maps.

Each function in LAYOUTS writes one under ``root`` and returns a `Layout`.
"""

import base64
import io
import json
import unicodedata
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from training.datasets import CITYSCAPES_CLASSES

SIZE = (32, 40)
COLORS = np.array([(0, 0, 0), (250, 50, 83), (0, 128, 192), (224, 224, 192)], np.uint8)
THREE = ("background", "a", "b")


@dataclass
class Layout:
    """What a folder holds: label maps by picture, in splits; class names; words in how it is read."""

    read_as: str
    names: tuple = THREE
    train: dict = field(default_factory=dict)
    val: dict = field(default_factory=dict)
    test: dict = field(default_factory=dict)
    unsplit: dict = field(default_factory=dict)


LAYOUTS = {}


def layout(write):
    """Add a function to the table of layouts."""
    LAYOUTS[write.__name__] = write
    return write


def scene(seed, classes=3):
    """A picture, its label map and the boxes in it: (label, (left, top, right, bottom)), all inclusive."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SIZE, np.uint8)
    boxes = []
    for label in range(1, classes):
        left, top = (18 * (label - 1) + rng.integers(1, 5), rng.integers(2, 15))
        boxes.append((label, (int(left), int(top), int(left) + 11 - label, int(top) + 12)))
        labels[top : top + 13, left : left + 12 - label] = label
    image = np.clip(rng.normal(90, 40, (*SIZE, 3)) + 50 * labels[..., None], 0, 255).astype(np.uint8)
    return image, labels, boxes


def save(path, array, *, colors=None, **options):
    """Write an array as a picture; with colors, as a palette file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if colors is not None:
        picture.putpalette(np.asarray(colors, np.uint8).tobytes())
    picture.save(path, **options)
    return path


def write(root, image_name, mask_name, counts, *, encode=lambda labels: labels, truth=None, classes=3, colors=None):
    """Pairs named after {split}, {name} and {n}; returns {split: {picture: label map}}."""
    splits = {}
    for split, count in counts.items():
        for n in range(count):
            name = f"p{len(split)}{n}"
            image, labels, _ = scene(10 * len(split) + n, classes)
            path = save(root / image_name.format(split=split, name=name, n=n), image)
            if mask_name:
                save(root / mask_name.format(split=split, name=name, n=n), encode(labels), colors=colors)
            splits.setdefault(split, {})[path] = labels if truth is None else truth(labels)
    return splits


def as_colors(labels):
    return COLORS[labels]


def binary(value=255):
    return lambda labels: labels * np.uint8(value)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def nameless(n):
    return tuple(f"class {i}" for i in range(n))


OBJECT = ("background", "object")

# Picture and mask folders ---------------------------------------------------------------------------------------------


@layout
def split_inside_folders(root):
    found = write(root, "images/{split}/{name}.jpg", "masks/{split}/{name}.png", {"train": 3, "val": 2})
    return Layout("pictures in images/ and masks in masks/", nameless(3), **found)


@layout
def training_and_validation(root):
    found = write(root, "{split}/imgs/{name}.png", "{split}/annotations/{name}.png", {"training": 3, "validation": 2})
    return Layout("masks in annotations/", nameless(3), train=found["training"], val=found["validation"])


@layout
def singular_folders_with_valid(root):
    counts = {"train": 3, "valid": 2, "test": 1}
    found = write(root, "{split}/image/{name}.png", "{split}/label/{name}.png", counts, encode=binary(), classes=2)
    return Layout("masks in label/", OBJECT, found["train"], found["valid"], found["test"])


@layout
def milesial(root):
    found = write(root, "imgs/{name}.jpg", "masks/{name}_mask.gif", {"": 5}, encode=binary(), classes=2)
    return Layout("masks in masks/", OBJECT, unsplit=found[""])


@layout
def x_and_y(root):
    found = write(root, "x/{name}.png", "y/{name}.png", {"": 5}, encode=binary(127), classes=2)
    return Layout("masks in y/", OBJECT, unsplit=found[""])


@layout
def masks_of_254(root):
    found = write(root, "JPEGImages/{name}.png", "mask/{name}.png", {"": 5}, encode=binary(254), classes=2)
    return Layout("masks in mask/", OBJECT, unsplit=found[""])


@layout
def segnet_camvid(root):
    found = write(
        root, "CamVid/{split}/{name}.png", "CamVid/{split}annot/{name}.png", {"train": 3, "val": 2, "test": 2}
    )
    text(root / "CamVid/train.txt", *(f"/CamVid/train/p5{n}.png /CamVid/trainannot/p5{n}.png" for n in range(3)))
    return Layout("masks in", nameless(3), **found)


@layout
def kaggle_camvid(root):
    counts = {"train": 3, "val": 2, "test": 1}
    found = write(root, "{split}/{name}.png", "{split}_labels/{name}_L.png", counts, encode=as_colors)
    text(root / "class_dict.csv", "name,r,g,b", "background,0,0,0", "a,250,50,83", "b,0,128,192", "Void,224,224,192")
    return Layout("class_dict.csv", **found)


@layout
def camvid_of_its_authors(root):
    def with_void(labels):
        colors = COLORS[labels]
        colors[:2] = COLORS[3]
        return colors

    def truth(labels):
        labels = labels.copy()
        labels[:2] = 255
        return labels

    names = ("701_StillsRaw_full/{name}.png", "LabeledApproved_full/{name}_L.png")
    found = write(root, *names, {"": 5}, encode=with_void, truth=truth)
    lines = ("0 0 0\tbackground", "250 50 83\ta", "0 128 192\t\tb", "224 224 192\tVoid")
    text(root / "label_colors.txt", *lines)
    return Layout("label_colors.txt", unsplit=found[""])


@layout
def fastai_camvid(root):
    found = write(root, "images/{name}.png", "labels/{name}_P.png", {"": 5})[""]
    text(root / "codes.txt", "background", "a", "b", "Void")
    text(root / "valid.txt", "p03.png", "p04.png")
    return Layout("codes.txt", **parted(found, val=("p03", "p04")))


def parted(found, val):
    """{"train": label maps, "val": those of the pictures of these names}."""
    return {
        "train": {path: labels for path, labels in found.items() if path.stem not in val},
        "val": {path: labels for path, labels in found.items() if path.stem in val},
    }


def voc_colors():
    colors = np.zeros((256, 3), np.uint8)
    colors[:3], colors[255] = [(0, 0, 0), (128, 0, 0), (0, 128, 0)], (224, 224, 192)
    return colors


def with_border(labels):
    labels = labels.copy()
    labels[:, :1] = 255
    return labels


@layout
def pascal_voc(root):
    root = root / "VOCdevkit/VOC2012"
    names = ("JPEGImages/{name}.jpg", "SegmentationClass/{name}.png")
    found = write(root, *names, {"": 5}, encode=with_border, truth=with_border, colors=voc_colors())[""]
    for n in range(5):
        save(root / f"SegmentationObject/p0{n}.png", scene(n)[1], colors=voc_colors())
        save(root / f"JPEGImages/unlabelled{n}.jpg", scene(n)[0])
        text(root / f"Annotations/p0{n}.xml", "<annotation/>")
    text(root / "ImageSets/Segmentation/train.txt", "p00", "p01", "p02")
    text(root / "ImageSets/Segmentation/val.txt", "p03", "p04")
    text(root / "ImageSets/Main/train.txt", "unlabelled0", "p00")
    return Layout("Pascal VOC", nameless(3), **parted(found, val=("p03", "p04")))


@layout
def cvat_segmentation_mask(root):
    found = write(root, "JPEGImages/{name}.png", "SegmentationClass/{name}.png", {"": 5}, encode=as_colors)
    for n in range(5):
        save(root / f"SegmentationObject/p0{n}.png", as_colors(scene(n)[1]))
    text(root / "ImageSets/Segmentation/default.txt", *(f"p0{n}" for n in range(5)))
    lines = ("background:0,0,0::", "a:250,50,83::", "b:0,128,192::")
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions", *lines)
    return Layout("CVAT segmentation mask (labelmap.txt)", unsplit=found[""])


@layout
def labelme_to_voc(root):
    root = root / "data_dataset_voc"
    names = ("JPEGImages/{name}.jpg", "SegmentationClass/{name}.png")
    found = write(root, *names, {"": 5}, encode=with_border, truth=with_border, colors=voc_colors())
    for n in range(5):
        save(root / f"SegmentationClassVisualization/p0{n}.jpg", scene(n)[0])
    text(root / "class_names.txt", "_background_", "a", "b")
    return Layout("Pascal VOC (class_names.txt)", unsplit=found[""])


@layout
def roboflow_masks(root):
    counts = {"train": 3, "valid": 2, "test": 1}
    found = write(root, "{split}/{name}_png.rf.9a.jpg", "{split}/{name}_png.rf.9a_mask.png", counts)
    for split in counts:
        text(root / split / "_classes.csv", "Pixel Value, Class", "0, background", "1, a", "2, b")
    save(root / "preview_with_masks.jpg", scene(0)[0])
    return Layout("Roboflow semantic masks (_classes.csv)", THREE, found["train"], found["valid"], found["test"])


@layout
def nnunet(root):
    found = write(root, "imagesTr/{name}_0000.png", "labelsTr/{name}.png", {"": 5})
    write(root, "imagesTs/{name}_0000.png", "", {"test": 2})
    labels = {"background": 0, "a": 1, "b": 2}
    dump(root / "dataset.json", {"channel_names": {"0": "R"}, "labels": labels, "file_ending": ".png"})
    return Layout("nnU-Net (dataset.json)", unsplit=found[""])


@layout
def drive(root):
    train, test = {}, {}
    for split, found, count in (("training", train, 4), ("test", test, 2)):
        for n in range(count):
            image, labels, _ = scene(n, 2)
            folder = root / "DRIVE" / split
            path = save(folder / f"images/2{n}_{split}.tif", image)
            save(folder / f"1st_manual/2{n}_manual1.gif", labels * 255)
            save(folder / f"mask/2{n}_{split}_mask.gif", np.full(SIZE, 255, np.uint8))
            found[path] = labels
    names = sorted(train)
    return Layout("masks in 1st_manual/", OBJECT, unsplit={path: train[path] for path in names}, test=test)


@layout
def hrf(root):
    found = write(root, "images/{name}_dr.JPG", "manual1/{name}_dr.tif", {"": 4}, encode=binary(), classes=2)
    for n in range(4):
        save(root / f"mask/p0{n}_dr_mask.tif", np.full(SIZE, 255, np.uint8))
    return Layout("masks in manual1/", OBJECT, unsplit=found[""])


@layout
def chase(root):
    found = write(root, "Image_{name}L.jpg", "Image_{name}L_1stHO.png", {"": 4}, encode=binary(), classes=2)
    for n in range(4):
        save(root / f"Image_p0{n}L_2ndHO.png", scene(n + 9, 2)[1] * 255)
    return Layout("masks beside pictures", OBJECT, unsplit=found[""])


def trimap(labels):
    """1 the pet, 2 the rest, 3 a border around the pet."""
    pet = labels > 0
    near = np.zeros_like(pet)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            near |= np.roll(pet, (down, across), (0, 1))
    return np.where(pet, 1, np.where(near, 3, 2)).astype(np.uint8)


def trimap_truth(labels):
    return np.array([0, 1, 0, 255], np.uint8)[trimap(labels)]


@layout
def pets_trimaps(root):
    names = ("images/{name}.jpg", "annotations/trimaps/{name}.png")
    found = write(root, *names, {"": 5}, encode=trimap, truth=trimap_truth, classes=2)
    (root / "annotations/trimaps/._p00.png").write_bytes(b"macOS")
    (root / "images/p00.mat").write_bytes(b"Matlab")
    return Layout("trimaps, the border is void", ("background", "foreground"), unsplit=found[""])


@layout
def trimaps_in_a_folder_of_masks(root):
    found = write(root, "images/{name}.jpg", "masks/{name}.png", {"": 5}, encode=trimap, truth=trimap_truth, classes=2)
    return Layout("trimaps, the border is void", ("background", "foreground"), unsplit=found[""])


@layout
def ade20k(root):
    def truth(labels):
        return np.array([255, 0, 1], np.uint8)[labels]

    names = ("images/{split}/ADE_{n}.jpg", "annotations/{split}/ADE_{n}.png")
    found = {}
    for split, short in (("training", "train"), ("validation", "val")):
        names = (f"images/{split}/ADE_{short}_0000000{{n}}.jpg", f"annotations/{split}/ADE_{short}_0000000{{n}}.png")
        found[short] = write(root, *names, {split: 3}, truth=truth)[split]
    rows = (f"{i}\t0.1\t100\t10\tclass {i}, or so" for i in range(1, 151))
    text(root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName", *rows)
    return Layout("objectInfo150.txt", tuple(f"class {i}, or so" for i in range(1, 151)), **found)


CITYSCAPES = tuple(name for _, name, _ in CITYSCAPES_CLASSES)


@layout
def cityscapes(root):
    def ids(labels):
        return np.array([7, 26, 9], np.uint8)[labels]  # road, car, parking

    def truth(labels):
        return np.array([0, 13, 255], np.uint8)[labels]

    image = "leftImg8bit/{split}/aachen/aachen_{name}_leftImg8bit.png"
    mask = "gtFine/{split}/aachen/aachen_{name}_gtFine_labelIds.png"
    found = write(root, image, mask, {"train": 3, "val": 2}, encode=ids, truth=truth)
    for split, count in (("train", 3), ("val", 2)):
        for n in range(count):
            stem = f"gtFine/{split}/aachen/aachen_p{len(split)}{n}_gtFine"
            save(root / f"{stem}_color.png", as_colors(scene(n)[1]))
            save(root / f"{stem}_instanceIds.png", scene(n)[1].astype(np.uint16) * 1000)
            dump(root / f"{stem}_polygons.json", {"objects": []})
    write(root, image, "", {"test": 1})
    return Layout("Cityscapes label ids", CITYSCAPES, **found)


@layout
def cityscapes_of_pix2pix_hd(root):
    def ids(labels):
        return np.array([7, 26, 24], np.uint8)[labels]

    def truth(labels):
        return np.array([0, 13, 11], np.uint8)[labels]

    names = ("{split}_img/{name}_leftImg8bit.png", "{split}_label/{name}_gtFine_labelIds.png")
    found = write(root, *names, {"train": 4}, encode=ids, truth=truth)
    for n in range(4):
        save(root / f"train_inst/p5{n}_gtFine_instanceIds.png", scene(n)[1].astype(np.uint16) * 1000)
    return Layout("Cityscapes label ids", CITYSCAPES, unsplit=found["train"])


@layout
def cityscapes_train_ids(root):
    def ids(labels):
        return np.array([0, 13, 255], np.uint8)[labels]

    image = "leftImg8bit/{split}/ulm/{name}_leftImg8bit.png"
    mask = "gtFine/{split}/ulm/{name}_gtFine_labelTrainIds.png"
    found = write(root, image, mask, {"train": 3, "val": 2}, encode=ids, truth=ids)
    return Layout("Cityscapes train ids", CITYSCAPES, **found)


@layout
def kvasir(root):
    root = root / "Kvasir-SEG"
    found = write(root, "images/{name}.jpg", "masks/{name}.jpg", {"": 5}, encode=binary(), classes=2)
    dump(root / "kavsir_bboxes.json", {"p00": {"height": 32, "width": 40, "bbox": []}})
    return Layout("masks in masks/", OBJECT, unsplit=found[""])


@layout
def isic(root):
    image = "ISIC2018_Task1-2_Training_Input/ISIC_{name}.jpg"
    mask = "ISIC2018_Task1_Training_GroundTruth/ISIC_{name}_segmentation.png"
    found = write(root, image, mask, {"train": 5}, encode=binary(), classes=2)
    text(root / "ISIC2018_Task1-2_Training_Input/LICENSE.txt", "CC0")
    write(root, "ISIC2018_Task1-2_Test_Input/ISIC_{name}.jpg", "", {"test": 2})
    return Layout("masks in ISIC2018_Task1_Training_GroundTruth/", OBJECT, unsplit=found["train"])


@layout
def carvana(root):
    found = write(
        root, "train/{name}_01.jpg", "train_masks/{name}_01_mask.gif", {"train": 5}, encode=binary(), classes=2
    )
    write(root, "test/{name}_01.jpg", "", {"test": 3})
    return Layout("masks in train_masks/", OBJECT, unsplit=found["train"])


@layout
def deepglobe_roads(root):
    def rgb(labels):
        return np.repeat(labels[..., None] * np.uint8(255), 3, axis=2)

    found = write(root, "train/{name}_sat.jpg", "train/{name}_mask.png", {"train": 5}, encode=rgb, classes=2)
    write(root, "valid/{name}_sat.jpg", "", {"valid": 2})
    return Layout("masks beside pictures", OBJECT, unsplit=found["train"])


@layout
def loveda(root):
    def truth(labels):
        return np.array([255, 0, 1], np.uint8)[labels]

    train, val = {}, {}
    for split, found in (("Train", train), ("Val", val)):
        for place in ("Rural", "Urban"):
            names = (f"{split}/{place}/images_png/{{n}}.png", f"{split}/{place}/masks_png/{{n}}.png")
            found |= write(root, *names, {place: 2}, truth=truth)[place]
    names = ("background", "building", "road", "water", "barren", "forest", "agricultural")
    return Layout("LoveDA, 0 is void", names, train, val)


@layout
def camvid_of_cvat(root):
    found = write(root, "default/{name}.png", "defaultannot/{name}.png", {"": 5}, encode=as_colors)
    text(root / "default.txt", *(f"/default/p0{n}.png /defaultannot/p0{n}.png" for n in range(5)))
    text(root / "label_colors.txt", "0 0 0 background", "250 50 83 a", "0 128 192 b")
    return Layout("label_colors.txt", unsplit=found[""])


@layout
def kitti(root):
    found = write(root, "training/image_2/{name}_10.png", "training/semantic/{name}_10.png", {"": 5})
    write(root, "training/instance/{name}_10.png", "", {"": 5})
    return Layout("pictures in image_2/ and masks in semantic/", nameless(3), unsplit=found[""])


@layout
def bdd100k(root):
    names = ("images/10k/{split}/{name}.jpg", "labels/sem_seg/masks/{split}/{name}.png")
    return Layout("masks in masks/", nameless(3), **write(root, *names, {"train": 3, "val": 2}))


@layout
def lists_of_names_with_spaces(root):
    found = write(root, "images/my {name}.jpg", "masks/my {name}.png", {"": 5})[""]
    text(root / "splits/train.txt", *(f"my p0{n}" for n in range(3)))
    text(root / "splits/val.txt", "my p03", "my p04")
    return Layout("masks in masks/", nameless(3), **parted(found, val=("my p03", "my p04")))


@layout
def masks_of_some_pictures(root):
    names = ("JPEGImages/{name}.jpg", "SegmentationClassAug/{name}.png")
    found = write(root, *names, {"": 5}, colors=voc_colors())
    save(root / "JPEGImages/unlabelled.jpg", scene(9)[0])
    return Layout("masks in SegmentationClassAug/", nameless(3), unsplit=found[""])


@layout
def mmsegmentation(root):
    found = write(root, "img_dir/{split}/{name}.jpg", "ann_dir/{split}/{name}.png", {"train": 3, "val": 2})
    return Layout("pictures in img_dir/ and masks in ann_dir/", nameless(3), **found)


@layout
def floodnet(root):
    names = ("{split}/{split}-org-img/{name}.jpg", "{split}/{split}-label-img/{name}_lab.png")
    found = write(root, *names, {"train": 3, "val": 2, "test": 1})
    return Layout("pictures in", nameless(3), **found)


@layout
def prefixes_with_datumaro_names(root):
    root = root / "segmentation"
    found = write(root, "images/image_{name}.png", "masks/gt_{name}.png", {"": 5}, encode=as_colors)
    names = {"0": "background", "1": "a", "2": "b"}
    dump(root / "dataset_meta.json", {"label_map": names, "segmentation_colors": COLORS[:3].tolist()})
    return Layout("dataset_meta.json", unsplit=found[""])


@layout
def rgb_and_seg(root):
    found = write(root, "{split}/rgb/{n}_rgb.png", "{split}/seg/{n}_seg.png", {"train": 4, "test": 2})
    return Layout("pictures in rgb/ and masks in seg/", nameless(3), unsplit=found["train"], test=found["test"])


@layout
def mask_beside_photo_of_its_name(root):
    found = write(root, "{name}.jpg", "{name}.png", {"": 5}, encode=binary(), classes=2)
    return Layout("masks beside pictures", OBJECT, unsplit=found[""])


@layout
def a_folder_a_case(root):
    found = write(root, "case{n}/image.png", "case{n}/mask.png", {"": 5})
    return Layout("masks beside pictures", nameless(3), unsplit=found[""])


@layout
def a_mask_an_object(root):
    found = {}
    for n in range(5):
        image, labels, boxes = scene(n)
        folder = root / f"stage1_train/{n}f0e"
        found[save(folder / f"images/{n}f0e.png", image)] = (labels > 0).astype(np.uint8)
        for label, _ in boxes:
            save(folder / f"masks/{label}cc.png", np.uint8(labels == label) * 255)
    return Layout("a mask an object", OBJECT, unsplit=found)


@layout
def side_by_side(root):
    found = {"train": {}, "val": {}}
    for split, count in (("train", 4), ("val", 2)):
        for n in range(count):
            image, labels, _ = scene(10 * len(split) + n)
            # The largest class comes first, equal ones by their colours.
            found[split][save(root / split / f"{n}.png", np.hstack([image, COLORS[labels]]))] = labels
    return Layout("photo left, colour mask right", nameless(3), **found)


# Shapes in text and JSON ----------------------------------------------------------------------------------------------


def corners(box):
    """The pixels in the corners."""
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def outline(box):
    """The corners between pixels, where pixel (0, 0) covers 0 to 1."""
    left, top, right, bottom = box
    return corners((left, top, right + 1, bottom + 1))


def scenes(root, name, counts):
    """Photos; yields (split, number, path, label map, boxes)."""
    for split, count in counts.items():
        for n in range(count):
            image, labels, boxes = scene(10 * len(split) + n)
            yield split, n, save(root / name.format(split=split, n=n), image), labels, boxes


def write_yolo(root, picture, label, counts, *, first=0):
    found = {}
    for split, n, path, labels, boxes in scenes(root, picture, counts):
        rows = [
            " ".join([str(kind - 1 + first), *(f"{x / SIZE[1]:.9f} {y / SIZE[0]:.9f}" for x, y in outline(box))])
            for kind, box in boxes
        ]
        text(root / label.format(split=split, n=n), *rows)
        found.setdefault(split, {})[path] = labels
    return found


@layout
def yolo_ultralytics(root):
    found = write_yolo(root, "images/{split}/{n}.jpg", "labels/{split}/{n}.txt", {"train": 3, "val": 2})
    text(
        root / "data.yaml",
        "path: /somewhere/else",
        "train: images/train",
        "val: images/val",
        "names:",
        " 0: a",
        " 1: b",
    )
    path = save(root / "images/train/empty.jpg", scene(99)[0])
    found["train"][path] = np.zeros(SIZE, np.uint8)
    return Layout("YOLO segmentation (data.yaml)", **found)


@layout
def yolo_roboflow(root):
    counts = {"train": 3, "valid": 2, "test": 1}
    found = write_yolo(root, "{split}/images/{n}.jpg", "{split}/labels/{n}.txt", counts)
    text(root / "data.yaml", "train: ../train/images", "val: ../valid/images", "nc: 2", "names: ['a', 'b']")
    text(root / "README.dataset.txt", "exported")
    return Layout("YOLO segmentation (data.yaml)", THREE, found["train"], found["valid"], found["test"])


@layout
def yolo_splits_of_any_name(root):
    """Folders that say nothing, classes that are not numbered from 0, and one called as what lies around all."""
    found = write_yolo(root, "images/{split}/{n}.jpg", "labels/{split}/{n}.txt", {"one": 3, "other": 2}, first=2)
    save(root / "images/neither.jpg", scene(99)[0])
    names = "names: {1: Background, 2: a, 3: b}"
    text(root / "data.yaml", "path: ../datasets/mine", "train: images/one", "val: [images/other/]", names)
    return Layout("YOLO segmentation (data.yaml)", train=found["one"], val=found["other"])


@layout
def yolo_lists(root):
    found = write_yolo(root, "images/{split}{n}.jpg", "labels/{split}{n}.txt", {"x": 3, "xyz": 2})
    for split, name in (("x", "train"), ("xyz", "val")):
        text(root / f"{name}.txt", *(f"./images/{path.name}" for path in found[split]))
    text(root / "data.yaml", "train: train.txt", "val: val.txt", "test:", "names: [a, b]")
    return Layout("YOLO segmentation (data.yaml)", train=found["x"], val=found["xyz"])


@layout
def yolo_lists_of_cvat(root):
    """Frames of several videos have the same names."""
    counts = {"train": 4, "val": 3, "test": 2}
    found = write_yolo(root, "images/{split}/{n}.png", "labels/{split}/{n}.txt", counts)
    for split in counts:
        text(root / f"{split}.txt", *(f"data/images/{split}/{path.name}" for path in found[split]))
    text(root / "data.yaml", "train: train.txt", "val: val.txt", "test: test.txt", "names: {0: a, 1: b}")
    return Layout("YOLO segmentation (data.yaml)", THREE, **found)


CATEGORIES = [{"id": 4, "name": "a", "supercategory": ""}, {"id": 7, "name": "b", "supercategory": ""}]


def coco(pictures, categories=CATEGORIES, encode=lambda box: [[float(v) for corner in outline(box) for v in corner]]):
    """COCO's JSON of [(file name, boxes)]; labels 1 and 2 are the last two categories."""
    content = {"info": {}, "licenses": [], "categories": categories, "images": [], "annotations": []}
    for i, (name, boxes) in enumerate(pictures):
        content["images"].append({"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for label, box in boxes:
            number = categories[len(categories) - 3 + label]["id"]
            annotation = {"id": len(content["annotations"]), "image_id": i, "category_id": number, "iscrowd": 0}
            content["annotations"].append(annotation | {"segmentation": encode(box), "bbox": list(box)})
    return content


@layout
def coco_roboflow(root):
    counts = {"train": 3, "valid": 2, "test": 1}
    found = {}
    group = {"id": 0, "name": "things", "supercategory": "none"}
    kinds = [{"id": i + 1, "name": name, "supercategory": "things"} for i, name in enumerate("ab")]
    for split in counts:
        pictures = list(scenes(root, "{split}/{n}_jpg.rf.1c.jpg", {split: counts[split]}))
        dump(root / split / "_annotations.coco.json", coco([(p[2].name, p[4]) for p in pictures], [group, *kinds]))
        found[split] = {p[2]: p[3] for p in pictures}
    return Layout("COCO (_annotations.coco.json)", THREE, found["train"], found["valid"], found["test"])


@layout
def coco_of_its_authors(root):
    found = {}
    for split, count in (("train", 3), ("val", 2)):
        pictures = list(scenes(root, f"{split}2017/{len(split)}{{n}}.jpg", {split: count}))
        dump(root / f"annotations/instances_{split}2017.json", coco([(p[2].name, p[4]) for p in pictures]))
        dump(root / f"annotations/captions_{split}2017.json", {"images": [], "annotations": [], "categories": []})
        found[split] = {p[2]: p[3] for p in pictures}
    hidden = coco([(p[2].name, []) for p in scenes(root, "test2017/xxxx{n}.jpg", {"test": 2})])
    dump(root / "annotations/instances_test2017.json", hidden)
    return Layout("COCO (instances_train2017.json)", **found)


@layout
def coco_cvat(root):
    pictures = list(scenes(root, "images/default/{n}.jpg", {"": 5}))
    dump(root / "annotations/instances_default.json", coco([(p[2].name, p[4]) for p in pictures]))
    return Layout("COCO (instances_default.json)", unsplit={p[2]: p[3] for p in pictures})


@layout
def coco_exported_one_by_one(root):
    """Three tasks, whose pictures have the same names; in one there is nothing, in one classes have other numbers."""
    found = {}
    for number, task in enumerate(("first", "second", "third")):
        pictures = list(scenes(root, f"{task}/images/{{n}}é.jpg", {"x" * number: 3}))
        boxes = [(unicodedata.normalize("NFD", p[2].name.upper()), [] if task == "third" else p[4]) for p in pictures]
        content = coco(boxes, [kind | {"id": kind["id"] - 4 * number} for kind in CATEGORIES])
        for image in content["images"] if number else ():
            image["id"] = str(image["id"])
        dump(root / task / "annotations/instances_default.json", content)
        found |= {p[2]: p[3] * (task != "third") for p in pictures}
    return Layout("COCO (instances_default.json)", unsplit=found)


@layout
def coco_label_studio(root):
    pictures = list(scenes(root, "images/{n}.jpg", {"": 5}))
    dump(root / "result.json", coco([(f"images\\{p[2].name}", p[4]) for p in pictures]))
    return Layout("COCO (result.json)", unsplit={p[2]: p[3] for p in pictures})


@layout
def coco_labelme2coco(root):
    pictures = list(scenes(root, "JPEGImages/{n}.jpg", {"": 5}))
    kinds = [{"id": i, "name": name, "supercategory": None} for i, name in enumerate(("_background_", "a", "b"))]
    dump(root / "annotations.json", coco([(f"JPEGImages/{p[2].name}", p[4]) for p in pictures], kinds))
    for n in range(5):
        save(root / f"Visualization/{n}.jpg", scene(n)[0])
    return Layout("COCO (annotations.json)", unsplit={p[2]: p[3] for p in pictures})


@layout
def yolo_label_studio(root):
    found = write_yolo(root, "images/{n}.jpg", "labels/{n}.txt", {"": 5})
    text(root / "classes.txt", "a", "b")
    dump(root / "notes.json", {"categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}], "info": {}})
    return Layout("YOLO segmentation (classes.txt)", unsplit=found[""])


def run_lengths(box):
    """The lengths of runs of 0 and 1 in the columns of a box's mask."""
    mask = np.zeros(SIZE, np.uint8)
    left, top, right, bottom = box
    mask[top : bottom + 1, left : right + 1] = 1
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *edges, flat.size]).tolist()


def compressed(counts):
    """COCO's text of run lengths, after rleToString in maskApi.c."""
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            characters.append(chr((bits | 32 if more else bits) + 48))
    return "".join(characters)


@layout
def coco_run_lengths(root):
    pictures = list(scenes(root, "images/{n}.jpg", {"": 5}))

    def encode(box):
        counts = run_lengths(box)
        return {"size": list(SIZE), "counts": compressed(counts) if box[0] % 2 else counts}

    dump(root / "annotations/instances.json", coco([(p[2].name, p[4]) for p in pictures], encode=encode))
    return Layout("COCO (instances.json)", unsplit={p[2]: p[3] for p in pictures})


@layout
def labelme(root):
    found = {}
    for _, _, path, labels, boxes in scenes(root, "data_annotated/{n}.jpg", {"": 5}):
        kinds = ("polygon", "rectangle")
        shapes = []
        for label, box in boxes:
            kind = kinds[label - 1]
            points = corners(box) if kind == "polygon" else [box[:2], box[2:]]
            shapes.append({"label": "ab"[label - 1], "points": points, "shape_type": kind, "flags": {}})
        content = {"version": "5.0", "flags": {}, "shapes": shapes, "imagePath": path.name, "imageData": None}
        dump(path.with_suffix(".json"), content | {"imageHeight": SIZE[0], "imageWidth": SIZE[1]})
        found[path] = labels
    save(root / "data_annotated/not yet.jpg", scene(99)[0])
    text(root / "labels.txt", "__ignore__", "_background_", "a", "b")
    return Layout("LabelMe JSON (labels.txt)", unsplit=found)


@layout
def labelme_of_a_program(root):
    labelme(root)
    (root / "labels.txt").unlink()
    (root / "data_annotated/not yet.jpg").unlink()
    found = {}
    for _, _, path, labels, _ in scenes(root, "data_annotated/{n}.jpg", {"": 5}):
        content = json.loads(path.with_suffix(".json").read_text())
        for shape in content["shapes"]:
            shape["label"] = {"a": 1, "b": " 2 "}[shape["label"]]
        dump(path.with_suffix(".json"), content)
        found[path] = labels
    return Layout("LabelMe JSON", ("background", "1", "2"), unsplit=found)


@layout
def via(root):
    found = {"train": {}, "val": {}}
    for split, count in (("train", 3), ("val", 2)):
        content = {}
        for _, n, path, labels, boxes in scenes(root, f"{split}/{{n}}.jpg", {split: count}):
            regions = []
            for label, box in boxes:
                xs, ys = zip(*outline(box), strict=True)
                form = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
                regions.append({"shape_attributes": form, "region_attributes": {"kind": "ab"[label - 1]}})
            content[f"{n}.jpg123"] = {"filename": path.name, "size": 123, "regions": regions, "file_attributes": {}}
            found[split][path] = labels
        dump(root / split / "via_region_data.json", content)
    return Layout("VIA (via_region_data.json)", **found)


@layout
def supervisely(root):
    found = {}
    for _, _, path, labels, boxes in scenes(root, "ds0/img/{n}.jpg", {"": 5}):
        objects = []
        for label, box in boxes:
            if label == 1:
                shape = {"geometryType": "polygon", "points": {"exterior": corners(box), "interior": []}}
            else:
                file = io.BytesIO()
                Image.fromarray(np.full((box[3] - box[1] + 1, box[2] - box[0] + 1), True)).save(file, "PNG")
                data = base64.b64encode(zlib.compress(file.getvalue())).decode()
                shape = {"geometryType": "bitmap", "bitmap": {"data": data, "origin": box[:2]}}
            objects.append({"classTitle": "ab"[label - 1]} | shape)
        size = {"height": SIZE[0], "width": SIZE[1]}
        dump(root / f"ds0/ann/{path.name}.json", {"description": "", "size": size, "objects": objects})
        found[path] = labels
    kinds = [{"title": name, "shape": "any", "color": color} for name, color in (("a", "#FA3253"), ("b", "#0080C0"))]
    dump(root / "meta.json", {"classes": kinds, "tags": []})
    return Layout("Supervisely (meta.json)", unsplit=found)


def splits_of(truth: Layout) -> dict[str, dict[Path, np.ndarray]]:
    """The pictures that the trainer should see, where somebody has split them."""
    return {"train": truth.train, "val": truth.val, "test": truth.test}
