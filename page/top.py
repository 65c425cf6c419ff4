"""The head of the page: task and links."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import gradio as gr

from page import networks, picture
from page.components import html, render
from page.errors import refusal
from page.networks import Sides
from page.session import COLOR_SPACES, DEFAULT_COLORS, MIN_COLORS, Picture, examples, known
from unet.bundle import BundleError
from unet.palette import MAX_COLORS

TITLE = "Add or concat? Two U-Nets and a colour slider on your picture"


def build(tasks: list[str]) -> tuple[gr.Radio, gr.Textbox]:
    """Draw the section -> (task, name of the example)."""
    with gr.Row(elem_id="top"):
        html("headline", render("headline"))
        html("jumps", render("jumps"))
        task = gr.Radio([(name.capitalize(), name) for name in tasks], value=tasks[0], label="Task", elem_id="task")
    return task, gr.Textbox(visible="hidden", label="Example")


def open_page(request: gr.Request) -> tuple[Any, ...]:
    """Open the page, perhaps by a link."""
    # A link is anybody's text: what this page does not have is left out, and said.
    asked, left_out = dict(request.query_params), []

    def wanted(name: str, allowed: Collection[str], default: str) -> str:
        if asked.get(name, default) in allowed:
            return asked.get(name, default)
        left_out.append(name)
        return default

    task = wanted("task", networks.tasks(), next(iter(networks.tasks())))
    pictures = [path.stem for path, _ in examples(task)]
    example = wanted("example", pictures, pictures[0])
    colors = int(wanted("k", [str(k) for k in range(MIN_COLORS, MAX_COLORS + 1)], str(DEFAULT_COLORS)))
    space = wanted("space", COLOR_SPACES, "RGB")
    quantized = wanted("quantised", ("0", "1"), "0") == "1"
    try:
        sides = networks.choose_sides(task, asked.get("left"), asked.get("right"))
    except BundleError as error:
        gr.Warning(f"The link’s networks are not shown: {refusal(str(error)).message}")
        sides = networks.choose_sides(task)
    if left_out:
        gr.Warning(f"This page does not have what the link asks for; its own is shown for: {', '.join(left_out)}.")
    if "example" not in asked:
        picture.offer_camera(task)
    opened = picture.open_example(task, pictures.index(example))
    return task, *_of_task(task, sides), *opened[:-1], quantized, colors, space


def take_task(task: str, sides: Sides | None, shown: Picture | None) -> tuple[Any, ...]:
    """A task was chosen -> (examples, sides, menus, `Opened`)."""
    names = [side.name for side in known(sides)]
    same_two = set(names) <= set(networks.tasks()[task])  # trained for this task
    sides = networks.choose_sides(task, *names) if same_two else networks.choose_sides(task)
    return *_of_task(task, sides), *picture.opened_for(task, shown)


def _of_task(task: str, sides: Sides) -> tuple[Any, ...]:
    menus = [gr.Dropdown(choices=list(networks.tasks()[task]), value=side.name) for side in sides]
    return picture.show_examples(task), sides, *menus
