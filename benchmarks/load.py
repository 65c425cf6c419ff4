"""Fifty visitors at once: are all answered correctly, and is nothing left behind?

    python benchmarks/load.py                              a Markdown table; exit status 1 where the answer is no
    python benchmarks/load.py --write                      and into docs/benchmarks.md
    python benchmarks/load.py --clients 8 --seconds 5

Each visitor has a picture of a size that nobody else's has, and uses the page in an order of their own: the five
endpoints, an upload that is fetched again, and a visit to the page, with the events that a browser sends. Every answer
is compared with the library's. One refusal is allowed, that the queue is full; the visitor then waits a moment. Memory
is read at rest, after a shorter load that warms the page up, and again after the load.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from measuring import Page, machine, parser, photo, publish, serve, table
from PIL import Image

from page.cleanup import CACHE_BYTES
from unet import PaletteLadder, Segmenter
from unet.compare import compare
from unet.hub import find_bundles
from unet.images import save_png

BUSY = 503  # the status of a full queue
PAUSE = 0.5  # seconds before asking again where the queue was full
REST = 12.0  # seconds without visitors before the memory is read
GROWTH = 0.05  # of the memory at rest: what malloc keeps
CLOSE = 1e-3  # the share of pixels, or of a score, that another order of additions may change


class QueueIsFullError(Exception):
    """The page said that its queue is full."""


class WrongError(Exception):
    """An error, or the answer to another picture."""


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, weights=True)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--seconds", type=float, default=60.0)
    args = options.parse_args(arguments)
    header = machine("torch", "gradio")
    with tempfile.TemporaryDirectory() as folder, serve(args.weights) as page:
        questions = different_questions(args.weights / first_task(page), Path(folder), args.clients)
        rush(page, questions, args.seconds / 3)
        memory = [at_rest(page)]
        answers = rush(page, questions, args.seconds)
        memory.append(at_rest(page))
        cached = sum(path.stat().st_size for path in page.cache.rglob("*") if path.is_file())
    failures = [answer.failure for answer in answers if answer.failure]
    if memory[1] > memory[0] * (1 + GROWTH):
        failures.append("the page holds more memory than before")
    if cached > CACHE_BYTES:
        failures.append("the page's files are larger than their limit")
    rows = [
        ("memory at rest, before and after", f"{memory[0] / 1e6:.0f} MB, {memory[1] / 1e6:.0f} MB"),
        ("files of the page afterwards", f"{cached / 1e6:.1f} MB, {cached / 1e3 / len(answers):.0f} kB a request"),
    ]
    header += f". {args.clients} visitors for {args.seconds:.0f} s, each with a picture of their own."
    publish("load", f"{header}\n\n{requests(answers)}\n\n{table(('', ''), rows)}", write=args.write)
    for failure in dict.fromkeys(failures):
        print(f"{failures.count(failure)} × {failure}", file=sys.stderr)
    return 1 if failures else 0


# ---- what is asked, and what the answer must be ----------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """A picture of its own size, its ground truth, and the library's answers.

    labels, miou: of each network, by its name. poster: uint8 (h, w, 3), the picture in ``colors`` colours.
    """

    task: str
    picture: Path
    truth: Path
    labels: dict[str, np.ndarray]
    agreement: float
    miou: dict[str, float]
    colors: int
    poster: np.ndarray

    def check(self, kind: str, name: str, labels: np.ndarray) -> None:
        """Raises WrongError for label maps that are not this picture's."""
        own = self.labels[name]
        if labels.shape != own.shape:
            raise WrongError(f"{kind}: labels of {labels.shape}, and the picture has {own.shape}")
        if (labels != own).mean() > CLOSE:
            raise WrongError(f"{kind}: {(labels != own).mean():.1%} of the labels are another picture's")


def first_task(page: Page) -> str:
    """The task that the page opens with."""
    components = httpx.get(page.url + "config", timeout=60).json()["components"]
    return next(c["props"]["value"] for c in components if c["props"].get("elem_id") == "task")


