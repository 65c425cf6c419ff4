"""The page: one picture, two U-Nets side by side, and the same picture in k colours.

    python app.py                           the bundles in weights/
    UNET_WEIGHTS=<folder or Hub name> python app.py

Here is what a person sees and what happens when they touch it; how it is computed is in the library. What one session
looks at is kept in that session's state. The networks' answers to small pictures are also kept by content, which only
who has the same picture can ask for.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib.util
import math
import os
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import numpy as np
import spaces  # before torch, which comes with the library: ZeroGPU wants it so
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio import FileData
from gradio_client.exceptions import AppError
from PIL import Image

from page import inside, networks, viewer, visitors
from page.networks import Sides
from unet import render
from unet.batch import Row, match_truths, pooled, segment_many
from unet.bundle import BundleError
from unet.cards import read_card
from unet.compare import Comparison, Scores, compare
from unet.hub import WEIGHTS_VARIABLE
from unet.images import ImageError, image_size, read_image, save_png
from unet.model import count_parameters
from unet.palette import LiveView, PaletteLadder
from unet.predict import Segmentation
from unet.truth import Truth, read_truth

HERE = Path(__file__).parent

TRUTH_FILES = [".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jpg", ".jpeg"]

COLOR_SPACES = {"RGB": "rgb", "OKLab": "oklab"}
PALETTE_FILES = ("PNG", "GPL", "ASE", "JSON", "CSS")

MAX_PIXELS = 40_000_000  # on the page; the library has no limit
UPLOAD_BYTES = 300_000_000  # so many pixels of three times 16 bits, and a little
MANY_PICTURES, MANY_PIXELS = 50, 100_000_000  # in one run, together
TICK = 0.5  # seconds between two looks at how far a run is
HOUR = 3600


# ---- what there is ---------------------------------------------------------------------------------------------------


def choose_side(task: str, name: str | None) -> networks.Network:
    """The task's network of this name, see networks.choose."""
    _check_task(task)
    try:
        return networks.choose(task, (name or "").strip())
    except BundleError as error:
        raise _refusal(str(error)) from error


def choose_sides(task: str, left: str | None = None, right: str | None = None) -> Sides:
    """Two networks of a task by their names; where one is not named, one with which the page itself begins."""
    _check_task(task)
    defaults = networks.default_names(task)
    left = left or next(name for name in defaults if name != right)
    right = right or next(name for name in reversed(defaults) if name != left)
    first, second = choose_side(task, left), choose_side(task, right)
    if first.location == second.location:
        raise _refusal(f"Both networks are {first.name}: name two different ones to compare.")
    return first, second


def _check_task(task: str) -> None:
    if task not in (names := list(networks.tasks())):  # a list also takes what has no hash
        raise _refusal(f"There is no task “{networks.plain(task)}”; there are: {', '.join(names)}.")


@functools.cache
def examples(task: str) -> tuple[tuple[Path, Path | None], ...]:
    """Pictures to begin with, each with its ground truth where there is one."""
    own = sorted((HERE / "weights" / task / "examples").glob("*.jpg"))
    pairs = [(picture, truth if (truth := picture.with_suffix(".png")).exists() else None) for picture in own]
    # Two photographs that come inside scikit-learn. Asking for its place does not import it.
    sklearn = importlib.util.find_spec("sklearn")
    photos = Path(sklearn.origin).parent / "datasets" / "images" if sklearn and sklearn.origin else None
    names = ("china.jpg", "flower.jpg") if photos else ()
    return (*pairs, *((photos / name, None) for name in names if (photos / name).exists()))


# ---- what a session looks at -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """The picture on the page.

    view: uint8 (h, w, 3), what is shown of it; the picture itself where that is small. truth: file of its ground truth.
    """

    source: Path
    view: np.ndarray
    shrunk: bool
    live: LiveView
    truth: Path | None = None
    ladders: dict[str, PaletteLadder] = field(default_factory=dict, repr=False)

    def pixels(self) -> np.ndarray:
        """uint8 (H, W, 3) at full size; read again rather than kept, since the slider and the views do without it."""
        return _read(self.source, notify=lambda _: None) if self.shrunk else self.view

    def ladder(self, space: str) -> PaletteLadder:
        """Palettes of every size; prepared at the first question, so that the slider only looks them up."""
        if space not in self.ladders:
            self.ladders[space] = PaletteLadder(self.pixels(), space=COLOR_SPACES[space])
        return self.ladders[space]


@dataclass(frozen=True)
class Answer:
    """What both networks said, with all that is needed to look at it in any way.

    sides: who answered. picture: what was asked about, whatever is on the page since. view: uint8 (h, w, 3), what is
    shown of it as they saw it. confidences: float32 (h, w), sampled at that size. colors: in how many colours of
    ``space`` they saw it, None for all. truth: what the comparison is scored against.
    """

    sides: Sides
    picture: Picture
    view: np.ndarray
    comparison: Comparison
    truth: Truth | None
    confidences: tuple[np.ndarray, np.ndarray]
    palette: np.ndarray
    seconds: tuple[float, float]
    devices: tuple[str, str]
    colors: int | None
    space: str

    def image(self) -> np.ndarray:
        """uint8 (H, W, 3), as the networks saw it."""
        image = self.picture.pixels()
        if self.colors is None:
            return image
        palette = self.picture.ladder(self.space)[self.colors]
        return palette.decode(palette.encode(image))

    @property
    def names(self) -> tuple[str, str]:
        """What the two networks are called."""
        return self.sides[0].name, self.sides[1].name


def _refusal(sentence: str) -> gr.Error:
    """What a person reads; the log stays free of it."""
    begins_with_a_name = "/" in sentence.partition(" ")[0]
    return gr.Error(sentence if begins_with_a_name else sentence[:1].upper() + sentence[1:], print_exception=False)


def needs_what_is_shown(handler: Callable[..., Any]) -> Callable[..., Any]:
    """For handlers that begin with the session's picture or answer, which is let go of after an hour."""

    @functools.wraps(handler)
    def checked(shown: Picture | Answer | None, *inputs: Any, **options: Any) -> Any:
        if shown is None:
            raise _refusal("The picture is no longer kept here: drop it again, or click an example.")
        return handler(shown, *inputs, **options)

    return checked


