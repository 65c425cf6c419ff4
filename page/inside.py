"""The section *Inside the networks*."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import spaces

from page import diagram, networks
from page.cleanup import HOUR
from page.components import NEWEST, ON_NETWORKS, PRIVATE, QUIET, html, render
from page.errors import raise_if_disconnected
from page.features import ablations, skip_features
from page.features import joins as draw_joins
from page.session import Answer, State, requires_session
from page.views import disagreement_view
from unet.images import sample
from unet.overlay import overlay, unpainted_classes
from unet.predict import Segmenter
from unet.tiling import TILE

HERE = Path(__file__).parent
SKIPS_FILE = HERE.parent / "benchmarks" / "skips.json"
SIDES = ("a", "b")
RUNS = 5  # of each network, for their speeds
VIEWS = ("Without", "Changes", "With all")
TILES = (TILE, TILE // 2, TILE // 4)
TEXT = dict(part.split("\n\n", 1) for part in (HERE / "inside.md").read_text(encoding="utf-8").split("# ")[1:])
HINT = '<p class="quiet">Click a skip in the drawing to leave it out.</p>'

Cuts = tuple[list[int], list[int]]  # the levels whose skips are left out of each network


def _segmenter(answer: Answer, side: int) -> Segmenter:
    return networks.segmenter(answer.sides[side].location)


def _skips(answer: Answer, side: int) -> range:
    """The levels of a network that have a skip."""
    return range(len(_segmenter(answer, side).net.config.widths) - 1)


# ---- what runs a network ---------------------------------------------------------------------------------------------


def _segment(location: str, image: np.ndarray, each: Sequence[Sequence[int]], device: str | None = None) -> list:
    """Label maps uint8 (H, W) without sets of skips."""
    network = networks.segmenter(location, device)
    return [network(image, without_skips=levels, progress=_stay).label_map for levels in each]


def _stay(*progress: int) -> None:
    raise_if_disconnected()


def _joins(location: str, image: np.ndarray, level: int, side: int, device: str | None = None) -> str:
    """Draw the maps at a join, where they are computed."""
    network = networks.segmenter(location, device)
    return draw_joins(skip_features(network, image, level, network.layout(image.shape[:2], tile=side).middle))


def _time(locations: Sequence[str], image: np.ndarray, device: str | None = None) -> list[list[float]]:
    """Seconds of each network, RUNS times in turn."""
    segmenters = [networks.segmenter(location, device) for location in locations]
    for segmenter in segmenters:
        segmenter.warm_up()
    return [[segmenter(image, progress=_stay).seconds for segmenter in segmenters] for _ in range(RUNS)]


segment = functools.partial(networks.run, spaces.GPU(_segment), _segment)
joins = functools.partial(networks.run, spaces.GPU(_joins), _joins)
time_in_turn = functools.partial(networks.run, spaces.GPU(_time, duration=30), _time)


# ---- what is shown ---------------------------------------------------------------------------------------------------


@requires_session
def show_networks(answer: Answer, cuts: Cuts, level: int) -> tuple[Cuts, gr.Radio]:
    """Prepare an opened section -> (skips left out, levels)."""
    kept = tuple([level for level in chosen if level in _skips(answer, i)] for i, chosen in enumerate(cuts))
    depth = max(1, *(len(_skips(answer, i)) for i in (0, 1)))
    levels = [("0, full resolution", 0), *((str(i), i) for i in range(1, depth))]
    return kept, gr.Radio(levels, value=min(level, depth - 1))


@requires_session
def toggle_skip(answer: Answer, cuts: Cuts, event: gr.EventData) -> Cuts:
    """Leave out a clicked skip, or put it back."""
    side, level = (getattr(event, name, None) for name in ("side", "level"))
    if side not in (0, 1) or level not in list(_skips(answer, side)):  # a click in a drawing of before
        return cuts
    return tuple(sorted(set(chosen) ^ {level}) if i == side else chosen for i, chosen in enumerate(cuts))


@requires_session
def show_drawing(answer: Answer, cuts: Cuts, *, side: int) -> str:
    """Draw one side's network, without the skips left out."""
    segmenter, name = _segmenter(answer, side), answer.names[side]
    size = segmenter.layout(answer.size).middle.input_size
    return _side(side, diagram.network(segmenter.net.config, size, name=name, without_skips=cuts[side]))


