"""How long `python app.py` takes to answer, and its memory.

The first start does not count. In turn with them a process only imports gradio and torch, the least that it can take.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gradio_client import Client, handle_file
from measuring import different_pictures, interleaved, machine, parser, publish, serve, shown, table

REST = 2.0  # seconds between the first answer and reading the memory
LEAST = [sys.executable, "-c", "import gradio, torch"]


def main(arguments: list[str] | None = None) -> None:
    args = parser(__doc__, quick="one start, which counts; nothing to compare with", weights=True).parse_args(arguments)
    starts: list[tuple[float, float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        (picture,) = different_pictures(Path(folder), 1)
        works = {"page": lambda: starts.append(start(args.weights, picture))}
        if args.quick:
            works["page"]()
        else:
            works["least"] = lambda: subprocess.run(LEAST, check=True)
            least = interleaved(works, 5)["least"]
            del starts[0]
    pages, answers, memory = zip(*starts, strict=True)
    rows = [
        ("the page answers", shown(pages)),
        ("the first segmentation by both networks, 360x480, is there", shown(answers)),
        ("only `import gradio, torch`", "–" if args.quick else shown(least)),
        ("memory at rest", f"{max(memory) / 1e6:.0f} MB"),
    ]
    text = f"{machine('torch', 'gradio')}. Since the start of the process, median (range); memory, the most of all"
    publish("start", f"{text} starts.", table(("", ""), rows), write=args.write)


def start(weights: Path, picture: Path) -> tuple[float, float, int]:
    """Seconds until the page and the first answer; bytes at rest."""
    with serve(weights) as page:
        ready = page.seconds()
        Client(page.url, verbose=False).predict(handle_file(picture), page.task, api_name="/compare")
        answered = page.seconds()
        time.sleep(REST)
        return ready, answered, page.memory()


if __name__ == "__main__":
    main()
