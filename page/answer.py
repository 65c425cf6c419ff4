"""The section with both answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from page import networks, viewer
from page.components import PRIVATE, QUIET, classes, html, parameters, render
from page.errors import refusal
from page.networks import Network, Sides
from page.session import MIN_AREA, Answer, Picture, State, known, new_file, requires_session, scored
from unet.bundle import read_card
from unet.compare import Comparison, compare
from unet.images import sample, save_png
from unet.model import ARCHITECTURES, count_parameters
from unet.objects import Counted
from unet.predict import Segmenter

PAPER_WIDTH = ARCHITECTURES["crop-concat"].widths[0]  # channels at full resolution
SHARES = {1: "the paper’s width", 2: "half the paper’s width", 4: "a quarter of the paper’s width"}

Found = tuple[str, Network]  # a network, and the task that it was chosen for


def build(state: State, task: str) -> tuple[list[gr.Dropdown], gr.HTML, list[gr.HTML]]:
    """Draw the section -> (menus, viewer, what `show` fills)."""
    with gr.Row(elem_id="sides"):
        menus = [
            gr.Dropdown(
                list(networks.tasks()[task]),
                value=name,
                label=f"{side.capitalize()} network",
                allow_custom_value=True,
                min_width=120,
                elem_id=side,
            )
            for side, name in zip(("left", "right"), networks.default_names(task), strict=True)
        ]
    headings = html("headings", script="headings.js")
    drawn = viewer.build()
    below = [html("agreement"), html("legend")]
    file = gr.File(visible="hidden")
    with gr.Column(elem_id="card", elem_classes="dialog"):
        card = gr.Markdown()
    saved = drawn.save_labels(save_labels, state.answer, file, **QUIET)
    saved.success(None, file, js="unetPage.download", **PRIVATE)
    opened = headings.card(show_card, state.sides, card, **QUIET)
    opened.success(None, js="() => unetPage.open('card')", **PRIVATE)
    return menus, drawn, [headings, drawn, *below]


# ---- which networks --------------------------------------------------------------------------------------------------


def find(task: str, name: str | None) -> Found:
    """Find a network by its name, perhaps on the Hub."""
    return task, networks.choose(task, name)


def take_side(task: str, found: Found, sides: Sides | None, *, side: int) -> tuple[Any, ...]:
    """Show a network that was found on a side -> (sides, *menus)."""
    sides, (its_task, chosen) = known(sides), found
    if its_task != task:  # the task was changed while it was fetched
        return (gr.skip(),) * 3
    swapped = chosen.location == sides[1 - side].location
    if swapped:
        gr.Info(f"{chosen.name} was on the other side: the two change places.")
        sides = sides[::-1]
    else:
        sides = (chosen, sides[1]) if side == 0 else (sides[0], chosen)
    # Else the other menu is left alone: what it says may still be on its way.
    return sides, *(shown.name if swapped or i == side else gr.skip() for i, shown in enumerate(sides))


def restore_menu(sides: Sides | None, *, side: int) -> Any:
    """A menu's value after a refused choice."""
    return gr.skip() if sides is None else sides[side].name


def show_card(sides: Sides | None, event: gr.EventData) -> str:
    """A local network's card, as Markdown."""
    side = known(sides)[_side(event)]
    if side.card:
        raise refusal(f"The card of {side.name} is on the Hub.")
    return read_card(side.location)


def _side(event: gr.EventData) -> int:
    return int(getattr(event, "side", 0) == 1)


# ---- what they answer ------------------------------------------------------------------------------------------------


