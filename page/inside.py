"""The page's section "Inside the networks": their drawings, what their skips carry, and what they lose without them.

A page of its own in all but the address: it asks app.py for nothing but the picture and the two networks' answers, and
computes nothing before it is opened.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import spaces

from page import diagram, networks, visitors
from page.boxes import html
from page.features import loss, skip_features
from page.overlay import disagreement_view
from page.visitors import HOUR
from unet.overlay import overlay, unpainted_classes
from unet.predict import TILE, Segmenter
from unet.resize import sample

ROOT = Path(__file__).parents[1]
SKIPS_FILE = ROOT / "benchmarks" / "skips.json"
SIDES = ("a", "b")
VIEWS = ("Without", "Changes", "With all")
TILES = (TILE, TILE // 2, TILE // 4)


@dataclass(frozen=True)
class Subject:
    """What the section looks into.

    read: gives the picture that both networks answered. view: uint8 (h, w, 3), what is shown of it. sides: the two
    networks. label_maps: two uint8 (H, W), their answers. truth: uint8 (H, W), None where there is none.
    """

    read: Callable[[], np.ndarray]
    view: np.ndarray
    sides: networks.Sides
    label_maps: tuple[np.ndarray, np.ndarray]
    truth: np.ndarray | None

    @functools.cached_property
    def image(self) -> np.ndarray:
        """uint8 (H, W, 3), read when somebody asks: most of what is shown does without, and it may be large."""
        return self.read()

    def network(self, side: int) -> Segmenter:
        return networks.segmenter(self.sides[side].location)


@dataclass(frozen=True)
class Altered:
    """One network's answer without some of its skips, as large as it is shown: label maps uint8 (h, w)."""

    label_map: np.ndarray
    unaltered: np.ndarray


# ---- what runs a network ---------------------------------------------------------------------------------------------


def _segment(location: str, image: np.ndarray, each: Sequence[Sequence[int]], device: str | None = None) -> list:
    """Label maps uint8 (H, W), one without each of these sets of skips."""
    network = networks.segmenter(location, device)
    return [network(image, without_skips=levels, progress=_stay).label_map for levels in each]


def _stay(done: int, total: int) -> None:
    visitors.leave_if_gone()


def _joins(location: str, image: np.ndarray, level: int, side: int, device: str | None = None) -> str:
    """The maps at one join, drawn where they are: they may be hundreds of megabytes."""
    network = networks.segmenter(location, device)
    tile = network.layout(image.shape[:2], tile=side).middle
    return diagram.joins(skip_features(network, image, level, tile))


segment = functools.partial(networks.run, spaces.GPU(_segment), _segment)
joins = functools.partial(networks.run, spaces.GPU(_joins), _joins)


# ---- what is shown ---------------------------------------------------------------------------------------------------


def show_networks(subject: Subject, first: list[int], second: list[int], level: int) -> tuple[Any, ...]:
    """The section was opened, or there is another answer -> (two choices of skips, the choice of level).

    What was chosen before stays chosen where it still can be.
    """
    skips = [range(len(subject.network(side).net.config.widths) - 1) for side in (0, 1)]
    choices = [
        gr.CheckboxGroup(
            [(f"level {level}", level) for level in levels],
            value=[level for level in chosen if level in levels],
            label=f"{subject.sides[side].name}: leave out the skip of",
        )
        for side, levels, chosen in zip((0, 1), skips, (first, second), strict=True)
    ]
    depth = max(1, *map(len, skips))
    levels = [("0, full resolution", 0), *((str(i), i) for i in range(1, depth))]
    return *choices, gr.Radio(levels, value=min(level, depth - 1))


def show_drawing(subject: Subject, levels: list[int], *, side: int) -> str:
    """One side's drawing, without the skips that are left out; no network runs."""
    network = subject.network(side)
    size = network.layout(subject.label_maps[side].shape).middle.input_size
    return _side(side, diagram.network(network.net.config, size, name=subject.sides[side].name, without_skips=levels))


