"""Everything that wants a GPU, in calls of a few minutes each: full-width weights, the rest of the skips' table.

python benchmarks/gpu_run.py --data DIR --out OUT --minutes 9     call it again until it prints "all done"
python benchmarks/gpu_run.py --join OUT                           where the results came to: put them in their places
python benchmarks/gpu_run.py --data DIR --out OUT --dry-run       every job for an epoch at a sixteenth of the width

DIR holds one folder a task: streets, nuclei, hands. Several networks share the card. When the minutes are over, every
run saves its checkpoint and stops; the next call goes on with it. Results leave in parts of at most 15 MiB, as many a
call as --megabytes allows; parts that did not fit leave with the next call.
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
STATE = ROOT / "runs" / "gpu"
PART = 15 * 2**20
SEEDS = 3
#: Seconds kept for stopping: a checkpoint of 31 M parameters with its averages is 0.6 GB.
RESERVE = 45


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
    def place(self) -> Path:
        """Where train.py puts weights/ and runs/, relative to the tree."""
        return Path("runs/gpu") if self.seed is None else Path(f"runs/skips/seed{self.seed}")

    @property
    def folder(self) -> Path:
        return self.place / "weights" / self.task / self.architecture

    def command(self, data: Path, dry_run: bool) -> list[str]:
        small = ["--epochs", "1", "--width", "0.0625", "--crop", "48", "64"] if dry_run else []
        return [
            sys.executable, "train.py", "--task", self.task, "--data", str(data / self.task),
            "--architectures", self.architecture, "--seed", str(self.seed or 0), *self.flags, *small,
            "--output", str(self.place / "weights"), "--runs", str(self.place / "runs"), "--resume",
        ]  # fmt: skip


# Epochs make 30 to 60 thousand steps for the weights that ship; the table's networks get fewer, all of them the same.
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
    if args.join:
        return join(args.join)
    jobs = [job for job in JOBS if args.only is None or job.name in args.only]
    (STATE / "sent").mkdir(parents=True, exist_ok=True)
    failed = train_until(time.monotonic() + 60 * args.minutes - RESERVE, jobs, args)
    finished = [job for job in jobs if is_finished(job)]
    sent = send(finished, args.out, int(args.megabytes * 2**20))
    waiting = [job.name for job in finished if job.name not in sent]
    print(f"{len(finished)} of {len(jobs)} networks are trained; sent now or before: {len(sent)}")
    for job in failed:
        print(f"failed, see {STATE / job.name}.log: {job.name}", file=sys.stderr)
    if failed:
        return 1
    if len(finished) < len(jobs) or waiting:
        print(f"call again: {len(jobs) - len(finished)} to train, {len(waiting)} to send")
        return 0
    print("all done")
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="folder with one folder a task")
    add("--out", type=Path, help="where results are put to leave this machine")
    add("--minutes", type=float, default=9.0, help="how long this call may take (default: %(default)s)")
    add("--megabytes", type=float, default=60.0, help="how much may leave with this call, MiB (default: %(default)s)")
    add("--parallel", type=int, default=4, help="networks that share the card (default: %(default)s)")
    add("--only", nargs="+", choices=[job.name for job in JOBS], metavar="NAME", help="some of the networks")
    add("--dry-run", action="store_true", help="one epoch of very narrow networks, to see that everything works")
    add("--join", type=Path, metavar="OUT", help="unpack what came back, and say which networks are complete")
    args = parser.parse_args(arguments)
    if not args.join and not (args.data and args.out):
        parser.error("--data and --out are needed to train, --join to unpack")
    return args


def is_finished(job: Job) -> bool:
    return (ROOT / job.folder / "README.md").exists()


def train_until(deadline: float, jobs: Iterable[Job], args: argparse.Namespace) -> list[Job]:
    """Train what is not trained, several at a time; at the deadline all save and stop. Returns what failed."""
    waiting = [job for job in jobs if not is_finished(job)]
    running: dict[Job, subprocess.Popen] = {}
    failed = []
    while (waiting or running) and time.monotonic() < deadline:
        while waiting and len(running) < args.parallel:
            job = waiting.pop(0)
            with (STATE / f"{job.name}.log").open("ab") as log:
                running[job] = subprocess.Popen(
                    job.command(args.data.resolve(), args.dry_run), cwd=ROOT, stdout=log, stderr=log
                )
        time.sleep(0.5)
        for job, process in list(running.items()):
            if process.poll() is not None:
                del running[job]
                print(f"{job.name}: {'trained' if process.returncode == 0 else 'failed'}", flush=True)
                if process.returncode:
                    failed.append(job)
    for process in running.values():
        process.send_signal(signal.SIGINT)
    for job, process in running.items():
        status = process.wait()
        print(f"{job.name}: {'stopped, to go on later' if status == 130 else 'trained' if status == 0 else 'failed'}")
        if status not in (0, 130):
            failed.append(job)
    return failed


def send(finished: Iterable[Job], out: Path, room: int) -> set[str]:
    """Put what has not left yet into ``out``, in parts, as far as there is room. Returns the names of all that left."""
    out.mkdir(parents=True, exist_ok=True)
    for job in finished:
        mark = STATE / "sent" / job.name
        if mark.exists():
            continue
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(ROOT / job.folder, arcname=str(job.folder))
        content = packed.getvalue()
        if len(content) > room:
            continue
        parts = [content[i : i + PART] for i in range(0, len(content), PART)]
        for number, part in enumerate(parts):
            (out / f"{job.name}.{number + 1:02}-of-{len(parts):02}.tar").write_bytes(part)
        room -= len(content)
        mark.touch()
    return {mark.name for mark in (STATE / "sent").iterdir()}


def join(out: Path) -> int:
    """Unpack the parts that lie in ``out`` and say what is complete."""
    first = sorted(out.glob("*.01-of-*.tar"))
    missing = []
    for path in first:
        name, _, total = path.name.removesuffix(".tar").rsplit(".", 1)[0], *path.name.split(".")[-2].split("-of-")
        parts = [out / f"{name}.{number + 1:02}-of-{total}.tar" for number in range(int(total))]
        if not all(part.exists() for part in parts):
            missing.append(name)
            continue
        with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
            archive.extractall(ROOT, filter="data")
        print(f"{name}: unpacked")
    for name in missing:
        print(f"{name}: parts are missing in {out}", file=sys.stderr)
    return 1 if missing or not first else 0


if __name__ == "__main__":
    sys.exit(main())
