"""Write a model card of what a bundle records."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import yaml_dump
from markupsafe import Markup

from unet.bundle import AVERAGED, CARD_FILE, CARD_PICTURES, WEIGHTS_FILE, Bundle
from unet.export import ONNX_FILE
from unet.hub import PREFIX, HubError, one_line
from unet.model import ARCHITECTURES, UNetConfig, count_parameters

from .record import duration

#: The text of every card: edit it freely; its values are the bundle's fields and those that `describe` adds.
TEMPLATE = Path(__file__).with_name("model_card.md")
#: The generated text lies between these; what a person writes outside them is kept.
BEGIN, END = "<!-- unet:begin -->", "<!-- unet:end -->"
#: Scores of a split that go into the metadata: the Hub's name of each, and its title.
METRICS = {
    "miou": ("mean_iou", "mean IoU"),
    "mean_dice": ("f1", "mean Dice"),
    "pixel_accuracy": ("accuracy", "pixel accuracy"),
}
#: Fields of UNetConfig that make a network another one than the paper's; inputs and outputs do not.
DIFFERENCES = {
    "widths": "widths",
    "convolutions": "convolutions a block",
    "padded": "padding",
    "skip": "skips",
    "join": "where skips join",
    "batch_norm": "BatchNorm",
    "dropout": "dropout",
}


def write_card(bundle: Bundle, folder: str | Path) -> Path:
    """Write a bundle's README.md, keeping what a person wrote."""
    path = Path(folder) / CARD_FILE
    text = model_card(bundle, folder=folder, existing=read_text(path))
    partial = path.with_name(CARD_FILE + ".partial")
    partial.write_text(text, encoding="utf-8")
    return partial.replace(path)


def model_card(
    bundle: Bundle, *, repo_id: str | None = None, folder: str | Path | None = None, existing: str = ""
) -> str:
    """Make the card: metadata, then the text.

    repo_id: where it is loaded from; None is the folder train.py writes. folder: where its pictures and weights lie.
    existing: the card there is; text outside the markers and metadata that is not ours are kept.
    Raises HubError where that card cannot be understood.
    """
    where = f"{repo_id or folder}/{CARD_FILE}"
    existing = existing.replace("\r\n", "\n").lstrip("\ufeff")
    if not existing.lstrip().startswith("---\n"):
        existing = "---\n{}\n---\n" + existing
    try:
        card = ModelCard(existing, ignore_metadata_errors=True)
    except Exception as error:  # a YAML error, or whatever else a stranger's metadata does to the parser
        raise HubError(f"the front matter of {where} is not valid ({one_line(error)}); repair it") from error
    theirs, ours = card.data.to_dict(), _metadata(bundle).to_dict()
    tags = theirs.get("tags") or []
    ours["tags"] = list(dict.fromkeys([*([tags] if isinstance(tags, str) else tags), *ours["tags"]]))
    if "license" in ours:  # a licence's name and link belong to it: another licence's must not stay behind
        theirs = {key: value for key, value in theirs.items() if key in ours or not key.startswith("license_")}
    body = describe(bundle, repo_id=repo_id, folder=folder).replace(BEGIN, "").replace(END, "")
    block = f"{BEGIN}\n{body}\n{END}"
    parts = re.split(f"({BEGIN}|{END})", card.text)
    if len(parts) == 1:
        text = f"{card.text.strip()}\n\n{block}\n".lstrip()
    elif parts[1::2] == [BEGIN, END]:
        text = parts[0] + block + parts[-1]
    else:
        raise HubError(f"{where} must have {BEGIN} once and {END} once after it; put them around the generated text")
    return f"---\n{yaml_dump(theirs | ours, sort_keys=False)}---\n{text}"


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, else empty. Raises HubError."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise HubError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def _metadata(bundle: Bundle) -> ModelCardData:
    data, dataset = bundle.data, str(bundle.data.get("name") or bundle.task)
    name = link = None
    if data.get("license") == "other":  # the Hub wants a short name and a link beside it
        name = re.sub(r"[^a-z0-9.-]+", "-", str(data.get("license_name") or "other").lower()).strip("-") or "other"
        link = data.get("url") if str(data.get("url")).startswith("http") else None
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=slug(dataset) or "custom",
            dataset_name=dataset,
            dataset_split=split,
            metric_type=metric,
            metric_name=title,
            metric_value=round(float(scores[key]), 4),
        )
        for split, scores in bundle.plain_scores().items()
        for key, (metric, title) in METRICS.items()
        if _is_number(scores.get(key))
    ]
    return ModelCardData(
        library_name="unet",
        pipeline_tag="image-segmentation",
        license=data.get("license"),
        license_name=name,
        license_link=link,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        tags=["image-segmentation", "semantic-segmentation", "u-net", "pytorch", bundle.architecture, bundle.task],
        model_name=f"{PREFIX}{bundle.architecture}-{bundle.task}" if results else None,
        eval_results=results or None,
    )


