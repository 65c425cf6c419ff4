"""The picture in k colours: what the slider shows of it, and what can be saved."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from page.session import Picture, needs_what_is_shown, new_file
from unet import render

FILES = ("PNG", "GPL", "ASE", "JSON", "CSS")


@needs_what_is_shown
def show(picture: Picture, colors: int, space: str) -> tuple[Image.Image, str, str]:
    """The slider moved -> (picture in k colours, facts, swatches). No network runs and no GPU is asked for."""
    ladder = picture.ladder(space)
    palette = ladder[colors]
    labels = picture.live.encode(palette)
    return (
        render.paint(labels, palette.colors),
        render.palette_facts(len(palette), ladder.distinct_colors, picture.live.mean_squared_error(palette)),
        render.swatches(palette.colors, palette.shares(labels)),
    )


@needs_what_is_shown
def save(picture: Picture, colors: int, space: str, *, kind: str) -> str:
    """Write the palette, or the whole picture in it, for download -> path."""
    palette = picture.ladder(space)[colors]
    write: dict[str, Callable[[], str | bytes]] = {
        "PNG": lambda: palette.palette_png(picture.pixels()),
        "GPL": palette.to_gpl,
        "ASE": palette.to_ase,
        "JSON": palette.to_json,
        "CSS": palette.to_css,
    }
    content = write[kind]()
    path = new_file(f"{picture.source.stem}-{len(palette)}-colours.{kind.lower()}")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)
