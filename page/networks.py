"""The page's networks: local ones, any on the Hub.

A bundle named by a visitor is a stranger's: it is fetched without anybody's token, its size is known before its
download begins, Bundle.load checks all of it, and only a few such networks stay loaded.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
import spaces
import torch

from page.errors import raise_if_disconnected
from unet.bundle import Bundle, BundleError, read_config
from unet.hub import WEIGHTS_VARIABLE, card_address, fetch_bundle, find_bundles, forget_bundles, visitors_cache
from unet.predict import Segmentation, Segmenter

WEIGHTS = os.environ.get(WEIGHTS_VARIABLE, str(Path(__file__).parents[1] / "weights"))

TASK_ORDER = ("streets", "nuclei", "hands")  # of the menu; other tasks follow
PREFERRED = ("residual-add", "crop-concat")  # what the two sides show at first, where a task has them

HUB_NETWORKS = 4  # of a visitor's choice that stay loaded
HUB_BYTES = 200_000_000  # the paper's network in float32 has 124 million
HUB_CACHE_BYTES = 2_000_000_000  # on the disk; more of the largest than are ever fetched at once
HUB_WORKING_PIXELS = 2_000_000  # more than this would keep the machine from everybody else
KNOWN_ANSWERS, KNOWN_PIXELS = 32, 1_200_000  # answers to pictures up to this size are remembered by content

Result = TypeVar("Result")
_one_forgets = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """A network as somebody chose it."""

    name: str  # what the page and its links call it
    location: str  # what Segmenter.load takes
    card: str | None = None  # address of its page on the Hub, None for a bundle on this machine


Sides = tuple[Network, Network]

# ---- which there are -------------------------------------------------------------------------------------------------


@functools.cache
def tasks() -> dict[str, dict[str, str]]:
    """Tasks with two bundles or more -> their locations.

    Raises HubError where nothing can be listed.
    """
    found: dict[str, dict[str, str]] = {task: {} for task in TASK_ORDER}
    for bundle in find_bundles(WEIGHTS):
        found.setdefault(bundle.task, {})[bundle.architecture] = bundle.location
    sound = {task: _sound(task, locations) for task, locations in found.items()}
    return {task: locations for task, locations in sound.items() if len(locations) > 1}


def _sound(task: str, locations: dict[str, str]) -> dict[str, str]:
    """The bundles that can be compared; others are logged."""
    # Those on the Hub are checked when they are fetched.
    classes: dict[str, tuple[str, ...]] = {}
    wrong: dict[str, str] = {}
    for name, location in locations.items():
        try:
            if Path(location).is_dir():
                classes[name] = Bundle.load(location).class_names
        except BundleError as error:
            wrong[name] = str(error)
    if classes:
        # The order decides where as many have others.
        usual, _ = Counter(classes[name] for name in sorted(classes, key=_rank)).most_common(1)[0]
        for name, own in classes.items():
            if own != usual:
                wrong[name] = f"its classes are {', '.join(own)[:200]}, and the task's are {', '.join(usual)[:200]}"
    for name, why in wrong.items():
        _log.warning("%s/%s is left out: %s", task, name, why)
    return {name: location for name, location in locations.items() if name not in wrong}


def default_names(task: str) -> tuple[str, str]:
    """What the two sides show at first."""
    first, second, *_ = sorted(_locations(task), key=_rank)
    return first, second


def _rank(name: str) -> int:
    return PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)


def choose(task: str, name: str | None) -> Network:
    """The network of this name, perhaps from the Hub.

    Raises BundleError for a name that is neither, and for a bundle that does not fit the task.
    """
    name = (name or "").strip()
    if name in (here := _locations(task)):
        location = here[name]
        return Network(name, location, None if Path(location).is_dir() else card_address(location))
    hub_name = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name, re.ASCII)
    if hub_name is None:
        raise BundleError(
            f"“{plain(name)}” is no network for {task}: choose {', '.join(here)}, or name a bundle on the Hub as "
            "user/name or user/name@revision."
        )
    repo_id, revision = hub_name.groups()
    folder = _fetch(repo_id, revision)
    try:
        _check_stranger(task, name, folder)
    except BundleError as error:  # where it lies on this machine is nobody's business
        raise BundleError(str(error).replace(str(folder), name)) from error
    return Network(name, str(folder), card_address(repo_id, revision))


def choose_sides(task: str, left: str | None = None, right: str | None = None) -> Sides:
    """Two networks by name, or the defaults. Raises as `choose`."""
    defaults = default_names(task)
    left = left or next(name for name in defaults if name != right)
    right = right or next(name for name in reversed(defaults) if name != left)
    first, second = choose(task, left), choose(task, right)
    if first.location == second.location:
        raise BundleError(f"Both networks are {first.name}: name two different ones to compare.")
    return first, second


def _locations(task: str) -> dict[str, str]:
    if task not in (names := list(tasks())):  # a list also takes what has no hash
        raise BundleError(f"There is no task “{plain(task)}”; there are: {', '.join(names)}.")
    return tasks()[task]


def _check_stranger(task: str, name: str, folder: Path) -> None:
    classes, expected = read_config(folder).get("class_names"), class_names(task)
    if classes != list(expected):
        raise BundleError(
            f"{name} does not know the classes of {task} ({', '.join(expected)}), so the two networks cannot be "
            "compared: choose a bundle that was trained for this task."
        )
    pixels = segmenter(str(folder)).bundle.preprocessing.working_pixels or 0
    if pixels > HUB_WORKING_PIXELS:
        raise BundleError(
            f"{name} looks at {pixels / 1e6:,.0f} million pixels of every picture, and this page allows "
            f"{HUB_WORKING_PIXELS // 10**6} million: run it on a machine of your own."
        )


def plain(value: object) -> str:
    """Make text harmless enough to show in a sentence."""
    return re.sub(r"[^\w .@/-]", "?", str(value)[:80])


def _fetch(repo_id: str, revision: str | None) -> Path:
    """Fetch a visitor's bundle, deleting the longest unused."""
    cache = visitors_cache()
    try:
        limits = {"anonymous": True, "max_bytes": HUB_BYTES, "cache": cache}
        folder = fetch_bundle(repo_id, revision=revision, notify=gr.Info, **limits)
        os.utime(folder)
        return folder
    finally:  # what turned out to be no bundle takes its place, too
        with _one_forgets:
            forget_bundles(cache, max_bytes=HUB_CACHE_BYTES)


