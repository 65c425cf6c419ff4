"""The page: two U-Nets, and k colours.

    python app.py                           the bundles in weights/
    UNET_WEIGHTS=<folder or Hub name> python app.py

What the page consists of, and what follows what. Each section is a file in page/.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import spaces  # noqa: F401 - ZeroGPU: to be imported before torch, which comes with the library
from starlette.middleware import Middleware

from page import answer, api, batch, camera, cleanup, code, inside, networks, palettes, picture, scores, top
from page.cleanup import HOUR
from page.components import NEWEST, ON_NETWORKS, PRIVATE, QUIET
from page.errors import Page, limit_body, not_found
from page.session import State, examples, read_picture
from unet.bundle import BundleError
from unet.hub import WEIGHTS_VARIABLE

HERE = Path(__file__).parent / "page"
UPLOAD_BYTES = 300_000_000  # 40 million pixels of 3 channels x 16 bits, plus headers


class Components(NamedTuple):
    """What the sections' builders return, from top to bottom."""

    task: gr.Radio
    example: gr.Textbox
    ways: gr.HTML
    camera: gr.Image
    gallery: gr.Gallery
    settings: list[Any]  # of the colours: how many, of which space
    ask: gr.Checkbox
    palette: gr.HTML
    menus: list[gr.Dropdown]
    viewer: gr.HTML
    answered: list[gr.HTML]
    truth: gr.File
    judged: list[gr.HTML]
    look_inside: Callable[[Any], None]
    table: gr.HTML
    run: gr.State
    texts: list[gr.Markdown]


