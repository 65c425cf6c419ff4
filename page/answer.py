"""The section with both answers: menus, viewer, agreement and legend."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from page import networks, viewer
from page.components import html
from page.errors import refusal
from page.formatting import parameters, percent
from page.networks import Sides
from page.session import (
    MIN_AREA,
    Answer,
    Picture,
    State,
    choose_side,
    known,
    new_file,
    notes,
    requires_session,
    scored,
    segmentations,
)
from unet.bundle import Bundle, BundleError, read_card
from unet.compare import Comparison, compare
from unet.images import hex_code, save_png
from unet.model import UNet, UNetConfig, count_parameters
from unet.objects import Counted
from unet.overlay import unpainted_classes
from unet.resize import sample

PAPER_WIDTH = 64  # channels of the paper's network at full resolution
SHARES = {1: "the paper’s width", 2: "half the paper’s width", 4: "a quarter of the paper’s width"}


class Section(NamedTuple):
    menus: list[gr.Dropdown]
    viewer: gr.HTML
    shown: list[gr.HTML]  # what `show` fills


def build(state: State, task: str) -> Section:
    """Draw the section where it is called, inside gr.Blocks.

    task: the first that is shown.
    """
    with gr.Row(elem_id="sides"):
        menus = [_side_menu(task, side) for side in (0, 1)]
    headings = html("headings", script="headings.js")
    drawn = viewer.build()
    below = [html("agreement"), html("legend")]
    file = gr.File(visible="hidden")
    with gr.Column(elem_id="card", elem_classes="dialog"):
        card = gr.Markdown()
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    saved = drawn.save_labels(save_labels, state.answer, file, **quiet)
    saved.success(None, file, js="unetPage.download", api_visibility="private")
    opened = headings.card(show_card, state.sides, card, **quiet)
    opened.success(None, js="() => unetPage.open('card')", api_visibility="private")
    return Section(menus, drawn, [headings, drawn, *below])


def _side_menu(task: str, side: int) -> gr.Dropdown:
    return gr.Dropdown(
        list(networks.tasks()[task]),
        value=networks.default_names(task)[side],
        label=("Left network", "Right network")[side],
        allow_custom_value=True,
        min_width=120,
        elem_id=("left", "right")[side],
    )


# ---- which networks --------------------------------------------------------------------------------------------------


def take_side(task: str, sides: Sides | None, name: str | None, *, side: int) -> tuple[Sides, str, str]:
    """Show another network on a side -> (both networks, values of both menus)."""
    sides = known(sides)
    chosen = choose_side(task, name or "")
    if chosen.location == sides[1 - side].location:
        gr.Info(f"{chosen.name} was on the other side: the two change places.")
        sides = sides[::-1]
    else:
        sides = (chosen, sides[1]) if side == 0 else (sides[0], chosen)
    return sides, *restore_menus(sides)


def restore_menus(sides: Sides | None) -> tuple[Any, Any]:
    """What the two menus show, after a choice that was refused too."""
    if sides is None:
        return gr.skip(), gr.skip()
    return sides[0].name, sides[1].name


def menus_of(task: str, sides: Sides) -> list[gr.Dropdown]:
    """Both menus with the task's networks."""
    return [gr.Dropdown(choices=list(networks.tasks()[task]), value=side.name) for side in sides]


def show_card(sides: Sides | None, event: gr.EventData) -> str:
    """The card of a network on this machine, as Markdown."""
    side = known(sides)[_side(event)]
    if side.card:
        raise refusal(f"The card of {side.name} is on the Hub.")
    try:
        return read_card(side.location)
    except BundleError as error:
        raise refusal(str(error)) from error


def _side(event: gr.EventData) -> int:
    """0 or 1, of an event that comes from a browser."""
    return int(getattr(event, "side", 0) == 1)


# ---- what they answer ------------------------------------------------------------------------------------------------


