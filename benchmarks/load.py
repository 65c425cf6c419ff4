"""Fifty visitors at once: are all answered correctly, and is nothing left behind?

Exit status 1 where the answer is no.

Each visitor has a picture of a size that nobody else's has, and uses the page in an order of their own: the five
endpoints, an upload that is fetched again, and a visit to the page, with the events that a browser sends. Every answer
is compared with the library's. One refusal is allowed, that the queue is full; the visitor then waits a moment. Memory
is read at rest, after a shorter load that warms the page up, and again after the load.
"""

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
PAUSE = 0.5  # seconds before asking again where the queue was full
REST = 12.0  # seconds without visitors before the memory is read
GROWTH = 0.05  # of the memory at rest: what malloc keeps
CLOSE = 1e-3  # the share of values, or of a score, that another order of additions may change


class QueueIsFullError(Exception):
    """The page said that its queue is full."""


class WrongError(Exception):
    """An error, or the answer to another picture."""


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, weights=True)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--seconds", type=float, default=60.0)
    args = options.parse_args(arguments)
    memory = []
    with tempfile.TemporaryDirectory() as folder, serve(args.weights) as page:
        questions = different_questions(args.weights / page.task, Path(folder), args.clients)
        for seconds in (args.seconds / 3, args.seconds):
            answers = rush(page, questions, seconds)
            time.sleep(REST)
            memory.append(page.memory())
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
    text = f"{machine('torch', 'gradio')}. {args.clients} visitors for {args.seconds:.0f} s, each with a picture of"
    publish("load", f"{text} their own.", requests(answers), table(("", ""), rows), write=args.write)
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


