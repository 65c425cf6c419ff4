"""What one session looks at: a picture, two networks, and what these said of it.

Kept in the session's state, and let go of after an hour. The networks' answers to small pictures are also kept by
content, which only who has the same picture can ask for.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import spaces

from page import networks, viewer
from page.networks import Sides
from page.refusals import refusal
from unet.bundle import BundleError
from unet.compare import Comparison
from unet.ground_truth import Truth, read_truth
from unet.images import ImageError, read_image
from unet.palette import LiveView, PaletteLadder
from unet.predict import Segmentation
from unet.resize import shrink

ROOT = Path(__file__).parents[1]

MAX_PIXELS = 40_000_000  # on the page; the library has no limit

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
    """Two networks of a task by their names; where one is not named, one with which the page itself begins."""
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
    """Pictures to begin with, each with its ground truth where there is one."""
    own = sorted((ROOT / "weights" / task / "examples").glob("*.jpg"))
    pairs = [(picture, truth if (truth := picture.with_suffix(".png")).exists() else None) for picture in own]
    # Two photographs that come inside scikit-learn. Asking for its place does not import it.
    sklearn = importlib.util.find_spec("sklearn")
    photos = Path(sklearn.origin).parent / "datasets" / "images" if sklearn and sklearn.origin else None
    names = ("china.jpg", "flower.jpg") if photos else ()
    return (*pairs, *((photos / name, None) for name in names if (photos / name).exists()))


# ---- what is looked at -----------------------------------------------------------------------------------------------


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
        return read_picture(self.source, notify=lambda _: None) if self.shrunk else self.view

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


def needs_what_is_shown(handler: Callable[..., Any]) -> Callable[..., Any]:
    """For handlers that begin with the session's picture or answer, which is let go of after an hour."""

    @functools.wraps(handler)
    def checked(shown: Picture | Answer | None, *inputs: Any, **options: Any) -> Any:
        if shown is None:
            raise refusal("The picture is no longer kept here: drop it again, or click an example.")
        return handler(shown, *inputs, **options)

    return checked


def known(sides: Sides | None) -> Sides:
    """The session's networks; a page that was forgotten, or is older than this server, has none."""
    if sides is None:
        raise refusal("This page was left alone for too long, and what it showed is no longer kept: load it again.")
    return sides


def read_picture(source: str | Path | None, notify: Callable[[str], Any] = gr.Info) -> np.ndarray:
    """uint8 (H, W, 3), of at most MAX_PIXELS. Raises gr.Error where it cannot be had."""
    if source is None:  # a program's question without one
        raise refusal("There is no picture: give one.")
    try:
        return read_image(source, max_pixels=MAX_PIXELS, notify=notify)
    except ImageError as error:
        raise refusal(str(error)) from error


def open_picture(source: str | Path, truth: Path | None = None) -> Picture:
    """Read a picture for the page. Raises as `read_picture`."""
    image = read_picture(source)
    view = shrink(image, viewer.PIXELS)
    return Picture(Path(source), view, view is not image, LiveView(view), truth)


def new_file(name: str) -> Path:
    """A path in a fresh folder of Gradio's cache, which is emptied after an hour."""
    cache = Path(gr.utils.get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=cache)) / name


# ---- what the networks say -------------------------------------------------------------------------------------------


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
        raise refusal(str(error)) from error


def notes(sides: Sides, found: Sequence[Segmentation]) -> list[str]:
    """What whoever asked is told, beside the answers."""
    return [f"{side.name}: {answered.note}" for side, answered in zip(sides, found, strict=True) if answered.note]


def scored(comparison: Comparison, palette: np.ndarray, path: Path | None) -> tuple[Comparison, Truth | None]:
    """The comparison scored against a file, or without scores where there is none. Raises gr.Error."""
    if path is None:
        return comparison.with_truth(None), None
    try:
        truth = read_truth(path, comparison.class_names, palette, max_pixels=MAX_PIXELS)
        comparison = comparison.with_truth(truth.labels)
    except ValueError as error:  # ImageError and TruthError are
        raise refusal(str(error)) from error
    for note in truth.notes:
        gr.Info(note)
    return comparison, truth
