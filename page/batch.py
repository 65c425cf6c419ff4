"""The section *Many pictures at once*."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import gradio as gr
import numpy as np
from gradio import FileData

from page import decoding, networks
from page.cleanup import HOUR
from page.components import QUIET, TRUTH_FILES, FileBox, classes, html, render
from page.components import seconds as seconds_text
from page.errors import refusal
from page.networks import Sides
from page.picture import Opened, opened
from page.session import MAX_PIXELS, State, examples, known, new_file, open_picture, requires_session
from unet.archive import match_truths
from unet.batch import segment_many
from unet.images import ImageError
from unet.tables import Row, pooled

MAX_PICTURES, MAX_TOTAL_PIXELS = 50, 100_000_000  # in one run, together
TICK = 0.5  # seconds between two looks at how far a run is

TITLE = f"""
<h2>Many pictures at once</h2>
<p>Both networks answer one picture after the other; what comes back is a table, and a ZIP with label maps, colour
masks, overlays and a CSV. Up to {MAX_PICTURES} pictures, together {MAX_TOTAL_PIXELS // 10**6} million pixels.</p>
"""


class Stopped(Exception):
    """The visitor stopped the run within a picture."""


@dataclass
class Run:
    """Pictures on their way through both networks."""

    task: str
    sides: Sides
    pictures: list[tuple[str, str]]  # names and paths
    pixels: int  # of all together
    truths: dict[str, str]  # paths by the name of their picture
    remarks: list[str]
    under_way: str = ""  # how far a large picture is
    stopped: bool = False

    def count_tile(self, number: int, done: int, total: int) -> None:
        """See `networks.on_tile`. Raises Stopped."""
        if self.stopped:
            raise Stopped
        self.under_way = f"network {number}, tile {done} of {total}" if total > 1 else ""


def take(task: str, sides: Sides, pictures: list[FileData] | None, truths: list[FileData] | None) -> Run:
    """Check the files' headers before any work."""
    if not pictures:
        raise refusal("There are no pictures yet: drop some into the box, or try the examples.")
    if len(pictures) > MAX_PICTURES:
        raise refusal(f"These are {len(pictures)} pictures, and {MAX_PICTURES} fit into one run: leave some out.")
    named, truth_files = _named(pictures), dict(_named(truths or ()))
    pixels = sum(_pixels_of(path) for _, path in named)
    if pixels > MAX_TOTAL_PIXELS:
        raise refusal(
            f"Together the pictures have {pixels / 1e6:.0f} million pixels, and {MAX_TOTAL_PIXELS // 10**6} million "
            "fit into one run: leave some out, or make them smaller."
        )
    by_picture, remarks = match_truths([name for name, _ in named], truth_files)
    return Run(task, sides, named, pixels, by_picture, remarks)


def _named(files: Sequence[FileData]) -> list[tuple[str, str]]:
    return [(file.orig_name or Path(file.path).name, file.path) for file in files]


def begin(
    task: str, sides: Sides | None, pictures: list[FileData] | None, truths: list[FileData] | None
) -> tuple[Any, ...]:
    """Begin a run -> (run, progress, *buttons)."""
    run = take(task, known(sides), pictures, truths)
    return run, show_progress(run, 0, ["waiting for their turn"]), *buttons(running=True)


def buttons(*, running: bool) -> tuple[gr.Button, ...]:
    """Either the two that begin a run, or the one that stops it."""
    return gr.Button(interactive=not running), gr.Button(interactive=not running), gr.Button(interactive=running)


def _pixels_of(path: str) -> int:
    """Pixels by the file's header; 0 without one."""
    try:
        h, w = decoding.image_size(path)
    except ImageError:
        return 0
    return h * w


def answers_of(run: Run, file: BinaryIO) -> Iterator[Row]:
    """A row a picture; the rest goes into the ZIP."""
    ask = functools.partial(networks.segmentations, run.sides)
    folders = tuple(re.sub(r"[^\w-]+", "-", side.name) for side in run.sides)
    return segment_many(run.pictures, ask, folders, file, truths=run.truths, max_pixels=MAX_PIXELS, reader=decoding)


@contextlib.contextmanager
def new_archive(run: Run) -> Iterator[tuple[Path, BinaryIO]]:
    """A ZIP to write; unfinished ones are deleted."""
    path = new_file(f"{run.task}-{len(run.pictures)}-pictures.zip")
    try:
        with path.open("wb") as file:
            yield path, file
    except BaseException:  # GeneratorExit, where a visitor walks away
        path.unlink()
        raise


def segment_all(run: Run) -> Iterator[tuple[Any, ...]]:
    """Segment all pictures, yielding (progress, table, file)."""
    bundle = networks.segmenter(run.sides[0].location).bundle
    names = tuple(side.name for side in run.sides)
    rows: list[Row] = []
    started = time.monotonic()

    def progress(*, finished: bool = False) -> str:
        seconds = time.monotonic() - started
        done = sum(row.size[0] * row.size[1] for row in rows if row.size)
        if finished:
            said = [f"took {seconds_text(seconds)}"]
        else:
            left = f"about {seconds_text(seconds * (run.pixels - done) / done)} left" if done else ""
            said = [words for words in (run.under_way, left) if words]
        return show_progress(run, len(rows), said)

    def table() -> str:
        return batch_table(names, rows, bundle.class_names, bundle.palette) if rows else ""

    yield progress(), "", gr.DownloadButton(visible=False)
    # Closing the answers completes the archive, after a stop too.
    with (
        new_archive(run) as (archive, file),
        contextlib.closing(answers_of(run, file)) as answers,
        contextlib.suppress(Stopped),
    ):
        for row in _with_ticks(answers, run):
            if row is not None:
                rows.append(row)
                run.under_way = ""
            yield progress(), gr.skip() if row is None else table(), gr.skip()
            if row is not None and run.stopped:
                break
    save = gr.DownloadButton(value=str(archive), visible=True)
    yield progress(finished=True), table(), save


def _with_ticks(answers: Iterator[Row], run: Run) -> Iterator[Row | None]:
    """The answers, and None while one is being made."""
    # Gradio finds the visitor, for whom messages are, in the context.
    context = contextvars.copy_context()
    context.run(networks.on_tile.set, run.count_tile)
    with ThreadPoolExecutor(1) as thread:
        try:
            while True:
                coming = thread.submit(context.run, next, answers, None)
                while not wait([coming], TICK).done:
                    yield None
                if (row := coming.result()) is None:
                    return
                yield row
        finally:
            run.stopped = True  # who walks away does not wait for a large picture


@requires_session
def open_row(run: Run, event: gr.EventData) -> Opened:
    """Open a row's picture and ground truth."""
    row = getattr(event, "row", None)
    if row not in range(len(run.pictures)):  # what a browser sends
        raise refusal("There is no such row.")
    name, path = run.pictures[row]
    truth = run.truths.get(name)
    return opened(open_picture(path, Path(truth) if truth else None))


def example_files(task: str) -> tuple[list[str], list[str]]:
    """The task's examples -> (pictures, ground truths)."""
    return [str(path) for path, _ in examples(task)], [str(truth) for _, truth in examples(task) if truth]


def stop(run: Run | None) -> Any:
    """Stop a run after this tile -> the button."""
    if run is not None:
        run.stopped = True
    return gr.Button(interactive=False)


def show_progress(run: Run, done: int, said: Sequence[str]) -> str:
    """How far a run is, as HTML."""
    return render("batch_progress", done=done, total=len(run.pictures), said=said, remarks=run.remarks)


def batch_table(names: Sequence[str], rows: Sequence[Row], class_names: Sequence[str], palette: np.ndarray) -> str:
    """Agreement, mIoU and class shares, as an HTML table."""
    totals = [total.miou() for total in pooled(rows) or ()]
    return render("batch_table", names=names, rows=rows, totals=totals, classes=classes(class_names, palette))


# ---- the section -----------------------------------------------------------------------------------------------------


def build(state: State, task: gr.Radio) -> tuple[gr.HTML, gr.State]:
    """Draw the section -> (table, with ``open`` {row}; run)."""
    html("batch-title", TITLE)
    with gr.Row(elem_id="batch"):
        with gr.Column(scale=4, min_width=300, elem_id="batch-files"):
            pictures = FileBox(file_count="multiple", label="Pictures", height=132, elem_id="batch-pictures")
            truths = FileBox(
                file_count="multiple",
                label="Ground truths (optional), same file names as the pictures",
                file_types=TRUTH_FILES,
                height=132,
                elem_id="batch-truths",
            )
            with gr.Row(elem_id="batch-buttons"):
                begin_button = gr.Button(
                    "Segment all", variant="primary", size="sm", min_width=80, elem_id="batch-begin"
                )
                stop_button = gr.Button("Stop", interactive=False, size="sm", min_width=60, elem_id="batch-stop")
                try_examples = gr.Button("Try the examples", size="sm", min_width=120, elem_id="batch-examples")
        with gr.Column(scale=8, min_width=320, elem_id="batch-answers"):
            progress = html("batch-progress", render("batch_contents", names=networks.PREFERRED))
            table = html("batch-table", script="batch.js")
            archive = gr.DownloadButton("Save all (ZIP)", visible=False, elem_id="batch-save")
    run = gr.State(time_to_live=HOUR)
    filled = try_examples.click(example_files, task, [pictures, truths], **QUIET)
    pressed = [begin_button, try_examples, stop_button]
    for started in (begin_button.click, filled.success):
        checked = started(begin, [task, state.sides, pictures, truths], [run, progress, *pressed], **QUIET)
        done = checked.success(
            segment_all, run, [progress, table, archive], concurrency_id="many", concurrency_limit=1, **QUIET
        )
        for ended in (done.success, done.failure):  # after an error Gradio calls no `.then`
            ended(functools.partial(buttons, running=False), None, pressed, **QUIET)
    stop_button.click(stop, run, stop_button, queue=False, **QUIET)
    return table, run
