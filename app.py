"""The page: one picture, two U-Nets side by side, and the same picture in k colours.

    python app.py                           the bundles in weights/
    UNET_WEIGHTS=<folder or Hub name> python app.py

Here is what a person sees and what happens when they touch it; what a session is made of, and the sections that stand
by themselves, are in page/, how it is computed is in the library.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import spaces  # noqa: F401 - before torch, which comes with the library: ZeroGPU wants it so
from PIL import Image

from page import answer as answer_html
from page import inside, many, networks, palettes, programs, viewer, visitors
from page import scores as scores_html
from page.boxes import TRUTH_FILES, FileBox, PictureBox, html
from page.networks import Sides
from page.refusals import Page, refusal, say_what_there_is
from page.session import (
    COLOR_SPACES,
    MAX_PIXELS,
    Answer,
    Picture,
    choose_side,
    choose_sides,
    examples,
    known,
    needs_what_is_shown,
    new_file,
    notes,
    open_picture,
    read_picture,
    scored,
    segmentations,
)
from page.visitors import HOUR
from unet.bundle import BundleError, read_card
from unet.compare import compare
from unet.hub import WEIGHTS_VARIABLE
from unet.images import save_png
from unet.model import count_parameters
from unet.resize import sample

HERE = Path(__file__).parent
UPLOAD_BYTES = 300_000_000  # so many pixels of three times 16 bits, and a little


# ---- what a session looks at -----------------------------------------------------------------------------------------


def take_upload(path: str | None, picture: Picture) -> tuple[Any, Any, Any]:
    """A picture was dropped, pasted or taken -> (picture, what the box shows, ground truth)."""
    if path is None:  # the box was emptied: the last answer stays
        return picture, gr.skip(), gr.skip()
    picture = open_picture(path)
    # Browsers draw neither TIFF nor PPM; what they cannot draw is given back as something they can.
    drawable = Path(path).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif")
    return picture, gr.skip() if drawable else Image.fromarray(picture.view), None


def put_back(picture: Picture | None) -> Any:
    """What could not be read gives way to the picture that the page still answers for -> what the box shows."""
    if picture is None:  # it is no longer kept
        return None
    return str(picture.source) if picture.source.exists() else Image.fromarray(picture.view)


def take_example(task: str, gallery: gr.Gallery) -> tuple[Picture, str, str | None]:
    """An example was clicked -> (picture, what the box shows, ground truth).

    Which one is read off the gallery. gr.SelectData is of the click that began a call: a click that has to wait for the
    call before it would be answered with that call's example.
    """
    return _example(task, gallery.selected_index)


def open_page(request: gr.Request) -> tuple[Any, ...]:
    """The page was opened, perhaps by a link -> (task, what `take_task` returns, colours, space, quantised or not).

    A link is anybody's text: what this page does not have is left out, and said.
    """
    asked, left_out = dict(request.query_params), []

    def wanted(name: str, allowed: Collection[str], default: str) -> str:
        if asked.get(name, default) in allowed:
            return asked.get(name, default)
        left_out.append(name)
        return default

    task = wanted("task", networks.tasks(), next(iter(networks.tasks())))
    pictures = [path.stem for path, _ in examples(task)]
    example = wanted("example", pictures, pictures[0])
    colors = int(wanted("k", [str(k) for k in range(2, 65)], "8"))
    space = wanted("space", COLOR_SPACES, "RGB")
    quantized = wanted("quantised", ("0", "1"), "0") == "1"
    try:
        sides = choose_sides(task, asked.get("left"), asked.get("right"))
    except gr.Error as error:
        gr.Warning(f"The link’s networks are not shown: {error.message}")
        sides = choose_sides(task)
    if left_out:
        gr.Warning(
            f"The link asks for what this page does not have; the page’s own is shown for: {', '.join(left_out)}."
        )
    if "example" not in asked:
        _offer_the_camera(task)
    shown = _shown_for(task, sides)
    return task, *shown, *_example(task, pictures.index(example)), colors, space, quantized


def name_example(task: str, picture: Picture | None) -> str:
    """What a link calls the picture; nothing for a person's own, which is in no link."""
    return next((path.stem for path, _ in examples(task) if picture and path == picture.source), "")


def _shown_for(task: str, sides: Sides) -> tuple[Any, ...]:
    """-> (the task's examples, both networks, their menus)."""
    menus = [gr.Dropdown(choices=list(networks.tasks()[task]), value=side.name) for side in sides]
    return gr.Gallery([str(path) for path, _ in examples(task)], selected_index=None), sides, *menus


