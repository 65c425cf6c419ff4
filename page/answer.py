"""The section with both answers: menus, viewer, agreement and legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from page import networks, viewer
from page.components import PRIVATE, QUIET, html, render
from page.errors import refusal
from page.formatting import classes, parameters
from page.networks import Sides
from page.session import MIN_AREA, Answer, Picture, State, known, new_file, requires_session, scored
from unet.bundle import read_card
from unet.compare import Comparison, compare
from unet.images import sample, save_png
from unet.model import ARCHITECTURES, UNet, UNetConfig, count_parameters
from unet.objects import Counted
from unet.predict import Segmenter

PAPER_WIDTH = ARCHITECTURES["crop-concat"].widths[0]  # channels at full resolution
SHARES = {1: "the paper’s width", 2: "half the paper’s width", 4: "a quarter of the paper’s width"}


class Section(NamedTuple):
    menus: list[gr.Dropdown]
    viewer: gr.HTML
    shown: list[gr.HTML]  # what `show` fills


def build(state: State, task: str) -> Section:
    """Draw the section; ``task`` is shown first."""
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
    return Section(menus, drawn, [headings, drawn, *below])


# ---- which networks --------------------------------------------------------------------------------------------------


def take_side(task: str, sides: Sides | None, name: str | None, *, side: int) -> tuple[Sides, str, str]:
    """Show another network on a side -> (both networks, values of both menus)."""
    sides = known(sides)
    chosen = networks.choose(task, name)
    if chosen.location == sides[1 - side].location:
        gr.Info(f"{chosen.name} was on the other side: the two change places.")
        sides = sides[::-1]
    else:
        sides = (chosen, sides[1]) if side == 0 else (sides[0], chosen)
    return sides, *restore_menus(sides)


def restore_menus(sides: Sides | None) -> tuple[Any, Any]:
    """What the two menus show, after a choice that was refused too."""
    return (gr.skip(), gr.skip()) if sides is None else (sides[0].name, sides[1].name)


def menus_of(task: str, sides: Sides) -> list[gr.Dropdown]:
    """Both menus with the task's networks."""
    return [gr.Dropdown(choices=list(networks.tasks()[task]), value=side.name) for side in sides]


def show_card(sides: Sides | None, event: gr.EventData) -> str:
    """The card of a network on this machine, as Markdown."""
    side = known(sides)[_side(event)]
    if side.card:
        raise refusal(f"The card of {side.name} is on the Hub.")
    return read_card(side.location)


def _side(event: gr.EventData) -> int:
    """0 or 1, of an event that comes from a browser."""
    return int(getattr(event, "side", 0) == 1)


# ---- what they answer ------------------------------------------------------------------------------------------------


@requires_session
def ask(picture: Picture, sides: Sides | None, quantized: bool, colors: int, space: str) -> Answer:
    """Ask both networks about the picture, or about what ``colors`` colours leave of it."""
    sides, asked = known(sides), colors if quantized else None
    image, view = (picture.in_colors(pixels, asked, space) for pixels in (picture.pixels(), picture.view))
    first, second = found = networks.segmentations(sides, image)
    for note in networks.notes(sides, found):
        gr.Warning(note)
    comparison, truth = scored(compare(first, second), first.palette, picture.truth)
    return Answer(
        sides=sides,
        picture=picture,
        view=view,
        comparison=comparison,
        truth=truth,
        confidences=(sample(first.confidence, view.shape[:2]), sample(second.confidence, view.shape[:2])),
        palette=first.palette,
        colors=asked,
        space=space,
    )


@requires_session
def show(answer: Answer) -> tuple[Any, ...]:
    """What the section shows of an answer -> (headings, viewer, agreement, legend)."""
    segmenters = [networks.segmenter(side.location) for side in answer.sides]
    headings = [
        {
            "name": side.name,
            "card": side.card,  # without an address, a button opens the one on this machine
            "facts": facts_about(segmenter, answer.size),
            "tagline": tagline(segmenter.net.config),
            "size": parameter_facts(segmenter.net),
        }
        for side, segmenter in zip(answer.sides, segmenters, strict=True)
    ]
    return (
        render("headings", sides=headings),
        viewer.answered(answer),
        show_agreement(answer),
        legend(answer.names, answer.comparison, answer.palette),
    )


@requires_session
def save_labels(answer: Answer, event: gr.EventData) -> str:
    """Write a side's label map at full size for download -> path."""
    side = _side(event)
    name = answer.names[side].replace("/", "-")  # as a bundle on the Hub has it
    path = new_file(f"{name}-labels.png")
    save_png(answer.comparison.label_maps[side], path, palette=answer.palette)
    return str(path)


# ---- words -----------------------------------------------------------------------------------------------------------


def tagline(config: UNetConfig) -> str:
    """How a network joins its skips: "skips are added · convolutions padded"."""
    joined = {"add": "added", "concat": "concatenated"}[config.skip]
    if config.padded:
        return f"skips are {joined} · convolutions padded"
    return f"skips are cropped and {joined} · convolutions unpadded"


def facts_about(segmenter: Segmenter, size: tuple[int, int]) -> list[str]:
    """How a network sees a picture of ``size`` (h, w), in words."""
    h, w = segmenter.layout(size).working_size
    seen = f"seen at {w} × {h}" + ("" if (h, w) == size else f" of {size[1]} × {size[0]}")
    miou = segmenter.bundle.scores.get("val", {}).get("miou")
    return [seen, *([] if miou is None else [f"val mIoU {miou:.2f}"])]


def parameter_facts(net: UNet) -> list[str]:
    """How large a network is; of the paper's, how wide beside it."""
    count, config = parameters(count_parameters(net)), net.config
    if config.padded or config.skip != "concat" or len(config.widths) != 5:
        return [f"{count} parameters"]
    share = PAPER_WIDTH / config.widths[0]
    return [f"{count} parameters", SHARES.get(share, f"{config.widths[0]} channels instead of {PAPER_WIDTH}")]


def show_agreement(answer: Answer) -> str:
    """How much both agree, whether they are unsure, and how many objects they see."""
    bundles = [networks.segmenter(side.location).bundle for side in answer.sides]
    unsure = all(
        confidence.mean() < bundle.scores.get("calibration", {}).get("usual_confidence", 0)
        for bundle, confidence in zip(bundles, answer.confidences, strict=True)
    )
    task, comparison = bundles[0].task, answer.comparison
    shown = render("agreement", agreement=comparison.agreement, colors=answer.colors, unsure=unsure, task=task)
    return shown + objects_line(answer.names, answer.objects, comparison.class_names[-1], task)


def objects_line(names: Sequence[str], objects: Sequence[Counted] | None, object_name: str, task: str) -> str:
    """Number and median area of objects, for each network, if they are counted."""
    many = task if task[:3] == object_name[:3] else f"{object_name}s"  # a task may be called by its objects: "nuclei"
    values = {"names": names, "objects": objects, "object_name": object_name, "many": many}
    return render("objects", min_area=MIN_AREA, **values) if objects else ""


def legend(names: Sequence[str], comparison: Comparison, palette: np.ndarray) -> str:
    """A button for each class, with its share."""
    named = zip(classes(comparison.class_names, palette), comparison.shares.T, strict=True)
    return render("legend", names=names, classes=[each | {"shares": shares} for each, shares in named])