def show_without(subject: Subject, view: str, levels: list[int], *, side: int) -> tuple[Any, ...]:
    """Skips were left out on one side -> (answer, its picture, what it lost)."""
    network, full = subject.network(side), subject.label_maps[side]
    (label_map,) = segment(subject.sides[side].location, subject.image, [levels]) if levels else [full]
    shown = subject.view.shape[:2]
    altered = Altered(sample(label_map, shown), sample(full, shown))
    facts = _facts(subject, network, side, [(levels, label_map)]) if levels else HINT
    return altered, show_altered(subject, altered, view, side=side), _side(side, facts)


def show_each(subject: Subject, *, side: int) -> str:
    """Every skip left out in turn, then all -> the table of what that costs."""
    network = subject.network(side)
    levels = range(len(network.net.config.widths) - 1)
    each = [[level] for level in levels] + ([list(levels)] if len(levels) > 1 else [])
    found = segment(subject.sides[side].location, subject.image, each)
    return _side(side, _facts(subject, network, side, list(zip(each, found, strict=True))))


def show_altered(subject: Subject, altered: Altered, view: str, *, side: int) -> np.ndarray:
    """One side's answer without the skips, looked at in one way; no network runs."""
    bundle = subject.network(side).bundle
    unpainted = unpainted_classes(bundle.class_names)
    if view == "Changes":
        return disagreement_view(
            subject.view, altered.label_map, altered.unaltered, bundle.palette, unpainted=unpainted
        )
    label_map = altered.unaltered if view == "With all" else altered.label_map
    return overlay(subject.view, label_map, bundle.palette, unpainted=unpainted)


def show_joins(subject: Subject, level: int) -> tuple[str, ...]:
    """A level was chosen -> what meets there, left and right."""
    shown = []
    for side, chosen in enumerate(subject.sides):
        deepest = len(subject.network(side).net.config.widths) - 1
        if level < deepest:
            html = joins(chosen.location, subject.image, level, TILE)
        else:
            place = "its bottleneck" if level == deepest else "deeper than it goes"
            html = f'<p class="quiet">No skip here: level {level} is {place}.</p>'
        shown.append(_side(side, f"<h4><i></i>{escape(chosen.name)}</h4>{html}"))
    return tuple(shown)


def show_tiles(subject: Subject, tile: int) -> tuple[str, ...]:
    """A tile size was chosen -> how each network's picture is cut."""
    shown = []
    for side in (0, 1):
        network = subject.network(side)
        layout = network.layout(subject.label_maps[side].shape, tile=tile)
        drawing = diagram.tiling(layout, layout.middle, network.working_picture(subject.image))
        facts = diagram.tiling_facts(layout, layout.middle, network.net.config)
        name = escape(subject.sides[side].name)
        shown.append(_side(side, f"<h4><i></i>{name}</h4>{drawing}<p>{facts}</p>"))
    return tuple(shown)


HINT = '<p class="quiet">Tick a level, or try each in turn.</p>'


def _facts(subject: Subject, network: Segmenter, side: int, each: Sequence[tuple[Sequence[int], np.ndarray]]) -> str:
    full, classes = subject.label_maps[side], network.bundle.class_names
    found = [loss(levels, label_map, full, len(classes), subject.truth) for levels, label_map in each]
    return diagram.losses(found, len(network.net.config.widths) - 1)


def _side(side: int, html: str) -> str:
    return f'<div class="side-{SIDES[side]}">{html}</div>'


# ---- the section -----------------------------------------------------------------------------------------------------