@requires_session
def ask(picture: Picture, sides: Sides | None, quantized: bool, colors: int, space: str) -> Answer:
    """Ask both networks about the picture.

    quantized: about what ``colors`` colours leave of it.
    """
    sides = known(sides)
    image, view = picture.pixels(), picture.view
    if quantized:
        palette = picture.ladder(space)[colors]
        image, view = (palette.decode(palette.encode(pixels)) for pixels in (image, view))
    first, second = segmentations(sides, image)
    for note in notes(sides, (first, second)):
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
        colors=colors if quantized else None,
        space=space,
    )


@requires_session
def show(answer: Answer) -> tuple[Any, ...]:
    """What the section shows of an answer -> (headings, viewer, agreement, legend)."""
    return (
        show_headings(answer),
        viewer.answered(answer),
        agreement_bar(answer.comparison.agreement, answer.colors) + show_unsure(answer) + show_objects(answer),
        legend(answer.names, answer.comparison, answer.palette),
    )


def show_objects(answer: Answer) -> str:
    """How many objects each network sees, for tasks of two classes."""
    task = networks.segmenter(answer.sides[0].location).bundle.task
    return objects_line(answer.names, answer.objects, answer.comparison.class_names[-1], task)


def show_unsure(answer: Answer) -> str:
    """A sentence if both networks are less sure than usual on their validation split."""
    bundles = [networks.segmenter(side.location).bundle for side in answer.sides]
    for bundle, confidence in zip(bundles, answer.confidences, strict=True):
        if confidence.mean() >= bundle.scores.get("calibration", {}).get("usual_confidence", 0):
            return ""
    return f'<p class="unsure">Both networks know {escape(bundles[0].task)} only, and they are unsure here.</p>'


@requires_session
def save_labels(answer: Answer, event: gr.EventData) -> str:
    """Write a side's label map at full size for download -> path."""
    side = _side(event)
    name = answer.names[side].replace("/", "-")  # as a bundle on the Hub has it
    path = new_file(f"{name}-labels.png")
    save_png(answer.comparison.label_maps[side], path, palette=answer.palette)
    return str(path)


# ---- HTML ------------------------------------------------------------------------------------------------------------


def tagline(config: UNetConfig) -> str:
    """How a network joins its skips: "skips are added · convolutions padded"."""
    joined = {"add": "added", "concat": "concatenated"}[config.skip]
    if config.padded:
        return f"skips are {joined} · convolutions padded"
    return f"skips are cropped and {joined} · convolutions unpadded"


def facts_about(bundle: Bundle, size: tuple[int, int]) -> list[str]:
    """How a network sees a picture of ``size`` (h, w), in words."""
    h, w = bundle.preprocessing.working_size(size)
    seen = f"seen at {w} × {h}" + ("" if (h, w) == size else f" of {size[1]} × {size[0]}")
    miou = bundle.scores.get("val", {}).get("miou")
    return [seen, *([] if miou is None else [f"val mIoU {miou:.2f}"])]


def size_of(net: UNet) -> list[str]:
    """How large a network is; of the paper's, how wide beside it."""
    count, config = parameters(count_parameters(net)), net.config
    if config.padded or config.skip != "concat" or len(config.widths) != 5:
        return [f"{count} parameters"]
    share = PAPER_WIDTH / config.widths[0]
    return [f"{count} parameters", SHARES.get(share, f"{config.widths[0]} channels instead of {PAPER_WIDTH}")]


def show_headings(answer: Answer) -> str:
    """The headings of both networks."""
    size = answer.comparison.label_maps[0].shape
    bundles = [networks.segmenter(side.location).bundle for side in answer.sides]
    return network_headings(
        answer.names,
        [facts_about(bundle, size) for bundle in bundles],
        [tagline(bundle.net.config) for bundle in bundles],
        [size_of(bundle.net) for bundle in bundles],
        [side.card for side in answer.sides],
    )