def _known(sides: Sides | None) -> Sides:
    """The session's networks; a page that was forgotten, or is older than this server, has none."""
    if sides is None:
        raise _refusal("This page was left alone for too long, and what it showed is no longer kept: load it again.")
    return sides


def _read(source: str | Path | None, notify: Callable[[str], Any] = gr.Info) -> np.ndarray:
    if source is None:  # a program's question without one
        raise _refusal("There is no picture: give one.")
    try:
        return read_image(source, max_pixels=MAX_PIXELS, notify=notify)
    except ImageError as error:
        raise _refusal(str(error)) from error


def _open(source: str | Path, truth: Path | None = None) -> Picture:
    image = _read(source)
    view = render.shrink(image, viewer.PIXELS)
    return Picture(Path(source), view, view is not image, LiveView(view), truth)


def take_upload(path: str | None, picture: Picture) -> tuple[Any, Any, Any]:
    """A picture was dropped, pasted or taken -> (picture, what the box shows, ground truth)."""
    if path is None:  # the box was emptied: the last answer stays
        return picture, gr.skip(), gr.skip()
    picture = _open(path)
    # Browsers draw neither TIFF nor PPM; what they cannot draw is given back as something they can.
    drawable = Path(path).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif")
    return picture, gr.skip() if drawable else Image.fromarray(picture.view), None


def put_back(picture: Picture | None) -> Any:
    """What could not be read gives way to the picture that the page still answers for -> what the box shows."""
    if picture is None:  # it is no longer kept
        return None
    return str(picture.source) if picture.source.exists() else Image.fromarray(picture.view)


def take_example(task: str, gallery: gr.Gallery) -> tuple[Picture, str, str | None]:
    """An example was clicked -> (picture, what the box shows, ground truth).

    Which one is read off the gallery. gr.SelectData is of the click that began a call: a click that has to wait for the
    call before it would be answered with that call's example.
    """
    return _example(task, gallery.selected_index)


def open_page(request: gr.Request) -> tuple[Any, ...]:
    """The page was opened, perhaps by a link -> (task, what `take_task` returns, colours, space, quantised or not).

    A link is anybody's text: what this page does not have is left out, and said.
    """
    asked, left_out = dict(request.query_params), []

    def wanted(name: str, allowed: Collection[str], default: str) -> str:
        if asked.get(name, default) in allowed:
            return asked.get(name, default)
        left_out.append(name)
        return default

    task = wanted("task", networks.tasks(), next(iter(networks.tasks())))
    pictures = [path.stem for path, _ in examples(task)]
    example = wanted("example", pictures, pictures[0])
    colors = int(wanted("k", [str(k) for k in range(2, 65)], "8"))
    space = wanted("space", COLOR_SPACES, "RGB")
    quantized = wanted("quantised", ("0", "1"), "0") == "1"
    try:
        sides = choose_sides(task, asked.get("left"), asked.get("right"))
    except gr.Error as error:
        gr.Warning(f"The link’s networks are not shown: {error.message}")
        sides = choose_sides(task)
    if left_out:
        gr.Warning(
            f"The link asks for what this page does not have; the page’s own is shown for: {', '.join(left_out)}."
        )
    shown = _shown_for(task, sides)
    return task, *shown, *_example(task, pictures.index(example)), colors, space, quantized


def name_example(task: str, picture: Picture | None) -> str:
    """What a link calls the picture; nothing for a person's own, which is in no link."""
    return next((path.stem for path, _ in examples(task) if picture and path == picture.source), "")


def _shown_for(task: str, sides: Sides) -> tuple[Any, ...]:
    """-> (the task's examples, both networks, their menus)."""
    menus = [gr.Dropdown(choices=list(networks.tasks()[task]), value=side.name) for side in sides]
    return gr.Gallery([str(path) for path, _ in examples(task)], selected_index=None), sides, *menus


def take_task(task: str, sides: Sides | None, picture: Picture | None) -> tuple[Any, ...]:
    """A task was chosen -> (its examples, both networks, their menus, picture, what the box shows, ground truth)."""
    names = [side.name for side in _known(sides)]
    same_two = set(names) <= set(networks.tasks()[task])  # trained for this task
    shown = _shown_for(task, choose_sides(task, *names) if same_two else choose_sides(task))
    own = picture and not any(picture.source == path for name in networks.tasks() for path, _ in examples(name))
    if not own:
        return *shown, *_example(task, 0)
    return *shown, replace(picture, truth=None), gr.skip(), None  # a person's own picture is asked about again


def take_side(task: str, sides: Sides | None, name: str | None, *, side: int) -> tuple[Sides, str, str]:
    """Another network was chosen for a side -> (both networks, what the two menus show)."""
    sides = _known(sides)
    chosen = choose_side(task, name or "")
    if chosen.location == sides[1 - side].location:  # what the other side shows: they change places
        sides = sides[::-1]
    else:
        sides = (chosen, sides[1]) if side == 0 else (sides[0], chosen)
    return sides, *put_back_sides(sides)


def put_back_sides(sides: Sides | None) -> tuple[Any, Any]:
    """What the two menus show, after a choice that was refused too."""
    if sides is None:
        return gr.skip(), gr.skip()
    return sides[0].name, sides[1].name


def show_card(sides: Sides | None, *, side: int) -> str:
    """The card of a network on this machine, as Markdown."""
    if _known(sides)[side].card:
        raise _refusal(f"The card of {sides[side].name} is on the Hub.")
    try:
        return read_card(sides[side].location)
    except BundleError as error:
        raise _refusal(str(error)) from error


def _example(task: str, index: int) -> tuple[Picture, str, str | None]:
    path, truth = examples(task)[index]
    return _open(path, truth), str(path), str(truth) if truth else None


