"""Segment pictures, reduce colours, export networks: the command line.

`accelerate launch -m unet segment ...` shares the pictures among processes.
"""

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from tqdm import tqdm

from .archive import FolderArchive, match_truths, network_folders, picture_files
from .batch import Work
from .bundle import Bundle, BundleError
from .export import ONNX_FILE, equal_labels, export
from .formats import PICTURE_ENDINGS
from .images import ImageError, read_image, save_png
from .palette import PaletteLadder
from .predict import Segmentation, Segmenter
from .tables import Row, pooled, write_tables
from .web import RUNTIME, export_page

PNG_COLORS = 256  # a palette PNG has no more
AHEAD = 2  # pictures that are read and written beside the networks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command -> exit status.

    1 if a picture or check failed, 2 for misuse.
    """
    args = _parser().parse_args(arguments)
    try:
        return args.command(args)
    except (BundleError, ImageError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        return 130


# ---- segment ---------------------------------------------------------------------------------------------------------


def segment(args: argparse.Namespace) -> int:
    """Segment pictures into a folder; finished ones are kept."""
    pictures = _pictures(args.pictures)
    truths, remarks = match_truths(pictures, {path.name: path for path in _files(args.truths)} if args.truths else {})
    state = PartialState()
    device = state.device if state.num_processes > 1 else None
    segmenters = [Segmenter.load(source, device=device) for source in args.bundle]
    bundles = [segmenter.bundle for segmenter in segmenters]
    class_names, palette = bundles[0].class_names, bundles[0].palette
    if len(bundles) > 2 or any(bundle.class_names != class_names for bundle in bundles):
        raise BundleError(f"--bundle {' '.join(args.bundle)}: give one network, or two with the same classes")
    if unknown := [name for name in args.objects or () if name not in class_names]:
        raise BundleError(f"--objects: there is no class {unknown[0]!r}; the classes are {', '.join(class_names)}")
    options = {"classes": args.objects, "min_area": args.min_area, "split": args.split}
    objects = None if args.objects is None else options
    networks = _network_names(bundles)
    archive = FolderArchive(Path(args.output))
    again = (archive.folder / "records").is_dir()  # else what lies there is somebody's own

    settings = [*map(_digest, bundles), objects]
    keys = {name: _key(settings, path, truths.get(name)) for name, path in pictures.items()}
    every = [(name, path, file) for (name, path), file in zip(pictures.items(), picture_files(pictures), strict=True)]
    mine = every[state.process_index :: state.num_processes]
    todo = [(name, path, file) for name, path, file in mine if _record(archive, name, file, keys[name]) is None]

    def ask(image: np.ndarray) -> list[Segmentation]:
        return [segmenter(image) for segmenter in segmenters]

    failed = []
    quiet = None if state.is_main_process else True  # None: where nobody is looking
    work = Work(ask, networks, archive, truths, objects, ahead=AHEAD)
    for row in tqdm(work.rows(todo), "segmenting", len(todo), unit="picture", disable=quiet):
        if row.size is None:
            failed.append((row.name, row.note))
        else:
            archive.writestr(f"records/{row.file}.json", json.dumps({"key": keys[row.name], "row": row.to_json()}))
    notes = dict(gather_object(failed))
    if not state.is_main_process:
        return 0  # the main process speaks for all
    rows = [
        _record(archive, name, file, keys[name]) or Row(name, note=notes.get(name, "its process ended early"))
        for name, _, file in every
    ]
    if again:  # its tables may be of other pictures
        for stale in ("objects.csv", *(f"{folder}/coco.json" for folder in network_folders(networks))):
            (archive.folder / stale).unlink(missing_ok=True)
    write_tables(archive, rows, networks, (class_names, palette))

    left_out = [row for row in rows if row.size is None]
    print(f"{len(rows) - len(left_out)} of {len(rows)} pictures are segmented: {archive.folder / 'scores.csv'}")
    for network, scores in zip(networks, pooled(rows) or (), strict=False):
        print(f"{network}: mIoU {scores.miou():.4f}, pixel accuracy {scores.pixel_accuracy():.4f}")
    for line in [*remarks, *(f"{row.name}: {row.note}" for row in rows if row.size and row.note)]:
        print(line)
    for row in left_out:
        print(f"left out: {row.name}: {row.note}", file=sys.stderr)
    return 1 if left_out else 0


def _pictures(sources: Sequence[str]) -> dict[str, Path]:
    """Pictures by their names in the tables."""
    paths = list(dict.fromkeys(path for source in sources for path in _files(source)))
    if not paths:
        raise ImageError(f"{', '.join(sources)}: there are no pictures here")
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def _files(source: str) -> Iterator[Path]:
    """The file, or a folder's pictures, sorted by name."""
    path = Path(source)
    if not path.is_dir():
        if not path.suffix:
            raise ImageError(f"{path} is no folder and no picture: check the path")
        yield path
        return
    files = sorted(path.glob("[!.]*"))
    yield from (file for file in files if file.suffix.lower() in PICTURE_ENDINGS)


