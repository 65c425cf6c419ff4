"""Fifty visitors at once for a minute: is each answered, about their own picture alone, and does nothing pile up?

    python benchmarks/load.py                              a Markdown table; exit status 1 where the answer is no
    python benchmarks/load.py --write                      and into README.md
    python benchmarks/load.py --clients 8 --seconds 5

Each visitor has a picture of a size that nobody else's has, and goes through the page's doors in an order of their
own: the five functions for programs, an upload that is fetched again, and a visit to the page, with the events that a
browser sends. Every answer is compared with what the library answers here. One refusal is allowed, that the queue is
full; who hears it waits a moment. Memory is looked at at rest, after as many visitors have warmed the page up, and
again after the load.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import re
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from measuring import ROOT, machine, photo, put_into_readme
from PIL import Image
from start import Page, serve

from page.visitors import CACHE_BYTES
from unet import PaletteLadder, Segmenter
from unet.compare import compare
from unet.hub import find_bundles
from unet.images import save_png

BUSY = 503  # the status of a full queue
PAUSE = 0.5  # seconds until who was told so asks again
REST = 12.0  # seconds without visitors before the memory is looked at
GROWTH = 0.05  # of the memory at rest: what malloc keeps
CLOSE = 1e-3  # the share of pixels, or of a score, that another order of additions may change


class QueueIsFullError(Exception):
    """The page's own "busy"."""


class WrongError(Exception):
    """An answer that is none, or is somebody else's."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", help="bundles, as TASK/ARCHITECTURE")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    args = parser.parse_args(arguments)
    before = machine("torch", "gradio")
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
        failures.append("the page's files have outgrown their limit")
    text = (
        f"{before}. {args.clients} visitors for {args.seconds:.0f} s, each with a picture of their own.\n\n"
        f"{table(answers)}\n\n| | |\n|---|--:|\n"
        f"| memory at rest, before and after | {memory[0] / 1e6:.0f} MB, {memory[1] / 1e6:.0f} MB |\n"
        f"| files of the page afterwards | {cached / 1e6:.1f} MB, {cached / 1e3 / len(answers):.0f} kB a request |"
    )
    print(text)
    for failure in dict.fromkeys(failures):
        print(f"{failures.count(failure)} × {failure}", file=sys.stderr)
    if args.write:
        put_into_readme("load", text)
    return 1 if failures else 0


# ---- what is asked, and what the answer must be ----------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """A picture of its own size, its ground truth, and what the library makes of them.

    task: whose networks are asked. labels: of each network, by its name. miou: of each. poster: uint8 (h, w, 3), in
    ``colors`` colours.
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
    """With which the page begins."""
    components = httpx.get(page.url + "config", timeout=60).json()["components"]
    return next(c["props"]["value"] for c in components if c["props"].get("elem_id") == "task")


def different_questions(weights: Path, folder: Path, count: int) -> list[Question]:
    """No two pictures are of one size or look alike."""
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
    """One client of the page; what its methods do is what a row of the table is about."""

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
        """Open the page, drop the picture, move the slider, look at the answer, close the page."""
        session = uuid.uuid4().hex[:11]
        opened, taken = self.number("open_page"), self.number("take_upload")
        asked = self.number("answer", after=taken)
        with self.http.stream("GET", f"heartbeat/{session}") as heartbeat:
            beats = heartbeat.iter_bytes()  # which hangs up when it is let go of
            next(beats)
            self.event(session, opened)
            self.event(session, taken, self.upload(), None)
            repainted = self.number("show", after=taken)
            self.check_poster("visit", self.event(session, repainted, None, self.question.colors, "RGB")[0])
            self.event(session, asked, None, None, False, self.question.colors, "RGB")
            handed = self.event(session, self.number("show_answer", after=asked), None)[1]
            facts, planes, picture = (self.fetch(file) for file in handed)
        facts = json.loads(facts)
        maps = np.frombuffer(gzip.decompress(planes), np.uint8).reshape(-1, *facts["size"])
        for name, labels in zip(facts["sides"], maps, strict=False):
            self.question.check("visit", name, labels)
        with Image.open(io.BytesIO(picture)) as shown, Image.open(self.question.picture) as own:
            if shown.tobytes() != own.tobytes():
                raise WrongError("visit: the page shows another picture")

    # What these are made of.

    def upload(self, path: Path | None = None) -> dict[str, Any]:
        path = path or self.question.picture
        (there,) = self.post("upload", files={"files": (path.name, path.read_bytes())})
        return {"path": there, "meta": {"_type": "gradio.FileData"}, "orig_name": path.name}

    def fetch(self, file: dict[str, Any]) -> bytes:
        answer = self.http.get(f"file={file['path']}")
        answer.raise_for_status()
        return answer.content

    def call(self, function: str, *values: Any) -> list[Any]:
        """What a function for programs returns."""
        event = self.post(f"call/{function}", json={"data": values})["event_id"]
        kind, _, data = self.http.get(f"call/{function}/{event}").text.strip().rpartition("event: ")[2].partition("\n")
        if kind != "complete":
            raise WrongError(f"{function}: {data}")
        return json.loads(data.removeprefix("data: "))

    def event(self, session: str, number: int, *values: Any) -> list[Any]:
        """What an event of the page returns; values stand for its inputs, None for what the page keeps itself."""
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
        """Which event of the page calls this handler, in answer to another one."""
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
    """What came of a request: seconds until then; busy, the queue was full; failure, what is wrong with it, or ""."""

    kind: str
    seconds: float
    busy: bool = False
    failure: str = ""


def rush(page: Page, questions: Sequence[Question], seconds: float) -> list[Answer]:
    """Everybody asks, one thing after the other, for so long; what they have begun by then, they finish."""
    answers: list[Answer] = []
    end = time.perf_counter() + seconds

    def live(number: int) -> None:
        visitor, kinds = Visitor(page, questions[number]), list(KINDS)
        order = random.Random(number)
        kind = kinds[number % len(kinds)]  # to begin with, there is somebody at every door
        while time.perf_counter() < end:
            start = time.perf_counter()
            busy, failure = False, ""
            try:
                KINDS[kind](visitor)
            except QueueIsFullError:
                busy = True
            except (WrongError, httpx.HTTPError, ValueError, LookupError, OSError) as error:
                failure = str(error) or repr(error)
            answers.append(Answer(kind, time.perf_counter() - start, busy, failure))
            kind = order.choice(kinds)
            if busy:
                time.sleep(PAUSE)
        visitor.http.close()

    threads = [threading.Thread(target=live, args=(number,)) for number in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def at_rest(page: Page) -> int:
    """Bytes that the page holds when everybody has left."""
    time.sleep(REST)
    return page.memory()


def table(answers: Sequence[Answer]) -> str:
    lines = ["| request | answered | busy | errors | longest wait |", "|---|--:|--:|--:|--:|"]
    for kind in KINDS:
        of_kind = [answer for answer in answers if answer.kind == kind]
        answered = [answer.seconds for answer in of_kind if not answer.busy and not answer.failure]
        busy, failed = (sum(map(bool, flags)) for flags in zip(*((a.busy, a.failure) for a in of_kind), strict=True))
        lines.append(f"| {kind} | {len(answered)} | {busy} | {failed} | {max(answered, default=0):.1f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