def take_task(task: str, sides: Sides | None, picture: Picture | None) -> tuple[Any, ...]:
    """A task was chosen -> (its examples, both networks, their menus, picture, what the box shows, ground truth)."""
    names = [side.name for side in known(sides)]
    same_two = set(names) <= set(networks.tasks()[task])  # trained for this task
    shown = _shown_for(task, choose_sides(task, *names) if same_two else choose_sides(task))
    own = picture and not any(picture.source == path for name in networks.tasks() for path, _ in examples(name))
    if not own:
        _offer_the_camera(task)
        return *shown, *_example(task, 0)
    return *shown, replace(picture, truth=None), gr.skip(), None  # a person's own picture is asked about again


def _offer_the_camera(task: str) -> None:
    """Not every set's pictures may be shown: what is first seen of such a task is not what it is about."""
    if not any(truth for _, truth in examples(task)):
        gr.Info(f"No picture of {task} comes with this page: drop one of your own, or take one with the camera.")


def take_side(task: str, sides: Sides | None, name: str | None, *, side: int) -> tuple[Sides, str, str]:
    """Another network was chosen for a side -> (both networks, what the two menus show)."""
    sides = known(sides)
    chosen = choose_side(task, name or "")
    if chosen.location == sides[1 - side].location:  # what the other side shows: they change places
        sides = sides[::-1]
    else:
        sides = (chosen, sides[1]) if side == 0 else (sides[0], chosen)
    return sides, *put_back_sides(sides)


def put_back_sides(sides: Sides | None) -> tuple[Any, Any]:
    """What the two menus show, after a choice that was refused too."""
    if sides is None:
        return gr.skip(), gr.skip()
    return sides[0].name, sides[1].name


def show_card(sides: Sides | None, *, side: int) -> str:
    """The card of a network on this machine, as Markdown."""
    if known(sides)[side].card:
        raise refusal(f"The card of {sides[side].name} is on the Hub.")
    try:
        return read_card(sides[side].location)
    except BundleError as error:
        raise refusal(str(error)) from error


def _example(task: str, index: int) -> tuple[Picture, str, str | None]:
    path, truth = examples(task)[index]
    return open_picture(path, truth), str(path), str(truth) if truth else None


@needs_what_is_shown
def take_truth(picture: Picture, answer: Answer, path: str | None) -> tuple[Picture, Answer, str, str, list[str]]:
    """A ground truth was added or removed -> (picture, answer, table of scores, bars, what the viewer draws)."""
    picture = replace(picture, truth=Path(path) if path else None)
    comparison, truth = scored(answer.comparison, answer.palette, picture.truth)
    answer = replace(answer, comparison=comparison, truth=truth)
    return picture, answer, *show_scores(answer), hand_over(answer)


def show_scores(answer: Answer) -> tuple[str, str]:
    """Who is right -> (table of scores with how the ground truth was read, bars class by class)."""
    read = scores_html.truth_line(answer.truth.how, answer.truth.void) if answer.truth else ""
    bars = scores_html.iou_bars(answer.names, answer.comparison, answer.palette)
    return read + scores_html.score_table(answer.names, answer.comparison), bars


# ---- the two networks ------------------------------------------------------------------------------------------------


@needs_what_is_shown
def answer(picture: Picture, sides: Sides | None, quantized: bool, colors: int, space: str) -> Answer:
    """Ask both networks, about the picture itself or about what ``colors`` colours leave of it."""
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
        seconds=(first.seconds, second.seconds),
        devices=(first.device.upper(), second.device.upper()),
        colors=colors if quantized else None,
        space=space,
    )


def show_headings(answer: Answer) -> str:
    """What the two networks are."""
    nets = [networks.segmenter(side.location).net for side in answer.sides]
    return answer_html.network_headings(
        answer.names,
        [answer_html.tagline(net.config) for net in nets],
        [count_parameters(net) for net in nets],
        answer.seconds,
        answer.devices,
        [side.card for side in answer.sides],
    )


@needs_what_is_shown
def show_answer(answer: Answer) -> tuple[Any, ...]:
    """All there is to see of an answer -> (headings, what the viewer draws, agreement, legend, scores, bars)."""
    return (
        show_headings(answer),
        hand_over(answer),
        answer_html.agreement_bar(answer.comparison.agreement, answer.colors),
        answer_html.legend(answer.names, answer.comparison, answer.palette),
        *show_scores(answer),
    )