@needs_what_is_shown
def take_truth(picture: Picture, answer: Answer, path: str | None) -> tuple[Picture, Answer, str, str, list[str]]:
    """A ground truth was added or removed -> (picture, answer, table of scores, bars, what the viewer draws)."""
    picture = replace(picture, truth=Path(path) if path else None)
    comparison, truth = _scored(answer.comparison, answer.palette, picture.truth)
    answer = replace(answer, comparison=comparison, truth=truth)
    return picture, answer, *show_scores(answer), hand_over(answer)


def _scored(comparison: Comparison, palette: np.ndarray, path: Path | None) -> tuple[Comparison, Truth | None]:
    """The comparison scored against a file, or without scores where there is none."""
    if path is None:
        return comparison.with_truth(None), None
    try:
        truth = read_truth(path, comparison.class_names, palette, max_pixels=MAX_PIXELS)
        comparison = comparison.with_truth(truth.labels)
    except ValueError as error:  # ImageError and TruthError are
        raise _refusal(str(error)) from error
    for note in truth.notes:
        gr.Info(note)
    return comparison, truth


def show_scores(answer: Answer) -> tuple[str, str]:
    """Who is right -> (table of scores with how the ground truth was read, bars class by class)."""
    read = render.truth_line(answer.truth.how, answer.truth.void) if answer.truth else ""
    bars = render.iou_bars(answer.names, answer.comparison, answer.palette)
    return read + render.score_table(answer.names, answer.comparison), bars


# ---- the two networks ------------------------------------------------------------------------------------------------


run_on_gpu = spaces.GPU(networks.segment)
_answers = networks.Answers()


def run_networks(locations: tuple[str, ...], image: np.ndarray) -> tuple[Segmentation, ...]:
    """Ask networks about uint8 (H, W, 3)."""
    return networks.run(run_on_gpu, networks.segment, locations, image)


def segmentations(sides: Sides, image: np.ndarray) -> tuple[Segmentation, ...]:
    """What both networks make of uint8 (H, W, 3), remembered for small pictures."""
    try:
        return _answers.ask(tuple(side.location for side in sides), image, run_networks)
    except BundleError as error:  # a network that was let go of could not be loaded again
        raise _refusal(str(error)) from error


def _notes(sides: Sides, found: Sequence[Segmentation]) -> list[str]:
    """What whoever asked is told, beside the answers."""
    return [f"{side.name}: {answered.note}" for side, answered in zip(sides, found, strict=True) if answered.note]


@needs_what_is_shown
def answer(picture: Picture, sides: Sides | None, quantized: bool, colors: int, space: str) -> Answer:
    """Ask both networks, about the picture itself or about what ``colors`` colours leave of it."""
    sides = _known(sides)
    image, view = picture.pixels(), picture.view
    if quantized:
        palette = picture.ladder(space)[colors]
        image, view = (palette.decode(palette.encode(pixels)) for pixels in (image, view))
    first, second = segmentations(sides, image)
    for note in _notes(sides, (first, second)):
        gr.Warning(note)
    comparison, truth = _scored(compare(first, second), first.palette, picture.truth)
    return Answer(
        sides=sides,
        picture=picture,
        view=view,
        comparison=comparison,
        truth=truth,
        confidences=(render.sample(first.confidence, view.shape[:2]), render.sample(second.confidence, view.shape[:2])),
        palette=first.palette,
        seconds=(first.seconds, second.seconds),
        devices=(first.device.upper(), second.device.upper()),
        colors=colors if quantized else None,
        space=space,
    )


def show_headings(answer: Answer) -> str:
    """What the two networks are."""
    nets = [networks.segmenter(side.location).net for side in answer.sides]
    return render.network_headings(
        answer.names,
        [render.tagline(net.config) for net in nets],
        [count_parameters(net) for net in nets],
        answer.seconds,
        answer.devices,
        [side.card for side in answer.sides],
    )


@needs_what_is_shown
def show_answer(answer: Answer) -> tuple[Any, ...]:
    """All there is to see of an answer -> (headings, what the viewer draws, agreement, legend, scores, bars)."""
    return (
        show_headings(answer),
        hand_over(answer),
        render.agreement_bar(answer.comparison.agreement, answer.colors),
        render.legend(answer.names, answer.comparison, answer.palette),
        *show_scores(answer),
    )


def hand_over(answer: Answer) -> list[str]:
    """Write an answer for the viewer in the browser -> paths of `viewer.files`."""
    truth = answer.truth.labels if answer.truth else None
    paths = []
    for name, content in viewer.files(
        answer.view, answer.comparison, answer.confidences, answer.palette, answer.names, truth
    ).items():
        paths.append(_new_file(name))
        paths[-1].write_bytes(content)
    return [str(path) for path in paths]


@needs_what_is_shown
def save_labels(answer: Answer, *, side: int) -> str:
    """Write a side's label map at the picture's full size for download -> path."""
    name = answer.names[side].replace("/", "-")  # as a bundle on the Hub has it
    path = _new_file(f"{name}-labels.png")
    save_png(answer.comparison.label_maps[side], path, palette=answer.palette)
    return str(path)


# ---- the palette -----------------------------------------------------------------------------------------------------


@needs_what_is_shown
def show_palette(picture: Picture, colors: int, space: str) -> tuple[Image.Image, str, str]:
    """The slider moved -> (picture in k colours, facts, swatches). No network runs and no GPU is asked for."""
    ladder = picture.ladder(space)
    palette = ladder[colors]
    labels = picture.live.encode(palette)
    return (
        render.paint(labels, palette.colors),
        render.palette_facts(len(palette), ladder.distinct_colors, picture.live.mean_squared_error(palette)),
        render.swatches(palette.colors, palette.shares(labels)),
    )


@needs_what_is_shown
def save_palette(picture: Picture, colors: int, space: str, *, kind: str) -> str:
    """Write the palette, or the whole picture in it, for download -> path."""
    palette = picture.ladder(space)[colors]
    write: dict[str, Callable[[], str | bytes]] = {
        "PNG": lambda: palette.palette_png(picture.pixels()),
        "GPL": palette.to_gpl,
        "ASE": palette.to_ase,
        "JSON": palette.to_json,
        "CSS": palette.to_css,
    }
    content = write[kind]()
    path = _new_file(f"{picture.source.stem}-{len(palette)}-colours.{kind.lower()}")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def _new_file(name: str) -> Path:
    """A path in a fresh folder of Gradio's cache, which is emptied after an hour."""
    cache = Path(gr.utils.get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=cache)) / name


