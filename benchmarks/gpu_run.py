"""Everything that wants a GPU, in calls of a few minutes each: full-width weights, the rest of the skips' table.

python benchmarks/gpu_run.py --data DIR --out OUT --minutes 9     call it again until it prints "all done"
python benchmarks/gpu_run.py --join OUT                           where the results came to: put them in their places
python benchmarks/gpu_run.py --data DIR --out OUT --dry-run       every job for an epoch at a sixteenth of the width

DIR holds one folder a task: streets, nuclei, hands. Several networks share the card. When the minutes are over, every
run saves its checkpoint and stops; the next call goes on with it. Results leave in parts of at most 15 MiB, as many a
call as --megabytes allows; what does not fit leaves with the next call. On a machine that starts empty, runs/gpu/sent,
which --join fills, says what need not be trained again.
"""

from __future__ import annotations

import argparse
import io
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PART = 15 * 2**20  # bytes
SEEDS = 3


@dataclass(frozen=True)
class Job:
    """One network to train: a task's shipped weights (seed None), or a cell of the skips' table."""

    task: str
    architecture: str
    flags: tuple[str, ...]
    seed: int | None = None

    @property
    def name(self) -> str:
        return f"{self.task}-{self.architecture}" + ("" if self.seed is None else f"-seed{self.seed}")

    @property
    def place(self) -> str:
        """The folder in runs/ with this network's weights/ and runs/; those of the table are where skips.py looks."""
        return "gpu" if self.seed is None else f"skips/seed{self.seed}"

    @property
    def bundle(self) -> str:
        return f"{self.place}/weights/{self.task}/{self.architecture}"

    def command(self, args: argparse.Namespace) -> list[str]:
        place = args.runs.resolve() / self.place
        small = ["--epochs", "1", "--width", "0.0625", "--crop", "48", "64"] if args.dry_run else []
        return [
            sys.executable, "train.py", "--task", self.task, "--data", str(args.data.resolve() / self.task),
            "--architectures", self.architecture, "--seed", str(self.seed or 0), *self.flags, *small,
            "--output", str(place / "weights"), "--runs", str(place / "runs"), "--resume",
        ]  # fmt: skip


# Epochs make 10 to 60 thousand steps for the weights that ship, by the size of the set; the table's networks get fewer,
# all of them the same.
_SHIPPED = ("--validate-every", "100", "--batch-size", "12")
_TABLE = ("--validate-every", "50", "--batch-size", "12")
JOBS = (
    Job(
        "streets", "crop-concat", ("--epochs", "1000", "--crop", "276", "356", "--working-pixels", "172800", *_SHIPPED)
    ),
    Job("nuclei", "crop-concat", ("--epochs", "800", "--crop", "212", "276", *_SHIPPED)),
    Job("hands", "crop-concat", ("--epochs", "2000", "--width", "0.5", "--crop", "164", "164", *_SHIPPED)),
    *(
        Job(task, architecture, ("--epochs", epochs, *_SHIPPED))
        for task, epochs in (("streets", "1500"), ("nuclei", "1000"), ("hands", "4000"))
        for architecture in ("residual-add", "residual-concat")
    ),
    *(
        Job(task, f"{body}-{skip}", ("--epochs", epochs, *_TABLE), seed)
        for seed in range(SEEDS)
        for task, epochs in (("streets", "200"), ("nuclei", "150"))
        for body in ("residual", "crop")
        for skip in ("add", "concat")
    ),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    (args.runs / "gpu" / "sent").mkdir(parents=True, exist_ok=True)
    if args.join:
        return join(args)
    jobs = [job for job in JOBS if args.only is None or job.name in args.only]
    failed = train_until(time.monotonic() + 60 * args.minutes - args.reserve, jobs, args)
    send(jobs, args)
    to_train = [job.name for job in jobs if not is_trained(job, args)]
    to_send = [job.name for job in jobs if is_trained(job, args) and not mark(job.name, args).exists()]
    for job in failed:
        print(f"{job.name} failed; see {log_of(job, args)}", file=sys.stderr)
    print(f"call again: {len(to_train)} to train, {len(to_send)} to send" if to_train or to_send else "all done")
    return 1 if failed else 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="folder with one folder a task")
    add("--out", type=Path, help="where results are put to leave this machine")
    add("--minutes", type=float, default=9.0, help="how long this call may take (default: %(default)s)")
    add("--reserve", type=float, default=45.0, help="seconds of them kept for saving (default: %(default)s)")
    add("--megabytes", type=float, default=60.0, help="how much may leave with this call, MiB (default: %(default)s)")
    add("--parallel", type=int, default=4, help="networks that share the card (default: %(default)s)")
    add("--only", nargs="+", choices=[job.name for job in JOBS], metavar="NAME", help="some of the networks")
    add("--runs", type=Path, default=ROOT / "runs", help="where everything is kept between calls")
    add("--dry-run", action="store_true", help="one epoch of very narrow networks, to see that everything works")
    add("--join", type=Path, metavar="OUT", help="unpack what came back, and say which networks are complete")
    args = parser.parse_args(arguments)
    if not args.join and not (args.data and args.out):
        parser.error("--data and --out are needed to train, --join to unpack")
    return args


