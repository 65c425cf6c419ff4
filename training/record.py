"""Record what it takes to do a run again."""

from __future__ import annotations

import platform
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RECORDED_PACKAGES = ("torch", "accelerate", "segmentation-models-pytorch", "numpy", "pillow")


def record_run(given: list[str], tree: Path) -> dict[str, Any]:
    """Record a run of train.py: arguments ``given``, code in ``tree``."""
    return {
        "command": command_line(given),
        "commit": commit_of(tree),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in RECORDED_PACKAGES},
        "hardware": hardware(),
    }


def hardware() -> str:
    """The device that torch computes on, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' * (threads > 1)}"


def duration(seconds: float) -> str:
    """12 s, 5 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def command_line(given: list[str]) -> str:
    """The command, without paths and what changes no result."""
    shown, rest = [], iter(given)
    for argument in rest:
        if argument in ("--output", "--runs"):
            next(rest, None)
        elif "/" in argument and argument.startswith(("/", "..", "~")):
            shown.append(f"<{Path(argument).name}>")
        elif argument != "--resume":
            shown.append(argument)
    return shlex.join(["python", "train.py", *shown]).replace("'<", "<").replace(">'", ">")


def commit_of(tree: Path) -> str | None:
    """HEAD's commit, "-dirty" beyond weights/ and README.md."""
    try:
        commit, changed = (
            subprocess.run(["git", *command], cwd=tree, capture_output=True, text=True, check=True).stdout.strip()
            for command in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!weights", ":!README.md"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # not a git checkout: a downloaded archive, say
    return f"{commit}-dirty" if changed else commit