# ---- many pictures ---------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """A run was stopped in the middle of a picture."""


@dataclass
class Run:
    """Pictures on their way through both networks: (name, path) each, and how many pixels they have together.

    truths: paths by the name of their picture. remarks: sentences. under_way: how far a large picture is, in words.
    stopped: somebody has had enough.
    """

    task: str
    sides: Sides
    pictures: list[tuple[str, str]]
    pixels: int
    truths: dict[str, str]
    remarks: list[str]
    under_way: str = ""
    stopped: bool = False

    def count_tile(self, number: int, done: int, total: int) -> None:
        """See `networks.on_tile`. Raises Stopped."""
        if self.stopped:
            raise Stopped
        self.under_way = f"network {number}, tile {done} of {total}" if total > 1 else ""


def take_many(task: str, sides: Sides, pictures: list[FileData] | None, truths: list[FileData] | None) -> Run:
    """Check what was uploaded, from the files' headers alone, before anything is computed."""
    if not pictures:
        raise _refusal("There are no pictures yet: drop some into the box, or try the examples.")
    if len(pictures) > MANY_PICTURES:
        raise _refusal(f"These are {len(pictures)} pictures, and {MANY_PICTURES} fit into one run: leave some out.")
    named = [(file.orig_name or Path(file.path).name, file.path) for file in pictures]
    pixels = sum(_pixels_of(path) for _, path in named)
    if pixels > MANY_PIXELS:
        raise _refusal(
            f"Together the pictures have {pixels / 1e6:.0f} million pixels, and {MANY_PIXELS // 10**6} million fit "
            "into one run: leave some out, or make them smaller."
        )
    truth_files = {file.orig_name or Path(file.path).name: file.path for file in truths or ()}
    by_picture, remarks = match_truths([name for name, _ in named], truth_files)
    return Run(task, sides, named, pixels, by_picture, remarks)


def begin_many(
    task: str, sides: Sides | None, pictures: list[FileData] | None, truths: list[FileData] | None
) -> tuple[Run, str, gr.Button]:
    """The button was pressed -> (what to run, progress, the button, of no use until that is done)."""
    run = take_many(task, _known(sides), pictures, truths)
    waiting = render.batch_progress(0, len(run.pictures), ["waiting for their turn"], run.remarks)
    return run, waiting, gr.Button(interactive=False)


def _pixels_of(path: str) -> int:
    """From the header; 0 for a file without one, which becomes a row that says so."""
    try:
        h, w = image_size(path)
    except ImageError:
        return 0
    return h * w


def answers_of(run: Run, file: BinaryIO) -> Iterator[Row]:
    """A row a picture; everything else goes into the ZIP."""
    ask = functools.partial(segmentations, run.sides)
    folders = tuple(re.sub(r"[^\w-]+", "-", side.name) for side in run.sides)
    return segment_many(run.pictures, ask, folders, file, truths=run.truths, max_pixels=MAX_PIXELS)


@contextlib.contextmanager
def new_archive(run: Run) -> Iterator[tuple[Path, BinaryIO]]:
    """A ZIP to write, and its path. Gradio deletes what it has handed over; what is left unfinished is deleted here."""
    path = _new_file(f"{run.task}-{len(run.pictures)}-pictures.zip")
    try:
        with path.open("wb") as file:
            yield path, file
    except BaseException:  # GeneratorExit, where a visitor walks away
        path.unlink()
        raise


def run_many(run: Run) -> Iterator[tuple[Any, ...]]:
    """Segment them all -> (progress, table, file to save, whether it can be stopped), again and again."""
    bundle = networks.segmenter(run.sides[0].location).bundle
    names = tuple(side.name for side in run.sides)
    rows: list[Row] = []
    started = time.monotonic()

    def progress(*, finished: bool = False) -> str:
        seconds = time.monotonic() - started
        done = sum(row.size[0] * row.size[1] for row in rows if row.size)
        if finished:
            said = [f"took {render.seconds(seconds)}"]
        else:
            left = f"about {render.seconds(seconds * (run.pixels - done) / done)} left" if done else ""
            said = [words for words in (run.under_way, left) if words]
        return render.batch_progress(len(rows), len(run.pictures), said, run.remarks)

    def table() -> str:
        return render.batch_table(names, rows, pooled(rows), bundle.class_names, bundle.palette) if rows else ""

    yield progress(), "", gr.DownloadButton(visible=False), gr.Button(interactive=True)
    # Closing the answers completes the archive, after a stop too.
    with new_archive(run) as (archive, file), contextlib.closing(answers_of(run, file)) as answers:
        try:
            for row in _with_ticks(answers, run):
                if row is None:
                    yield progress(), gr.skip(), gr.skip(), gr.skip()
                    continue
                rows.append(row)
                run.under_way = ""
                yield progress(), table(), gr.skip(), gr.skip()
                if run.stopped:
                    break
        except Stopped:
            pass
    save = gr.DownloadButton(value=str(archive), visible=True)
    yield progress(finished=True), table(), save, gr.Button(interactive=False)


def _with_ticks(answers: Iterator[Row], run: Run) -> Iterator[Row | None]:
    """The answers, and None again and again while one is being made."""
    # Gradio finds the visitor, for whom messages are, in the context.
    context = contextvars.copy_context()
    context.run(networks.on_tile.set, run.count_tile)
    with ThreadPoolExecutor(1) as thread:
        try:
            while True:
                coming = thread.submit(context.run, next, answers, None)
                while not wait([coming], TICK).done:
                    yield None
                row = coming.result()
                if row is None:
                    return
                yield row
        finally:
            run.stopped = True  # who walks away does not wait for a large picture


def example_files(task: str) -> tuple[list[str], list[str]]:
    """The task's examples -> (pictures, ground truths)."""
    return [str(path) for path, _ in examples(task)], [str(truth) for _, truth in examples(task) if truth]


