"""How much of a batch's time do the networks take?

Different JPEG files are segmented into a folder as by `python -m unet segment`, which decodes and writes in threads.
"""

import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
from measuring import PICTURE, bundle_folders, different_pictures, machine, parser, publish, table

from unet import Segmentation, Segmenter
from unet.__main__ import AHEAD
from unet.archive import FolderArchive, picture_files
from unet.batch import Work


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, quick="20 pictures", weights=True)
    options.add_argument("--pictures", type=int, help="(default: 1000)")
    args = options.parse_args(arguments)
    count, rows = args.pictures or (20 if args.quick else 1000), []
    with tempfile.TemporaryDirectory() as folder:
        pictures = different_pictures(Path(folder) / "photos", count)
        for place in bundle_folders(args.weights):
            segmenter, name = Segmenter.load(place), f"{place.parent.name}, {place.name}"
            segmenter.warm_up()
            for how, ahead in (("in turn", 0), ("beside the network", AHEAD)):
                whole, in_network = run(segmenter, pictures, FolderArchive(Path(folder) / name / how), ahead)
                rows.append((name, how, f"{count / whole:.1f}", f"{100 * in_network / whole:.1f} %"))
    columns = ("network", "files read and written", "pictures a second", "time in the network")
    text = f"{machine('torch')}. {count} JPEG photos of {PICTURE[0]}x{PICTURE[1]}, for one network at a time."
    publish("batch", text, table(columns, rows, text=2), write=args.write)


def run(segmenter: Segmenter, pictures: list[Path], archive: FolderArchive, ahead: int) -> tuple[float, float]:
    """Seconds in all, and seconds in the network."""
    spent = []

    def ask(image: np.ndarray) -> list[Segmentation]:
        answer = segmenter(image)
        spent.append(answer.seconds)
        return [answer]

    started = time.perf_counter()
    names = [path.name for path in pictures]
    named = list(zip(names, pictures, picture_files(names), strict=True))
    deque(Work(ask, [segmenter.bundle.architecture], archive, {}, ahead=ahead).rows(named), maxlen=0)
    return time.perf_counter() - started, sum(spent)


if __name__ == "__main__":
    main()
