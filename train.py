"""Train U-Nets on a known task or on a folder of pictures; every network becomes a bundle in weights/.

python train.py                                             both networks for streets
python train.py --task nuclei --architectures crop-concat   one network for another task
python train.py --data my_folder                            your own pictures, see the README for the layout
accelerate launch train.py                                  the same, on several devices
python train.py --push                                      train, then publish on the Hugging Face Hub
python train.py --task nuclei --no-train --push             publish what is in weights/ already
python train.py --push-space NAME                           publish this page as a Space
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

import torch

from training.augment import Augmentation, PixelStore
from training.checkpoint import Interrupted, TrainingError, finish, is_finished
from training.dataset import DataError, Dataset, load_dataset
from training.datasets import TASKS, DownloadError, fetch_dataset
from training.distributed import make_accelerator
from training.evaluate import evaluate, report
from training.fit import fit
from training.publish import push_bundles, push_space
from training.readers import READERS
from training.recipe import Recipe
from training.record import record_run
from training.start_from import start_from
from training.working_size import sample_indices, suitable_pixels
from unet.bundle import Bundle, BundleError, read_config
from unet.hub import fetch_bundle
from unet.images import ImageError
from unet.model import ARCHITECTURES, UNet, count_parameters
from unet.palette import Palette
from unet.predict import Segmenter

ROOT = Path(__file__).resolve().parent
RECIPE = Recipe()  # the defaults
DEFAULT_ARCHITECTURES = ("residual-add", "crop-concat")


def main(arguments: list[str] | None = None) -> int:
    """Data -> networks -> fit -> evaluate -> save -> push. Returns the process's exit status."""
    args = parse_arguments(arguments)
    main_process = True
    try:
        start = load_bundle(args.start_from) if args.start_from else None
        args.architectures = args.architectures or ([start.architecture] if start else DEFAULT_ARCHITECTURES)
        folders = [args.output / args.task / architecture for architecture in args.architectures]
        if args.train:
            accelerator = make_accelerator()
            main_process = accelerator.is_main_process
            with accelerator.main_process_first():  # one process fetches, the others find it there
                root = args.data or fetch_dataset(args.task)
            dataset = load_dataset(root, task=args.known, seed=args.seed, classes=args.classes, layout=args.layout)
            dataset.check(train=not args.evaluate)
            accelerator.print(dataset.summary())
            if args.check:
                palette = Palette(dataset.palette, dataset.class_names)
                accelerator.print("\n".join(filter(None, [dataset.note, palette.table(dataset.train.class_shares())])))
                return 0
            store = None
            if not args.evaluate:
                if args.fit_size:
                    radius = min(ARCHITECTURES[name].receptive_radius for name in args.architectures)
                    label_maps = (dataset.train.label_map(i) for i in sample_indices(len(dataset.train)))
                    args.working_pixels = suitable_pixels(label_maps, radius)
                cache = args.runs / args.task / args.architectures[0]
                with accelerator.main_process_first():  # one process writes the pixels, the others find them there
                    store = PixelStore(dataset.train, args.working_pixels, accelerator.device, cache=cache)
            accelerator.print(describe(dataset, store))
            for architecture, folder in zip(args.architectures, folders, strict=True):
                run = args.runs / args.task / architecture
                trained = args.resume and is_finished(run) and folder.is_dir()
                if trained and "val" in read_config(folder)["scores"]:  # a kill may have cut the report off
                    accelerator.print(f"{folder} is finished already")
                    continue
                if store is not None and not trained:
                    train_network(architecture, dataset, store, folder, run, args, start)
                if main_process:
                    # A card may become public: a person's own pictures appear in it only if they say so.
                    show = args.show_pictures or bool(args.known and args.known.redistributable)
                    # Scored as it was saved, in float16.
                    report(Segmenter.load(folder), folder, run, dataset, average=args.average, show=show)
        if main_process and args.push is not None:
            print(
                "published:", *push_bundles(folders, args.push or None, private=args.private, tag=args.tag), sep="\n  "
            )
        if main_process and args.push_space:
            print("published:", push_space(ROOT, args.push_space, namespace=args.models, private=args.private))
    except Interrupted as stop:
        again = shlex.join(["python", "train.py", *args.given, *(["--resume"] * (not args.resume))])
        print(f"\ntrain.py: {stop}. Go on with:\n  {again}", file=sys.stderr)
        return 130
    except (BundleError, DataError, DownloadError, ImageError, TrainingError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a folder that nobody may write to
        print(f"train.py: {error}; mend that, then run the same command again, with --resume", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before there is anything to save, or pressed twice
        print("\ntrain.py: stopped", file=sys.stderr)
        return 130
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, with every default that depends on the task filled in."""
    parser = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", help=f"{', '.join(TASKS)}, or a name for your own (default: streets, or the --data folder's name)")
    add("--data", type=Path, help="folder with the pictures (default: the known task's set, downloaded once)")
    add("--check", action="store_true", help="only read the folder and say how, with its classes and their shares")
    add("--layout", choices=READERS, help="how to read a folder that can be read in several ways")
    add("--classes", type=int, help="how many classes masks in colours have (default: found, with the reason printed)")
    add(
        "--architectures",
        nargs="+",
        choices=ARCHITECTURES,
        metavar="NAME",
        help=f"of {', '.join(ARCHITECTURES)} (default: {' and '.join(DEFAULT_ARCHITECTURES)}, or that of --start-from)",
    )
    add("--epochs", type=int, default=RECIPE.epochs, help="times every picture is seen (default: %(default)s)")
    add(
        "--batch-size",
        type=int,
        default=RECIPE.batch_size,
        help="pictures a step, over all devices (default: %(default)s)",
    )
    add("--crop", type=int, nargs=2, default=RECIPE.crop, metavar=("H", "W"), help="labelled pixels of a training crop")
    add("--learning-rate", type=float, default=RECIPE.learning_rate, help="at its highest (default: %(default)s)")
    add(
        "--width",
        type=float,
        help="multiplies every level's channels, 0.25 for a quarter of them (default: 1, or that of --start-from)",
    )
    add(
        "--working-pixels",
        type=int,
        metavar="PIXELS",
        help="resize every picture to about so many; 0 leaves them as they are (default: the known task's, or so that "
        "what is labelled fits into what the networks see)",
    )
    add("--validate-every", type=int, default=RECIPE.validate_every, metavar="EPOCHS", help="(default: %(default)s)")
    add("--save-every", type=int, default=1, metavar="EPOCHS", help="what a kill costs at most (default: %(default)s)")
    add("--seed", type=int, default=RECIPE.seed)
    add(
        "--start-from",
        metavar="BUNDLE",
        help="begin with these weights: a bundle's folder, or user/name on the Hub; other classes and a larger --width "
        "are allowed",
    )
    add("--output", type=Path, default=Path("weights"), help="bundles go to OUTPUT/TASK/ARCHITECTURE")
    add("--runs", type=Path, default=Path("runs"), help="checkpoints and histories go to RUNS/TASK/ARCHITECTURE")
    add("--evaluate", action="store_true", help="train nothing: score what is in OUTPUT, and write its card anew")
    add("--average", action="store_true", help="score with flips and scales averaged at test time, too")
    add("--show-pictures", action="store_true", help="show validation pictures of your own folder in the card")
    add(
        "--track", choices=("trackio", "tensorboard"), help="show loss and score in this dashboard too, while it trains"
    )
    add("--resume", action="store_true", help="go on with an unfinished run; give the other flags as before")
    publish = parser.add_argument_group("publishing on the Hugging Face Hub (log in once with: hf auth login)")
    add = publish.add_argument
    add(
        "--push", nargs="?", const="", metavar="NAMESPACE", help="push the bundles to NAMESPACE, or to who is logged in"
    )
    add("--tag", help="name the pushed revisions, v1 say; a tag is never moved")
    add("--private", action="store_true", help="create repositories that only their owner sees")
    add(
        "--push-space",
        metavar="NAME",
        help="publish this page as the Space NAME; trains nothing unless --push is given",
    )
    add(
        "--models",
        metavar="NAMESPACE",
        help="the Space loads its bundles from here (default: they travel with the page)",
    )
    add("--no-train", dest="train", action="store_false", help="only publish, what is in OUTPUT already")
    args = parser.parse_args(arguments)
    args.train = args.train and (args.push is not None or not args.push_space)
    args.given = list(sys.argv[1:] if arguments is None else arguments)
    # A known set is what --task says, not what somebody's folder happens to be called.
    args.known = TASKS.get(args.task or ("" if args.data else "streets"))
    args.task = args.task or (args.data.resolve().name if args.data else "streets")
    if args.data is None and args.task not in TASKS:
        parser.error(
            f"--task {args.task} is not a known one ({', '.join(TASKS)}); say with --data where its pictures are"
        )
    if (
        min(args.epochs, args.batch_size, args.validate_every, args.save_every, *args.crop) < 1
        or (args.width or 1) <= 0
    ):
        parser.error("--epochs, --batch-size, --crop, --validate-every, --save-every and --width must be positive")
    args.fit_size = args.working_pixels is None and args.known is None
    if args.working_pixels is None and args.known:
        args.working_pixels = args.known.working_pixels
    args.working_pixels = args.working_pixels or None
    return args


def load_bundle(source: str) -> Bundle:
    """The bundle in the folder ``source``, or of that name on the Hub. Raises BundleError."""
    return Bundle.load(source if Path(source).is_dir() else fetch_bundle(source))


def train_network(
    architecture: str,
    dataset: Dataset,
    store: PixelStore,
    folder: Path,
    run: Path,
    args: argparse.Namespace,
    start: Bundle | None,
) -> None:
    """Train one architecture and save its bundle in ``folder``; checkpoints and history go to ``run``."""
    # One for each network: a checkpoint holds all that its accelerator has ever prepared.
    accelerator = make_accelerator(args.track)
    classes = len(dataset.class_names)
    published = ARCHITECTURES[architecture]
    if start and args.width is None:
        widths = start.net.config.widths
    else:
        widths = tuple(max(1, round(width * (args.width or 1))) for width in published.widths)
    published = dataclasses.replace(published, widths=widths, num_outputs=1 if classes == 2 else classes)
    # The paper's network has no BatchNorm, but it trains far better with it: put in here, folded away at the end.
    trained = published if published.batch_norm != "none" else dataclasses.replace(published, batch_norm="before_relu")
    torch.manual_seed(args.seed)
    net = UNet(trained)
    started = {"started_from": start_from(net, start, dataset.class_names, store)} if start else {}
    recipe = Recipe(
        epochs=args.epochs,
        batch_size=args.batch_size,
        crop=tuple(args.crop),
        learning_rate=args.learning_rate,
        validate_every=args.validate_every,
        seed=args.seed,
        augmentation=Augmentation(rotate=bool(args.known and args.known.rotate)),
    )

    def as_bundle(net: UNet, training: dict | None = None) -> Bundle:
        net = net.fold_batch_norm() if published.batch_norm == "none" else net
        return Bundle(
            net, args.task, architecture, dataset.class_names, dataset.palette, store.preprocessing,
            data=dataset.record, training=training or {},
        )  # fmt: skip

    def validate(net: UNet) -> float:
        return evaluate(Segmenter(as_bundle(net)), dataset.val, progress=False).miou()

    if args.track:
        settings = {name: str(value) for name, value in dataclasses.asdict(recipe).items()}
        run_name = {"trackio": {"name": architecture, "resume": "allow"}} if args.track == "trackio" else {}
        accelerator.init_trackers(f"unet-{args.task}", settings, run_name)
    finished = fit(
        net,
        store,
        recipe,
        accelerator=accelerator,
        validate=validate,
        folder=run,
        resume=args.resume,
        save_every=args.save_every,
        title=f"{args.task} {architecture} ({count_parameters(net) / 1e6:.2f} M)",
        names=[path.name for path in dataset.train.images],
        identity={"classes": dataset.class_names, "validation pictures": len(dataset.val)} | started,
    )
    for tracker in accelerator.trackers:
        tracker.finish()
    if accelerator.is_main_process:
        as_bundle(finished.net, record_run(args.given, ROOT) | started | finished.record).save(folder)
        finish(run)
    accelerator.wait_for_everyone()


def describe(dataset: Dataset, store: PixelStore | None) -> str:
    """The classes, their colours and shares: a wrong class list is seen before hours are spent on it.

    store: the training pictures; None where they are not read, for an evaluation.
    """
    if store is None:
        return f"{len(dataset.val)} pictures to validate on"
    shares = store.class_shares(len(dataset.class_names)).tolist()
    pixels = store.preprocessing.working_pixels
    size = f"{pixels:,} pixels or so are looked at" if pixels else "all pixels are looked at"
    size = f"of every picture {size}; --working-pixels says otherwise"
    palette = Palette(dataset.palette, dataset.class_names)
    return "\n".join(filter(None, [size, dataset.note, palette.table(shares)]))


if __name__ == "__main__":
    sys.exit(main())