def hand_over(answer: Answer) -> list[str]:
    """Write an answer for the viewer in the browser -> paths of `viewer.files`."""
    truth = answer.truth.labels if answer.truth else None
    paths = []
    for name, content in viewer.files(
        answer.view, answer.comparison, answer.confidences, answer.palette, answer.names, truth
    ).items():
        paths.append(new_file(name))
        paths[-1].write_bytes(content)
    return [str(path) for path in paths]


@needs_what_is_shown
def save_labels(answer: Answer, *, side: int) -> str:
    """Write a side's label map at the picture's full size for download -> path."""
    name = answer.names[side].replace("/", "-")  # as a bundle on the Hub has it
    path = new_file(f"{name}-labels.png")
    save_png(answer.comparison.label_maps[side], path, palette=answer.palette)
    return str(path)


# ---- inside the networks ---------------------------------------------------------------------------------------------


@needs_what_is_shown
def look_inside(answer: Answer) -> inside.Subject:
    """What the section about the networks looks into: the picture as they saw it, and what they answered."""
    truth = answer.truth.labels if answer.truth else None
    return inside.Subject(answer.image, answer.view, answer.sides, answer.comparison.label_maps, truth)


# ---- the page --------------------------------------------------------------------------------------------------------


HEADLINE = """
<h1>Add or concat? <span>Two U-Nets, one picture.</span></h1>
<p>A U-Net squeezes a picture until it knows <em>what</em> is there, then grows it back, taking <em>where</em> from the
earlier layers through skip connections. One of these two networks <b>adds</b> them, the other <b>concatenates</b> them.
Drop a picture and see what difference that makes.</p>
"""

COPY_LINK = """
<button type="button" data-copy-link title="A link to this example, these networks and settings">Copy link</button>
<p role="status"></p>
"""

PALETTE_TITLE = """
<h2>The same picture in k colours</h2>
<p>k-means finds the k colours that stand for all the others with the smallest error. How few does it take until you, or
the networks, see something else?</p>
"""

SCORE_TITLE = """
<h2>Who is right?</h2>
<p>With a ground truth, a picture that somebody labelled by hand, both networks are scored. The examples bring theirs;
add one for a picture of your own.</p>
"""
TRUTH_INFO = (
    "As large as the picture: class numbers, or the colours of the legend; of two classes, a mask. 255, the number "
    "after the last class, and black are left out."
)

SPACE_INFO = "RGB: smallest error in numbers. OKLab: distances as the eye sees them; hues survive longer."

CODE_TITLE = """
<h2>Use it from code</h2>
<p>What the page does, without the page: exact label maps and numbers. Files that are sent are deleted within two
hours.</p>
"""


def _asset(name: str) -> str:
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def _side_menu(task: str, side: int) -> gr.Dropdown:
    return gr.Dropdown(
        list(networks.tasks()[task]),
        value=networks.default_names(task)[side],
        label=("Left network", "Right network")[side],
        allow_custom_value=True,
        min_width=120,
        elem_id=("left", "right")[side],
    )


