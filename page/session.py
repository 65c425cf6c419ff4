"""What a session looks at: picture, networks, answers."""

from __future__ import annotations

import functools
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from gradio import FileData
from PIL import Image

from page import decoding
from page.errors import refusal
from page.networks import Sides
from unet.compare import Comparison
from unet.ground_truth import Truth, read_truth
from unet.images import shrink
from unet.objects import Counted, count_objects
from unet.palette import LiveView, PaletteLadder

ROOT = Path(__file__).parents[1]

MIN_AREA = 20  # pixels of an object that is counted: smaller ones are specks
MAX_PIXELS = 40_000_000  # on the page; the library has no limit
VIEW_PIXELS = 1_000_000  # what a screen shows of a picture, and what the slider repaints
MIN_COLORS, DEFAULT_COLORS = 2, 8  # of the slider
COLOR_SPACES = {"RGB": "rgb", "OKLab": "oklab"}


class State(NamedTuple):
    """What Gradio keeps of a session."""

    picture: gr.State
    answer: gr.State
    sides: gr.State


@functools.cache
def examples(task: str) -> tuple[tuple[Path, Path | None], ...]:
    """Example pictures, each with its truth or None."""
    folders = (ROOT / "weights" / task / "examples", ROOT / "weights" / "examples")
    pictures = [path for folder in folders for path in sorted(folder.glob("*.jpg"))]
    return tuple((path, truth if (truth := path.with_suffix(".png")).exists() else None) for path in pictures)


@dataclass
class Picture:
    """The picture on the page."""

    source: Path
    view: np.ndarray  # uint8 (h, w, 3), what is shown of it; the picture itself where that is small
    decoded: Path | None = None  # file of its pixels, None where it is small
    truth: Path | None = None  # file of its ground truth
    ladders: dict[str, PaletteLadder] = field(default_factory=dict, repr=False)
    sent: Path | None = field(default=None, init=False, repr=False)  # file of the view

    @functools.cached_property
    def key(self) -> int:
        """Tells the viewer whether two values show one picture."""
        return zlib.crc32(self.view)

    def view_file(self) -> dict[str, Any]:
        """The view as a PNG, for the browser."""
        if self.sent is None or not self.sent.exists():
            # Of photographs, run lengths make smaller files in less time than deflate's quickest level.
            self.sent = new_file("picture.png")
            Image.fromarray(self.view).save(self.sent, compress_type=zlib.Z_RLE)
        return hand_over(self.sent)

    @functools.cached_property
    def live(self) -> LiveView:
        """What the slider repaints."""
        return LiveView(self.view)

    def pixels(self) -> np.ndarray:
        """The picture at full size, uint8 (H, W, 3)."""
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

    def in_colors(self, image: np.ndarray, colors: int | None, space: str) -> np.ndarray:
        """An image in ``colors`` colours; None leaves all."""
        if colors is None:
            return image
        palette = self.ladder(space)[colors]
        return palette.decode(palette.encode(image))


@dataclass(frozen=True)
class Answer:
    """Both networks' answers, with what shows them."""

    sides: Sides
    picture: Picture  # what was asked about, whatever is on the page since
    shown: Picture  # with its view as the networks saw it
    comparison: Comparison
    truth: Truth | None  # what the comparison is scored against
    confidences: tuple[np.ndarray, np.ndarray]  # float32 (h, w), sampled at the view's size
    palette: np.ndarray
    colors: int | None  # in how many colours of `space` they saw it, None for all
    space: str

    def image(self) -> np.ndarray:
        """uint8 (H, W, 3), as the networks saw it."""
        return self.picture.in_colors(self.picture.pixels(), self.colors, self.space)

    @property
    def view(self) -> np.ndarray:
        """uint8 (h, w, 3), what the networks saw."""
        return self.shown.view

    @functools.cached_property
    def objects(self) -> tuple[Counted, Counted] | None:
        """Each network's objects; None for several classes."""
        names = self.comparison.class_names
        first, second = (count_objects(each, names, min_area=MIN_AREA) for each in self.comparison.label_maps)
        return None if first is None or second is None else (first, second)

    @property
    def names(self) -> tuple[str, str]:
        """What the two networks are called."""
        return self.sides[0].name, self.sides[1].name

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        return self.comparison.label_maps[0].shape


def requires_session(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse where a handler's picture or answer has expired."""

    @functools.wraps(handler)
    def checked(shown: Picture | Answer | None, *inputs: Any, **options: Any) -> Any:
        if shown is None:
            raise refusal("The picture is no longer kept here: drop it again, or click an example.")
        return handler(shown, *inputs, **options)

    return checked


def known(sides: Sides | None) -> Sides:
    """The session's networks; refuses an expired session."""
    if sides is None:
        raise refusal("This page was left alone for too long, and what it showed is no longer kept: load it again.")
    return sides


def read_picture(source: str | Path | None, notify: Callable[[str], Any] = gr.Info) -> np.ndarray:
    """Read a picture of at most MAX_PIXELS."""
    if source is None:  # a program's question without one
        raise refusal("There is no picture: give one.")
    return decoding.read_image(source, max_pixels=MAX_PIXELS, notify=notify)


def open_picture(source: str | Path, truth: Path | None = None) -> Picture:
    """Read a picture for the page. Raises as `read_picture`."""
    image = read_picture(source)
    view = shrink(image, VIEW_PIXELS)
    if view is image:
        return Picture(Path(source), view, truth=truth)
    # cleanup.delete_files knows its name.
    with tempfile.NamedTemporaryFile(suffix=".npy", dir=gr.utils.get_upload_folder(), delete=False) as file:
        np.save(file, image)
    return Picture(Path(source), view, Path(file.name), truth)


def scored(comparison: Comparison, palette: np.ndarray, path: Path | None) -> tuple[Comparison, Truth | None]:
    """Score a comparison against a file, if any. Raises gr.Error."""
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


def new_file(name: str) -> Path:
    """A path in a fresh folder of Gradio's cache."""
    cache = Path(gr.utils.get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=cache)) / name


def hand_over(path: Path) -> dict[str, Any]:
    """A cached file as Gradio sends it."""
    return FileData(path=str(path)).model_dump()