def stop_many(run: Run | None) -> Any:
    """What is done is kept; a large picture under way is given up after its tile -> the button."""
    if run is not None:
        run.stopped = True
    return gr.Button(interactive=False)


# ---- inside the networks ---------------------------------------------------------------------------------------------


@needs_what_is_shown
def look_inside(answer: Answer) -> inside.Subject:
    """What the section about the networks looks into: the picture as they saw it, and what they answered."""
    truth = answer.truth.labels if answer.truth else None
    return inside.Subject(answer.image(), answer.view, answer.sides, answer.comparison.label_maps, truth)


# ---- for programs ----------------------------------------------------------------------------------------------------


def segment_picture(image: str, task: str, network: str) -> str:
    """Segment a picture with one network.

    Args:
        image: the picture, of any size up to the page's limit
        task: a task of the page's menu, such as "streets"
        network: an architecture of that task, such as "crop-concat", or a bundle on the Hub, "user/name" or
            "user/name@revision"

    Returns:
        An 8-bit palette PNG of the picture's size whose values are class indices.
    """
    side = choose_side(task, network)
    (found,) = segmentations((side,), _read(image))
    path = _new_file("labels.png")
    save_png(found.label_map, path, palette=found.palette)
    return str(path)


def compare_networks(image: str, task: str, left: str | None = None, right: str | None = None) -> dict[str, Any]:
    """Segment a picture with both networks and compare their answers.

    Args:
        image: the picture, of any size up to the page's limit
        task: a task of the page's menu, such as "streets"
        left, right: the two networks, as for segmenting; left out, those that the page begins with

    Returns:
        The share of pixels on which both agree, seconds for each network, the share each gives to every class, and
        notes: sentences about what went otherwise than usual.
    """
    sides = choose_sides(task, left, right)
    found = segmentations(sides, _read(image))
    comparison, names = compare(*found), [side.name for side in sides]
    return {
        "agreement": comparison.agreement,
        "seconds": {name: s.seconds for name, s in zip(names, found, strict=True)},
        "shares": {
            name: dict(zip(names, map(float, shares), strict=True))
            for name, shares in zip(comparison.class_names, comparison.shares.T, strict=True)
        },
        "notes": _notes(sides, found),
    }


def score_networks(
    image: str, truth: str, task: str, left: str | None = None, right: str | None = None
) -> dict[str, Any]:
    """Segment a picture with both networks and score them against its ground truth.

    Args:
        image: the picture, of any size up to the page's limit
        truth: class numbers (grey or palette PNG), a mask, or a mask in the classes' colours, as large as the picture
        task: a task of the page's menu, such as "streets"
        left, right: the two networks, as for segmenting; left out, those that the page begins with

    Returns:
        For each network mIoU, Dice, pixel accuracy, boundary F1 and the IoU of every class, 0 to 1, null where a class
        does not occur; the boundary's tolerance in pixels, how the ground truth was read, the share that is void, and
        notes: sentences about what went otherwise than usual.
    """
    sides = choose_sides(task, left, right)
    if truth is None:
        raise _refusal("There is no ground truth: give one, or compare without.")
    found = segmentations(sides, _read(image))
    comparison, read = _scored(compare(*found), found[0].palette, Path(truth))
    return {
        "networks": {
            side.name: _scores_as_json(scores, comparison.class_names)
            for side, scores in zip(sides, comparison.scores, strict=True)
        },
        "boundary_tolerance": comparison.scores[0].tolerance,
        "truth": {"read_as": read.how, "void": read.void, "notes": list(read.notes)},
        "notes": _notes(sides, found),
    }


def _scores_as_json(scores: Scores, class_names: Sequence[str]) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else float(value)

    return {
        "miou": number(scores.miou),
        "dice": number(scores.dice),
        "pixel_accuracy": number(scores.pixel_accuracy),
        "boundary_f1": number(scores.boundary),
        "iou": {name: number(iou) for name, iou in zip(class_names, scores.iou, strict=True)},
    }


def quantize_picture(image: str, colors: int, space: str) -> str:
    """Show a picture in k colours, chosen by k-means.

    Args:
        image: the picture, of any size up to the page's limit
        colors: how many colours, 2 to 64
        space: "RGB" or "OKLab", where distances between colours are measured

    Returns:
        A palette PNG of the picture's size with exactly that many colours, or all of its own if it has fewer.
    """
    if colors not in range(2, 65) or space not in list(COLOR_SPACES):  # whatever a program sends as the two
        asked = f"{networks.plain(colors)} in “{networks.plain(space)}”"
        raise _refusal(f"Colours are 2 to 64 in RGB or OKLab, not {asked}.")
    return save_palette(_open(image), int(colors), space, kind="PNG")


def segment_many_pictures(
    pictures: list[FileData],
    task: str,
    truths: list[FileData] | None = None,
    left: str | None = None,
    right: str | None = None,
) -> tuple[str, list[dict[str, Any]]]:
    """Segment many pictures with both networks, and score them where a ground truth has the name of a picture.

    Args:
        pictures: up to the page's limits
        task: a task of the page's menu, such as "streets"
        truths: as for scoring one picture; none, or some
        left, right: the two networks, as for segmenting; left out, those that the page begins with

    Returns:
        A ZIP of label maps, colour masks, overlays and a CSV; and for each picture its name, agreement, mIoU of each
        network if there is a ground truth, and a note where something is missing.
    """
    run = take_many(task, choose_sides(task, left, right), pictures, truths)
    names = [side.name for side in run.sides]
    with new_archive(run) as (archive, file):
        rows = list(answers_of(run, file))
    return str(archive), [
        {
            "name": row.name,
            "agreement": row.agreement,
            "miou": dict(zip(names, (scores.miou for scores in row.scores), strict=True)) if row.scores else None,
            "note": row.note,
        }
        for row in rows
    ]


# ---- the page --------------------------------------------------------------------------------------------------------


def as_it_is(box: Any, payload: Any) -> str | None:
    """What a box hands over -> the file's path. The library reads more formats, and says why it refuses one."""
    return None if payload is None else payload.path


def as_sent(control: Any, payload: Any) -> Any:
    """What a program sends for a choice or a number: the function knows what it takes, and says what it is not."""
    return payload