def build_demo() -> gr.Blocks:
    """The page with its handlers. Finds the bundles; loads none of them."""
    names = list(networks.tasks())
    if not names:
        raise SystemExit(
            f"{networks.WEIGHTS} holds no task with two networks. Train them with `python train.py`, or set "
            f"{WEIGHTS_VARIABLE} to a folder or a Hub namespace that has them."
        )
    with Page(
        title="Add or concat? Two U-Nets, one picture", analytics_enabled=False, delete_cache=(HOUR, HOUR)
    ) as demo:
        picture, found, sides = gr.State(time_to_live=HOUR), gr.State(time_to_live=HOUR), gr.State()

        with gr.Row(elem_id="top"):
            html("headline", HEADLINE)
            task = gr.Radio([(name.capitalize(), name) for name in names], value=names[0], label="Task", elem_id="task")
            html("share", COPY_LINK)

        with gr.Row(elem_id="main"):
            with gr.Column(scale=4, min_width=300, elem_id="source"):
                image = PictureBox(
                    type="filepath",
                    label="Picture",
                    height=300,
                    sources=["upload", "clipboard", "webcam"],
                    buttons=[],
                    placeholder=f"Drop a picture, or click to choose\nup to {MAX_PIXELS // 10**6} million pixels",
                    elem_id="picture",
                )
                gallery = gr.Gallery(
                    label="Examples",
                    type="filepath",  # what is asked of it is which one is chosen, never the pixels
                    columns=5,
                    rows=1,
                    height=92,
                    allow_preview=False,
                    object_fit="cover",
                    buttons=[],
                    interactive=False,
                    elem_id="examples",
                )
                with gr.Accordion("What am I looking at?", open=False, elem_id="explanation"):
                    gr.Markdown(_asset("explanation.md"))
            with gr.Column(scale=8, min_width=320, elem_id="answer"):
                with gr.Row(elem_id="sides"):
                    left, right = (_side_menu(names[0], side) for side in (0, 1))
                headings = html("headings")
                canvas = html("viewer", _asset("viewer.html"))
                agreement = html("agreement")
                legend = html("legend")

        html("score-title", SCORE_TITLE)
        with gr.Row(elem_id="score"):
            with gr.Column(scale=4, min_width=300, elem_id="truth"):
                truth = FileBox(label="Ground truth", file_types=TRUTH_FILES, height=132, elem_id="truth-file")
                html("truth-info", f"<p>{TRUTH_INFO}</p>")
                scores = html("scores")
            with gr.Column(scale=8, min_width=320):
                bars = html("ious")

        html("palette-title", PALETTE_TITLE)
        with gr.Row(elem_id="palette"):
            with gr.Column(scale=4, min_width=300, elem_id="palette-controls"):
                colors = gr.Slider(2, 64, value=8, step=1, label="Colours", elem_id="colours")
                space = gr.Radio(
                    list(COLOR_SPACES), value="RGB", label="Distance between colours", info=SPACE_INFO, elem_id="space"
                )
                quantized = gr.Checkbox(
                    label="Show the networks this picture",
                    info="How many colours do they need? Both are asked again when the slider rests.",
                    elem_id="quantised",
                )
                html("save-title", "<p>Save the picture (PNG) or its colours</p>")
                with gr.Row(elem_id="downloads"):
                    saves = {kind: gr.Button(kind, size="sm", min_width=48) for kind in palettes.FILES}
            with gr.Column(scale=8, min_width=320, elem_id="palette-view"):
                painted = gr.Image(
                    label="In k colours",
                    format="png",
                    height=360,
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="painted",
                )
                facts = html("facts")
        swatches = html("swatches")
        follow = inside.build(look_inside, found)

        many.build(task, sides)

        html("code-title", CODE_TITLE)
        with gr.Tabs(elem_id="code"):
            code = []
            for chapter in (HERE / "docs" / "api.md").read_text(encoding="utf-8").split("### ")[1:]:
                title, text = chapter.split("\n", 1)
                with gr.Tab(title):
                    code.append(gr.Markdown(text))
        # Buttons that the page presses itself.
        settled = gr.Button("Ask again", visible="hidden", elem_id="settled")
        file = gr.File(visible="hidden")
        example = gr.Textbox(visible="hidden", label="Example")
        cards = [gr.Button("Card", visible="hidden", elem_id=f"card-{side}") for side in "ab"]
        with gr.Column(elem_id="card", elem_classes="dialog"):
            card = gr.Markdown()
        handed = gr.File(file_count="multiple", visible="hidden")
        label_saves = [gr.Button("Label map", visible="hidden", elem_id=f"save-labels-{side}") for side in "ab"]

        shown = [headings, handed, agreement, legend, scores, bars]
        palette_inputs, palette_outputs = [picture, colors, space], [painted, facts, swatches]
        private = {"api_visibility": "private"}
        quiet = private | {"show_progress": "hidden"}

        def ask(event: Any) -> None:
            """The networks, then what the page says of them, then the viewer, which takes the newest only."""
            asked = event(
                answer,
                [picture, sides, quantized, colors, space],
                found,
                concurrency_id="networks",
                concurrency_limit=1,
                show_progress_on=[canvas],
                trigger_mode="always_last",  # else a picture is dropped that comes while the networks are at work
                **private,
            )
            drawn = asked.success(show_answer, found, shown, trigger_mode="always_last", **quiet)
            drawn.success(None, handed, js="unetViewer.show", **private)
            follow(asked.success)

        def repaint(event: Any) -> None:
            event(palettes.show, palette_inputs, palette_outputs, trigger_mode="always_last", **quiet)

        of_task = [gallery, sides, left, right, picture, image, truth]
        # A new picture: read it, then the palette and the networks set off together.
        for event, handler, inputs, outputs in (
            (demo.load, open_page, None, [task, *of_task, colors, space, quantized]),
            (task.input, take_task, [task, sides, picture], of_task),
            (gallery.select, take_example, [task, gallery], [picture, image, truth]),
            (image.input, take_upload, [image, picture], [picture, image, truth]),
        ):
            taken = event(handler, inputs, outputs, show_progress="hidden", trigger_mode="always_last", **private)
            repaint(taken.success)
            ask(taken.success)
            taken.failure(put_back, picture, image, **quiet)
            taken.success(name_example, [task, picture], example, **quiet)

        settings = [task, example, left, right, colors, space, quantized]
        gr.on([setting.change for setting in settings], None, settings, js="unetPage.remember", **private)

        for side, menu in enumerate((left, right)):
            take = functools.partial(take_side, side=side)
            chosen = menu.input(take, [task, sides, menu], [sides, left, right], show_progress="hidden", **private)
            ask(chosen.success)
            chosen.failure(put_back_sides, sides, [left, right], **quiet)
            opened = cards[side].click(functools.partial(show_card, side=side), sides, card, **quiet)
            opened.success(None, js="() => unetPage.open('card')", **private)

        for event in (truth.upload, truth.clear):
            judged = event(take_truth, [picture, found, truth], [picture, found, scores, bars, handed], **quiet)
            judged.success(None, handed, js="unetViewer.show", **private)
            judged.failure(lambda: None, None, truth, **quiet)
            follow(judged.success)

        # `.change` with its "always_last" is the one binding that ends on the right value for a drag, arrow keys and
        # a typed number alike. The networks are asked when the slider rests, never during a drag.
        repaint(colors.change)
        repaint(space.change)
        for control in (colors, space):
            control.change(None, quantized, js="(on) => { if (on) unetPage.whenSettled('settled') }", **private)
        ask(settled.click)
        ask(quantized.input)

        demo.load(None, code, code, js="unetPage.withAddress", **private)
        for side, button in enumerate(label_saves):
            saved = button.click(functools.partial(save_labels, side=side), found, file, **quiet)
            saved.success(None, file, js="unetPage.download", **private)
        for kind, button in saves.items():
            saved = button.click(functools.partial(palettes.save, kind=kind), palette_inputs, file, **quiet)
            saved.success(None, file, js="unetPage.download", **private)

        programs.add_endpoints(names)
    return demo