def build(look: Callable[[Any], Subject], answer: gr.State) -> Callable[[Any], None]:
    """Draw the section where it is called, inside gr.Blocks.

    look: makes a Subject of the session's ``answer``. Returns what is to be called with an event after which there is
    another answer to look into: an open section then follows.
    """
    text = _text()
    with gr.Accordion("Inside the networks", open=False, elem_id="inside") as section:
        with gr.Tab("The skips"):
            gr.Markdown(text["network"], elem_classes="explains")
            with gr.Row(elem_classes="both"):
                drawings = [html(f"drawing-{side}") for side in SIDES]
            gr.Markdown(text["what-if"], elem_classes="explains")
            with gr.Row(elem_id="without-controls"):
                view = gr.Radio(VIEWS, value=VIEWS[0], label="View", elem_id="without-view")
                each = gr.Button("Leave out each skip in turn", size="sm", elem_id="each-skip", scale=0, min_width=240)
            cuts, pictures, costs = [], [], []
            with gr.Row():
                for side in SIDES:
                    with gr.Column(min_width=300, elem_classes=f"side-{side}"):
                        cuts.append(gr.CheckboxGroup([], label="Leave out the skip of", elem_id=f"cuts-{side}"))
                        pictures.append(
                            gr.Image(
                                show_label=False, label="Its answer", format="png", height=340, interactive=False,
                                buttons=["download", "fullscreen"], elem_id=f"without-{side}",
                            )
                        )  # fmt: skip
                        costs.append(html(f"costs-{side}"))
        with gr.Tab("Feature maps"):
            gr.Markdown(text["carries"], elem_classes="explains")
            level = gr.Radio([("0, full resolution", 0)], value=0, label="Level", elem_id="level")
            with gr.Row(elem_classes="both"):
                carried = [html(f"carried-{side}") for side in SIDES]
        with gr.Tab("Tiles"):
            gr.Markdown(text["tiles"], elem_classes="explains")
            tile = gr.Radio(TILES, value=TILE, label="Largest side of a tile, in pixels", elem_id="tile")
            with gr.Row(elem_classes="both"):
                cut = [html(f"tiles-{side}") for side in SIDES]
        if SKIPS_FILE.exists():
            with gr.Tab("Add versus concat"):
                gr.Markdown(text["table"], elem_classes="explains")
                measured = json.loads(SKIPS_FILE.read_text(encoding="utf-8"))
                gr.HTML(diagram.skips_table(measured), elem_id="skips-table", apply_default_css=False)
    opened = gr.Button("Look inside", visible="hidden", elem_id="look-inside")
    altered = [gr.State(time_to_live=HOUR) for _ in SIDES]

    def seen(show: Callable[..., Any]) -> Callable[..., Any]:
        """``show``, for the session's answer in place of a Subject."""
        return lambda answer, *values: show(look(answer), *values)

    private = {"api_visibility": "private"}
    quiet = private | {"show_progress": "hidden", "trigger_mode": "always_last"}
    heavy = {"concurrency_id": "networks", "concurrency_limit": 1, "trigger_mode": "always_last"} | private

    def draw(event: Callable[..., Any], i: int) -> None:
        event(seen(functools.partial(show_drawing, side=i)), [answer, cuts[i]], drawings[i], **quiet)

    def without(event: Callable[..., Any], i: int) -> Any:
        outputs = [altered[i], pictures[i], costs[i]]
        show = seen(functools.partial(show_without, side=i))
        return event(show, [answer, view, cuts[i]], outputs, show_progress_on=[pictures[i]], **heavy)

    for event in (section.expand, opened.click):
        step = event(seen(show_networks), [answer, *cuts, level], [*cuts, level], **quiet)
        step.success(seen(show_tiles), [answer, tile], cut, **quiet)
        for i in range(len(SIDES)):  # at once: they do not wait for networks that others keep busy
            draw(step.success, i)
        step = without(without(step.success, 0).success, 1)
        step.success(seen(show_joins), [answer, level], carried, **heavy)
    for i in range(len(SIDES)):
        draw(cuts[i].input, i)
        without(cuts[i].input, i)
        change = seen(functools.partial(show_altered, side=i))
        view.input(change, [answer, altered[i], view], pictures[i], **quiet)
        each.click(seen(functools.partial(show_each, side=i)), answer, costs[i], **heavy)
    level.input(seen(show_joins), [answer, level], carried, **heavy)
    tile.input(seen(show_tiles), [answer, tile], cut, **quiet)
    return lambda event: event(None, js="unetPage.lookInside", **private)


def _text() -> dict[str, str]:
    """The section's words by the name that heads them in assets/inside.md."""
    parts = (ROOT / "assets" / "inside.md").read_text(encoding="utf-8").split("# ")[1:]
    return {name: body.strip() for name, body in (part.split("\n", 1) for part in parts)}
