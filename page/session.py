"""What one session looks at: a picture, two networks, their answers.

Kept in the session's state, and let go of after an hour. The networks' answers to small pictures are also kept by
content, which only who has the same picture can ask for.
"""

from __future__ import annotations

import functools
import math
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import spaces
from gradio import FileData
from PIL import Image

from page import decoding, networks
from page.errors import refusal
from page.networks import Sides
from unet.bundle import BundleError
from unet.compare import Comparison
from unet.ground_truth import Truth, read_truth
from unet.images import ImageError
from unet.objects import Counted, count_objects
from unet.palette import LiveView, PaletteLadder
from unet.predict import Segmentation
from unet.resize import shrink

ROOT = Path(__file__).parents[1]

MIN_AREA = 20  # pixels of an object that is counted: smaller ones are specks
MAX_PIXELS = 40_000_000  # on the page; the library has no limit
VIEW_PIXELS = 1_000_000  # what a screen shows of a picture, and what the slider repaints
MIN_COLORS, DEFAULT_COLORS = 2, 8  # of the slider

COLOR_SPACES = {"RGB": "rgb", "OKLab": "oklab"}

# ---- what there is ---------------------------------------------------------------------------------------------------


def choose_side(task: str, name: str | None) -> networks.Network:
    """The task's network of this name, see networks.choose."""
    _check_task(task)
    try:
        return networks.choose(task, (name or "").strip())
    except BundleError as error:
        raise refusal(str(error)) from error


def choose_sides(task: str, left: str | None = None, right: str | None = None) -> Sides:
    """Two networks of a task by their names, or the defaults."""
    _check_task(task)
    defaults = networks.default_names(task)
    left = left or next(name for name in defaults if name != right)
    right = right or next(name for name in reversed(defaults) if name != left)
    first, second = choose_side(task, left), choose_side(task, right)
    if first.location == second.location:
        raise refusal(f"Both networks are {first.name}: name two different ones to compare.")
    return first, second


def _check_task(task: str) -> None:
    if task not in (names := list(networks.tasks())):  # a list also takes what has no hash
        raise refusal(f"There is no task “{networks.plain(task)}”; there are: {', '.join(names)}.")


@functools.cache
def examples(task: str) -> tuple[tuple[Path, Path | None], ...]:
    """The task's example pictures, then some of other things.

    Each with its ground truth, where there is one.
    """
    folders = (ROOT / "weights" / task / "examples", ROOT / "weights" / "examples")
    pictures = [path for folder in folders for path in sorted(folder.glob("*.jpg"))]
    return tuple((path, truth if (truth := path.with_suffix(".png")).exists() else None) for path in pictures)


class State(NamedTuple):
    """What Gradio keeps of a session."""

    picture: gr.State
    answer: gr.State
    sides: gr.State


# ---- what is looked at -----------------------------------------------------------------------------------------------


class ViewFile:
    """A picture uint8 (h, w, 3) as a PNG, written when first sent."""

    def __init__(self, view: np.ndarray) -> None:
        self._view, self._path = view, None

    def hand_over(self) -> dict[str, Any]:
        """As Gradio sends files; written again should the cache have been emptied."""
        if self._path is None or not self._path.exists():
            # Of photographs, run lengths make smaller files in less time than deflate's quickest level.
            self._path = new_file("picture.png")
            Image.fromarray(self._view).save(self._path, compress_type=zlib.Z_RLE)
        return hand_over(self._path)


@dataclass(frozen=True)
class Picture:
    """The picture on the page.

    view: uint8 (h, w, 3), what is shown of it; the picture itself where that is small. decoded: file of its pixels,
    None where it is small. truth: file of its ground truth.
    """

    source: Path
    view: np.ndarray
    decoded: Path | None
    live: LiveView
    truth: Path | None = None
    ladders: dict[str, PaletteLadder] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def key(self) -> int:
        """Tells the viewer whether two values show one picture."""
        return zlib.crc32(self.view)

    @functools.cached_property
    def view_file(self) -> ViewFile:
        """The view as a file for the browser."""
        return ViewFile(self.view)

    def pixels(self) -> np.ndarray:
        """The picture at full size, uint8 (H, W, 3).

        From the disk: the slider and the views do without it.
        """
        if self.decoded is None:
            return self.view
        try:
            return np.load(self.decoded)
        except FileNotFoundError:  # deleted to make room
            return read_picture(self.source, notify=lambda _: None)

    def ladder(self, space: str) -> PaletteLadder:
        """Palettes of every size, prepared at the first question."""
        if space not in self.ladders:
            self.ladders[space] = PaletteLadder(self.pixels(), space=COLOR_SPACES[space])
        return self.ladders[space]