@requires_session
def show_without(answer: Answer, view: str, cuts: Cuts, *, side: int) -> tuple[Any, ...]:
    """Answer without a side's skips -> (labels, picture, costs)."""
    levels, label_map = cuts[side], answer.comparison.label_maps[side]
    if levels:
        (label_map,) = segment(answer.sides[side].location, answer.image(), [levels])
    altered = sample(label_map, answer.view.shape[:2])
    costs = _costs(answer, side, [(levels, label_map)]) if levels else HINT
    return altered, show_altered(answer, altered, view, side=side), _side(side, costs)


@requires_session
def show_each(answer: Answer, *, side: int) -> str:
    """Leave out every skip in turn -> their costs."""
    levels = list(_skips(answer, side))
    each = [[level] for level in levels] + ([levels] if len(levels) > 1 else [])
    label_maps = segment(answer.sides[side].location, answer.image(), each)
    return _side(side, _costs(answer, side, list(zip(each, label_maps, strict=True))))


@requires_session
def show_altered(answer: Answer, altered: np.ndarray, view: str, *, side: int) -> np.ndarray:
    """Draw a side's answer without its skips."""
    unpainted = unpainted_classes(answer.comparison.class_names)
    full = sample(answer.comparison.label_maps[side], answer.view.shape[:2])
    if view == "Changes":
        return disagreement_view(answer.view, altered, full, answer.palette, unpainted=unpainted)
    return overlay(answer.view, full if view == "With all" else altered, answer.palette, unpainted=unpainted)


@requires_session
def show_joins(answer: Answer, level: int) -> tuple[str, ...]:
    """Show what meets at a level, left and right."""
    shown = []
    for side, chosen in enumerate(answer.sides):
        deepest = len(_skips(answer, side))
        if level < deepest:
            maps = joins(chosen.location, answer.image(), level, TILE)
        else:
            place = "its bottleneck" if level == deepest else "deeper than it goes"
            maps = f'<p class="quiet">No skip here: level {level} is {place}.</p>'
        shown.append(_side(side, maps, chosen.name))
    return tuple(shown)


@requires_session
def show_tiles(answer: Answer, tile: int) -> tuple[str, ...]:
    """Show how each network's picture is cut."""
    shown, image = [], answer.image()
    for side in (0, 1):
        segmenter = _segmenter(answer, side)
        layout = segmenter.layout(image.shape[:2], tile=tile)
        drawing = diagram.tiling(layout, layout.middle, segmenter.working_picture(image))
        facts = diagram.tiling_facts(layout, layout.middle, segmenter.net.config)
        shown.append(_side(side, f"{drawing}<p>{facts}</p>", answer.names[side]))
    return tuple(shown)


@requires_session
def show_speed(answer: Answer) -> str:
    """Compare the time that both networks take."""
    seconds = time_in_turn([side.location for side in answer.sides], answer.image())
    ratios = [second / first for first, second in seconds]
    return render("speed", names=answer.names, ratios=ratios, median=np.median(ratios))


def _costs(answer: Answer, side: int, each: Sequence[tuple[Sequence[int], np.ndarray]]) -> str:
    full, classes = answer.comparison.label_maps[side], len(answer.comparison.class_names)
    truth = answer.truth.labels if answer.truth else None
    return ablations(each, full, truth, classes, len(_skips(answer, side)))


def _side(side: int, content: str, name: str = "") -> str:
    return render("side", side=SIDES[side], content=content, name=name)


# ---- the section -----------------------------------------------------------------------------------------------------


