"""The command line of train.py."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from unet.model import ARCHITECTURES

from .datasets import TASKS
from .readers import READERS
from .recipe import Recipe

RECIPE = Recipe()  # the defaults
DEFAULT_ARCHITECTURES = ("residual-add", "crop-concat")


def parse_arguments(arguments: list[str] | None, *, description: str | None = None) -> argparse.Namespace:
    """Parse the flags; exits where one is wrong.

    ``known`` is the known task that was named, or None.
    """
    parser = argparse.ArgumentParser(
        prog="train.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_data(parser)
    _add_training(parser)
    _add_publishing(parser)
    args = parser.parse_args(arguments)
    args.train = args.train and (args.push is not None or not args.push_space)
    args.given = list(sys.argv[1:] if arguments is None else arguments)
    # A known set is what --task says, not what somebody's folder happens to be called.
    args.known = TASKS.get(args.task or ("" if args.data else "streets"))
    args.task = args.task or (args.data.resolve().name if args.data else "streets")
    if args.data is None and args.known is None:
        parser.error(
            f"--task {args.task} is not a known one ({', '.join(TASKS)}); say with --data where its pictures are"
        )
    if args.task in ("", ".", "..") or set(args.task) & set("/\\"):
        parser.error(f"--task {args.task!r} names a folder and cannot hold / or \\; give one word")
    if args.tag and args.push is None:
        parser.error("--tag names what --push publishes; add --push")
    if args.epochs and args.minutes:
        parser.error("--epochs and --minutes both say how long to train; choose one")
    args.fit_size = args.working_pixels is None and args.known is None
    usual = args.known.working_pixels if args.known else None
    args.working_pixels = (usual if args.working_pixels is None else args.working_pixels) or None
    return args


def _add_data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--task", help=f"{', '.join(TASKS)}, or a name for your own (default: streets, or the --data folder's name)")
    add("--data", type=Path, help="folder with the pictures (default: the known task's set, downloaded once)")
    add("--check", action="store_true", help="only read the folder and say how, with its classes and their shares")
    add("--layout", choices=READERS, help="how to read a folder that can be read in several ways")
    number = _whole(2, 255)
    add("--classes", type=number, help="how many classes masks in colours have (default: found, with the reason)")
    pixels = "train on pictures resized to about so many; 0 leaves them as they are (default: the known task's, or so "
    pixels += "that what is labelled fits into what the networks see)"
    add("--working-pixels", type=_whole(0, 100_000_000), metavar="PIXELS", help=pixels)
    add("--output", type=Path, default=Path("weights"), help="bundles go to OUTPUT/TASK/ARCHITECTURE")
    add("--runs", type=Path, default=Path("runs"), help="checkpoints and histories go to RUNS/TASK/ARCHITECTURE")
    add("--show-pictures", action="store_true", help="show validation pictures of your own folder in the card")


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    names = f"of {', '.join(ARCHITECTURES)} (default: {' and '.join(DEFAULT_ARCHITECTURES)}, or that of --start-from)"
    add("--architectures", nargs="+", choices=ARCHITECTURES, metavar="NAME", help=names)
    width = "multiplies every level's channels, 0.25 for a quarter of them (default: 1, or that of --start-from)"
    add("--width", type=_real(8), help=width)
    start = "begin with these weights: a bundle's folder, or user/name on the Hub; other classes and a larger --width "
    add("--start-from", metavar="BUNDLE", help=start + "are allowed")
    times = f"times every picture is seen (default: {RECIPE.epochs}; for an own folder, more where pictures are few)"
    add("--epochs", type=_whole(1, 1_000_000), help=times)
    add("--minutes", type=_real(1_000_000), help="train for so long, everything included, instead of --epochs")
    folds = "train K more times, each time without another part of the pictures, for a mean score and its interval"
    add("--folds", type=_whole(2, 100), metavar="K", help=folds)
    size, crop = _whole(1, 4096), "labelled pixels of a training crop"
    add("--batch-size", type=size, default=RECIPE.batch_size, help="pictures a step, over all devices (%(default)s)")
    add("--crop", type=size, nargs=2, default=RECIPE.crop, metavar=("H", "W"), help=crop)
    add("--learning-rate", type=_real(10), default=RECIPE.learning_rate, help="at its highest (default: %(default)s)")
    every, cost = _whole(1, 1_000_000), "what a kill costs at most (default: %(default)s)"
    add("--validate-every", type=every, metavar="EPOCHS", help=f"(default: {RECIPE.validate_every}, or a 20th of all)")
    add("--save-every", type=every, default=1, metavar="EPOCHS", help=cost)
    add("--seed", type=_whole(0, 2**31 - 1), default=RECIPE.seed)
    add("--resume", action="store_true", help="continue an unfinished run; give the other flags as before")
    add("--evaluate", action="store_true", help="train nothing: score what is in OUTPUT, and write its card anew")
    add("--average", action="store_true", help="score with flips and scales averaged at test time, too")
    add("--track", choices=("trackio", "tensorboard"), help="show loss and score in this dashboard, too")


def _add_publishing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("publishing on the Hugging Face Hub (log in once with: hf auth login)").add_argument
    push = "push the bundles to NAMESPACE, by default your account"
    add("--push", nargs="?", const="", metavar="NAMESPACE", help=push)
    add("--tag", help="name the pushed revisions, v1 say; a tag is never moved")
    add("--private", action="store_true", help="create repositories that only their owner sees")
    space = "publish this page as the Space NAME; trains nothing unless --push is given"
    add("--push-space", metavar="NAME", help=space)
    static = "the Space needs no server: browsers run two networks of OUTPUT (python -m unet export --web)"
    add("--static", action="store_true", help=static)
    models = "the Space loads its bundles from here (default: they travel with the page)"
    add("--models", metavar="NAMESPACE", help=models)
    add("--no-train", dest="train", action="store_false", help="only publish, what is in OUTPUT already")


def _whole(low: int, high: int) -> Callable[[str], int]:
    return partial(_parse, int, low, high, f"a whole number from {low:,} to {high:,}")


def _real(high: float) -> Callable[[str], float]:
    return partial(_parse, float, math.ulp(0), high, f"a number above 0, {high:,} at most")


def _parse(kind: type, low: float, high: float, words: str, text: str) -> Any:
    with suppress(ValueError):
        value = kind(text)
        if low <= value <= high:
            return value
    raise argparse.ArgumentTypeError(f"it must be {words}, not {text!r}")