def network_headings(
    names: Sequence[str],
    facts: Sequence[Sequence[str]],
    taglines: Sequence[str],
    sizes: Sequence[Sequence[str]],
    cards: Sequence[str | None],
) -> str:
    """One heading a side.

    cards: addresses of the networks' cards; where there is none, a button opens the one on this machine.
    """
    sides = []
    columns = zip(map(escape, names), facts, taglines, sizes, cards, strict=True)
    for i, (name, words, how, size, card) in enumerate(columns):
        if card:
            link = f'<a class="card-link" href="{escape(card)}" target="_blank" rel="noopener">card on the Hub</a>'
        else:
            link = (
                f'<button type="button" class="card-link" data-card="{i}" aria-label="Card of {name}" '
                'title="What this network is, what it was trained on and how well it does">card</button>'
            )
        sides.append(
            f'<div class="network side-{"ab"[i]}"><h2><i></i>{name}</h2>'
            f'<p class="facts">{escape(" · ".join(words))} · {link}</p><p class="tagline">{escape(how)}</p>'
            f'<p class="size">{escape(" · ".join(size))}</p></div>'
        )
    return f'<div class="networks">{"".join(sides)}</div>'


def agreement_bar(agreement: float, colors: int | None) -> str:
    """How much of the picture the two networks agree on, as a bar."""
    shown = f' <span class="aside">shown in {colors} colours</span>' if colors else ""
    return (
        '<div class="agreement"><p title="Pixels to which both give the same class, at the picture’s own size">'
        f"They agree on <b>{percent(agreement)}</b> of the picture{shown}</p>"
        f'<div class="bar" role="img" aria-label="Agreement {percent(agreement)}">'
        f'<i style="width:{100 * agreement:.2f}%"></i></div></div>'
    )


def objects_line(names: Sequence[str], objects: Sequence[Counted] | None, object_name: str, task: str) -> str:
    """Number and median area of objects, for each network.

    Nothing if none are counted.

    object_name: the class. task: in the plural, where it is called by its objects as "nuclei" is.
    """
    if objects is None:
        return ""
    many = task if task[:3] == object_name[:3] else f"{object_name}s"
    sides = []
    for side, network, counted in zip("ab", names, objects, strict=True):
        count = len(counted.areas)
        size = f", median {counted.median_area:,.0f} px²" if count else ""
        sides.append(
            f'<span class="side-{side}"><i></i>{escape(network)}: <b>{count:,}</b> '
            f"{escape(object_name if count == 1 else many)}{size}</span>"
        )
    title = f"Connected areas of {MIN_AREA} px² and more, which Outline numbers; objects that touch count as one"
    return f'<p class="objects" title="{title}">{"".join(sides)}</p>'


def legend(names: Sequence[str], comparison: Comparison, palette: np.ndarray) -> str:
    """Every class with its colour and its share of the picture.

    Each is a button that the viewer listens to.
    """
    unpainted = unpainted_classes(comparison.class_names)
    items = []
    for i, name in enumerate(comparison.class_names):
        first, second = comparison.shares[:, i]
        swatch = "swatch clear" if i in unpainted else "swatch"
        absent = "" if first or second else " absent"
        title = (
            f"{name}: {names[0]} {percent(first)}, {names[1]} {percent(second)} of the picture. "
            "Click to hide or show it, with Shift to see it alone."
        )
        items.append(
            f'<li><button type="button" class="class{absent}" data-class="{i}" aria-pressed="true" '
            f'title="{escape(title)}">'
            f'<i class="{swatch}" style="--c:{hex_code(palette[i])}"></i><span class="name">{escape(name)}</span>'
            f'<span class="share side-a">{percent(first)}</span><span class="share side-b">{percent(second)}</span>'
            f'<span class="bars"><i class="side-a" style="width:{100 * first:.2f}%"></i>'
            f'<i class="side-b" style="width:{100 * second:.2f}%"></i></span></button></li>'
        )
    head = (
        '<p class="legend-head"><span>Class, and how much of the picture each network gives to it '
        '<button type="button" data-all hidden>show all</button></span>'
        f'<span class="key"><i class="side-a"></i>{escape(names[0])}</span>'
        f'<span class="key"><i class="side-b"></i>{escape(names[1])}</span></p>'
    )
    return f'<div class="legend">{head}<ul>{"".join(items)}</ul></div>'