@requires_session
def ask(picture: Picture, sides: Sides | None, quantized: bool, colors: int, space: str) -> Answer:
    """Ask both networks about the picture, or its colours."""
    sides, asked = known(sides), colors if quantized else None
    shown = replace(picture, view=picture.in_colors(picture.view, asked, space)) if quantized else picture
    size = picture.view.shape[:2]
    first, second = found = networks.segmentations(sides, picture.in_colors(picture.pixels(), asked, space))
    for note in networks.notes(sides, found):
        gr.Warning(note)
    comparison, truth = scored(compare(first, second), first.palette, picture.truth)
    return Answer(
        sides=sides,
        picture=picture,
        shown=shown,
        comparison=comparison,
        truth=truth,
        confidences=(sample(first.confidence, size), sample(second.confidence, size)),
        palette=first.palette,
        colors=asked,
        space=space,
    )


@requires_session
def show(answer: Answer) -> tuple[Any, ...]:
    """Show an answer -> (headings, viewer, agreement, legend)."""
    headings = [heading(side, networks.segmenter(side.location), answer.size) for side in answer.sides]
    below = show_agreement(answer), legend(answer.names, answer.comparison, answer.palette)
    return render("headings", sides=headings), viewer.answered(answer), *below


@requires_session
def save_labels(answer: Answer, event: gr.EventData) -> str:
    """Write a side's label map at full size -> path."""
    side = _side(event)
    name = answer.names[side].replace("/", "-")  # as a bundle on the Hub has it
    path = new_file(f"{name}-labels.png")
    save_png(answer.comparison.label_maps[side], path, palette=answer.palette)
    return str(path)


# ---- words -----------------------------------------------------------------------------------------------------------


def heading(side: Network, segmenter: Segmenter, size: tuple[int, int]) -> dict[str, Any]:
    """What stands above an answer; size: (h, w)."""
    (h, w), config = segmenter.layout(size).working_size, segmenter.net.config
    facts = [f"seen at {w} × {h}" + ("" if (h, w) == size else f" of {size[1]} × {size[0]}")]
    if (miou := segmenter.bundle.scores.get("val", {}).get("miou")) is not None:
        facts.append(f"val mIoU {miou:.2f}")
    large = [f"{parameters(count_parameters(segmenter.net))} parameters"]
    if not config.padded and config.skip == "concat" and len(config.widths) == 5:  # the paper's network
        width = config.widths[0]
        large.append(SHARES.get(PAPER_WIDTH / width, f"{width} channels instead of {PAPER_WIDTH}"))
    cropped, padded = ("", "padded") if config.padded else ("cropped and ", "unpadded")
    joined = {"add": "added", "concat": "concatenated"}[config.skip]
    tagline = f"skips are {cropped}{joined} · convolutions {padded}"
    # Without a card's address, a button opens the one on this machine.
    return {"name": side.name, "card": side.card, "facts": facts, "tagline": tagline, "size": large}


def show_agreement(answer: Answer) -> str:
    """How much both agree, and how many objects they see."""
    bundles = [networks.segmenter(side.location).bundle for side in answer.sides]
    unsure = all(
        confidence.mean() < bundle.scores.get("calibration", {}).get("usual_confidence", 0)
        for bundle, confidence in zip(bundles, answer.confidences, strict=True)
    )
    task, comparison = bundles[0].task, answer.comparison
    shown = render("agreement", agreement=comparison.agreement, colors=answer.colors, unsure=unsure, task=task)
    return shown + objects_line(answer.names, answer.objects, comparison.class_names[-1], task)


def objects_line(names: Sequence[str], objects: Sequence[Counted] | None, object_name: str, task: str) -> str:
    """Number and median area of each network's objects."""
    many = task if task[:3] == object_name[:3] else f"{object_name}s"  # a task may be called by its objects: "nuclei"
    values = {"names": names, "objects": objects, "object_name": object_name, "many": many}
    return render("objects", min_area=MIN_AREA, **values) if objects else ""


def legend(names: Sequence[str], comparison: Comparison, palette: np.ndarray) -> str:
    """A button for each class, with its share."""
    named = zip(classes(comparison.class_names, palette), comparison.shares.T, strict=True)
    return render("legend", names=names, classes=[each | {"shares": shares} for each, shares in named])