def as_they_are(box: Any, payload: Any) -> list[FileData] | None:
    """What a box for many files hands over -> the files, which still know the names that they had with their owner."""
    return None if payload is None else payload.root


def _handing_over(box: type, preprocess: Callable[[Any, Any], Any]) -> type:
    """A kind of box that leaves the reading of files to the library.

    It has to be a class, since Gradio makes a session's box anew after each update, but no class statement: for one,
    Gradio writes a stub beside this file.
    """
    return type.__new__(type(box), box.__name__, (box,), {"preprocess": preprocess})


PictureBox = _handing_over(gr.Image, as_it_is)
FileBox = _handing_over(gr.File, as_it_is)
FilesBox = _handing_over(gr.File, as_they_are)
Choice = _handing_over(gr.Radio, as_sent)
Number = _handing_over(gr.Number, as_sent)


class Page(gr.Blocks):
    """gr.Blocks that answers in a sentence where Gradio says nothing: what was sent does not fit, or we made a mistake.

    Why a mistake was one is in the log, which nobody is shown: it names files and lines of this machine.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **options: Any) -> list[Any]:
        try:
            return await super().preprocess_data(block_fn, inputs, *rest, **options)
        except AppError:
            raise
        except Exception as error:  # each component has its own for a value of another type
            names = [block.label or type(block).__name__.lower() for block in block_fn.inputs]
            raise _refusal(
                f"What was sent does not fit: needed are {', '.join(names)}, in this order; a file as "
                f"{FILE_EXAMPLE}, with the path that its upload returned."
            ) from error

    async def process_api(self, *inputs: Any, **options: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*inputs, **options)
        except AppError:
            raise
        except Exception as error:
            traceback.print_exc()
            raise _refusal(OUR_MISTAKE) from error


def say_what_there_is(request: Request, error: Exception) -> JSONResponse:
    """To a request for what is no function of the page, or without what it needs."""
    return JSONResponse(
        {"error": "This cannot be asked here: /gradio_api/info lists what can, and what each needs."}, 500
    )


FILE_EXAMPLE = '{"path": "…", "meta": {"_type": "gradio.FileData"}}'
OUR_MISTAKE = "Something went wrong here that should not have: try it again, or with another picture."

HEADLINE = """
<h1>Add or concat? <span>Two U-Nets, one picture.</span></h1>
<p>A U-Net squeezes a picture until it knows <em>what</em> is there, then grows it back, taking <em>where</em> from the
earlier layers through skip connections. One of these two networks <b>adds</b> them, the other <b>concatenates</b> them.
Drop a picture and see what difference that makes.</p>
"""

COPY_LINK = """
<button type="button" data-copy-link title="A link to this example, these networks and settings">Copy link</button>
<p role="status"></p>
"""

PALETTE_TITLE = """
<h2>The same picture in k colours</h2>
<p>k-means finds the k colours that stand for all the others with the smallest error. How few does it take until you, or
the networks, see something else?</p>
"""

SCORE_TITLE = """
<h2>Who is right?</h2>
<p>With a ground truth, a picture that somebody labelled by hand, both networks are scored. The examples bring theirs;
add one for a picture of your own.</p>
"""
TRUTH_INFO = (
    "As large as the picture: class numbers, or the colours of the legend; of two classes, a mask. 255, the number "
    "after the last class, and black are left out."
)

MANY_TITLE = f"""
<h2>Many pictures at once</h2>
<p>Both networks answer one picture after the other; what comes back is a table, and a ZIP with label maps, colour
masks, overlays and a CSV. Up to {MANY_PICTURES} pictures, together {MANY_PIXELS // 10**6} million pixels.</p>
"""

SPACE_INFO = "RGB: smallest error in numbers. OKLab: distances as the eye sees them; hues survive longer."


CODE_TITLE = """
<h2>Use it from code</h2>
<p>What the page does, without the page: exact label maps and numbers. Files that are sent are deleted within two
hours.</p>
"""


def _archive_contents() -> str:
    """What the ZIP will hold, where nothing was segmented yet."""
    first, second = networks.PREFERRED
    inside = {
        f"{first}/labels/": "class numbers, as palette PNG",
        f"{first}/masks/": "the same in colours",
        f"{first}/overlays/": "laid over the picture",
        f"{second}/…": "the same from the other network",
        "scores.csv": "a line for each picture and network",
        "classes.json": "names and colours of the classes",
    }
    lines = "".join(f"<dt>{path}</dt><dd>{what}</dd>" for path, what in inside.items())
    return f'<div class="contents"><p>What the ZIP will hold</p><dl>{lines}</dl></div>'


def _asset(name: str) -> str:
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def _html(value: str, name: str) -> gr.HTML:
    return gr.HTML(value, elem_id=name, apply_default_css=False)


def _side_menu(task: str, side: int) -> gr.Dropdown:
    return gr.Dropdown(
        list(networks.tasks()[task]),
        value=networks.default_names(task)[side],
        label=("Left network", "Right network")[side],
        allow_custom_value=True,
        min_width=120,
        elem_id=("left", "right")[side],
    )


def build_demo() -> gr.Blocks:
    """The page with its handlers. Finds the bundles; loads none of them."""
    names = list(networks.tasks())
    if not names:
        raise SystemExit(
            f"{networks.WEIGHTS} holds no task with two networks. Train them with `python train.py`, or set "
            f"{WEIGHTS_VARIABLE} to a folder or a Hub namespace that has them."
        )
    with Page(
        title="Add or concat? Two U-Nets, one picture", analytics_enabled=False, delete_cache=(HOUR, HOUR)
    ) as demo:
        picture, found, sides = gr.State(time_to_live=HOUR), gr.State(time_to_live=HOUR), gr.State()

        with gr.Row(elem_id="top"):
            _html(HEADLINE, "headline")
            task = gr.Radio([(name.capitalize(), name) for name in names], value=names[0], label="Task", elem_id="task")
            _html(COPY_LINK, "share")

        with gr.Row(elem_id="main"):
            with gr.Column(scale=4, min_width=300, elem_id="source"):
                image = PictureBox(
                    type="filepath",
                    label="Picture",
                    height=300,
                    sources=["upload", "clipboard", "webcam"],
                    buttons=[],
                    placeholder=f"Drop a picture, or click to choose\nup to {MAX_PIXELS // 10**6} million pixels",
                    elem_id="picture",
                )
                gallery = gr.Gallery(
                    label="Examples",
                    type="filepath",  # what is asked of it is which one is chosen, never the pixels
                    columns=5,
                    rows=1,
                    height=92,
                    allow_preview=False,
                    object_fit="cover",
                    buttons=[],
                    interactive=False,
                    elem_id="examples",
                )
                with gr.Accordion("What am I looking at?", open=False, elem_id="explanation"):
                    gr.Markdown(_asset("explanation.md"))
            with gr.Column(scale=8, min_width=320, elem_id="answer"):
                with gr.Row(elem_id="sides"):
                    left, right = (_side_menu(names[0], side) for side in (0, 1))
                headings = _html("", "headings")
                canvas = _html(_asset("viewer.html"), "viewer")
                agreement = _html("", "agreement")
                legend = _html("", "legend")

        _html(SCORE_TITLE, "score-title")
        with gr.Row(elem_id="score"):
            with gr.Column(scale=4, min_width=300, elem_id="truth"):
                truth = gr.File(label="Ground truth", file_types=TRUTH_FILES, height=132, elem_id="truth-file")
                _html(f"<p>{TRUTH_INFO}</p>", "truth-info")
                scores = _html("", "scores")
            with gr.Column(scale=8, min_width=320):
                bars = _html("", "ious")

        _html(PALETTE_TITLE, "palette-title")
        with gr.Row(elem_id="palette"):
            with gr.Column(scale=4, min_width=300, elem_id="palette-controls"):
                colors = gr.Slider(2, 64, value=8, step=1, label="Colours", elem_id="colours")
                space = gr.Radio(
                    list(COLOR_SPACES), value="RGB", label="Distance between colours", info=SPACE_INFO, elem_id="space"
                )
                quantized = gr.Checkbox(
                    label="Show the networks this picture",
                    info="How many colours do they need? Both are asked again when the slider rests.",
                    elem_id="quantised",
                )
                _html("<p>Save the picture (PNG) or its colours</p>", "save-title")
                with gr.Row(elem_id="downloads"):
                    saves = {kind: gr.Button(kind, size="sm", min_width=48) for kind in PALETTE_FILES}
            with gr.Column(scale=8, min_width=320, elem_id="palette-view"):
                painted = gr.Image(
                    label="In k colours",
                    format="png",
                    height=360,
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="painted",
                )
                facts = _html("", "facts")
        swatches = _html("", "swatches")
        follow = inside.build(look_inside, found)

        _html(MANY_TITLE, "many-title")
        with gr.Row(elem_id="many"):
            with gr.Column(scale=4, min_width=300, elem_id="many-files"):
                pictures = FilesBox(file_count="multiple", label="Pictures", height=132, elem_id="many-pictures")
                truths = FilesBox(
                    file_count="multiple",
                    label="Ground truths (optional), called like the pictures",
                    file_types=TRUTH_FILES,
                    height=132,
                    elem_id="many-truths",
                )
                with gr.Row(elem_id="many-buttons"):
                    begin = gr.Button("Segment all", variant="primary", size="sm", min_width=80)
                    stop = gr.Button("Stop", interactive=False, size="sm", min_width=60)
                    try_examples = gr.Button("Try the examples", size="sm", min_width=120)
            with gr.Column(scale=8, min_width=320, elem_id="many-answers"):
                progress = _html(_archive_contents(), "many-progress")
                table = _html("", "many-table")
                archive = gr.DownloadButton("Save all (ZIP)", visible=False, elem_id="many-save")

        _html(CODE_TITLE, "code-title")
        with gr.Tabs(elem_id="code"):
            code = []
            for chapter in _asset("code.md").split("### ")[1:]:
                title, text = chapter.split("\n", 1)
                with gr.Tab(title):
                    code.append(gr.Markdown(text))
        # Buttons that the page presses itself.
        settled = gr.Button("Ask again", visible="hidden", elem_id="settled")
        file = gr.File(visible="hidden")
        example = gr.Textbox(visible="hidden", label="Example")
        cards = [gr.Button("Card", visible="hidden", elem_id=f"card-{side}") for side in "ab"]
        with gr.Column(elem_id="card", elem_classes="dialog"):
            card = gr.Markdown()
        handed = gr.File(file_count="multiple", visible="hidden")
        label_saves = [gr.Button("Label map", visible="hidden", elem_id=f"save-labels-{side}") for side in "ab"]

        shown = [headings, handed, agreement, legend, scores, bars]
        palette_inputs, palette_outputs = [picture, colors, space], [painted, facts, swatches]
        private = {"api_visibility": "private"}
        quiet = private | {"show_progress": "hidden"}

        def ask(event: Any) -> None:
            """The networks, then what the page says of them, then the viewer, which takes the newest only."""
            asked = event(
                answer,
                [picture, sides, quantized, colors, space],
                found,
                concurrency_id="networks",
                concurrency_limit=1,
                show_progress_on=[canvas],
                trigger_mode="always_last",  # else a picture is dropped that comes while the networks are at work
                **private,
            )
            drawn = asked.success(show_answer, found, shown, trigger_mode="always_last", **quiet)
            drawn.success(None, handed, js="unetViewer.show", **private)
            follow(asked.success)

        def repaint(event: Any) -> None:
            event(show_palette, palette_inputs, palette_outputs, trigger_mode="always_last", **quiet)

        of_task = [gallery, sides, left, right, picture, image, truth]
        # A new picture: read it, then the palette and the networks set off together.
        for event, handler, inputs, outputs in (
            (demo.load, open_page, None, [task, *of_task, colors, space, quantized]),
            (task.input, take_task, [task, sides, picture], of_task),
            (gallery.select, take_example, [task, gallery], [picture, image, truth]),
            (image.input, take_upload, [image, picture], [picture, image, truth]),
        ):
            taken = event(handler, inputs, outputs, show_progress="hidden", trigger_mode="always_last", **private)
            repaint(taken.success)
            ask(taken.success)
            taken.failure(put_back, picture, image, **quiet)
            taken.success(name_example, [task, picture], example, **quiet)

        settings = [task, example, left, right, colors, space, quantized]
        gr.on([setting.change for setting in settings], None, settings, js="unetPage.remember", **private)

        for side, menu in enumerate((left, right)):
            take = functools.partial(take_side, side=side)
            chosen = menu.input(take, [task, sides, menu], [sides, left, right], show_progress="hidden", **private)
            ask(chosen.success)
            chosen.failure(put_back_sides, sides, [left, right], **quiet)
            opened = cards[side].click(functools.partial(show_card, side=side), sides, card, **quiet)
            opened.success(None, js="() => unetPage.open('card')", **private)

        for event in (truth.upload, truth.clear):
            judged = event(take_truth, [picture, found, truth], [picture, found, scores, bars, handed], **quiet)
            judged.success(None, handed, js="unetViewer.show", **private)
            judged.failure(lambda: None, None, truth, **quiet)
            follow(judged.success)

        # `.change` with its "always_last" is the one binding that ends on the right value for a drag, arrow keys and
        # a typed number alike. The networks are asked when the slider rests, never during a drag.
        repaint(colors.change)
        repaint(space.change)
        for control in (colors, space):
            control.change(None, quantized, js="(on) => { if (on) unetPage.whenSettled('settled') }", **private)
        ask(settled.click)
        ask(quantized.input)

        demo.load(None, code, code, js="unetPage.withAddress", **private)
        for side, button in enumerate(label_saves):
            saved = button.click(functools.partial(save_labels, side=side), found, file, **quiet)
            saved.success(None, file, js="unetPage.download", **private)
        for kind, button in saves.items():
            saved = button.click(functools.partial(save_palette, kind=kind), palette_inputs, file, **quiet)
            saved.success(None, file, js="unetPage.download", **private)

        run = gr.State(time_to_live=HOUR)
        filled = try_examples.click(example_files, task, [pictures, truths], **quiet)
        for started in (begin.click, filled.success):
            checked = started(begin_many, [task, sides, pictures, truths], [run, progress, begin], **quiet)
            done = checked.success(
                run_many,
                run,
                [progress, table, archive, stop],
                concurrency_id="many",
                concurrency_limit=1,
                **quiet,
            )
            done.then(lambda: gr.Button(interactive=True), None, begin, **quiet)
        stop.click(stop_many, run, stop, queue=False, **quiet)
        _add_endpoints(names)
    return demo


def _add_endpoints(names: list[str]) -> None:
    """The page's doors for programs: what its controls do, without a session. They are not drawn."""
    picture = PictureBox(type="filepath", label="image", visible=False)
    truth = FileBox(label="truth", visible=False)
    pictures = FilesBox(file_count="multiple", label="pictures", visible=False)
    truths = FilesBox(file_count="multiple", label="truths", visible=False)
    task = Choice(names, label="task", visible=False)
    network, left, right = (gr.Textbox(label=label, visible=False) for label in ("network", "left", "right"))
    colors = Number(8, precision=0, label="colors", visible=False)
    space = Choice(list(COLOR_SPACES), value="RGB", label="space", visible=False)
    found = gr.JSON(visible=False)
    drawn = gr.Image(format="png", visible=False)
    for name, function, inputs, outputs, group in (
        ("segment", segment_picture, [picture, task, network], drawn, "networks"),
        ("compare", compare_networks, [picture, task, left, right], found, "networks"),
        ("score", score_networks, [picture, truth, task, left, right], found, "networks"),
        ("quantize", quantize_picture, [picture, colors, space], drawn, None),
        (
            "batch",
            segment_many_pictures,
            [pictures, task, truths, left, right],
            [gr.File(visible=False), found],
            "many",
        ),
    ):
        limits = {"concurrency_id": group, "concurrency_limit": 1} if group else {}
        gr.Button(visible=False).click(function, inputs, outputs, api_name=name, **limits)


def page_theme() -> gr.themes.Base:
    """Gradio's plainest theme; how it looks is in assets/page.css."""
    return gr.themes.Base(
        primary_hue="stone",
        neutral_hue="stone",
        radius_size="lg",
        # Fonts that come with Gradio: no visitor's browser is sent to another host.
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 600, 700)), "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont("IBM Plex Mono"), "ui-monospace", "monospace"],
    )