def different_questions(weights: Path, folder: Path, count: int) -> list[Question]:
    """Questions about pictures of different sizes and contents."""
    names = [name for name in ("residual-add", "crop-concat") if (weights / name).is_dir()]
    segmenters = [Segmenter.load(weights / name) for name in names]
    questions = []
    for i in range(count):
        image = np.roll(photo((96 + i // 10, 120 + i % 10)), 7 * i, axis=1)
        truth = (np.arange(image.shape[1]) % (i + 2) < 1).astype(np.uint8)[None].repeat(len(image), 0)
        picture, mask = folder / f"picture-{i}.png", folder / f"truth-{i}.png"
        save_png(image, picture)
        save_png(truth, mask, palette=segmenters[0].bundle.palette)
        found = compare(*(segmenter(image) for segmenter in segmenters)).with_truth(truth)
        labels = dict(zip(names, found.label_maps, strict=True))
        miou = {name: scores.miou for name, scores in zip(names, found.scores, strict=True)}
        colors = 2 + i % 60
        palette = PaletteLadder(image)[colors]
        poster = palette.decode(palette.encode(image))
        questions.append(Question(weights.name, picture, mask, labels, found.agreement, miou, colors, poster))
    return questions


def check(kind: str, found: Any, own: Any) -> None:
    """Raises WrongError unless an answer, a number or an array, is this picture's own."""
    found, own = np.asarray(found), np.asarray(own)
    if found.shape != own.shape:
        raise WrongError(f"{kind}: an answer of shape {found.shape} where it must be {own.shape}")
    off = (found != own).mean() if own.ndim else abs(found - own)
    if off > CLOSE:
        raise WrongError(f"{kind}: {off:.1%} away from this picture's own answer")


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
            (file,) = self.call("segment", self.upload(), self.task, name)
            check("segment", pixels(self.fetch(file)), self.question.labels[name])

    def compare(self) -> None:
        (found,) = self.call("compare", self.upload(), self.task, *self.names)
        check("compare", found["agreement"], self.question.agreement)

    def score(self) -> None:
        sent = self.upload(), self.upload(self.question.truth)
        (found,) = self.call("score", *sent, self.task, *self.names)
        for name in self.names:
            check("score", found["networks"][name]["miou"], self.question.miou[name])

    def quantize(self) -> None:
        (file,) = self.call("quantize", self.upload(), self.question.colors, "RGB")
        check("quantize", pixels(self.fetch(file), "RGB"), self.question.poster)

    def batch(self) -> None:
        file, rows = self.call("batch", [self.upload()], self.task, None, *self.names)
        check("batch", rows[0]["agreement"], self.question.agreement)
        with zipfile.ZipFile(io.BytesIO(self.fetch(file))) as archive:
            for name in self.names:
                labels = archive.read(f"{name}/labels/{self.question.picture.stem}.png")
                check("batch", pixels(labels), self.question.labels[name])

    def fetch_again(self) -> None:
        if self.fetch(self.upload()) != self.question.picture.read_bytes():
            raise WrongError("upload: what comes back is another file")

    def visit(self) -> None:
        """Open the page, upload, move the slider, check the answer, leave."""
        session = uuid.uuid4().hex[:11]
        opened, taken = self.number("open_page"), self.number("take_upload")
        asked, repainted = self.number("ask", after=taken), self.number("show", after=taken)
        with self.http.stream("GET", f"heartbeat/{session}") as heartbeat:
            beats = heartbeat.iter_bytes()  # closing the response disconnects
            next(beats)
            self.event(session, opened)
            self.event(session, taken, self.upload())
            painted = self.event(session, repainted, None, self.question.colors, "RGB")[0]
            check("visit", pixels(self.fetch(painted["picture"]), "RGB"), self.question.poster)
            self.event(session, asked, None, None, False, self.question.colors, "RGB")
            viewer = self.event(session, self.number("show", after=asked), None)[1]
            planes, picture = (self.fetch(viewer[name]) for name in ("planes", "picture"))
        facts = viewer["facts"]
        maps = np.frombuffer(gzip.decompress(planes), np.uint8).reshape(-1, *facts["size"])
        for name, labels in zip(facts["sides"], maps, strict=False):
            check("visit", labels, self.question.labels[name])
        check("visit", pixels(picture), pixels(self.question.picture.read_bytes()))

    def upload(self, path: Path | None = None) -> dict[str, Any]:
        path = path or self.question.picture
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
        """The event that calls this handler, after the event ``after``, if any."""
        return next(
            event["id"]
            for event in self.events
            if re.fullmatch(rf"{handler}(_\d+)?", event["api_name"]) and event["trigger_after"] == after
        )

    def post(self, path: str, **content: Any) -> Any:
        answer = self.http.post(path, **content)
        if answer.status_code == BUSY:
            raise QueueIsFullError
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

# ---- all of them -----------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """The outcome of a request; failure is "" if right."""

    kind: str
    seconds: float
    busy: bool
    failure: str


def rush(page: Page, questions: Sequence[Question], seconds: float) -> list[Answer]:
    """Let all visitors send requests for so long, each one at least."""
    end = time.perf_counter() + seconds

    def visit(number: int) -> list[Answer]:
        visitor, order = Visitor(page, questions[number]), random.Random(number)
        answers = [request(visitor, list(KINDS)[number % len(KINDS)])]  # the first requests are of every kind
        while time.perf_counter() < end:
            if answers[-1].busy:
                time.sleep(PAUSE)
            answers.append(request(visitor, order.choice(list(KINDS))))
        visitor.http.close()
        return answers

    with ThreadPoolExecutor(len(questions)) as pool:
        return list(chain.from_iterable(pool.map(visit, range(len(questions)))))


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


def requests(answers: Sequence[Answer]) -> str:
    """A Markdown table, one row a kind of request."""
    rows = []
    for kind in KINDS:
        of_kind = [answer for answer in answers if answer.kind == kind]
        busy, failed = sum(answer.busy for answer in of_kind), sum(bool(answer.failure) for answer in of_kind)
        longest = max((answer.seconds for answer in of_kind if not answer.busy and not answer.failure), default=0)
        rows.append((kind, len(of_kind) - busy - failed, busy, failed, f"{longest:.1f} s"))
    return table(("request", "answered", "busy", "errors", "longest wait"), rows)


if __name__ == "__main__":
    sys.exit(main())
