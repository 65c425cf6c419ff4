"""Twenty users at once: is each answered, in turn, and does the palette stay live meanwhile?

    python benchmarks/users.py                 a Markdown table
    python benchmarks/users.py --write         and into README.md
    python benchmarks/users.py --quick         four users

Each asks both networks about a picture of its own through gradio_client, one a tenth of a second after the other. The
ideal is a queue without gaps: who is n-th waits n times as long as one who is alone. Another one asks for k colours
again and again, which must not wait for the networks.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from measuring import ROOT, machine, photo, put_into_readme, shown
from PIL import Image
from start import serve

SIZE = (360, 480)
APART = 0.1  # seconds between two users' requests, so that their order is known


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", help="bundles, as TASK/ARCHITECTURE")
    parser.add_argument("--users", type=int, help="(default: 20)")
    parser.add_argument("--quick", action="store_true", help="four users")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    args = parser.parse_args(arguments)
    count = args.users or (4 if args.quick else 20)
    before = machine("torch", "gradio")
    with tempfile.TemporaryDirectory() as folder, serve(args.weights) as page:
        pictures = different_pictures(Path(folder), count + 6)
        clients = [Client(page.url, verbose=False) for _ in range(count + 1)]
        alone = [ask(clients[0], picture, page.task) for picture in pictures[count:]][1:]
        palette_alone = [quantize(clients[-1], pictures[0]) for _ in range(6)][1:]
        started, finished, palette_meanwhile = rush(clients, pictures[:count], page.task)
    latencies = [end - start for start, end in zip(started, finished, strict=True)]
    one = statistics.median(alone)
    ratios = [latency / (place * one) for place, latency in enumerate(latencies, 1)]
    overtaken = sum(np.argsort(finished) != np.arange(count))
    rows = {
        "answered": f"{count} of {count}",
        "answered out of turn": f"{overtaken}",
        "one who is alone": shown(alone),
        "the last of them": f"{latencies[-1]:.2f} s, {ratios[-1]:.2f}× the ideal",
        "the longest wait, beside the ideal at that place": f"{max(ratios):.2f}×",
        "k colours, when nobody else is there": shown(palette_alone),
        "k colours meanwhile": shown(palette_meanwhile),
    }
    text = (
        f"{before}. {count} users, each with a picture of {SIZE[0]}x{SIZE[1]} for both networks.\n\n| | |\n|---|--:|\n"
        + "\n".join(f"| {what} | {value} |" for what, value in rows.items())
    )
    print(text)
    if args.write:
        put_into_readme("users", text)


def different_pictures(folder: Path, count: int) -> list[Path]:
    """Files of one size, no two alike, so that no answer is known already."""
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(photo(SIZE), 7 * i, axis=1)).save(path, quality=92)
    return paths


def ask(client: Client, picture: Path, task: str) -> float:
    """Seconds until both networks have answered."""
    start = time.perf_counter()
    found = client.predict(handle_file(picture), task, api_name="/compare")
    if not 0 <= found["agreement"] <= 1:
        raise SystemExit(f"not an answer: {found}")
    return time.perf_counter() - start


def quantize(client: Client, picture: Path) -> float:
    """Seconds until the picture in eight colours is there."""
    start = time.perf_counter()
    client.predict(handle_file(picture), 8, "RGB", api_name="/quantize")
    return time.perf_counter() - start


def rush(clients: list[Client], pictures: list[Path], task: str) -> tuple[list[float], list[float], list[float]]:
    """When each user asked and was answered, and the seconds of every request for colours in that time."""
    started, finished = ([0.0] * len(pictures) for _ in range(2))
    failed: list[BaseException] = []

    def user(place: int) -> None:
        try:
            started[place] = time.perf_counter()
            ask(clients[place], pictures[place], task)
            finished[place] = time.perf_counter()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=user, args=(place,)) for place in range(len(pictures))]
    for thread in threads:
        thread.start()
        time.sleep(APART)
    palette = []
    while not palette or any(thread.is_alive() for thread in threads):
        palette.append(quantize(clients[-1], pictures[0]))
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"{len(failed)} of {len(pictures)} were not answered, the first because of: {failed[0]!r}")
    return started, finished, palette


if __name__ == "__main__":
    sys.exit(main())