def different_questions(weights: Path, folder: Path, count: int) -> list[Question]:
    """Questions about pictures of different sizes and contents."""
    bundles = {bundle.architecture: bundle for bundle in find_bundles(weights.parent) if bundle.task == weights.name}
    names = [name for name in ("residual-add", "crop-concat") if name in bundles]
    segmenters = [Segmenter.load(bundles[name].location) for name in names]
    questions = []
    for i in range(count):
        image = np.roll(photo((96 + i // 10, 120 + i % 10)), 7 * i, axis=1)
        truth = (np.arange(image.shape[1]) % (i + 2) < 1).astype(np.uint8)[None].repeat(len(image), 0)
        picture = folder / f"picture-{i}.png"
        save_png(image, picture)
        save_png(truth, folder / f"truth-{i}.png", palette=segmenters[0].bundle.palette)
        found = [segmenter(image) for segmenter in segmenters]
        comparison = compare(*found).with_truth(truth)
        palette = PaletteLadder(image)[2 + i % 60]
        questions.append(
            Question(
                weights.name,
                picture,
                folder / f"truth-{i}.png",
                {name: answer.label_map for name, answer in zip(names, found, strict=True)},
                comparison.agreement,
                {name: scores.miou for name, scores in zip(names, comparison.scores, strict=True)},
                2 + i % 60,
                palette.decode(palette.encode(image)),
            )
        )
    return questions


# ---- a visitor -------------------------------------------------------------------------------------------------------


class Visitor:
    """One client of the page, with a method for each row of the table."""

    def __init__(self, page: Page, question: Question) -> None:
        self.task, self.question = question.task, question
        self.names = list(question.labels)
        self.http = httpx.Client(base_url=page.url + "gradio_api/", timeout=600)
        self.events = self.http.get("../config").json()["dependencies"]

    def segment(self) -> None:
        for name in self.names:
            file = self.call("segment", self.upload(), self.task, name)[0]
            self.question.check("segment", name, np.asarray(Image.open(io.BytesIO(self.fetch(file)))))

    def compare(self) -> None:
        found = self.call("compare", self.upload(), self.task, *self.names)[0]
        self.same("compare", found["agreement"], self.question.agreement)

    def score(self) -> None:
        sent = self.upload(), self.upload(self.question.truth)
        scores = self.call("score", *sent, self.task, *self.names)[0]["networks"]
        for name in self.names:
            self.same("score", scores[name]["miou"], self.question.miou[name])

    def quantize(self) -> None:
        self.check_poster("quantize", self.call("quantize", self.upload(), self.question.colors, "RGB")[0])

    def batch(self) -> None:
        file, rows = self.call("batch", [self.upload()], self.task, None, *self.names)
        self.same("batch", rows[0]["agreement"], self.question.agreement)
        with zipfile.ZipFile(io.BytesIO(self.fetch(file))) as archive:
            for name in self.names:
                labels = io.BytesIO(archive.read(f"{name}/labels/{self.question.picture.stem}.png"))
                self.question.check("batch", name, np.asarray(Image.open(labels)))

    def fetch_again(self) -> None:
        if self.fetch(self.upload()) != self.question.picture.read_bytes():
            raise WrongError("upload: what comes back is another file")

    def visit(self) -> None:
        """Open the page, upload, move the slider, check the answer, leave."""
        session = uuid.uuid4().hex[:11]
        opened, taken = self.number("open_page"), self.number("take_upload")
        asked = self.number("ask", after=taken)
        with self.http.stream("GET", f"heartbeat/{session}") as heartbeat:
            beats = heartbeat.iter_bytes()  # closing the response disconnects
            next(beats)
            self.event(session, opened)
            self.event(session, taken, self.upload())
            repainted = self.number("show", after=taken)
            painted = self.event(session, repainted, None, self.question.colors, "RGB")[0]
            self.check_poster("visit", painted["picture"])
            self.event(session, asked, None, None, False, self.question.colors, "RGB")
            viewer = self.event(session, self.number("show", after=asked), None)[1]
            planes, picture = (self.fetch(viewer[name]) for name in ("planes", "picture"))
        facts = viewer["facts"]
        maps = np.frombuffer(gzip.decompress(planes), np.uint8).reshape(-1, *facts["size"])
        for name, labels in zip(facts["sides"], maps, strict=False):
            self.question.check("visit", name, labels)
        with Image.open(io.BytesIO(picture)) as shown, Image.open(self.question.picture) as own:
            if shown.tobytes() != own.tobytes():
                raise WrongError("visit: the page shows another picture")

    def upload(self, path: Path | None = None) -> dict[str, Any]:
        path = path or self.question.picture
        (there,) = self.post("upload", files={"files": (path.name, path.read_bytes())})
        return {"path": there, "meta": {"_type": "gradio.FileData"}, "orig_name": path.name}

    def fetch(self, file: dict[str, Any]) -> bytes:
        answer = self.http.get(f"file={file['path']}")
        answer.raise_for_status()
        return answer.content

    def call(self, function: str, *values: Any) -> list[Any]:
        """The values that an endpoint returns."""
        event = self.post(f"call/{function}", json={"data": values})["event_id"]
        kind, _, data = self.http.get(f"call/{function}/{event}").text.strip().rpartition("event: ")[2].partition("\n")
        if kind != "complete":
            raise WrongError(f"{function}: {data}")
        return json.loads(data.removeprefix("data: "))

    def event(self, session: str, number: int, *values: Any) -> list[Any]:
        """The values that an event of the page returns.

        None stands for an input that the page keeps itself.
        """
        self.post("queue/join", json={"data": values, "fn_index": number, "session_hash": session})
        with self.http.stream("GET", "queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ") or "{}")
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise WrongError(f"visit: {message['output']}")
                    return message["output"]["data"]
        raise WrongError("visit: the page ended its answer before it was complete")

    def number(self, handler: str, after: int | None = None) -> int:
        """The event of the page that calls this handler.

        after: the event that triggers it, if any.
        """
        return next(
            event["id"]
            for event in self.events
            if re.fullmatch(rf"{handler}(_\d+)?", event["api_name"]) and event["trigger_after"] == after
        )

    def post(self, path: str, **content: Any) -> Any:
        answer = self.http.post(path, **content)
        if answer.status_code == BUSY:
            raise QueueIsFullError
        answer.raise_for_status()
        return answer.json()

    def same(self, kind: str, number: float, own: float) -> None:
        if abs(number - own) > CLOSE:
            raise WrongError(f"{kind}: {number} where it must be {own}")

    def check_poster(self, kind: str, file: dict[str, Any]) -> None:
        with Image.open(io.BytesIO(self.fetch(file))) as poster:
            found, own = np.asarray(poster.convert("RGB")), self.question.poster
        if found.shape != own.shape or (found != own).any(axis=2).mean() > CLOSE:
            raise WrongError(f"{kind}: the picture in {self.question.colors} colours is another one")


KINDS: dict[str, Callable[[Visitor], None]] = {
    "/segment, both networks in turn": Visitor.segment,
    "/compare": Visitor.compare,
    "/score": Visitor.score,
    "/quantize": Visitor.quantize,
    "/batch": Visitor.batch,
    "an upload, fetched again": Visitor.fetch_again,
    "a visit to the page": Visitor.visit,
}

# ---- all of them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """The outcome of a request.

    busy: the queue was full. failure: what is wrong, or "".
    """

    kind: str
    seconds: float
    busy: bool = False
    failure: str = ""


def rush(page: Page, questions: Sequence[Question], seconds: float) -> list[Answer]:
    """Let all visitors send requests for so long; those under way are completed."""
    end = time.perf_counter() + seconds

    def visit(number: int) -> list[Answer]:
        answers, visitor, kinds = [], Visitor(page, questions[number]), list(KINDS)
        order = random.Random(number)
        kind = kinds[number % len(kinds)]  # the first requests are of every kind
        while time.perf_counter() < end:
            answers.append(request(visitor, kind))
            kind = order.choice(kinds)
            if answers[-1].busy:
                time.sleep(PAUSE)
        visitor.http.close()
        return answers

    with ThreadPoolExecutor(len(questions)) as pool:
        return [answer for answers in pool.map(visit, range(len(questions))) for answer in answers]


def request(visitor: Visitor, kind: str) -> Answer:
    start = time.perf_counter()
    busy, failure = False, ""
    try:
        KINDS[kind](visitor)
    except QueueIsFullError:
        busy = True
    except (WrongError, httpx.HTTPError, ValueError, LookupError, OSError) as error:
        failure = str(error) or repr(error)
    return Answer(kind, time.perf_counter() - start, busy, failure)


def at_rest(page: Page) -> int:
    """Bytes that the page holds when all visitors have left."""
    time.sleep(REST)
    return page.memory()


def requests(answers: Sequence[Answer]) -> str:
    """A Markdown table, one row a kind of request."""
    rows = []
    for kind in KINDS:
        of_kind = [answer for answer in answers if answer.kind == kind]
        seconds = [answer.seconds for answer in of_kind if not answer.busy and not answer.failure]
        busy, failed = sum(answer.busy for answer in of_kind), sum(bool(answer.failure) for answer in of_kind)
        rows.append((kind, len(seconds), busy, failed, f"{max(seconds, default=0):.1f} s"))
    return table(("request", "answered", "busy", "errors", "longest wait"), rows)


if __name__ == "__main__":
    sys.exit(main())
