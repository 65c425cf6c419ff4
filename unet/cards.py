"""A bundle in words: the text of its model card, written from what the bundle records and never by hand.

What a bundle does not record is left out, not guessed. The Hub's metadata above this text is made in hub.py.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .bundle import AVERAGED, CARD_FILE, WEIGHTS_FILE, Bundle, BundleError
from .model import ARCHITECTURES, UNetConfig, count_parameters

#: Pictures that a card shows where they lie beside it, with their captions.
PICTURES = {
    "examples.png": "Good and bad examples",
    "confusion.png": "Confusion matrix (rows are the truth, columns the prediction)",
    "curves.png": "Training curves",
}

_CITATION = """\
@inproceedings{ronneberger2015unet,
  title     = {U-Net: Convolutional Networks for Biomedical Image Segmentation},
  author    = {Ronneberger, Olaf and Fischer, Philipp and Brox, Thomas},
  booktitle = {Medical Image Computing and Computer-Assisted Intervention (MICCAI)},
  pages     = {234--241},
  year      = {2015},
  note      = {arXiv:1505.04597}
}"""


def describe(bundle: Bundle, *, repo_id: str | None = None, folder: str | Path | None = None) -> str:
    """The card's Markdown text for ``bundle``, without metadata.

    repo_id: where it is loaded from; None is the folder train.py writes. folder: where its pictures and weights lie.
    """
    sections = (
        _introduction(bundle),
        _network(bundle, folder),
        _use(bundle, repo_id),
        _data(bundle),
        _limits(bundle),
        _scores(bundle),
        _pictures(folder),
        _training(bundle),
        _citation(bundle),
    )
    return "\n\n".join("\n".join(section).strip("\n") for section in map(list, sections) if section)


def read_card(folder: str | Path) -> str:
    """The card of the bundle in ``folder``, README.md, as Markdown to show: without metadata, with its pictures inside.

    Raises BundleError where there is none.
    """
    try:
        text = (Path(folder) / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError("this network has no card that can be read; train.py --evaluate writes one") from error
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    for name in PICTURES:
        if (picture := Path(folder) / name).is_file():
            data = base64.b64encode(picture.read_bytes()).decode()
            text = text.replace(f"]({name})", f"](data:image/png;base64,{data})")
    return text


def _introduction(bundle: Bundle) -> Iterator[str]:
    data = _line(bundle.data.get("name"))
    trained = f", trained on {data}" if data else ""
    yield f"# {_line(bundle.architecture)} U-Net for {_line(bundle.task)}"
    yield ""
    yield (
        f"A U-Net that gives every pixel of a picture one of {len(bundle.class_names)} classes{trained}. "
        f"{count_parameters(bundle.net):,} parameters. Written from the bundle's own record."
    )


def _network(bundle: Bundle, folder: str | Path | None) -> Iterator[str]:
    config, preprocessing = bundle.net.config, bundle.preprocessing
    norm = {
        "none": "no BatchNorm",
        "before_relu": "BatchNorm before each ReLU",
        "after_relu": "BatchNorm after each ReLU",
    }[config.batch_norm]
    skip = {"add": "added to", "concat": "concatenated with"}[config.skip]
    joined = {"before_block": "before", "after_block": "after"}[config.join]
    yield "## The network"
    yield ""
    yield (
        f"{len(config.widths)} levels of {config.convolutions} {'padded' if config.padded else 'unpadded'} 3x3 "
        f"convolutions with ReLU, {norm}. Skip connections are {'' if config.padded else 'cropped and '}{skip} the "
        f"decoder's feature map {joined} its block. A pixel's answer depends on at most {config.receptive_radius} "
        "pixels around it, at the size the network sees."
    )
    usual = ARCHITECTURES.get(bundle.architecture)
    if usual is not None and usual.widths != config.widths:
        yield (
            f"The widths are {_list(config.widths)} here; {_line(bundle.architecture)} usually has "
            f"{_list(usual.widths)}."
        )
    yield ""
    yield from ("```text", *_diagram(config), "```", "")
    working = "as they are"
    if preprocessing.working_pixels is not None:
        working = (
            f"resized to about {preprocessing.working_pixels:,} pixels, keeping their shape; answers come back at the "
            "picture's own size"
        )
    yield f"- Pictures are seen {working}."
    yield f"- Classes: {', '.join(_line(name) for name in bundle.class_names)}."
    size = _file_size(folder)
    yield f"- Parameters: {count_parameters(bundle.net):,}" + (f"; weights: {size / 1e6:.1f} MB." if size else ".")
    for what, seconds in _items(bundle.training.get("speed")):
        yield f"- Speed: {_number(seconds)} s, {_line(what)}."


def _diagram(config: UNetConfig) -> Iterator[str]:
    """The U, a line a level, with the sizes it has for one valid input."""
    lost = 0 if config.padded else 2 * config.convolutions
    height, _ = config.input_size((256, 256) if config.padded else (388, 388))
    top = f"{config.in_channels} x {height}x{height}"
    encoder = []
    for level, width in enumerate(config.widths):
        height = (height // 2 if level else height) - lost
        encoder.append((width, height))
    decoder = [encoder[-1]]
    skips = []
    for width, encoder_height in reversed(encoder[:-1]):
        height = 2 * height - (lost if config.join == "after_block" else 0)
        crop = "" if encoder_height == height else f"crop to {height}x{height}, "
        skips.insert(0, f"--- {crop}{'add' if config.skip == 'add' else 'concatenate'} -->")
        doubled = config.skip == "concat" and config.join == "after_block"
        height -= lost if config.join == "before_block" else 0
        decoder.insert(0, (2 * width if doubled else width, height))
    rows = [("level", "encoder", "skip connection", "decoder"), ("input", top, "", "")]
    for level, (left, right) in enumerate(zip(encoder, decoder, strict=True)):
        bottleneck = level == len(encoder) - 1
        rows.append(
            (
                str(level + 1),
                "{0} x {1}x{1}".format(*left),
                "(bottleneck)" if bottleneck else skips[level],
                "" if bottleneck else "{0} x {1}x{1}".format(*right),
            )
        )
    rows.append(("output", "", "1x1 convolution -->", "{0} x {1}x{1}".format(config.num_outputs, decoder[0][1])))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _use(bundle: Bundle, repo_id: str | None) -> Iterator[str]:
    where = f'"{repo_id}", revision="main"' if repo_id else f'"weights/{_line(bundle.task)}/{bundle.architecture}"'
    yield "## How to load it"
    yield ""
    yield "```python"
    yield "from unet import Segmenter, read_image"
    yield ""
    yield f"segmenter = Segmenter.load({where})" + ("  # or a tag, or a commit" if repo_id else "  # this folder")
    yield 'result = segmenter(read_image("picture.jpg"))  # .label_map .confidence .class_names .palette'
    yield "```"
    yield ""
    yield "Pictures of any size are cut into tiles that give the whole picture's answer. Only safetensors are read."


def _data(bundle: Bundle) -> Iterator[str]:
    data = bundle.data
    facts = [("Data", "name"), ("Source", "source"), ("Terms", "terms"), ("Licence", "license_name")]
    lines = [f"- {title}: {_line(data[key])}" for title, key in facts if data.get(key)]
    if not data.get("license_name") and data.get("license"):
        lines.append(f"- Licence: {_line(data['license'])}")
    if _is_link(data.get("url")):
        lines.append(f"- Where it comes from: <{data['url'].strip()}>")
    if lines:
        yield from ("## What it was trained on", "", *lines, "", "The weights follow the terms of this data.")


def _limits(bundle: Bundle) -> Iterator[str]:
    data = _line(bundle.data.get("name"))
    yield "## Intended use and limits"
    yield ""
    yield (
        "For studying segmentation and how skip connections are joined. Every pixel gets one of the classes above, "
        "whatever the picture shows, and confidence is not calibrated."
    )
    yield (
        f"Pictures unlike {data or 'the training data'} (another camera, light, place or scale) get worse answers; "
        "rare and thin things are missed first. Not for decisions that touch anybody's health, safety or rights."
    )
    if bundle.data.get("limits"):
        yield _line(bundle.data["limits"])


def _scores(bundle: Bundle) -> Iterator[str]:
    splits = bundle.plain_scores()
    if not splits:
        return
    yield "## Scores"
    for split, scores in splits.items():
        averaged = dict(_items(bundle.scores.get(split + AVERAGED)))
        pictures = scores.get("pictures")
        over = f", over the whole split of {pictures:,} pictures" if isinstance(pictures, int) else ""
        yield ""
        yield f"On **{_line(split)}**{over}; pixels without a label and classes that do not occur are left out:"
        yield ""
        yield "| class | IoU | Dice |"
        yield "|---|---:|---:|"
        iou, dice = dict(_items(scores.get("iou"))), dict(_items(scores.get("dice")))
        for name in bundle.class_names:
            if name in iou or name in dice:
                yield f"| {_line(name)} | {_number(iou.get(name))} | {_number(dice.get(name))} |"
        yield f"| **mean** | **{_number(scores.get('miou'))}** | **{_number(scores.get('mean_dice'))}** |"
        if averaged:
            miou, dice = (_number(averaged.get(name)) for name in ("miou", "mean_dice"))
            yield f"| mean, {averaged_over(averaged)} | {miou} | {dice} |"
        if _is_number(scores.get("pixel_accuracy")):
            yield ""
            yield f"Pixel accuracy {_number(scores['pixel_accuracy'])}."
        if averaged:
            yield ""
            yield (
                "The last row averages several looks at each picture (pixel accuracy "
                f"{_number(averaged.get('pixel_accuracy'))}); everything else is of one look."
            )


def averaged_over(scores: dict[str, Any]) -> str:
    """What the several looks of these scores were, in words: "averaged over flips and 3 scales (0.75, 1, 1.25)"."""
    averaging = dict(_items(scores.get("averaging")))
    scales = [f"{scale:g}" for scale in averaging.get("scales") or () if _is_number(scale)]
    flips = "flips and " if averaging.get("flip") else ""
    return f"averaged over {flips}{len(scales)} scale{'s' * (len(scales) != 1)} ({', '.join(scales)})"


def _pictures(folder: str | Path | None) -> Iterator[str]:
    for name, caption in PICTURES.items():
        if folder is not None and (Path(folder) / name).is_file():
            yield from (f"**{caption}**", "", f"![{caption}]({name})", "")


def _training(bundle: Bundle) -> Iterator[str]:
    record = bundle.training
    lines = []
    if record.get("command"):
        lines += ["```sh", str(record["command"]).strip().replace("```", ""), "```", ""]
    for title, key in {
        "Commit": "commit",
        "Hardware": "hardware",
        "Seed": "seed",
        "Epochs": "epochs",
        "Steps": "steps",
        "Pictures seen": "pictures_seen",
    }.items():
        if record.get(key) is not None:
            value = record[key]
            shown = f"{value:,}" if isinstance(value, int) and key != "seed" else _line(value)
            lines.append(f"- {title}: {shown}")
    if _is_number(record.get("best_step")):
        lines.append(
            f"- Weights kept: those of step {record['best_step']:,}, the best on val of all that were scored, so that "
            "other pictures may score lower"
        )
    if _is_number(record.get("seconds")):
        minutes = round(record["seconds"] / 60)
        lines.append(
            f"- Time: {minutes // 60} h {minutes % 60} min" if minutes else f"- Time: {record['seconds']:.0f} s"
        )
    versions = ", ".join(f"{_line(name)} {_line(version)}" for name, version in _items(record.get("versions")))
    if versions:
        lines.append(f"- Versions: {versions}")
    if lines:
        yield from ("## How it was trained", "", *lines)


def _citation(bundle: Bundle) -> Iterator[str]:
    yield "## Citation"
    yield ""
    paper = bundle.net.config == _as_paper(bundle.net.config)
    if paper:
        yield "The network of this paper, parameter for parameter:"
    else:
        config, usual = bundle.net.config, ARCHITECTURES["crop-concat"]
        names = {"widths": "widths", "convolutions": "convolutions a block", "padded": "padding", "skip": "skips"}
        names |= {"join": "where skips join", "batch_norm": "BatchNorm", "dropout": "dropout"}
        changed = [name for field, name in names.items() if getattr(config, field) != getattr(usual, field)]
        yield f"Not the network of this paper but a relative, which differs in {_list(changed)}:"
    yield from ("", "```bibtex", _CITATION, "```")


def _as_paper(config: UNetConfig) -> UNetConfig:
    """crop-concat as the paper has it, with this config's number of inputs and outputs."""
    return dataclasses.replace(
        ARCHITECTURES["crop-concat"], in_channels=config.in_channels, num_outputs=config.num_outputs
    )


def _line(value: Any) -> str:
    """A recorded value on one line, with nothing in it that Markdown or a table would take for its own."""
    if value is None:
        return ""
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", "\\|")


def _list(values: Any) -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> str:
    return f"{value:.3f}" if _is_number(value) else "–"


def _is_link(value: Any) -> bool:
    return (
        isinstance(value, str) and value.strip().startswith(("http://", "https://")) and not set(value) & set("<> \n")
    )


def _file_size(folder: str | Path | None) -> int:
    path = Path(folder or "") / WEIGHTS_FILE
    return path.stat().st_size if folder is not None and path.is_file() else 0
