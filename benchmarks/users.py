"""Twenty users at once: are all answered in turn, while palettes stay live?

    python benchmarks/users.py                 a Markdown table
    python benchmarks/users.py --write         and into docs/benchmarks.md
    python benchmarks/users.py --quick         four users

Each asks both networks about a picture of their own through gradio_client, a tenth of a second after the one before.
The ideal is a queue without gaps, in which the n-th waits n times as long as somebody alone. Another user asks for a
palette again and again, which must not wait for the networks.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from measuring import machine, parser, photo, publish, serve, shown, table
from PIL import Image

SIZE = (360, 480)
APART = 0.1  # seconds between two users' requests, so that their order is known


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, quick="four users", weights=True)
    options.add_argument("--users", type=int, help="(default: 20)")
    args = options.parse_args(arguments)
    count = args.users or (4 if args.quick else 20)
    header = machine("torch", "gradio")
    with tempfile.TemporaryDirectory() as folder, serve(args.weights) as page:
        pictures = different_pictures(Path(folder), count + 6)
        clients = [Client(page.url, verbose=False) for _ in range(count + 1)]
        alone = [seconds(compare(clients[0], picture, page.task)) for picture in pictures[count:]][1:]
        palette_alone = [seconds(quantize(clients[-1], pictures[0])) for _ in range(6)][1:]
        spans, palette_meanwhile = rush(clients, pictures[:count], page.task)
    latencies = [seconds(span) for span in spans]
    one = statistics.median(alone)
    ratios = [latency / (place * one) for place, latency in enumerate(latencies, 1)]
    rows = [
        ("answered", f"{len(spans)} of {count}"),
        ("answered out of turn", sum(np.argsort([end for _, end in spans]) != np.arange(count))),
        ("somebody alone", shown(alone)),
        ("the last of them", f"{latencies[-1]:.2f} s, {ratios[-1]:.2f}× the ideal"),
        ("the longest wait, beside the ideal at that place", f"{max(ratios):.2f}×"),
        ("k colours, with nobody else there", shown(palette_alone)),
        ("k colours meanwhile", shown(palette_meanwhile)),
    ]
    text = f"{header}. {count} users, each with a picture of {SIZE[0]}x{SIZE[1]} for both networks."
    publish("users", f"{text}\n\n{table(('', ''), rows)}", write=args.write)


def different_pictures(folder: Path, count: int) -> list[Path]:
    """Files of one size, all different, so that no answer is cached."""
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(photo(SIZE), 7 * i, axis=1)).save(path, quality=92)
    return paths


def seconds(span: tuple[float, float]) -> float:
    return span[1] - span[0]


def compare(client: Client, picture: Path, task: str) -> tuple[float, float]:
    """When both networks were asked, and when they had answered."""
    start = time.perf_counter()
    answer = client.predict(handle_file(picture), task, api_name="/compare")
    if not 0 <= answer["agreement"] <= 1:
        raise SystemExit(f"not an answer: {answer}")
    return start, time.perf_counter()


def quantize(client: Client, picture: Path) -> tuple[float, float]:
    """When the picture in eight colours was asked for, and when it was there."""
    start = time.perf_counter()
    client.predict(handle_file(picture), 8, "RGB", api_name="/quantize")
    return start, time.perf_counter()


def rush(clients: list[Client], pictures: list[Path], task: str) -> tuple[list[tuple[float, float]], list[float]]:
    """Let all users ask at once; palettes are asked for meanwhile.

    Returns when each user asked and was answered, and the seconds of every palette. Raises as a client.
    """
    users: list[Future] = []
    with ThreadPoolExecutor(len(pictures)) as pool:
        for client, picture in zip(clients, pictures, strict=False):
            users.append(pool.submit(compare, client, picture, task))
            time.sleep(APART)
        palette = [seconds(quantize(clients[-1], pictures[0]))]
        while not all(user.done() for user in users):
            palette.append(seconds(quantize(clients[-1], pictures[0])))
    return [user.result() for user in users], palette


if __name__ == "__main__":
    main()