def describe(bundle: Bundle, *, repo_id: str | None = None, folder: str | Path | None = None) -> str:
    """Fill model_card.md with what ``bundle`` records."""
    config, paper = bundle.net.config, ARCHITECTURES["crop-concat"]
    files = {path.name: path for path in Path(folder).iterdir()} if folder else {}
    environment = jinja2.Environment(finalize=_line)
    environment.globals = {"number": _number, "listed": _list, "duration": duration, "averaged_over": averaged_over}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        vars(bundle),
        config=config,
        usual=ARCHITECTURES.get(bundle.architecture, config),
        drawing=draw_network(config),
        differs=[name for field, name in DIFFERENCES.items() if getattr(config, field) != getattr(paper, field)],
        parameters=count_parameters(bundle.net),
        weights_bytes=files[WEIGHTS_FILE].stat().st_size if WEIGHTS_FILE in files else 0,
        splits={split: (plain, bundle.scores.get(split + AVERAGED)) for split, plain in bundle.plain_scores().items()},
        pictures={name: caption for name, caption in CARD_PICTURES.items() if name in files},
        repo_id=repo_id,
        onnx_file=ONNX_FILE,
    )


def draw_network(config: UNetConfig) -> str:
    """Draw the U as text, one line a level."""
    size = config.input_size((256, 256) if config.padded else (388, 388))
    rows = [("level", "encoder", "skip connection", "decoder"), ("input", _shape((config.in_channels, *size)), "", "")]
    for number, level in enumerate(config.level_shapes(size)):
        skip, output = "(bottleneck)", ""
        if level.decoder is not None:
            h, w = level.decoder[1:]
            crop = "" if level.encoder[1:] == (h, w) else f"crop to {h}x{w}, "
            skip = f"--- {crop}{'add' if config.skip == 'add' else 'concatenate'} -->"
            output = _shape(level.output)
        rows.append((str(number), _shape(level.encoder), skip, output))
    rows.append(("output", "", "1x1 convolution -->", _shape((config.num_outputs, *config.output_size(size)))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _shape(shape: tuple[int, int, int]) -> str:
    return "{} x {}x{}".format(*shape)


def averaged_over(scores: dict[str, Any]) -> str:
    """In words: "averaged over flips and 2 scales (1, 1.25)"."""
    averaging = scores.get("averaging") or {}
    scales = [f"{scale:g}" for scale in averaging.get("scales") or ()]
    flips = "flips and " if averaging.get("flip") else ""
    return f"averaged over {flips}{len(scales)} scale{'s' * (len(scales) != 1)} ({', '.join(scales)})"


def _line(value: Any) -> Any:
    """Escape a value for Markdown, unless it is marked safe."""
    if value is None or isinstance(value, Markup):
        return value or ""
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", "\\|")


def _list(values: Any) -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _number(value: Any) -> str:
    return f"{value:.3f}" if _is_number(value) else "–"


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens, as the Hub wants."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