def build_demo() -> gr.Blocks:
    """The page with its handlers; loads no network."""
    try:
        tasks, why = list(networks.tasks()), f"{networks.WEIGHTS} holds no task with two networks"
    except BundleError as error:
        tasks, why = [], str(error)
    if not tasks:
        raise SystemExit(
            f"{why}. Train them with `python train.py`, or set {WEIGHTS_VARIABLE} to a folder or a Hub namespace that "
            "has them."
        )
    with Page(title=top.TITLE, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as demo:
        state = State(gr.State(time_to_live=HOUR), gr.State(time_to_live=HOUR), gr.State())
        head = top.build(tasks)
        with gr.Row(elem_id="main"):
            with gr.Column(scale=4, min_width=300, elem_id="source"):
                source = picture.build()
                colours = palettes.build(state)
                with gr.Accordion("What am I looking at?", open=False, elem_id="explanation"):
                    gr.Markdown((HERE / "explanation.md").read_text(encoding="utf-8"))
            with gr.Column(scale=8, min_width=300, elem_id="answer"):
                camera.build(state.sides, *colours[0])
                result = answer.build(state, tasks[0])
        judged = scores.build()
        look_inside = inside.build(state)
        pictures = batch.build(state, head[0])
        texts = code.build()
        api.add_endpoints(tasks)
        connect(demo, state, Components(*head, *source, *colours, *result, *judged, look_inside, *pictures, texts))
    return demo


# ---- what follows what -----------------------------------------------------------------------------------------------


def connect(demo: gr.Blocks, state: State, ui: Components) -> None:
    """The events that lead from one section to another.

    A picture's way: dropped, pasted or chosen, scripts/picture.js uploads it; picture.take_upload reads it, answer.ask
    has both networks answer, and answer.show, scores.show and page/inside.py say what they found.
    """
    # A new picture: it is shown, then its palette and the networks set off together.
    opened = [state.picture, ui.viewer, ui.truth, ui.ask]
    of_task = [ui.gallery, state.sides, *ui.menus, *opened]
    for event, handler, inputs, outputs in (
        (demo.load, top.open_page, None, [ui.task, *of_task, *ui.settings]),
        (ui.task.input, top.take_task, [ui.task, state.sides, state.picture], of_task),
        (ui.gallery.select, picture.take_example, [ui.task, ui.gallery], opened),
        (functools.partial(ui.ways.picture, js="unetPicture.sent"), picture.take_upload, ui.ways, opened),
        (ui.camera.input, picture.take_upload, ui.camera, opened),
        (ui.table.open, batch.open_row, ui.run, opened),
    ):
        taken = event(handler, inputs, outputs, **NEWEST, **QUIET)
        taken.success(None, js="unetPage.repaint", **PRIVATE)
        ask(taken.success, state, ui)
        # After a failure Gradio forgets what came meanwhile.
        taken.failure(None, js="unetPicture.again", **PRIVATE)
        taken.success(picture.name_example, [ui.task, state.picture], ui.example, **QUIET)

    for side, menu in enumerate(ui.menus):
        take, restore = (functools.partial(step, side=side) for step in (answer.take_side, answer.restore_menu))
        found = gr.State()
        # In two steps, since a download takes long: what is on the other side is read after it.
        fetched = menu.input(answer.find, [ui.task, menu], found, **NEWEST, **QUIET)
        chosen = fetched.success(take, [ui.task, found, state.sides], [state.sides, *ui.menus], **NEWEST, **QUIET)
        ask(chosen.success, state, ui)
        for event in (fetched, chosen):
            event.failure(restore, state.sides, menu, **QUIET)

    for event in (ui.truth.upload, ui.truth.clear):
        # In the networks' queue: an answer that is on its way would not know of it.
        inputs = [state.picture, state.answer, ui.truth]
        taken = event(scores.take_truth, inputs, [state.picture, state.answer], **QUIET | ON_NETWORKS)
        show(taken.success, state, ui)
        taken.failure(None, None, ui.truth, js="() => null", **PRIVATE)

    # `.change` with its "always_last" is the one binding that ends on the right value for a drag, arrow keys and a
    # typed number alike. The networks are asked when the slider rests, never during a drag.
    for control in ui.settings:
        control.change(None, ui.ask, js="unetPalette.moved", **NEWEST, **PRIVATE)
    # One event for all that repaints: two could end in the other order, and the older palette would stay.
    ui.palette.repaint(palettes.show, [state.picture, *ui.settings], ui.palette, **NEWEST, **QUIET)
    for event in (ui.palette.rest, ui.ask.input, ui.viewer.again):
        ask(event, state, ui)
    all_colours = ui.viewer.all_colours(lambda: False, None, ui.ask, **QUIET)
    ask(all_colours.success, state, ui)

    settings = [ui.task, ui.example, *ui.menus, *ui.settings, ui.ask]
    gr.on([setting.change for setting in settings], None, settings, js="unetPage.remember", **PRIVATE)
    demo.load(None, ui.texts, ui.texts, js="unetPage.withAddress", **PRIVATE)


def ask(event: Callable[..., Any], state: State, ui: Components) -> None:
    """Ask the networks, then show their answer."""
    asked = event(
        answer.ask,
        [state.picture, state.sides, ui.ask, *ui.settings],
        state.answer,
        show_progress_on=[ui.viewer],
        **NEWEST,
        **ON_NETWORKS,
    )
    show(asked.success, state, ui)


def show(event: Callable[..., Any], state: State, ui: Components) -> None:
    """Show an answer, section by section."""
    event(answer.show, state.answer, ui.answered, **NEWEST, **QUIET)
    event(scores.show, state.answer, ui.judged, **NEWEST, **QUIET)
    ui.look_inside(event)


# ---- serving ---------------------------------------------------------------------------------------------------------


def page_theme() -> gr.themes.Base:
    """Gradio's plainest theme; how it looks is in page/page.css."""
    return gr.themes.Base(
        primary_hue="stone",
        neutral_hue="stone",
        radius_size="lg",
        # Fonts that come with Gradio: no visitor's browser is sent to another host. Its semi-bold has three letters.
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    )


def launch(demo: gr.Blocks, **options: Any) -> Any:
    """Serve the page; options are those of gr.Blocks.launch."""
    # Few threads: torch and numpy bring their own, and more at once only makes everybody wait longer.
    # The queue holds fifty visitors and some API calls; further requests are rejected.
    demo.queue(max_size=64, default_concurrency_limit=2, api_open=False)
    return demo.launch(
        theme=page_theme(),
        css_paths=[HERE / "page.css", HERE / "viewer" / "viewer.css", HERE / "camera.css", HERE / "inside.css"],
        head=f"<script>{(HERE / 'scripts' / 'page.js').read_text(encoding='utf-8')}</script>",
        max_threads=8,
        show_error=False,
        run_history=False,
        max_file_size=UPLOAD_BYTES,
        state_session_capacity=cleanup.SESSIONS,
        app_kwargs={
            "lifespan": cleanup.lifespan,
            "middleware": [Middleware(limit_body)],
            "exception_handlers": {Exception: not_found},
        },
        footer_links=["api"],
        allowed_paths=sorted({str(path.parent) for name in networks.tasks() for path, _ in examples(name)}),
        _frontend=False,  # Gradio's test of the address gives up where the first answer takes more than 3 seconds
        **options,
    )


def warm_up() -> None:
    """Answer the first example before anybody asks."""
    if os.environ.get("SPACES_ZERO_GPU"):  # its worker starts as a copy of this process: all networks must be here
        for locations in networks.tasks().values():
            for location in locations.values():
                networks.segmenter(location)
        return
    first = next(iter(networks.tasks()))
    networks.segmentations(networks.choose_sides(first), read_picture(examples(first)[0][0]))


def check_temporary_folder() -> None:
    """Raise SystemExit unless uploads can be written."""
    folder = Path(gr.utils.get_upload_folder())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SystemExit(
            f"Uploads cannot be written to {folder} ({error.strerror}): set GRADIO_TEMP_DIR to a folder that can be."
        ) from None


def main() -> None:
    """Serve the page, or exit with a sentence."""
    check_temporary_folder()
    page = build_demo()
    warm_up()
    try:
        launch(page, inbrowser="SPACE_ID" not in os.environ)
    except OSError as error:  # of the ports
        raise SystemExit(f"The page cannot be served: {error}") from None


if __name__ == "__main__":
    main()