def build(state: State) -> Callable[[Any], None]:
    """Draw the section -> what makes it follow events."""
    with gr.Accordion("Inside the networks", open=False, elem_id="inside") as section:
        with gr.Tab("The skips"):
            gr.Markdown(TEXT["network"], elem_classes="explains")
            with gr.Row(elem_classes="both"):
                drawings = [html(f"drawing-{side}", script="drawing.js") for side in SIDES]
            with gr.Row(elem_id="without-controls"):
                view = gr.Radio(VIEWS, value=VIEWS[0], label="View", elem_id="without-view")
                each = gr.Button("Leave out each skip in turn", size="sm", elem_id="each-skip", scale=0, min_width=240)
            with gr.Row():
                pictures, costs = zip(*map(_answer_without, SIDES), strict=True)
            gr.Markdown(TEXT["what-if"], elem_classes="explains")
        with gr.Tab("Feature maps"):
            gr.Markdown(TEXT["carries"], elem_classes="explains")
            level = gr.Radio([("0, full resolution", 0)], value=0, label="Level", elem_id="level")
            with gr.Row(elem_classes="both"):
                carried = [html(f"carried-{side}") for side in SIDES]
        with gr.Tab("Tiles"):
            gr.Markdown(TEXT["tiles"], elem_classes="explains")
            tile = gr.Radio(TILES, value=TILE, label="Largest side of a tile, in pixels", elem_id="tile")
            with gr.Row(elem_classes="both"):
                tiles = [html(f"tiles-{side}") for side in SIDES]
            compare_speed = gr.Button("Compare their speed", size="sm", elem_id="compare-speed", scale=0, min_width=240)
            speed = html("speed")
        if SKIPS_FILE.exists():
            with gr.Tab("Add versus concat"):
                gr.Markdown(TEXT["table"], elem_classes="explains")
                html("skips-table", render("skips_table", rows=json.loads(SKIPS_FILE.read_text(encoding="utf-8"))))

    altered, cuts = [gr.State(time_to_live=HOUR) for _ in SIDES], gr.State(([], []))
    quiet, heavy = QUIET | NEWEST, ON_NETWORKS | NEWEST

    def draw(event: Callable[..., Any], i: int) -> None:
        event(functools.partial(show_drawing, side=i), [state.answer, cuts], drawings[i], **quiet)

    def without(event: Callable[..., Any], i: int) -> Any:
        show, outputs = functools.partial(show_without, side=i), [altered[i], pictures[i], costs[i]]
        return event(show, [state.answer, view, cuts], outputs, show_progress_on=[pictures[i]], **heavy)

    for event in (section.expand, drawings[0].look):
        step = event(show_networks, [state.answer, cuts, level], [cuts, level], **quiet)
        step.success(show_tiles, [state.answer, tile], tiles, **quiet)
        step.success(lambda: "", None, speed, **quiet)
        for i in (0, 1):  # at once: they do not wait for networks that others keep busy
            draw(step.success, i)
        step = without(without(step.success, 0).success, 1)
        step.success(show_joins, [state.answer, level], carried, **heavy)
    for i in (0, 1):
        one_by_one = {"trigger_mode": "multiple", "concurrency_limit": 1}
        clicked = drawings[i].skip(toggle_skip, [state.answer, cuts], cuts, **one_by_one, **QUIET)
        draw(clicked.success, i)
        without(clicked.success, i)
        change = functools.partial(show_altered, side=i)
        view.input(change, [state.answer, altered[i], view], pictures[i], **quiet)
        each.click(functools.partial(show_each, side=i), state.answer, costs[i], **heavy)
    level.input(show_joins, [state.answer, level], carried, **heavy)
    tile.input(show_tiles, [state.answer, tile], tiles, **quiet)
    compare_speed.click(show_speed, state.answer, speed, **heavy)
    return lambda event: event(None, js="() => window.unetInside?.()", **PRIVATE)


def _answer_without(side: str) -> tuple[gr.Image, gr.HTML]:
    with gr.Column(min_width=300, elem_classes=f"side-{side}"):
        picture = gr.Image(
            show_label=False,
            label="Its answer",
            format="png",
            height=340,
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=f"without-{side}",
        )
        return picture, html(f"costs-{side}")
