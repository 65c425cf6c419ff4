"""Train U-Nets on a known task or a folder of pictures.

Every network becomes a bundle in weights/.

python train.py                                             both networks for streets
python train.py --task nuclei --architectures crop-concat   one network for another task
python train.py --data my_folder                            your own pictures, see the README for the layout
python train.py --data my_folder --minutes 30               the same, in half an hour
python train.py --data my_folder --start-from user/name     the same, from the weights of a trained network
accelerate launch train.py                                  the same, on several devices
python train.py --push                                      train, then publish on the Hugging Face Hub
python train.py --task nuclei --no-train --push             publish what is in weights/ already
python train.py --push-space NAME                           publish this page as a Space
python train.py --push-space NAME --static                  the same without a server: visitors' browsers run it
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

from training import STARTED  # isort: skip  # before torch, whose import counts

import torch
from accelerate import Accelerator

from training.arguments import DEFAULT_ARCHITECTURES, RECIPE, parse_arguments
from training.augment import Augmentation, PixelStore
from training.checkpoint import Interrupted, TrainingError, check_no_run, check_settings, finish, is_finished
from training.checks import check_evaluation, check_folders, is_reported, may_know_val
from training.dataset import DataError, Dataset, load_dataset
from training.datasets import DownloadError, fetch_dataset
from training.distributed import make_accelerator
from training.evaluate import evaluate, report
from training.fit import fit, run_settings
from training.folds import FEW_PICTURES, fold, summarise
from training.pace import budgets, measure_pace, time_schedule
from training.publish import (
    check_push,
    check_space,
    check_space_name,
    push_bundles,
    push_space,
    push_static_space,
)
from training.recipe import Recipe
from training.record import record_run
from training.start_from import as_bundle, build_network, start_from
from training.working_size import sample_indices, suitable_pixels
from unet.bundle import Bundle, BundleError
from unet.hub import fetch_bundle
from unet.images import ImageError
from unet.model import ARCHITECTURES, UNet, count_parameters
from unet.predict import Segmenter

ROOT = Path(__file__).resolve().parent
FEW_STEPS = 1500  # below this, more epochs still help: 20 nuclei pictures go on learning until about here


def main(arguments: list[str] | None = None, *, started: float | None = None) -> int:
    """Run; returns 0, 2 for an error, 130 if interrupted.

    started: when the process began (time.monotonic), for --minutes; None is now.
    """
    args = parse_arguments(arguments, description=__doc__)
    args.started = time.monotonic() if started is None else started
    try:
        run(args)
    except Interrupted as stop:
        again = shlex.join(["python", "train.py", *args.given, *(["--resume"] * (not args.resume))])
        print(f"\ntrain.py: {stop}. Continue with:\n  {again}", file=sys.stderr)
        return 130
    except (BundleError, DataError, DownloadError, ImageError, TrainingError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(
            f"train.py: the GPU has too little memory ({str(error).splitlines()[0]}); free some, then run the same "
            "command again, with --resume, or start again with a smaller --batch-size, --crop or --width",
            file=sys.stderr,
        )
        return 2
    except OSError as error:  # a full disk, a folder without permission to write
        print(f"train.py: {error}; mend that, then run the same command again, with --resume", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before there is anything to save, or pressed twice
        print("\ntrain.py: stopped", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """Train or evaluate, then publish."""
    source, args.start = args.start_from, None
    if source:
        args.start = Bundle.load(source if Path(source).is_dir() else fetch_bundle(source))
    args.architectures = args.architectures or ([args.start.architecture] if source else DEFAULT_ARCHITECTURES)
    folders = {architecture: args.output / args.task / architecture for architecture in args.architectures}
    if args.train and args.push is not None:  # what cannot work is refused before hours are spent
        check_push([(args.task, architecture) for architecture in folders], args.push or None, tag=args.tag)
    if args.push_space:
        check_space_name(args.push_space)
        if not args.static:
            check_space(ROOT)
        elif len(folders) != 2:
            raise BundleError("the page without a server shows two networks; name two with --architectures")
    bundles: dict[Path, Bundle] = {}
    if args.train:
        bundles = train_networks(args, folders)
        if args.check or not make_accelerator().is_main_process:
            return
    if args.push is not None:
        namespace = args.push or None
        addresses = push_bundles([*folders.values()], namespace, private=args.private, tag=args.tag, loaded=bundles)
        print("published:", *addresses, sep="\n  ")
    if args.push_space and args.static:
        networks = {name: bundles.get(folder) or Bundle.load(folder) for name, folder in folders.items()}
        print("published:", push_static_space(networks, args.push_space, private=args.private))
    elif args.push_space:
        print("published:", push_space(ROOT, args.push_space, namespace=args.models, private=args.private))


def train_networks(args: argparse.Namespace, folders: dict[str, Path]) -> dict[Path, Bundle]:
    """Train and score networks; returns bundles by folder."""
    accelerator = make_accelerator()
    with accelerator.main_process_first():  # one process fetches, the others find it there
        root = args.data or fetch_dataset(args.task)
    dataset = load_dataset(root, task=args.known, seed=args.seed, classes=args.classes, layout=args.layout)
    if not args.check:
        (check_evaluation if args.evaluate else check_folders)(folders.values(), dataset)
    dataset.check(train=not args.evaluate)
    accelerator.print(dataset.summary())
    if args.check:
        accelerator.print(*filter(None, [dataset.note, dataset.table(dataset.train.class_shares())]), sep="\n")
        return {}
    pictures = len(dataset.train) + len(dataset.val)
    if args.folds and args.folds > pictures:
        raise DataError(f"{pictures} pictures cannot be split into {args.folds} folds; give a smaller --folds")
    runs = runs_of(args, folders)
    if accelerator.is_main_process and not (args.resume or args.evaluate):
        for run in runs:  # found now, and not after the training of another network
            check_no_run(run)
    if args.evaluate:
        accelerator.print(f"{len(dataset.val)} pictures to validate on")
    else:
        store = decode(args, dataset, args.runs / args.task / args.architectures[0])
        accelerator.print(describe(dataset, store))
        if pictures < FEW_PICTURES and not args.folds:
            accelerator.print(f"{pictures} pictures are few: --folds 5 gives a mean score and its interval")
    if args.start and may_know_val(args.start, dataset):
        accelerator.print("the start may have learnt from pictures that are held out now, and score too well on them")
    args.budgets = budgets(args.minutes, sum(not is_done(args, *run) for run in runs.items()), args.started)
    bundles = {}
    for architecture, folder in folders.items():
        run = args.runs / args.task / architecture
        folds = None
        if not args.evaluate:
            trained = train_network(args, architecture, dataset, store, folder, run)
            # A kill may have cut the report off, and folds may be asked for later.
            if not trained and is_reported(folder, folds=args.folds, average=args.average):
                accelerator.print(f"{folder} is finished already")
                continue
            folds = cross_validate(args, architecture, dataset, run) if args.folds else None
        if accelerator.is_main_process:
            # A card may become public: a person's own pictures appear in it only if they say so.
            show = args.show_pictures or bool(args.known and args.known.redistributable)
            segmenter = Segmenter.load(folder)  # scored as it was saved, in float16
            if folds:
                segmenter.bundle.scores["folds"] = folds
            report(segmenter, folder, run, dataset, average=args.average, show=show)
            bundles[folder] = segmenter.bundle
    return bundles


def runs_of(args: argparse.Namespace, folders: dict[str, Path]) -> dict[Path, Path]:
    """{run: bundle} of every network, and of its folds."""
    runs = {args.runs / args.task / architecture: folder for architecture, folder in folders.items()}
    folds = (run / f"fold-{number}" for run in runs for number in range(args.folds or 0))
    return runs | {run: run / "bundle" for run in folds}


def is_done(args: argparse.Namespace, run: Path, folder: Path) -> bool:
    """Whether --resume finds this network trained."""
    return args.resume and is_finished(run) and folder.is_dir()


def cross_validate(args: argparse.Namespace, architecture: str, dataset: Dataset, run: Path) -> dict[str, Any]:
    """Train and score a network a fold; returns `summarise`."""
    accelerator = make_accelerator()
    scores = []
    for number in range(args.folds):
        part, part_run = fold(dataset, number, args.folds, args.seed), run / f"fold-{number}"
        folder = part_run / "bundle"
        # Validated at the end alone: nothing is chosen by the pictures that the fold is scored on.
        train_network(args, architecture, part, decode(args, part, part_run), folder, part_run, validations=False)
        scores.append(evaluate(Segmenter.load(folder), part.val).miou())
        accelerator.print(f"{architecture}, fold {number + 1} of {args.folds}: mIoU {scores[-1]:.4f}")
    found = summarise(scores, len(dataset.train) + len(dataset.val))
    mean, (low, high) = found["miou"], found["interval"]
    accelerator.print(f"{architecture}, {args.folds} folds: mIoU {mean:.4f}, 95 % interval {low:.4f} to {high:.4f}")
    return found


def decode(args: argparse.Namespace, dataset: Dataset, cache: Path) -> PixelStore:
    """Decode training pictures at working size, once, into ``cache``."""
    accelerator = make_accelerator()
    if args.fit_size:
        radius = min(ARCHITECTURES[name].receptive_radius for name in args.architectures)
        label_maps = (dataset.train.label_map(i) for i in sample_indices(len(dataset.train)))
        args.working_pixels, args.fit_size = suitable_pixels(label_maps, radius), False
    with accelerator.main_process_first():  # one process writes the pixels, the others find them there
        return PixelStore(dataset.train, args.working_pixels, accelerator.device, cache=cache)


def train_network(
    args: argparse.Namespace,
    architecture: str,
    dataset: Dataset,
    store: PixelStore,
    folder: Path,
    run: Path,
    *,
    validations: bool = True,
) -> bool:
    """Train one architecture, save its bundle; False if finished before.

    folder: of the bundle. run: of checkpoints and history. validations: score val meanwhile, to keep the best.
    """
    accelerator = make_accelerator(args.track)  # its own: a checkpoint holds all that it ever prepared
    net = build_network(architecture, len(dataset.class_names), width=args.width, seed=args.seed, start=args.start)
    started = {"started_from": start_from(net, args.start, dataset.class_names, store)} if args.start else {}

    def bundle_of(net: UNet, **fields: Any) -> Bundle:
        return as_bundle(net, args.task, architecture, dataset, store.preprocessing, **fields)

    def validate(net: UNet) -> float:
        return evaluate(Segmenter(bundle_of(net)), dataset.val, progress=False).miou()

    recipe, why = choose_recipe(args, len(store))
    digest, val = dataset.training_digest(), len(dataset.val)
    identity = {"classes": dataset.class_names, "training pictures": digest, "validation pictures": val} | started
    if is_done(args, run, folder):
        check_settings(run, run_settings(net.config, store, recipe) | identity)
        return False
    pace = measure_pace(net, store, recipe, accelerator, Segmenter(bundle_of(net.eval())), dataset.val)
    if (budget := next(args.budgets)) is None:
        schedule, forecast = None, f"{why}: {pace.forecast(recipe, len(store), len(dataset.val))}"
    else:
        resized = store.preprocessing.working_pixels is not None
        schedule = time_schedule(pace, dataset, budget, average=args.average, resized=resized)
        forecast = f"{budget / 60:.1f} min with its report; a step takes {pace.step:.2f} s"
    accelerator.print(f"{architecture}: {forecast}")
    start_tracker(args, accelerator, architecture, recipe)
    finished = fit(
        net,
        store,
        recipe,
        accelerator=accelerator,
        validate=validate if validations else None,
        folder=run,
        resume=args.resume,
        save_every=args.save_every,
        schedule=schedule,
        title=f"{args.task} {architecture} ({count_parameters(net) / 1e6:.2f} M)",
        identity=identity,
    )
    for tracker in accelerator.trackers:
        tracker.finish()
    if accelerator.is_main_process:
        training = record_run(args.given, ROOT) | started | finished.record | {"trained_on": digest}
        bundle_of(finished.net, training=training).save(folder)
        finish(run)
    accelerator.wait_for_everyone()
    return True


def start_tracker(args: argparse.Namespace, accelerator: Accelerator, architecture: str, recipe: Recipe) -> None:
    """Begin a run on the dashboard, if there is one."""
    if args.track:
        settings = {name: str(value) for name, value in dataclasses.asdict(recipe).items()}
        run_name = {"trackio": {"name": architecture, "resume": "allow"}} if args.track == "trackio" else {}
        accelerator.init_trackers(f"unet-{args.task}", settings, run_name)


def choose_recipe(args: argparse.Namespace, pictures: int) -> tuple[Recipe, str]:
    """Choose the recipe; say why its epochs."""
    epochs, steps = args.epochs or RECIPE.epochs, math.ceil(pictures / args.batch_size)
    why = "" if args.epochs else ", the default"
    if not (args.epochs or args.known) and epochs * steps < FEW_STEPS:
        epochs = math.ceil(FEW_STEPS / steps)
        why = f", because {pictures} pictures make {steps} steps an epoch and {FEW_STEPS:,} are needed"
    recipe = Recipe(
        epochs=epochs,
        minutes=args.minutes,
        batch_size=args.batch_size,
        crop=tuple(args.crop),
        learning_rate=args.learning_rate,
        validate_every=args.validate_every or max(RECIPE.validate_every, epochs // 20),
        seed=args.seed,
        augmentation=Augmentation(rotate=bool(args.known and args.known.rotate)),
    )
    return recipe, f"{epochs} epochs{why}"


def describe(dataset: Dataset, store: PixelStore) -> str:
    """Describe the working size and the classes."""
    shares = store.class_shares(len(dataset.class_names)).tolist()
    pixels = store.preprocessing.working_pixels
    size = f"{pixels:,} pixels or so are looked at" if pixels else "all pixels are looked at"
    size = f"of every picture {size}; --working-pixels says otherwise"
    return "\n".join(filter(None, [size, dataset.note, dataset.table(shares)]))


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal may lack the letters of a class name
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside of `fit`, too, it stops as Ctrl-C does
    sys.exit(main(started=STARTED))
