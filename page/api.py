"""The HTTP and MCP endpoints, without a session."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import FileData

from page import batch, palettes
from page.components import Choice, FileBox, Number, PictureBox
from page.errors import refusal
from page.networks import choose, choose_sides, notes, plain, segmentations
from page.session import COLOR_SPACES, MIN_COLORS, new_file, open_picture, read_picture, scored
from unet.compare import Scores, compare
from unet.images import save_png
from unet.palette import MAX_COLORS


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
    (found,) = segmentations([choose(task, network)], read_picture(image))
    path = new_file("labels.png")
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
    found = segmentations(sides, read_picture(image))
    comparison, names = compare(*found), [side.name for side in sides]
    return {
        "agreement": comparison.agreement,
        "seconds": {name: s.seconds for name, s in zip(names, found, strict=True)},
        "shares": {
            name: dict(zip(names, map(float, shares), strict=True))
            for name, shares in zip(comparison.class_names, comparison.shares.T, strict=True)
        },
        "notes": notes(sides, found),
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
        raise refusal("There is no ground truth: give one, or compare without.")
    found = segmentations(sides, read_picture(image))
    comparison, read = scored(compare(*found), found[0].palette, Path(truth))
    return {
        "networks": {
            side.name: _scores_as_json(scores, comparison.class_names)
            for side, scores in zip(sides, comparison.scores, strict=True)
        },
        "boundary_tolerance": comparison.scores[0].tolerance,
        "truth": {"read_as": read.how, "void": read.void, "notes": list(read.notes)},
        "notes": notes(sides, found),
    }


def _scores_as_json(scores: Scores, class_names: Sequence[str]) -> dict[str, Any]:
    def numbers(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else float(value) for name, value in values.items()}

    overall = {"miou": scores.miou, "dice": scores.dice, "pixel_accuracy": scores.pixel_accuracy}
    iou = dict(zip(class_names, scores.iou, strict=True))
    return numbers(overall | {"boundary_f1": scores.boundary}) | {"iou": numbers(iou)}


def quantize_picture(image: str, colors: int, space: str) -> str:
    """Show a picture in k colours, chosen by k-means.

    Args:
        image: the picture, of any size up to the page's limit
        colors: how many colours, 2 to 64
        space: "RGB" or "OKLab", where distances between colours are measured

    Returns:
        A palette PNG of the picture's size with exactly that many colours, or all of its own if it has fewer.
    """
    # A program may send anything, of any type.
    if colors not in range(MIN_COLORS, MAX_COLORS + 1) or space not in list(COLOR_SPACES):
        asked = f"{plain(colors)} in “{plain(space)}”"
        raise refusal(f"Colours are {MIN_COLORS} to {MAX_COLORS} in RGB or OKLab, not {asked}.")
    return palettes.save(open_picture(image), int(colors), space, kind="PNG")


def segment_many_pictures(
    pictures: list[FileData],
    task: str,
    truths: list[FileData] | None = None,
    left: str | None = None,
    right: str | None = None,
) -> tuple[str, list[dict[str, Any]]]:
    """Segment many pictures with both networks.

    Pictures with a ground truth of the same name are scored.

    Args:
        pictures: up to the page's limits
        task: a task of the page's menu, such as "streets"
        truths: as for scoring one picture; none, or some
        left, right: the two networks, as for segmenting; left out, those that the page begins with

    Returns:
        A ZIP of label maps, colour masks, overlays and a CSV; and for each picture its name, agreement, mIoU of each
        network if there is a ground truth, and a note where something is missing.
    """
    run = batch.take(task, choose_sides(task, left, right), pictures, truths)
    names = [side.name for side in run.sides]
    with batch.new_archive(run) as (archive, file):
        rows = list(batch.answers_of(run, file))
    return str(archive), [
        {
            "name": row.name,
            "agreement": row.agreement,
            "miou": dict(zip(names, (scores.miou for scores in row.scores), strict=True)) if row.scores else None,
            "note": row.note,
        }
        for row in rows
    ]


def add_endpoints(names: list[str]) -> None:
    """Add the endpoints; they are not drawn."""
    picture = PictureBox(type="filepath", label="image", visible=False)
    truth = FileBox(label="truth", visible=False)
    pictures = FileBox(file_count="multiple", label="pictures", visible=False)
    truths = FileBox(file_count="multiple", label="truths", visible=False)
    task = Choice(names, label="task", visible=False)
    network, left, right = (gr.Textbox(label=label, visible=False) for label in ("network", "left", "right"))
    colors = Number(8, precision=0, label="colors", visible=False)
    space = Choice(list(COLOR_SPACES), value="RGB", label="space", visible=False)
    found, archive, drawn = gr.JSON(visible=False), gr.File(visible=False), gr.Image(format="png", visible=False)
    for name, function, inputs, outputs, group in (
        ("segment", segment_picture, [picture, task, network], drawn, "networks"),
        ("compare", compare_networks, [picture, task, left, right], found, "networks"),
        ("score", score_networks, [picture, truth, task, left, right], found, "networks"),
        ("quantize", quantize_picture, [picture, colors, space], drawn, None),
        ("batch", segment_many_pictures, [pictures, task, truths, left, right], [archive, found], "many"),
    ):
        limits = {"concurrency_id": group, "concurrency_limit": 1} if group else {}
        gr.Button(visible=False).click(function, inputs, outputs, api_name=name, **limits)
