"""Pictures and masks as separate files.

Words in the names say which is which: "images" and "masks" as folders, "_mask" at the end of a name.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from unet.formats import PICTURE_ENDINGS
from unet.images import ImageError, read_image

from .base import DataError, ObjectMasks, Pair, Reading
from .class_lists import CONVENTIONS, find_classes
from .folder import SPLITS, Folder, read_text, same_name, shared_tail, words_in

NAME = "masks"


#: What the words in the names of folders say; the first that fits counts. Others are neither pictures nor masks of
#: classes: previews, object numbers, a second person's masks.
ROLE_WORDS = {
    "other": (
        "object objects segmentationobject instance instances inst visualization visualisation visualizations vis viz "
        "overlay overlays preview parts panoptic edges npy depth disparity"
    ),
    "mask": (
        "masks mask labels label labeled labelled lab annotations annotation annots annot anns ann anno seg segs "
        "segmentation segmentations segmented semantic gt groundtruth truth manual targets target trimap trimaps y"
    ),
    "image": (
        "images image imgs img pictures picture pics photos photo rgb input inputs raw original originals org orig sat "
        "stills frames tissue x"
    ),
}
#: What stands before or after a picture's name in the names of pictures and of masks.
IMAGE_AFFIXES = re.compile(
    r"(?:^(?:image|img|im|sat|rgb)(?:[-_ ]|(?=\d)))|(?:[-_. ](?:leftImg8bit|image|img|rgb|sat|training|test|0000))$",
    re.IGNORECASE,
)
MASK_AFFIXES = re.compile(
    r"(?:^(?:gt|masks?|labels?|seg|segmentation|annotation)(?:[-_ ]|(?=\d)))|(?:[-_. ](?:gtFine_labelIds"
    r"|gtFine_labelTrainIds|gtFine_color|gtCoarse_labelIds|labelIds|labelTrainIds|masks?|labels?|lab|seg|segmentation"
    r"|segmented|annotation|anno|gt|groundtruth|ground_truth|manual1|1stHO|ah|trimap|L|P|color_mask|mask_color))$",
    re.IGNORECASE,
)
OTHER_AFFIXES = re.compile(
    r"[-_. ](?:instanceIds|instances?|2ndHO|manual2|superpixels|parts_\d+|polygons|viz|vis|overlay|training_mask"
    r"|test_mask)$",
    re.IGNORECASE,
)
#: Of a folder a case, names say nothing.
ANY_NAME = re.compile(".*", re.DOTALL)
#: Folders of lists that say to which split pictures belong. ImageSets/Main of Pascal VOC is for other tasks.
LIST_FOLDERS = frozenset(("segmentation", "imagesets", "splits", "split", "lists"))
#: What may lie among pictures without being one of them. Anything else there was meant to be one.
NOTE_ENDINGS = frozenset(
    (".txt", ".md", ".json", ".xml", ".csv", ".html", ".yml", ".yaml", ".log", ".ini", ".db", ".mat")
)


@dataclass(frozen=True)
class _File:
    """A picture file and what its path says.

    case: folders that a picture shares with its mask. folder: the one that says the role.
    role: "image", "mask", "other" or "".
    """

    path: Path
    split: str
    role: str
    folder: str
    case: tuple[str, ...]

    def key(self, affixes: re.Pattern | None, *, capitals: bool = True) -> tuple:
        """What a picture and its mask share, without affixes."""
        # macOS spells é as two characters, others as one; a.jpg.png is the mask of a.jpg.
        stem = _name_of(unicodedata.normalize("NFC", self.path.stem) if capitals else same_name(self.path.stem))
        if affixes is not None:
            role = "image" if affixes is IMAGE_AFFIXES else "mask"
            stem = "" if stem.lower() in ROLE_WORDS[role].split() else affixes.sub("", stem, count=1)
        return self.split, self.case, stem


def fits(folder: Folder) -> str:
    """Why this folder has pictures with masks, or ""."""
    images, masks = _roles(folder)
    found = images and masks
    return f"pictures such as {images[0].path.name} with masks such as {masks[0].path.name}" if found else ""


def read(folder: Folder) -> Reading:
    """Pair pictures with masks by their names."""
    images, masks = _roles(folder)
    _check_one_kind(folder, masks)
    reading = Reading(_layout(folder, images, masks))
    _pair_up(folder, images, masks, reading)
    folders = {file.path.parent for file in (*images, *masks)} - {folder.root}
    reading.problems += [
        f"{path} is no picture that can be read here: export it as PNG, or take it out of the folder"
        for path in folder.files
        if path.parent in folders and path.suffix.lower() not in PICTURE_ENDINGS | NOTE_ENDINGS
    ]
    if others := sorted(set(folder.pictures) - {file.path for file in (*images, *masks)}):
        reading.notes.append(f"{len(others)} other pictures are left out, such as {others[0].relative_to(folder.root)}")
    reading.classes = find_classes(folder)
    if not (reading.classes.names or reading.classes.values):
        names = [file.path.relative_to(folder.root.parent).with_suffix("").as_posix() for file in masks]
        known = (known for words, known in CONVENTIONS.items() if all(re.search(words, name) for name in names))
        reading.classes = next(known, reading.classes)
    _split_by_lists(folder, masks, reading)
    return reading


def _check_one_kind(folder: Folder, masks: list[_File]) -> None:
    """Refuse two folders of masks, and the full ADE20K. Raises DataError."""
    if any(re.search(r"_parts_\d+$", path.stem) for path in folder.pictures):
        raise DataError(
            f"{folder.root} is the full ADE20K, whose _seg.png hold coded classes and objects: take its release for "
            "scene parsing, with annotations/training"
        )
    for files in _by_key(masks, MASK_AFFIXES).values():
        if len(names := sorted({f"{file.folder}/" for file in files})) > 1:
            found = " and ".join(names)
            raise DataError(f"{folder.root} has annotations in {found}: leave one there, that of the masks of classes")


def _roles(folder: Folder) -> tuple[list[_File], list[_File]]:
    """The pictures and the masks among the picture files."""
    files = [file for file in _files(folder) if file.role != "other" and not OTHER_AFFIXES.search(file.path.stem)]
    masks = [file for file in files if file.role == "mask"]
    if any("manual" in words_in(file.path.parent.name) for file in masks):  # then "mask" is the field of view
        masks = [file for file in masks if "mask" not in words_in(file.path.parent.name)]
    images = [file for file in files if file.role == "image"]
    if not masks:
        return _beside(images or files)
    for ids in ("labelIds", "labelTrainIds"):  # Cityscapes' colours and train ids say the same
        if chosen := [file for file in masks if file.path.stem.endswith(ids)]:
            masks = chosen
            break
    return images or [file for file in files if not file.role], masks


def _beside(files: list[_File]) -> tuple[list[_File], list[_File]]:
    """Tell pictures from masks in the same folders."""
    masks = [file for file in files if file.key(MASK_AFFIXES) != file.key(None)]
    images = [file for file in files if file.key(MASK_AFFIXES) == file.key(None)]
    names = {file.key(affixes) for file in images for affixes in (None, IMAGE_AFFIXES)}
    if sum(mask.key(MASK_AFFIXES) in names for mask in masks) * 2 > len(masks):
        return images, masks
    # Masks without an affix are such as a.png of a.jpg.
    photos = [file for file in files if file.path.suffix.lower() in (".jpg", ".jpeg")]
    rest = [file for file in files if file.path.suffix.lower() in (".png", ".gif", ".bmp", ".tif")]
    same = photos and {file.key(None) for file in photos} == {file.key(None) for file in rest}
    if same and all(_has_few_colors(file.path) for file in rest[:5]):
        return photos, rest
    return files, []


def _has_few_colors(path: Path) -> bool:
    """Whether a picture has few colours, like a mask."""
    try:
        return Image.fromarray(read_image(path)).getcolors(64) is not None
    except ImageError:
        return True  # the scan of all masks names it


def _files(folder: Folder) -> Iterator[_File]:
    """Every picture file with what its own folders say."""
    parents = [path.parent for path in folder.pictures]
    common = len(Path(os.path.commonpath(parents)).parts) if parents else 0
    for path in folder.pictures:
        role, role_folder, case = "", "", []
        for part in path.parts[common:-1]:
            words = set(words_in(part))
            second = part.lower() in ("2nd_manual", "manual2")
            roles = (role for role, known in ROLE_WORDS.items() if words & set(known.split()))
            here = "other" if second else next(roles, "")
            if here:
                role, role_folder = here, part
            elif not words <= SPLITS.keys():
                case.append(part)
        yield _File(path, folder.split_of(path), role, role_folder, tuple(case))


def _pair_up(folder: Folder, images: list[_File], masks: list[_File], reading: Reading) -> None:
    """Pair files of one name or case; others are problems."""
    if len({file.case for file in images}) == len({file.case for file in masks}) == 1:  # as 10k/ in images/10k/
        images, masks = ([replace(file, case=()) for file in files] for files in (images, masks))

    ways = [
        (_by_key(images, a, capitals), _by_key(masks, b, capitals))
        for capitals in (True, False)
        for a in (None, IMAGE_AFFIXES)
        for b in (None, MASK_AFFIXES)
    ]
    pictures, annotations = max(ways, key=lambda way: len(way[0].keys() & way[1].keys()))
    cases, objects = _by_key(images, ANY_NAME), False
    if not pictures.keys() & annotations.keys() and len(cases) == len(images):
        pictures, annotations = cases, _by_key(masks, ANY_NAME)
        if objects := any(len(found) > 1 for found in annotations.values()):
            reading.layout = "a folder a picture, a mask an object"
    for found in (*pictures.values(), *(() if objects else annotations.values())):
        reading.problems += [f"{file.path} and {found[0].path.name} have one name" for file in found[1:]]
    for key in sorted(pictures.keys() & annotations.keys()):
        picture, found = pictures[key][0].path, tuple(file.path for file in annotations[key])
        reading.splits[key[0]].append(ObjectMasks(picture, found[0], found) if objects else Pair(picture, found[0]))
    splits = reading.splits.keys()
    # Pascal VOC has masks of some pictures.
    partial = all(file.folder.startswith("SegmentationClass") for file in masks)
    missing = sorted(pictures.keys() - annotations)
    expected = [] if partial else [key for key in missing if not splits or key[0] in splits]
    if left_out := len(missing) - len(expected):
        reading.notes.append(f"{left_out} pictures have no annotation and are left out")
    reading.problems += [f"{pictures[key][0].path} has no annotation{_place(masks)}" for key in expected]
    for path in (annotations[key][0].path for key in sorted(annotations.keys() - pictures)):
        if path.parent == folder.root and splits != {""}:
            reading.notes.append(f"{path.name} lies in no split and is left out")  # a preview beside the splits
        else:
            reading.problems.append(f"{path} has no picture{_place(images)}")


def _by_key(files: list[_File], affixes: re.Pattern | None, capitals: bool = True) -> dict[tuple, list[_File]]:
    found = defaultdict(list)
    for file in files:
        found[file.key(affixes, capitals=capitals)].append(file)
    return found


def _place(files: list[_File]) -> str:
    """ " in labels/": up to three folders that say the role."""
    names = sorted({file.folder for file in files if file.folder})
    return " in " + ", ".join(f"{name}/" for name in names) if 0 < len(names) < 4 else ""


def _layout(folder: Folder, images: list[_File], masks: list[_File]) -> str:
    """What people call this layout."""
    folders = {file.folder for file in masks}
    if folders == {"SegmentationClass"}:
        return "CVAT segmentation mask" if folder.named("labelmap.txt") else "Pascal VOC"
    if folder.named("_classes.csv"):
        return "Roboflow semantic masks"
    if "labelsTr" in folders:
        return "nnU-Net"
    if {file.path.parent for file in images} & {file.path.parent for file in masks}:
        return "masks beside pictures"
    return f"pictures{_place(images)} and masks{_place(masks)}" if _place(images) else f"masks{_place(masks)}"


def _split_by_lists(folder: Folder, masks: list[_File], reading: Reading) -> None:
    """Split by lists such as splits/val.txt, if no folder does."""
    if reading.splits.keys() != {""}:
        return
    pairs = {pair.image.relative_to(folder.root): pair for pair in reading.splits[""]}
    by_name = defaultdict(list)
    for picture in pairs:
        by_name[same_name(_name_of(picture.name))].append(picture)
    folders = {part for picture in pairs for part in picture.parent.parts}
    places = {folder.root, *(file.path.parent.parent for file in masks)}
    lists: dict[str, set[Path]] = defaultdict(set)
    missing = set()
    for path in folder.with_ending(".txt"):
        split = ({"trainval": "", "default": ""} | SPLITS).get(path.stem.lower())
        if split is None or not (path.parent in places or path.parent.name.lower() in LIST_FOLDERS):
            continue
        words = sorted({_first_of(line.strip(), by_name) for line in read_text(path).splitlines() if line.strip()})
        if not any(same_name(_name_of(word)) in by_name for word in words):
            such = f", such as {words[0]}" if words else ""
            reading.notes.append(f"{path.relative_to(folder.root)} is not used: it lists none of these pictures{such}")
            continue
        for word in words:
            found = _listed(word, by_name, folders)
            lists[split].update(found[:1])
            if len(found) > 1:
                reading.add_ambiguous(path, word, found)
            elif not found and split != "test":
                missing.add(word)
    for word in sorted(missing):
        reading.problems.append(f"{word} is listed for training, but its picture or mask is not there: put it back")
    if lists.keys() <= {""}:
        return
    split_of = {picture: split for split in ("train", "val", "test") for picture in lists.get(split, ())}
    reading.splits = defaultdict(list)
    for picture, pair in pairs.items():
        if picture in split_of or "train" not in lists:
            reading.splits[split_of.get(picture, "")].append(pair)
    if left_out := len(pairs) - sum(map(len, reading.splits.values())):
        reading.notes.append(f"{left_out} pictures are in no list and are left out")


def _first_of(line: str, names: Collection[str]) -> str:
    """The picture that a line of a list begins with."""
    # Names may have spaces and be quoted, and a mask may follow.
    first, line = (word.strip("\"'") for word in (re.split(r"[\s,;]", line, maxsplit=1)[0], line))
    words = (first, line) if Path(first).suffix.lower() in PICTURE_ENDINGS else (line, first)
    return next((word for word in words if same_name(_name_of(word)) in names), first)


def _listed(word: str, by_name: Mapping[str, list[Path]], folders: set[str]) -> list[Path]:
    """The pictures that a listed path can mean.

    folders: of all pictures; others that it names are from where the list was written. Of several pictures, those
    whose path ends most like it.
    """
    parents = Path(word.replace("\\", "/")).parent.parts
    known = folders & set(parents)
    named = by_name.get(same_name(_name_of(word)), ())
    found = {path: path.parent.parts for path in named if known <= set(path.parent.parts)}
    same = {path: shared_tail(parts, parents) for path, parts in found.items()}
    return [path for path, length in same.items() if length == max(same.values())]


def _name_of(word: str) -> str:
    """A picture's name without folders and ending."""
    path = Path(word.replace("\\", "/"))
    return path.stem if path.suffix.lower() in PICTURE_ENDINGS else path.name
