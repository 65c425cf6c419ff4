"""Write a bundle's model card: Hub metadata, and text made from what the bundle records.

What a bundle does not record is left out, not guessed.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import yaml_dump

from unet.bundle import AVERAGED, CARD_FILE, CARD_PICTURES, WEIGHTS_FILE, Bundle
from unet.hub import PREFIX, HubError, one_line
from unet.model import ARCHITECTURES, UNetConfig, count_parameters

#: The generated text lies between these; what a person writes outside them is kept.
BEGIN, END = "<!-- unet:begin -->", "<!-- unet:end -->"

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


def write_card(bundle: Bundle, folder: str | Path) -> Path:
    """Write README.md of ``bundle`` into ``folder``, keeping what a person wrote into it; returns its path."""
    folder = Path(folder)
    path = folder / CARD_FILE
    text = model_card(bundle, folder=folder, existing=read_text(path))
    partial = folder / (CARD_FILE + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def model_card(
    bundle: Bundle, *, repo_id: str | None = None, folder: str | Path | None = None, existing: str = ""
) -> str:
    """The bundle's card: metadata for the Hub, then the text of cards.describe between two markers.

    repo_id: where it is loaded from. folder: where its pictures lie. existing: the card there is; text outside the
    markers and metadata that is not ours are kept. Raises HubError where that card cannot be understood.
    """
    existing = existing.replace("\r\n", "\n").lstrip("\ufeff")
    if not existing.lstrip().startswith("---\n"):
        existing = "---\n{}\n---\n" + existing
    try:
        card = ModelCard(existing, ignore_metadata_errors=True)
    except Exception as error:  # a YAML error, or whatever else a stranger's metadata does to the parser
        where = f"{repo_id or folder}/{CARD_FILE}"
        raise HubError(f"the front matter of {where} is not valid ({one_line(error)}); repair it") from error
    theirs, ours = card.data.to_dict(), _metadata(bundle).to_dict()
    tags = theirs.get("tags") or []
    ours["tags"] = list(dict.fromkeys([*([tags] if isinstance(tags, str) else tags), *ours["tags"]]))
    metadata = {**theirs, **ours}
    if "license" in ours:  # a licence's name and link belong to it: another licence's must not stay behind
        for key in {"license_name", "license_link"} - set(ours):
            metadata.pop(key, None)
    body = describe(bundle, repo_id=repo_id, folder=folder).replace(BEGIN, "").replace(END, "")
    text = _between_markers(card.text, f"{BEGIN}\n{body}\n{END}", f"{repo_id or folder}/{CARD_FILE}")
    return f"---\n{yaml_dump(metadata, sort_keys=False)}---\n{text}"


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise HubError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def _metadata(bundle: Bundle) -> ModelCardData:
    data = bundle.data
    licence = data.get("license")
    name = link = None
    if licence == "other":  # the Hub wants a short name and a link beside it
        name = re.sub(r"[^a-z0-9.-]+", "-", str(data.get("license_name") or "other").lower()).strip("-") or "other"
        link = data.get("url") if str(data.get("url")).startswith("http") else None
    results = _results(bundle)
    return ModelCardData(
        library_name="unet",
        pipeline_tag="image-segmentation",
        license=licence,
        license_name=name,
        license_link=link,
        datasets=[data["hub_dataset"]] if data.get("hub_dataset") else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        tags=["image-segmentation", "semantic-segmentation", "u-net", "pytorch", bundle.architecture, bundle.task],
        model_name=f"{PREFIX}{bundle.architecture}-{bundle.task}" if results else None,
        eval_results=results or None,
    )


def _results(bundle: Bundle) -> list[EvalResult]:
    dataset = str(bundle.data.get("name") or bundle.task)
    results = []
    for split, scores in bundle.plain_scores().items():
        for key, kind, title in (
            ("miou", "mean_iou", "mean IoU"),
            ("mean_dice", "f1", "mean Dice"),
            ("pixel_accuracy", "accuracy", "pixel accuracy"),
        ):
            value = scores.get(key)
            if isinstance(value, int | float) and value == value:  # NaN is no score
                results.append(
                    EvalResult(
                        task_type="image-segmentation",
                        dataset_type=str(bundle.data.get("hub_dataset") or slug(dataset) or "custom"),
                        dataset_name=dataset,
                        dataset_split=split,
                        metric_type=kind,
                        metric_name=title,
                        metric_value=round(float(value), 4),
                    )
                )
    return results


def _between_markers(text: str, block: str, where: str) -> str:
    begin, end = text.find(BEGIN), text.find(END)
    if begin == end == -1:
        return f"{text.strip()}\n\n{block}\n".lstrip()
    if not 0 <= begin < end or text.count(BEGIN) > 1 or text.count(END) > 1:
        raise HubError(f"{where} must have {BEGIN} once and {END} once after it; put them around the generated text")
    return text[:begin] + block + text[end + len(END) :]


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
    for name, caption in CARD_PICTURES.items():
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
    if start := dict(_items(record.get("started_from"))):
        seen = f", which had seen {start['pictures_seen']:,} pictures" if start.get("pictures_seen") else ""
        head = "; the last layer began anew" if start.get("new_head") else ""
        widths = f"{_list(start.get('widths') or ['?'])} channels"
        lines.append(
            f"- Started from: the weights of {_line(start.get('architecture'))} for {_line(start.get('task'))} "
            f"({widths}){seen}{head}"
        )
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


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens, as the Hub wants a repository's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