@dataclass(frozen=True)
class Answer:
    """What both networks answered, with all that is needed to show it.

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
    colors: int | None
    space: str

    def image(self) -> np.ndarray:
        """uint8 (H, W, 3), as the networks saw it."""
        image = self.picture.pixels()
        if self.colors is None:
            return image
        palette = self.picture.ladder(self.space)[self.colors]
        return palette.decode(palette.encode(image))

    @functools.cached_property
    def view_file(self) -> ViewFile:
        """The view as a file for the browser."""
        return self.picture.view_file if self.colors is None else ViewFile(self.view)

    @functools.cached_property
    def objects(self) -> tuple[Counted, Counted] | None:
        """The objects that each network sees; None for tasks of several classes."""
        names = self.comparison.class_names
        first, second = (count_objects(each, names, min_area=MIN_AREA) for each in self.comparison.label_maps)
        return None if first is None or second is None else (first, second)

    @property
    def names(self) -> tuple[str, str]:
        """What the two networks are called."""
        return self.sides[0].name, self.sides[1].name


def requires_session(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse, in a sentence, where the session's picture or answer has expired.

    For handlers whose first parameter it is.
    """

    @functools.wraps(handler)
    def checked(shown: Picture | Answer | None, *inputs: Any, **options: Any) -> Any:
        if shown is None:
            raise refusal("The picture is no longer kept here: drop it again, or click an example.")
        return handler(shown, *inputs, **options)

    return checked


def known(sides: Sides | None) -> Sides:
    """The session's networks, or a refusal where the session has expired."""
    if sides is None:
        raise refusal("This page was left alone for too long, and what it showed is no longer kept: load it again.")
    return sides


def read_picture(source: str | Path | None, notify: Callable[[str], Any] = gr.Info) -> np.ndarray:
    """Read a picture of at most MAX_PIXELS.

    Returns uint8 (H, W, 3). Raises gr.Error if it cannot be read.
    """
    if source is None:  # a program's question without one
        raise refusal("There is no picture: give one.")
    try:
        return decoding.read_image(source, max_pixels=MAX_PIXELS, notify=notify)
    except ImageError as error:
        raise refusal(str(error)) from error


def open_picture(source: str | Path, truth: Path | None = None) -> Picture:
    """Read a picture for the page. Raises as `read_picture`."""
    image = read_picture(source)
    view = shrink(image, VIEW_PIXELS)
    decoded = None
    if view is not image:  # cleanup.delete_files knows its name
        with tempfile.NamedTemporaryFile(suffix=".npy", dir=gr.utils.get_upload_folder(), delete=False) as file:
            np.save(file, image)
        decoded = Path(file.name)
    return Picture(Path(source), view, decoded, LiveView(view), truth)


def new_file(name: str) -> Path:
    """A path in a fresh folder of Gradio's cache.

    The cache is emptied after an hour.
    """
    cache = Path(gr.utils.get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=cache)) / name


def hand_over(path: Path) -> dict[str, Any]:
    """A file of the cache as Gradio sends it inside another value."""
    return FileData(path=str(path)).model_dump()


# ---- what the networks say -------------------------------------------------------------------------------------------


def gpu_seconds(locations: Sequence[str], image: np.ndarray) -> int:
    """Seconds of GPU time that ZeroGPU sets aside for a question.

    Its default of 60 empties a visitor's quota at the third question.
    """
    megapixels = image.shape[0] * image.shape[1] / 1e6
    return min(60, math.ceil(5 + 2 * megapixels))


run_on_gpu = spaces.GPU(networks.segment, duration=gpu_seconds)
_answers = networks.Answers()


def run_networks(locations: tuple[str, ...], image: np.ndarray) -> tuple[Segmentation, ...]:
    """Ask networks about uint8 (H, W, 3)."""
    return networks.run(run_on_gpu, networks.segment, locations, image)


def segmentations(sides: Sides, image: np.ndarray) -> tuple[Segmentation, ...]:
    """Both networks' answers to uint8 (H, W, 3), remembered for small pictures."""
    try:
        return _answers.ask(tuple(side.location for side in sides), image, run_networks)
    except BundleError as error:  # a network that was let go of could not be loaded again
        raise refusal(str(error)) from error


def notes(sides: Sides, found: Sequence[Segmentation]) -> list[str]:
    """What whoever asked is told, beside the answers."""
    return [f"{side.name}: {answered.note}" for side, answered in zip(sides, found, strict=True) if answered.note]


def scored(comparison: Comparison, palette: np.ndarray, path: Path | None) -> tuple[Comparison, Truth | None]:
    """Score a comparison against a file, if there is one.

    Raises gr.Error.
    """
    if path is None:
        return comparison.with_truth(None), None
    try:
        truth = read_truth(path, comparison.class_names, palette, max_pixels=MAX_PIXELS, reader=decoding)
        comparison = comparison.with_truth(truth.labels)
    except ValueError as error:  # ImageError and TruthError are
        raise refusal(str(error)) from error
    for note in truth.notes:
        gr.Info(note)
    return comparison, truth
