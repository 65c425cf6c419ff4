"""Write a bundle's model card: Hub metadata and text.

What a bundle does not record is left out, not guessed.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import yaml_dump

from unet.bundle import AVERAGED, CARD_FILE, CARD_PICTURES, WEIGHTS_FILE, Bundle
from unet.export import ONNX_FILE
from unet.hub import PREFIX, HubError, one_line
from unet.model import ARCHITECTURES, UNetConfig, count_parameters

#: The text of every card: edit it freely; its values are those that `describe` passes.
TEMPLATE = Path(__file__).with_name("model_card.md")
#: The generated text lies between these; what a person writes outside them is kept.
BEGIN, END = "<!-- unet:begin -->", "<!-- unet:end -->"


def write_card(bundle: Bundle, folder: str | Path) -> Path:
    """Write a bundle's README.md, keeping what a person wrote; returns its path."""
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
    """Make the card: metadata for the Hub, then the text of `describe`.

    The text stands between two markers.
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


def describe(bundle: Bundle, *, repo_id: str | None = None, folder: str | Path | None = None) -> str:
    """The card's Markdown text: model_card.md, filled with what ``bundle`` records.

    repo_id: where it is loaded from; None is the folder train.py writes. folder: where its pictures and weights lie.
    """
    config, data, training = bundle.net.config, _clean(bundle.data), _clean(bundle.training)
    weights = Path(folder or "") / WEIGHTS_FILE
    usual = ARCHITECTURES.get(bundle.architecture)
    values = {
        "architecture": _line(bundle.architecture),
        "task": _line(bundle.task),
        "class_names": [_line(name) for name in bundle.class_names],
        "config": config,
        "usual_widths": usual.widths if usual else None,
        "norm": _NORMS[config.batch_norm],
        "drawing": draw_network(config),
        "differs": _differences(config),
        "parameters": count_parameters(bundle.net),
        "weights_bytes": weights.stat().st_size if folder is not None and weights.is_file() else 0,
        "working_pixels": bundle.preprocessing.working_pixels,
        "data": data | {"link": data.get("url") if str(data.get("url")).startswith(("http://", "https://")) else None},
        "training": training | {"command": str(bundle.training.get("command") or "").strip().replace("```", "")},
        "facts": _facts(training),
        "splits": _splits(bundle),
        "folds": _clean(bundle.scores.get("folds")),
        "calibration": _clean(bundle.scores.get("calibration")),
        "pictures": {n: c for n, c in CARD_PICTURES.items() if folder is not None and (Path(folder) / n).is_file()},
        "repo_id": repo_id,
        "onnx_file": ONNX_FILE,
        "number": _number,
        "listed": _list,
    }
    card = ModelCard.from_template(ModelCardData(library_name="unet"), template_path=str(TEMPLATE), **values)
    return card.text.strip("\n")


_NORMS = {
    "none": "no BatchNorm",
    "before_relu": "BatchNorm before each ReLU",
    "after_relu": "BatchNorm after each ReLU",
}


def draw_network(config: UNetConfig) -> str:
    """Draw the U as text, one line a level, with sizes."""
    size = config.input_size((256, 256) if config.padded else (388, 388))
    levels = config.level_shapes(size)
    rows = [("level", "encoder", "skip connection", "decoder"), ("input", _shape((config.in_channels, *size)), "", "")]
    for number, level in enumerate(levels):
        if level.decoder is None:
            skip, output = "(bottleneck)", ""
        else:
            h, w = level.decoder[1:]
            crop = "" if level.encoder[1:] == (h, w) else f"crop to {h}x{w}, "
            skip = f"--- {crop}{'add' if config.skip == 'add' else 'concatenate'} -->"
            output = _shape(level.output)
        rows.append((str(number), _shape(level.encoder), skip, output))
    rows.append(("output", "", "1x1 convolution -->", _shape((config.num_outputs, *config.output_size(size)))))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _shape(shape: tuple[int, int, int]) -> str:
    return "{} x {}x{}".format(*shape)


def _differences(config: UNetConfig) -> list[str]:
    """List how a network differs from the paper's, inputs and outputs aside."""
    names = {"widths": "widths", "convolutions": "convolutions a block", "padded": "padding", "skip": "skips"}
    names |= {"join": "where skips join", "batch_norm": "BatchNorm", "dropout": "dropout"}
    paper = ARCHITECTURES["crop-concat"]
    return [name for field, name in names.items() if getattr(config, field) != getattr(paper, field)]


def _splits(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Scores by split, with those of test-time augmentation."""
    splits = {}
    for split, scores in bundle.plain_scores().items():
        splits[_line(split)] = scores = _clean(scores)
        for key in ("iou", "dice"):
            scores[key] = scores.get(key) or {}
        if averaged := _clean(bundle.scores.get(split + AVERAGED)):
            scores |= {"averaged": averaged, "averaged_over": averaged_over(averaged)}
    return splits


def _facts(training: dict[str, Any]) -> dict[str, str]:
    """The lines about the run, by their titles."""
    facts = {
        title: f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)
        for title, key in {
            "Commit": "commit",
            "Hardware": "hardware",
            "Seed": "seed",
            "Epochs": "epochs",
            "Steps": "steps",
            "Pictures seen": "pictures_seen",
        }.items()
        if (value := training.get(key)) is not None
    }
    if start := training.get("started_from"):
        seen = f", which had seen {start['pictures_seen']:,} pictures" if start.get("pictures_seen") else ""
        head = "; the last layer began anew" if start.get("new_head") else ""
        facts["Started from"] = (
            f"the weights of {start.get('architecture')} for {start.get('task')} "
            f"({_list(start.get('widths') or ['?'])} channels){seen}{head}"
        )
    if _is_number(training.get("best_step")):
        facts["Weights kept"] = (
            f"those of step {training['best_step']:,}, the best on val of all that were scored, so that other pictures "
            "may score lower"
        )
    if _is_number(training.get("seconds")):
        minutes = round(training["seconds"] / 60)
        facts["Time"] = f"{minutes // 60} h {minutes % 60} min" if minutes else f"{training['seconds']:.0f} s"
    if versions := training.get("versions"):
        facts["Versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return facts


def averaged_over(scores: dict[str, Any]) -> str:
    """Say what was averaged: "averaged over flips and 3 scales (0.75, 1, 1.25)"."""
    averaging = scores.get("averaging") or {}
    scales = [f"{scale:g}" for scale in averaging.get("scales") or () if _is_number(scale)]
    flips = "flips and " if averaging.get("flip") else ""
    return f"averaged over {flips}{len(scales)} scale{'s' * (len(scales) != 1)} ({', '.join(scales)})"


def _clean(value: Any) -> Any:
    """Clean a record for the template: text on one line, NaN as None."""
    if isinstance(value, dict):
        return {_line(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _line(value) if isinstance(value, str) else value


def _line(value: Any) -> str:
    """Escape a value for one line of Markdown or a cell of a table."""
    if value is None:
        return ""
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", "\\|")


def _list(values: Any) -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> str:
    return f"{value:.3f}" if _is_number(value) else "–"


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens, as the Hub wants a repository's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
