"""How long from `python app.py` to an answer, what it holds in memory at rest, and which imports that is.

    python benchmarks/start.py             a Markdown table; a first start, for the disk's cache, does not count
    python benchmarks/start.py --write     and into README.md
    python benchmarks/start.py --quick     that first start alone

Beside it, in turn, an interpreter that imports gradio and torch and nothing else: the least that such a page can take.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gradio_client import Client, handle_file
from measuring import ROOT, machine, photo, put_into_readme, shown
from PIL import Image

REST = 2.0  # seconds after the first answer until the memory is looked at
PATIENCE = 120.0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", help="bundles, as TASK/ARCHITECTURE")
    parser.add_argument("--quick", action="store_true", help="one start, which counts; nothing beside it")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    args = parser.parse_args(arguments)
    before = machine("torch", "gradio")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"
        Image.fromarray(photo((360, 480))).save(picture, quality=92)
        first, imports = one_start(args.weights, picture, importtime=True)
        starts, floors = [], []
        for _ in range(0 if args.quick else 5):
            starts.append(one_start(args.weights, picture)[0])
            floors.append(floor())
        starts = starts or [first]
    rows = {
        "the page answers": shown([start.page for start in starts]),
        "the first segmentation by both networks, 360x480, is there": shown([start.answer for start in starts]),
        "only `import gradio, torch`": shown(floors) if floors else "–",
        "memory at rest": f"{max(start.memory for start in starts) / 1e6:.0f} MB",
    }
    text = "\n".join(
        [
            f"{before}. From the start of the process on, median (range); memory, the most of all starts.",
            "",
            "| | |",
            "|---|--:|",
            *(f"| {what} | {value} |" for what, value in rows.items()),
            "",
            "Imports, each package's own modules, in a start with `-X importtime`, which makes them slower: "
            + ", ".join(f"{package} {seconds:.2f} s" for package, seconds in imports.most_common(8))
            + f"; all {sum(imports.values()):.2f} s.",
        ]
    )
    print(text)
    if args.write:
        put_into_readme("start", text)


@dataclass(frozen=True)
class Start:
    """Seconds until the page and the first answer were there; bytes held at rest."""

    page: float
    answer: float
    memory: int


def one_start(weights: Path, picture: Path, *, importtime: bool = False) -> tuple[Start, Counter[str]]:
    with serve(weights, *(["-X", "importtime"] if importtime else [])) as page:
        ready = page.seconds()
        client = Client(page.url, verbose=False)
        client.predict(handle_file(picture), page.task, api_name="/compare")
        answered = page.seconds()
        time.sleep(REST)
        return Start(ready, answered, page.memory()), imported(page.log.read_text(errors="replace"))


def floor() -> float:
    """Seconds of a process that imports gradio and torch."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio, torch"], check=True)
    return time.perf_counter() - start


def imported(log: str) -> Counter[str]:
    """Seconds that each package's own modules took, from what -X importtime writes."""
    packages: Counter[str] = Counter()
    for line in log.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if line.startswith("import time:") and fields[0].strip().isdigit():
            packages[fields[2].strip().partition(".")[0]] += int(fields[0]) / 1e6
    return packages


class Page:
    """A page that was started for this, and answers."""

    def __init__(self, process: subprocess.Popen, url: str, task: str, log: Path, cache: Path, started: float) -> None:
        self.process, self.url, self.task, self.log, self.cache, self.started = process, url, task, log, cache, started

    def seconds(self) -> float:
        """Since its process was started."""
        return time.perf_counter() - self.started

    def memory(self) -> int:
        """Bytes resident (Linux)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@contextmanager
def serve(weights: Path, *options: str) -> Iterator[Page]:
    """`python app.py` on a free port, until it answers; ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, task = f"http://127.0.0.1:{port}/", min(path.name for path in weights.iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as folder:
        log, cache = Path(folder) / "log", Path(folder) / "cache"
        environment = {
            "UNET_WEIGHTS": str(weights),
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(cache),
            "HF_HUB_OFFLINE": "1",
            "BROWSER": "true",  # the command: what the page opens itself in does nothing
        }
        started = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *options, "app.py"],
                cwd=ROOT,
                env=os.environ | environment,
                stdout=output,
                stderr=output,
            )
        try:
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.perf_counter() - started > PATIENCE:
                        raise SystemExit(f"app.py does not answer:\n{log.read_text(errors='replace')}") from None
                    time.sleep(0.02)
            yield Page(process, url, task, log, cache, started)
        finally:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    main()
