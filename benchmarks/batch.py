"""How much of a batch's time is spent in the network?

    python benchmarks/batch.py                 a Markdown table
    python benchmarks/batch.py --write         and into docs/benchmarks.md
    python benchmarks/batch.py --quick         20 pictures

Photos as JPEG files, all different, are segmented into a folder as `python -m unet segment` does it. Decoding, scoring
and writing run in threads beside the network; the rest of the time is what they cost nevertheless.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import machine, parser, photo, publish, table
from PIL import Image

from unet import Segmentation, Segmenter
from unet.__main__ import AHEAD
from unet.archive import FolderArchive, picture_files
from unet.batch import Work

SIZE = (360, 480)


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, quick="20 pictures", weights=True)
    options.add_argument("--pictures", type=int, help="(default: 1000)")
    args = options.parse_args(arguments)
    count = args.pictures or (20 if args.quick else 1000)
    header, rows = machine("torch"), []
    with tempfile.TemporaryDirectory() as folder:
        pictures = write_pictures(Path(folder) / "photos", count)
        for path in sorted(args.weights.glob("*/*/config.json")):
            segmenter = Segmenter.load(path.parent)
            segmenter.warm_up()
            for ahead in (0, AHEAD):
                name = f"{path.parent.parent.name}, {path.parent.name}"
                target = Path(folder) / name / str(ahead)
                whole, in_network = run(segmenter, pictures, FolderArchive(target), ahead)
                how = "beside the network" if ahead else "in turn"
                rows.append((name, how, f"{count / whole:.1f}", f"{100 * in_network / whole:.1f} %"))
    columns = ("network", "files read and written", "pictures a second", "time in the network")
    text = f"{header}. {count} JPEG photos of {SIZE[0]}x{SIZE[1]}, for one network at a time."
    publish("batch", f"{text}\n\n{table(columns, rows, text=2)}", write=args.write)


def write_pictures(folder: Path, count: int) -> list[Path]:
    """JPEG files, no two alike."""
    folder.mkdir(parents=True)
    paths = [folder / f"{i}.jpg" for i in range(count)]
    image = photo(SIZE)
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(image, 7 * i, axis=1)).save(path, quality=90)
    return paths


def run(segmenter: Segmenter, pictures: list[Path], archive: FolderArchive, ahead: int) -> tuple[float, float]:
    """Seconds in all, and seconds in the network."""
    spent = 0.0

    def ask(image: np.ndarray) -> list[Segmentation]:
        nonlocal spent
        answer = segmenter(image)
        spent += answer.seconds
        return [answer]

    started = time.perf_counter()
    named = [
        (path.name, path, file) for path, file in zip(pictures, picture_files(p.name for p in pictures), strict=True)
    ]
    for _ in Work(ask, [segmenter.bundle.architecture], archive, {}, ahead=ahead).rows(named):
        pass
    return time.perf_counter() - started, spent


if __name__ == "__main__":
    main()