def mark(name: str, args: argparse.Namespace) -> Path:
    """A file that is there when a network has left this machine, or has come home."""
    return args.runs / "gpu" / "sent" / name


def log_of(job: Job, args: argparse.Namespace) -> Path:
    return args.runs / "gpu" / f"{job.name}.log"


def is_trained(job: Job, args: argparse.Namespace) -> bool:
    """Its card, which train.py writes last, is here, or it has left already."""
    return mark(job.name, args).exists() or (args.runs / job.bundle / "README.md").exists()


def train_until(deadline: float, jobs: Iterable[Job], args: argparse.Namespace) -> list[Job]:
    """Train what is not trained, several at a time; at the deadline all save and stop. Returns what failed."""
    waiting = [job for job in jobs if not is_trained(job, args)]
    running: dict[Job, subprocess.Popen] = {}
    failed = []
    while (waiting or running) and time.monotonic() < deadline:
        while waiting and len(running) < args.parallel:
            job = waiting.pop(0)
            with log_of(job, args).open("ab") as log:
                running[job] = subprocess.Popen(job.command(args), cwd=ROOT, stdout=log, stderr=log)
        time.sleep(0.5)
        for job, process in list(running.items()):
            if process.poll() is not None:
                del running[job]
                print(f"{job.name}: {'failed' if process.returncode else 'trained'}", flush=True)
                failed += [job] * bool(process.returncode)
    for process in running.values():
        process.send_signal(signal.SIGINT)
    for job, process in running.items():
        try:
            status = process.wait(max(1.0, args.reserve / 2))
        except subprocess.TimeoutExpired:  # a signal that arrives while torch is imported can get lost
            process.send_signal(signal.SIGINT)
            status = process.wait()
        # 130 is train.py's own, after saving; -SIGINT comes before it has begun.
        stopped = status in (130, -signal.SIGINT)
        print(f"{job.name}: {'stopped, to go on' if stopped else 'failed' if status else 'trained'}", flush=True)
        failed += [job] * (status != 0 and not stopped)
    return failed


def send(jobs: Iterable[Job], args: argparse.Namespace) -> None:
    """Put what is trained and has not left yet into --out, in parts, as far as --megabytes allow."""
    args.out.mkdir(parents=True, exist_ok=True)
    room = args.megabytes * 2**20
    for job in jobs:
        if mark(job.name, args).exists() or not is_trained(job, args):
            continue
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(args.runs / job.bundle, arcname=job.bundle)
        content = packed.getvalue()
        if len(content) > room:
            continue
        room -= len(content)
        parts = range(0, len(content), PART)
        for number, start in enumerate(parts, start=1):
            part = args.out / f"{job.name}.{number}-of-{len(parts)}.tar"
            part.write_bytes(content[start : start + PART])
        mark(job.name, args).touch()
        print(f"{job.name}: {len(content) / 2**20:.1f} MiB in {len(parts)} parts")


def join(args: argparse.Namespace) -> int:
    """Unpack into --runs whatever came back complete. Returns 1 where something is missing."""
    found: dict[str, list[Path]] = {}
    for path in args.join.glob("*-of-*.tar"):
        found.setdefault(path.name.split(".")[0], []).append(path)
    missing = False
    for name, parts in sorted(found.items()):
        total = int(parts[0].name.removesuffix(".tar").split("-of-")[1])
        if len(parts) < total:
            print(f"{name}: {len(parts)} of {total} parts are in {args.join}", file=sys.stderr)
            missing = True
            continue
        parts.sort(key=lambda path: int(path.name.split(".")[1].split("-")[0]))
        with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
            archive.extractall(args.runs, filter="data")
        mark(name, args).touch()
        print(f"{name}: unpacked")
    return int(missing or not found)


if __name__ == "__main__":
    sys.exit(main())
