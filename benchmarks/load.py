"""Fifty visitors at once: is every answer right, and nothing left behind?

Exit status 1 where not. Each visitor has a picture of a size of its own and uses the page in an order of its own; every
answer is compared with the library's. One refusal is allowed, that the queue is full; the visitor then waits a moment.
Memory is read at rest, after a shorter load that warms the page up, and again after the load.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from measuring import Page, machine, parser, photo, publish, serve, table
from PIL import Image

from page.cleanup import CACHE_BYTES
from unet import PaletteLadder, Segmenter
from unet.compare import compare
from unet.images import save_png

BUSY = 503  # the status of a full queue
FULL = "the queue is full"
PAUSE = 0.5  # seconds before asking again where the queue was full
REST = 12.0  # seconds without visitors before the memory is read
GROWTH = 0.05  # of the memory at rest: what malloc keeps
CLOSE = 1e-3  # the share of values, or of a score, that another order of additions may change


class WrongError(Exception):
    """A refusal, an error, or the answer to another picture."""


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, weights=True)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--seconds", type=float, default=60.0)
    args = options.parse_args(arguments)
    memory, failures = [], []
    with tempfile.TemporaryDirectory() as folder, serve(args.weights) as page:
        networks = [Segmenter.load(args.weights / page.task / name) for name in ("residual-add", "crop-concat")]
        visitors = [Visitor(page, number, networks, Path(folder)) for number in range(args.clients)]
        for seconds in (args.seconds / 3, args.seconds):
            answers = rush(visitors, seconds)
            failures += [answer.failure for answer in answers if answer.failure not in ("", FULL)]
            time.sleep(REST)
            memory.append(page.memory())
        cached = sum(path.stat().st_size for path in page.cache.rglob("*") if path.is_file())
    if memory[1] > memory[0] * (1 + GROWTH):
        failures.append("the page holds more memory than before")
    if cached > CACHE_BYTES:
        failures.append("the page's files are larger than their limit")
    rows = [
        ("memory at rest, before and after", f"{memory[0] / 1e6:.0f} MB, {memory[1] / 1e6:.0f} MB"),
        ("files of the page afterwards", f"{cached / 1e6:.1f} MB, {cached / 1e3 / len(answers):.0f} kB a request"),
    ]
    text = f"{machine('torch', 'gradio')}. {args.clients} visitors for {args.seconds:.0f} s, each with a picture of"
    publish("load", f"{text} their own.", requests(answers), table(("", ""), rows), write=args.write)
    for failure in dict.fromkeys(failures):
        print(f"{failures.count(failure)} × {failure}", file=sys.stderr)
    return 1 if failures else 0


class Visitor:
    """A client with a picture of its own, and the library's answers to it."""

    def __init__(self, page: Page, number: int, networks: Sequence[Segmenter], folder: Path) -> None:
        self.page, self.number, self.task = page, number, networks[0].bundle.task
        image = np.roll(photo((96 + number // 10, 120 + number % 10)), 7 * number, axis=1)
        truth = (np.arange(image.shape[1]) % (number + 2) < 1).astype(np.uint8)[None].repeat(len(image), 0)
        self.picture, self.truth = folder / f"picture-{number}.png", folder / f"truth-{number}.png"
        save_png(image, self.picture)
        save_png(truth, self.truth, palette=networks[0].bundle.palette)
        found = compare(*(network(image) for network in networks)).with_truth(truth)
        self.names = [network.bundle.architecture for network in networks]
        self.labels = dict(zip(self.names, found.label_maps, strict=True))
        self.miou = {name: scores.miou for name, scores in zip(self.names, found.scores, strict=True)}
        self.agreement, self.colors = found.agreement, 2 + number % 60
        palette = PaletteLadder(image)[self.colors]
        self.poster = palette.decode(palette.encode(image))

    def __enter__(self) -> Visitor:
        self.http = httpx.Client(base_url=self.page.url + "gradio_api/", timeout=600)
        self.events = self.http.get("../config").json()["dependencies"]
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def segment(self) -> None:
        for name in self.names:
            (file,) = self.call("segment", self.upload(), self.task, name)
            check("segment", pixels(self.fetch(file)), self.labels[name])

    def compare(self) -> None:
        (found,) = self.call("compare", self.upload(), self.task, *self.names)
        check("compare", found["agreement"], self.agreement)

    def score(self) -> None:
        (found,) = self.call("score", self.upload(), self.upload(self.truth), self.task, *self.names)
        for name in self.names:
            check("score", found["networks"][name]["miou"], self.miou[name])

    def quantize(self) -> None:
        (file,) = self.call("quantize", self.upload(), self.colors, "RGB")
        check("quantize", pixels(self.fetch(file), "RGB"), self.poster)

    def batch(self) -> None:
        file, rows = self.call("batch", [self.upload()], self.task, None, *self.names)
        check("batch", rows[0]["agreement"], self.agreement)
        with zipfile.ZipFile(io.BytesIO(self.fetch(file))) as archive:
            for name in self.names:
                check("batch", pixels(archive.read(f"{name}/labels/{self.picture.stem}.png")), self.labels[name])

    def fetch_again(self) -> None:
        if self.fetch(self.upload()) != self.picture.read_bytes():
            raise WrongError("upload: what comes back is another file")

    def visit(self) -> None:
        """Open the page, upload, move the slider, check the answer, leave."""
        session = uuid.uuid4().hex[:11]
        opened, taken = self.event_of("open_page"), self.event_of("take_upload")
        asked, repainted = self.event_of("ask", after=taken), self.event_of("show")
        with self.http.stream("GET", f"heartbeat/{session}") as heartbeat:
            beats = heartbeat.iter_bytes()  # closing the response disconnects
            next(beats)
            self.event(session, opened)
            self.event(session, taken, self.upload())
            painted = self.event(session, repainted, None, self.colors, "RGB")[0]
            check("visit", pixels(self.fetch(painted["picture"]), "RGB"), self.poster)
            self.event(session, asked, None, None, False, self.colors, "RGB")
            viewer = self.event(session, self.event_of("show", after=asked), None)[1]
            planes, picture = (self.fetch(viewer[name]) for name in ("planes", "picture"))
        facts = viewer["facts"]
        maps = np.frombuffer(gzip.decompress(planes), np.uint8).reshape(-1, *facts["size"])
        for name, labels in zip(facts["sides"], maps, strict=False):
            check("visit", labels, self.labels[name])
        check("visit", pixels(picture), pixels(self.picture.read_bytes()))

    def upload(self, path: Path | None = None) -> dict[str, Any]:
        path = path or self.picture
        (there,) = self.post("upload", files={"files": (path.name, path.read_bytes())})
        return {"path": there, "meta": {"_type": "gradio.FileData"}, "orig_name": path.name}

    def fetch(self, file: dict[str, Any]) -> bytes:
        return self.http.get(f"file={file['path']}").raise_for_status().content

    def call(self, function: str, *values: Any) -> list[Any]:
        """The values that an endpoint returns."""
        event = self.post(f"call/{function}", json={"data": values})["event_id"]
        kind, _, data = self.http.get(f"call/{function}/{event}").text.strip().rpartition("event: ")[2].partition("\n")
        if kind != "complete":
            raise WrongError(f"{function}: {data}")
        return json.loads(data.removeprefix("data: "))

    def event(self, session: str, number: int, *values: Any) -> list[Any]:
        """The values of an event; None is an input that the page keeps itself."""
        self.post("queue/join", json={"data": values, "fn_index": number, "session_hash": session})
        with self.http.stream("GET", "queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ") or "{}")
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise WrongError(f"visit: {message['output']}")
                    return message["output"]["data"]
        raise WrongError("visit: the page ended its answer before it was complete")

    def event_of(self, handler: str, after: int | None = None) -> int:
        """The event that calls this handler, after another if any."""
        return next(
            event["id"]
            for event in self.events
            if re.fullmatch(rf"{handler}(_\d+)?", event["api_name"]) and event["trigger_after"] == after
        )

    def post(self, path: str, **content: Any) -> Any:
        answer = self.http.post(path, **content)
        if answer.status_code == BUSY:
            raise WrongError(FULL)
        return answer.raise_for_status().json()


def pixels(file: bytes, mode: str | None = None) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert(mode) if mode else image)


KINDS: dict[str, Callable[[Visitor], None]] = {
    "/segment, both networks in turn": Visitor.segment,
    "/compare": Visitor.compare,
    "/score": Visitor.score,
    "/quantize": Visitor.quantize,
    "/batch": Visitor.batch,
    "an upload, fetched again": Visitor.fetch_again,
    "a visit to the page": Visitor.visit,
}


def check(kind: str, found: Any, own: Any) -> None:
    """Raise WrongError unless a number or an array is this picture's own."""
    found, own = np.asarray(found), np.asarray(own)
    if found.shape != own.shape:
        raise WrongError(f"{kind}: an answer of shape {found.shape} where it must be {own.shape}")
    off = (found != own).mean() if own.ndim else abs(found - own)
    if off > CLOSE:
        raise WrongError(f"{kind}: {off:.1%} away from this picture's own answer")


class Answer(NamedTuple):
    """How a request ended: failure is FULL for a full queue, "" if right."""

    kind: str
    seconds: float
    failure: str


def rush(visitors: Sequence[Visitor], seconds: float) -> list[Answer]:
    """Let all send requests for so long, each one at least."""
    end = time.perf_counter() + seconds

    def visit(visitor: Visitor) -> list[Answer]:
        kinds, order = list(KINDS), random.Random(visitor.number)
        with visitor:
            answers = [request(visitor, kinds[visitor.number % len(kinds)])]  # the first requests are of every kind
            while time.perf_counter() < end:
                if answers[-1].failure == FULL:
                    time.sleep(PAUSE)
                answers.append(request(visitor, order.choice(kinds)))
        return answers

    with ThreadPoolExecutor(len(visitors)) as pool:
        return list(chain.from_iterable(pool.map(visit, visitors)))


def request(visitor: Visitor, kind: str) -> Answer:
    start, failure = time.perf_counter(), ""
    try:
        KINDS[kind](visitor)
    except (WrongError, httpx.HTTPError, ValueError, LookupError, OSError) as error:
        failure = str(error) or repr(error)
    return Answer(kind, time.perf_counter() - start, failure)


def requests(answers: Sequence[Answer]) -> str:
    """A Markdown table, one row a kind of request."""
    rows = []
    for kind in KINDS:
        failures = [answer.failure for answer in answers if answer.kind == kind]
        busy, right = failures.count(FULL), failures.count("")
        longest = max((answer.seconds for answer in answers if answer.kind == kind and not answer.failure), default=0)
        rows.append((kind, right, busy, len(failures) - right - busy, f"{longest:.1f} s"))
    return table(("request", "answered", "busy", "errors", "longest wait"), rows)


if __name__ == "__main__":
    sys.exit(main())