def _network_names(bundles: Sequence[Bundle]) -> list[str]:
    """The architectures; numbered where two bundles have one architecture."""
    names = [bundle.architecture for bundle in bundles]
    return names if len(set(names)) == len(names) else [f"{name}-{i}" for i, name in enumerate(names, 1)]


def _digest(bundle: Bundle) -> str:
    """A hash of all that decides a network's answers."""
    shown = bundle.class_names, bundle.palette.tolist(), bundle.temperature
    digest = hashlib.sha256(repr((bundle.net.config, bundle.preprocessing, shown)).encode())
    for tensor in bundle.net.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()


def _key(settings: list[object], *paths: Path | None) -> str:
    """A hash of networks, options and files as they are."""
    stats = [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path and path.exists()]
    return hashlib.sha256(json.dumps([settings, stats]).encode()).hexdigest()


def _record(archive: FolderArchive, name: str, file: str, key: str) -> Row | None:
    """The row of a picture finished under this key."""
    try:
        record = json.loads((archive.folder / "records" / f"{file}.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return Row.from_json(record["row"]) if record["key"] == key and record["row"]["name"] == name else None


# ---- quantize and export ---------------------------------------------------------------------------------------------


def quantize(args: argparse.Namespace) -> int:
    """Write a picture in k colours."""
    image = read_image(args.picture)
    palette = PaletteLadder(image, max_colors=args.colors)[args.colors]
    save_png(palette.encode(image), args.output, palette=palette.colors)
    print(f"{args.output}: {len(palette)} colours")
    return 0


def export_bundle(args: argparse.Namespace) -> int:
    """Write an ONNX file and check it, or a page."""
    if not args.web and len(args.bundle) > 1:
        raise BundleError("one network becomes one ONNX file; two become a page, with --web DIR")
    bundles = [Segmenter.load(source, device="cpu").bundle for source in args.bundle]
    if args.web:
        networks = dict(zip(_network_names(bundles), bundles, strict=True))
        folder = export_page(networks, args.web, args.onnxruntime_web)
        print(f"{folder}: put it on any static host, or try it: python -m http.server -d {folder}")
        return 0
    (bundle,) = bundles
    path = export(bundle, args.output)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, uint8 (H, W, 3) -> label_map (H, W), confidence (H, W)")
    if importlib.util.find_spec("onnxruntime") is None:
        print("not checked: pip install onnxruntime, and export again to compare it with Segmenter")
        return 0
    images = [read_image(picture) for picture in args.check]
    if not images:  # areas of many colours
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8))
        images = [np.asarray(noise.resize(size, Image.Resampling.BICUBIC)) for size in ((320, 240), (61, 97))]
    equal = equal_labels(path, bundle, images)
    print(f"onnxruntime gives {100 * equal:.3f} % of the pixels the same class as Segmenter in float32")
    return 0 if equal >= 0.999 else 1


# ---- the command line ------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m unet", description="Segment pictures, reduce colours, export networks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("segment", help="label maps, colour masks, overlays and scores.csv of pictures")
    command.set_defaults(command=segment)
    add = command.add_argument
    add("pictures", nargs="+", metavar="PICTURE", help="pictures, or folders of pictures")
    add("--bundle", nargs="+", required=True, help='one network or two: folders, or "user/name" on the Hub')
    add("-o", "--output", required=True, metavar="DIR", help="what is finished there is not done again")
    add("--truths", metavar="DIR", help="ground truths with the names of the pictures: scores them")
    kinds = "objects.csv, COCO, LabelMe and GeoJSON"
    add("--objects", nargs="*", metavar="CLASS", help=f"write single objects of these classes, or of all: {kinds}")
    add("--min-area", type=_count, default=1, metavar="PIXELS", help="leave smaller objects out")
    add("--split", action="store_true", help="part touching objects where they narrow")

    command = commands.add_parser("quantize", help="a picture in k colours, by k-means")
    command.set_defaults(command=quantize)
    add = command.add_argument
    add("picture")
    add("-k", "--colors", type=_colors, default=8, help=f"2 to {PNG_COLORS}, default 8")
    add("-o", "--output", required=True, metavar="FILE.png")

    command = commands.add_parser(
        "export",
        help="a network as ONNX, with resizing and normalisation inside",
        description="The file takes uint8 (H, W, 3) of any size. It does not cut large pictures into tiles as "
        "Segmenter does: memory grows with the picture, for 12 million pixels and 11 classes to about 3 GB.",
    )
    command.set_defaults(command=export_bundle)
    add = command.add_argument
    add("bundle", nargs="+", help='a folder, or "user/name" on the Hub; two with --web')
    add("-o", "--output", default=ONNX_FILE, metavar="FILE.onnx")
    add("--check", nargs="+", default=(), metavar="PICTURE", help="compare answers on these pictures")
    add("--web", metavar="DIR", help="write a static page instead: it runs two networks in a browser")
    add("--onnxruntime-web", metavar="DIR", help=f"an unpacked {RUNTIME} for the page; else npm fetches it")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


def _colors(text: str) -> int:
    if (colors := _count(text)) not in range(2, PNG_COLORS + 1):
        raise argparse.ArgumentTypeError(f"{text} is not one of 2 to {PNG_COLORS}")
    return colors


if __name__ == "__main__":
    sys.exit(main())