def class_names(task: str) -> tuple[str, ...]:
    """The classes that every network of the task knows."""
    return segmenter(tasks()[task][default_names(task)[0]]).bundle.class_names


# ---- loaded ----------------------------------------------------------------------------------------------------------


_load_and_keep = functools.cache(Segmenter.load)
_load_for_a_while = functools.lru_cache(maxsize=HUB_NETWORKS)(Segmenter.load)


def segmenter(location: str, device: str | None = None) -> Segmenter:
    """The loaded network; strangers' stay for a while."""
    if any(location in locations.values() for locations in tasks().values()):
        return _load_and_keep(location, device=device)
    try:
        return _load_for_a_while(location, device=device)
    except BundleError:
        if Path(location).is_dir():
            raise
        raise BundleError("This network is no longer kept here: choose it again.") from None


# ---- run -------------------------------------------------------------------------------------------------------------


def run(on_gpu: Callable[..., Result], function: Callable[..., Result], *inputs: Any) -> Result:
    """Run on the GPU, or else on the CPU."""
    try:
        return on_gpu(*inputs)
    except torch.OutOfMemoryError:
        why = "The GPU has no memory left for this."
    except gr.Error as error:
        if not str(error.title).startswith("ZeroGPU quota"):
            raise
        why = "The free GPU time is used up for now."
    # Not in the clauses above: an exception holds the frames that it came through, and they hold tensors.
    gr.Info(f"{why} The networks run on the CPU instead: the same answer, later.")
    return function(*inputs, device="cpu")


def _show_progress(number: int, done: int, total: int) -> None:
    raise_if_disconnected()
    if total > 1:  # gr.Progress finds the request that it belongs to; without one it does nothing
        gr.Progress()((done, total), desc=f"Network {number}", unit="tiles")


#: Who is told of every tile: (number of the network, tiles done, tiles in all). A context does not cross into ZeroGPU's
#: process, where it is Gradio that is told, in vain.
on_tile: ContextVar[Callable[[int, int, int], None]] = ContextVar("on_tile", default=_show_progress)


def segment(locations: Iterable[str], image: np.ndarray, device: str | None = None) -> tuple[Segmentation, ...]:
    """Segment uint8 (H, W, 3) with each network."""
    answers = []
    for number, network in enumerate([segmenter(location, device) for location in locations], 1):
        network.warm_up()  # so that its seconds are those of a network that has run before
        answers.append(network(image, progress=functools.partial(on_tile.get(), number)))
    return tuple(answers)


def gpu_seconds(locations: Sequence[str], image: np.ndarray) -> int:
    """Seconds that ZeroGPU sets aside, far below its default."""
    return min(60, math.ceil(5 + 2 * image.shape[0] * image.shape[1] / 1e6))


run_on_gpu = spaces.GPU(segment, duration=gpu_seconds)


def run_networks(locations: tuple[str, ...], image: np.ndarray) -> tuple[Segmentation, ...]:
    """`segment` on the best device that is free."""
    return run(run_on_gpu, segment, locations, image)


_known: OrderedDict[tuple[Any, ...], Segmentation] = OrderedDict()  # the last used come last
_one_looks = threading.Lock()


def segmentations(sides: Sequence[Network], image: np.ndarray) -> tuple[Segmentation, ...]:
    """The networks' answers, remembered for small pictures."""
    locations = tuple(side.location for side in sides)
    if image.shape[0] * image.shape[1] > KNOWN_PIXELS:
        return run_networks(locations, image)
    content = hashlib.sha256(np.ascontiguousarray(image)).digest()
    keys = {location: (location, image.shape, content) for location in locations}
    with _one_looks:
        found = {location: _known[key] for location, key in keys.items() if key in _known}
    if missing := tuple(location for location in keys if location not in found):
        found.update(zip(missing, run_networks(missing, image), strict=True))
    with _one_looks:
        for location, key in keys.items():
            _known[key] = found[location]
            _known.move_to_end(key)
        while len(_known) > KNOWN_ANSWERS:
            _known.popitem(last=False)
    return tuple(found[location] for location in locations)


def notes(sides: Sequence[Network], found: Sequence[Segmentation]) -> list[str]:
    """What whoever asked is told, beside the answers."""
    return [f"{side.name}: {answered.note}" for side, answered in zip(sides, found, strict=True) if answered.note]
