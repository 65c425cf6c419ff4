"""Twenty users at once: answered in turn, with live palettes?

Each asks both networks about a picture of their own, a tenth of a second after the one before. The ideal is that the
n-th waits n times as long as somebody alone. Another user asks for palettes, which must not wait for the networks.
"""

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file
from measuring import PICTURE, different_pictures, machine, parser, publish, serve, shown, table

APART = 0.1  # seconds between two users' requests, so that their order is known


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, quick="four users", weights=True)
    options.add_argument("--users", type=int, help="(default: 20)")
    args = options.parse_args(arguments)
    count = args.users or (4 if args.quick else 20)
    with tempfile.TemporaryDirectory() as folder, serve(args.weights) as page, ThreadPoolExecutor(count) as pool:
        pictures = different_pictures(Path(folder), count + 6)
        *clients, other = (Client(page.url, verbose=False) for _ in range(count + 1))

        def compare(client: Client, picture: Path) -> tuple[float, float]:
            return ask(client, picture, page.task, api_name="/compare")

        def quantize() -> tuple[float, float]:
            return ask(other, pictures[0], 8, "RGB", api_name="/quantize")

        alone = [compare(clients[0], picture)[0] for picture in pictures[count:]][1:]
        palette_alone = [quantize()[0] for _ in range(6)][1:]
        users = []
        for client, picture in zip(clients, pictures[:count], strict=True):
            users.append(pool.submit(compare, client, picture))
            time.sleep(APART)
        palette = [quantize()[0]]
        while not all(user.done() for user in users):
            palette.append(quantize()[0])
        waits, ends = zip(*(user.result() for user in users), strict=True)
    ratios = [wait / (place * statistics.median(alone)) for place, wait in enumerate(waits, 1)]
    rows = [
        ("answered", f"{len(ends)} of {count}"),
        ("answered out of turn", sum(end != in_turn for end, in_turn in zip(ends, sorted(ends), strict=True))),
        ("somebody alone", shown(alone)),
        ("the last of them", f"{waits[-1]:.2f} s, {ratios[-1]:.2f}× the ideal"),
        ("the longest wait, beside the ideal at that place", f"{max(ratios):.2f}×"),
        ("k colours, with nobody else there", shown(palette_alone)),
        ("k colours meanwhile", shown(palette)),
    ]
    text = f"{machine('torch', 'gradio')}. {count} users, each with a picture of {PICTURE[0]}x{PICTURE[1]} for both"
    publish("users", f"{text} networks.", table(("", ""), rows), write=args.write)


def ask(client: Client, picture: Path, *values: Any, api_name: str) -> tuple[float, float]:
    """Seconds until the answer, and when it was there."""
    start = time.perf_counter()
    client.predict(handle_file(picture), *values, api_name=api_name)
    end = time.perf_counter()
    return end - start, end


if __name__ == "__main__":
    main()