def launch(demo: gr.Blocks, **options: Any) -> Any:
    """Serve the page as it is meant to be served; options are those of gr.Blocks.launch."""
    # Few threads: torch and numpy bring their own, and more at once only makes everybody wait longer.
    # In the queue fifty visitors fit, and programs beside them; past it goes nobody.
    demo.queue(max_size=64, default_concurrency_limit=2, api_open=False)
    return demo.launch(
        theme=page_theme(),
        css_paths=[HERE / "assets" / name for name in ("page.css", "viewer.css", "inside.css")],
        head=f"<script>{_asset('page.js')}</script><script>{_asset('viewer.js')}</script>",
        max_threads=8,
        show_error=False,
        run_history=False,
        max_file_size=UPLOAD_BYTES,
        state_session_capacity=visitors.SESSIONS,
        app_kwargs={"lifespan": visitors.upkeep, "exception_handlers": {Exception: say_what_there_is}},
        footer_links=["api"],
        allowed_paths=sorted({str(path.parent) for name in networks.tasks() for path, _ in examples(name)}),
        **options,
    )


def warm_up() -> None:
    """Answer the first example before anybody asks: the page then opens with it."""
    if os.environ.get("SPACES_ZERO_GPU"):  # its worker starts as a copy of this process: all networks must be here
        for locations in networks.tasks().values():
            for location in locations.values():
                networks.segmenter(location)
        return
    first = next(iter(networks.tasks()))
    segmentations(choose_sides(first), _read(examples(first)[0][0]))


if __name__ == "__main__":
    page = build_demo()
    warm_up()
    launch(page, inbrowser="SPACE_ID" not in os.environ)
