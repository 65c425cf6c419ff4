"""Everything that wants a GPU, in calls of a few minutes each: full-width weights, timings, the skips' table.

python benchmarks/gpu_run.py --data DIR --out OUT --plan 18 --only weights    first: the epochs that 18 minutes hold
python benchmarks/gpu_run.py --data DIR --out OUT --minutes 9                 then again, until it prints "all done"
python benchmarks/gpu_run.py --join OUT --write             where the results came to: into runs/, tables into README.md
python benchmarks/gpu_run.py --data DIR --out OUT --dry-run every job, for an epoch at a sixteenth of the width

Of requirements.txt the card's machine needs all but gradio and spaces. DIR holds one folder a task: streets, nuclei,
hands. Jobs are done in the order of JOBS. Several networks share the card, benchmarks have it alone. When the minutes
are over, every training saves its checkpoint and stops; the next call goes on with it. Results leave as one archive a
call, in parts of at most 15 MiB, as much as --megabytes allows; what does not fit leaves with the next call. On a
machine that starts empty, runs/gpu/sent, which --join fills, says what need not be done again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PART = 15 * 2**20  # bytes
SEEDS = 3
VALIDATIONS = 12  # a training's, and as many checkpoints: more would keep a GPU waiting
LAST_WORDS = 2000  # bytes of the log of what failed


@dataclass(frozen=True)
class Training:
    """One network to train: a task's shipped weights (seed None), or a cell of the skips' table.

    minutes: of the card, had it nothing else to do, that its schedule is planned for. epochs: at most, and without a
    plan.
    """

    task: str
    architecture: str
    minutes: float
    epochs: int
    flags: tuple[str, ...] = ()
    seed: int | None = None

    @property
    def name(self) -> str:
        return f"{self.task}-{self.architecture}" + ("" if self.seed is None else f"-seed{self.seed}")

    @property
    def group(self) -> str:
        return "weights" if self.seed is None else "table"

    @property
    def schedule(self) -> str:
        """Trainings with the same one get equally many epochs: what is compared must."""
        return f"{self.task}-{self.architecture.split('-')[0]}-{self.group}"

    @property
    def place(self) -> str:
        """The folder in runs/ with this network's weights/ and runs/; those of the table are where skips.py looks."""
        return "gpu" if self.seed is None else f"skips/seed{self.seed}"

    @property
    def folder(self) -> str:
        return f"{self.place}/weights/{self.task}/{self.architecture}"

    @property
    def results(self) -> tuple[str, ...]:
        """The files in its folder that leave; the last is written last. A cell's weights stay: there are too many."""
        return ("*", "README.md") if self.seed is None else ("config.json", "scores.json")

    def all_flags(self, args: argparse.Namespace) -> list[str]:
        """Of train.py."""
        if args.dry_run:
            return [*self.flags, "--epochs", "1", "--width", "0.0625", "--crop", "48", "64"]
        epochs = planned(args).get(self.schedule, {}).get("epochs", self.epochs)
        every = str(max(1, epochs // VALIDATIONS))
        return [*self.flags, "--epochs", str(epochs), "--validate-every", every, "--save-every", every]

    def command(self, args: argparse.Namespace) -> list[str]:
        place, data = args.runs.resolve() / self.place, args.data.resolve() / self.task
        if self.seed is None:
            command = ["train.py", "--task", self.task, "--architectures", self.architecture, "--data", str(data)]
            command += ["--output", str(place / "weights"), "--runs", str(place / "runs"), "--resume"]
        else:
            command = ["benchmarks/skips.py", "--cell", self.task, self.architecture, str(self.seed)]
            command += ["--data", f"{self.task}={data}", "--runs", str(place.parent)]
        return [sys.executable, *command, *self.all_flags(args)]

    def share_done(self, args: argparse.Namespace) -> float:
        """From 0 to 1, as far as its history says."""
        history = args.runs / self.place / "runs" / self.task / self.architecture / "history.jsonl"
        lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
        epochs = planned(args).get(self.schedule, {}).get("epochs", self.epochs)
        return json.loads(lines[-1])["epoch"] / epochs if lines else 0.0


@dataclass(frozen=True)
class Benchmark:
    """A script whose tables are kept; nothing else may run beside it."""

    script: str
    minutes: float

    group = "benchmarks"
    results = ("table.md",)

    @property
    def name(self) -> str:
        return f"benchmark-{self.script}"

    @property
    def folder(self) -> str:
        return f"gpu/benchmarks/{self.script}"

    def command(self, args: argparse.Namespace) -> list[str]:
        data = [f"{folder.name}={folder}" for folder in sorted(args.data.resolve().iterdir()) if folder.is_dir()]
        command = [sys.executable, f"benchmarks/{self.script}.py", "--data", *data]
        if self.script == "inference":
            trained = args.runs.resolve() / "gpu" / "weights"
            command += ["--weights", str(trained if trained.exists() else ROOT / "weights")]
        return [*command, *(["--quick", "--width", "0.0625"] if args.dry_run else [])]

    def share_done(self, args: argparse.Namespace) -> float:
        return 0.0


Job = Training | Benchmark

# In the order of what they are worth, should the loan end early. The networks that ship come first. The benchmarks are
# next, since they take minutes, and their tables are to be those of the weights that ship. The skips' table, most of
# the work, is for a loan of its own. Epochs make 10 to 60 thousand steps for the weights that ship, by the size of the
# set; the table's networks get fewer, all of them the same.
_BATCH = ("--batch-size", "12")
_HANDS = ("--crop", "96", "112", *_BATCH)
_HANDS_CROPPED = ("--width", "0.5", "--crop", "100", "116", *_BATCH)
JOBS: tuple[Job, ...] = (
    Training("streets", "crop-concat", 9, 1000, ("--crop", "276", "356", "--working-pixels", "172800", *_BATCH)),
    Training("nuclei", "crop-concat", 5, 800, ("--crop", "212", "276", *_BATCH)),
    Training("streets", "residual-add", 2.5, 1500, _BATCH),
    Training("nuclei", "residual-add", 1.5, 1000, _BATCH),
    Training("hands", "residual-add", 1, 4000, _HANDS),
    Training("hands", "crop-concat", 1.5, 2000, _HANDS_CROPPED),
    Training("streets", "residual-concat", 2.5, 1500, _BATCH),
    Training("nuclei", "residual-concat", 1.5, 1000, _BATCH),
    Training("hands", "residual-concat", 1, 4000, _HANDS),
    Benchmark("inference", 6),
    Benchmark("training", 3),
    *(
        Training(task, f"{body}-{skip}", minutes, epochs, _BATCH, seed)
        for seed in range(SEEDS)
        for task, epochs in (("streets", 200), ("nuclei", 150))
        for body, minutes in (("residual", 0.6), ("crop", 1.2))
        for skip in ("add", "concat")
    ),
)


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    (args.runs / "gpu" / "sent").mkdir(parents=True, exist_ok=True)
    if args.join:
        return join(args)
    jobs = [job for job in JOBS if args.only is None or {job.name, job.group} & set(args.only)]
    if args.plan:
        plan(jobs, args)
        return 0
    failed = work_until(time.monotonic() + 60 * args.minutes - args.reserve, jobs, args)
    send(jobs, args)
    for job in failed:
        log = log_of(job, args)
        print(f"{job.name} failed; the end of {log}:\n{log.read_bytes()[-LAST_WORDS:].decode(errors='replace')}")
    to_do = [job for job in jobs if not is_done(job, args)]
    to_send = [job for job in jobs if is_done(job, args) and not mark(job, args).exists()]
    minutes = sum((1 - job.share_done(args)) * minutes_of(job, args) for job in to_do)
    left = f"call again: {len(to_do)} to do, about {minutes:.0f} minutes of the card, {len(to_send)} to send"
    print(left if to_do or to_send else "all done")
    return 1 if failed else 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="folder with one folder a task")
    add("--out", type=Path, help="where results are put to leave this machine")
    add(
        "--plan",
        type=float,
        metavar="MINUTES",
        help="time some steps of each network; fit all of them into the minutes",
    )
    add("--minutes", type=float, default=9.0, help="how long this call may take (default: %(default)s)")
    add("--reserve", type=float, default=45.0, help="seconds of them kept for saving (default: %(default)s)")
    add("--megabytes", type=float, default=63.0, help="how much may leave with this call, MiB (default: %(default)s)")
    add("--parallel", type=int, default=4, help="networks that share the card (default: %(default)s)")
    names = list(dict.fromkeys([job.group for job in JOBS] + [job.name for job in JOBS]))
    add(
        "--only", nargs="+", choices=names, metavar="NAME", help=f"some of the jobs: {', '.join(names[:3])}, or by name"
    )
    add("--runs", type=Path, default=ROOT / "runs", help="where everything is kept between calls")
    add("--dry-run", action="store_true", help="one epoch of very narrow networks, to see that everything works")
    add("--join", type=Path, metavar="OUT", help="unpack what came back; says where something is missing")
    add("--write", action="store_true", help="with --join: put the benchmarks' tables into README.md")
    args = parser.parse_args(arguments)
    if not args.join and not (args.data and args.out):
        parser.error("--data and --out are needed to work, --join to unpack")
    return args


# What is done --------------------------------------------------------------------------------------------------------


def mark(job: Job, args: argparse.Namespace) -> Path:
    """A file that is there when a job's results have left this machine, or have come home."""
    return args.runs / "gpu" / "sent" / job.name


def log_of(job: Job, args: argparse.Namespace) -> Path:
    return args.runs / "gpu" / f"{job.name}.log"


def is_done(job: Job, args: argparse.Namespace) -> bool:
    """What it writes last is here, or has left already."""
    return mark(job, args).exists() or (args.runs / job.folder / job.results[-1]).exists()


# How long it takes ---------------------------------------------------------------------------------------------------


def plan(jobs: Sequence[Job], args: argparse.Namespace) -> None:
    """Time some steps of every network, nothing else running, and write down how many epochs its minutes are.

    Each has its share of --plan, in the ratio of the jobs' own minutes. A run that was begun needs the plan it began
    with.
    """
    import train
    from training import Bench, torch
    from training.dataset import load_dataset
    from training.datasets import TASKS

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    to_train = [job for job in jobs if isinstance(job, Training) and not is_done(job, args)]
    trainings = {(job.schedule, job.architecture): job for job in to_train}.values()
    longer = args.plan / sum(job.minutes for job in to_train)
    datasets = {task: load_dataset(args.data / task, task=TASKS[task]) for task in {job.task for job in trainings}}
    found: dict[str, dict[str, float]] = {}
    print("| schedule | network | steps a second | epochs | steps | minutes |\n|---|---|--:|--:|--:|--:|")
    for job in trainings:
        flags = train.parse_arguments(["--task", job.task, *job.all_flags(args)])
        flags.quick = args.dry_run
        dataset = datasets[job.task]
        bench = Bench(dataset, job.architecture, device, flags.batch_size, 2 if args.dry_run else 20, flags)
        measured = bench.fit_once()
        epoch = len(dataset.train) / measured["rate"]
        besides = VALIDATIONS * (measured["validation"] + measured["checkpoint"])
        epochs = max(1, min(job.epochs, int((60 * longer * job.minutes - besides) / epoch)))
        fits = found.setdefault(job.schedule, {"epochs": epochs, "minutes": 0.0})
        fits["epochs"] = min(epochs, fits["epochs"])
        fits["minutes"] = max((fits["epochs"] * epoch + besides) / 60, fits["minutes"])
        print(
            f"| {job.schedule} | {job.architecture} | {measured['rate'] / flags.batch_size:.1f} | {epochs} "
            f"| {epochs * len(dataset.train) / flags.batch_size:,.0f} | {(epochs * epoch + besides) / 60:.1f} |",
            flush=True,
        )
    text = json.dumps(planned(args) | found, indent=1) + "\n"
    (args.runs / "gpu" / "plan.json").write_text(text, encoding="utf-8")


def planned(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """{schedule: {"epochs": ..., "minutes": ...}}, empty before `plan`."""
    path = args.runs / "gpu" / "plan.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def minutes_of(job: Job, args: argparse.Namespace) -> float:
    return planned(args).get(job.schedule, {}).get("minutes", job.minutes) if isinstance(job, Training) else job.minutes


# Work ----------------------------------------------------------------------------------------------------------------


def work_until(deadline: float, jobs: Iterable[Job], args: argparse.Namespace) -> list[Job]:
    """Do what is not done: the weights that ship, the benchmarks, the table. Returns what failed."""
    waiting: dict[str, list[Job]] = {job.group: [] for job in JOBS}
    for job in jobs:
        if not is_done(job, args):
            waiting[job.group].append(job)
    failed = train_until(deadline, waiting["weights"], args)
    for job in waiting["benchmarks"]:
        # One that would not be done in time is left to the next call, which begins with it.
        if deadline - time.monotonic() > (0 if args.dry_run else 60 * job.minutes):
            failed += [job] * (not run_alone(job, deadline, args))
    return failed + train_until(deadline, waiting["table"], args)


def run_alone(job: Benchmark, deadline: float, args: argparse.Namespace) -> bool:
    """Keep what a benchmark prints. Returns whether it came to its end."""
    table = args.runs / job.folder / job.results[-1]
    table.parent.mkdir(parents=True, exist_ok=True)
    partial = table.with_suffix(".partial")
    with partial.open("wb") as printed, log_of(job, args).open("ab") as log:
        try:
            left = max(1.0, deadline - time.monotonic())
            status = subprocess.run(job.command(args), cwd=ROOT, stdout=printed, stderr=log, timeout=left).returncode
        except subprocess.TimeoutExpired:
            print(f"{job.name}: not done in time, to be done again", flush=True)
            return True
    print(f"{job.name}: {'failed' if status else 'done'}", flush=True)
    if not status:
        partial.replace(table)
    return not status


def train_until(deadline: float, waiting: list[Training], args: argparse.Namespace) -> list[Job]:
    """Train several at a time; at the deadline all save and stop. Returns what failed."""
    waiting = list(waiting)
    threads = max(1, (os.cpu_count() or 1) // args.parallel)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    running: dict[Job, subprocess.Popen] = {}
    failed: list[Job] = []
    while (waiting or running) and time.monotonic() < deadline:
        while waiting and len(running) < args.parallel:
            job = waiting.pop(0)
            with log_of(job, args).open("ab") as log:
                running[job] = subprocess.Popen(job.command(args), cwd=ROOT, env=environment, stdout=log, stderr=log)
        time.sleep(0.5)
        for job, process in list(running.items()):
            if process.poll() is not None:
                del running[job]
                print(f"{job.name}: {'failed' if process.returncode else 'done'}", flush=True)
                failed += [job] * bool(process.returncode)
    for process in running.values():
        process.send_signal(signal.SIGINT)
    for job, process in running.items():
        try:
            status = process.wait(max(1.0, args.reserve / 2))
        except subprocess.TimeoutExpired:  # a signal that arrives while torch is imported can get lost
            process.send_signal(signal.SIGINT)
            status = process.wait()
        # 130 is train.py's own, after saving; -SIGINT comes before it has begun, and after it is done.
        stopped = status in (130, -signal.SIGINT)
        print(f"{job.name}: {'stopped, to go on' if stopped else 'failed' if status else 'done'}", flush=True)
        failed += [job] * (status != 0 and not stopped)
    return failed


# There and back ------------------------------------------------------------------------------------------------------


def send(jobs: Iterable[Job], args: argparse.Namespace) -> None:
    """Put what is done and has not left yet into --out, as far as --megabytes allow: one archive, in parts."""
    args.out.mkdir(parents=True, exist_ok=True)
    room = args.megabytes * 2**20
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for job in jobs:
            if mark(job, args).exists() or not is_done(job, args):
                continue
            folder = args.runs / job.folder
            files = sorted({file for pattern in job.results for file in folder.glob(pattern)})
            size = sum(file.stat().st_size + 1024 for file in files)  # a header each
            if packed.tell() + size + tarfile.RECORDSIZE > room:
                print(f"{job.name}: {size / 2**20:.1f} MiB, does not fit into what may leave now")
                continue
            mark(job, args).touch()
            for file in (*files, mark(job, args)):
                archive.add(file, arcname=str(file.relative_to(args.runs)))
            print(f"{job.name}: {size / 2**20:.1f} MiB packed")
        if not archive.members:
            return
    content = packed.getvalue()
    parts, name = range(0, len(content), PART), f"results-{time.time_ns() // 10**6}"  # no two calls' alike
    for number, start in enumerate(parts, start=1):
        (args.out / f"{name}.{number}-of-{len(parts)}.tar").write_bytes(content[start : start + PART])


def join(args: argparse.Namespace) -> int:
    """Unpack into --runs whatever came back complete. Returns 1 where something is missing."""
    found: dict[str, list[Path]] = {}
    for path in args.join.rglob("*-of-*.tar"):
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
        print(f"{name}: unpacked")
    print("here:", *(job.name for job in JOBS if mark(job, args).exists()))
    for job in JOBS:
        table = args.runs / job.folder / job.results[-1]
        if args.write and job.group == "benchmarks" and table.exists():
            from measuring import put_into_readme

            put_into_readme(job.script, table.read_text(encoding="utf-8").strip(), gpu=True)
    return int(missing or not found)


if __name__ == "__main__":
    sys.exit(main())