def page_theme() -> gr.themes.Base:
    """Gradio's plainest theme; how it looks is in assets/page.css."""
    return gr.themes.Base(
        primary_hue="stone",
        neutral_hue="stone",
        radius_size="lg",
        # Fonts that come with Gradio: no visitor's browser is sent to another host.
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 600, 700)), "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont("IBM Plex Mono"), "ui-monospace", "monospace"],
    )


def launch(demo: gr.Blocks, **options: Any) -> Any:
    """Serve the page as it is meant to be served; options are those of gr.Blocks.launch."""
    # Few threads: torch and numpy bring their own, and more at once only makes everybody wait longer.
    # In the queue fifty visitors fit, and programs beside them; past it goes nobody.
    demo.queue(max_size=64, default_concurrency_limit=2, api_open=False)
    return demo.launch(
        theme=page_theme(),
        css_paths=[HERE / "assets" / name for name in ("page.css", "viewer.css", "inside.css")],
        head=f"<script>{_asset('page.js')}</script><script>{_asset('viewer.js')}</script>",
        max_threads=8,
        show_error=False,
        run_history=False,
        max_file_size=UPLOAD_BYTES,
        state_session_capacity=visitors.SESSIONS,
        app_kwargs={"lifespan": visitors.upkeep, "exception_handlers": {Exception: say_what_there_is}},
        footer_links=["api"],
        allowed_paths=sorted({str(path.parent) for name in networks.tasks() for path, _ in examples(name)}),
        **options,
    )


def warm_up() -> None:
    """Answer the first example before anybody asks: the page then opens with it."""
    if os.environ.get("SPACES_ZERO_GPU"):  # its worker starts as a copy of this process: all networks must be here
        for locations in networks.tasks().values():
            for location in locations.values():
                networks.segmenter(location)
        return
    first = next(iter(networks.tasks()))
    segmentations(choose_sides(first), read_picture(examples(first)[0][0]))


if __name__ == "__main__":
    page = build_demo()
    warm_up()
    launch(page, inbrowser="SPACE_ID" not in os.environ)
