"""Run in a process of its own by test_checkpoint: is a run that was killed, anywhere, the same run once it is resumed?

Every run is a child that the system itself kills: before one of the things it does to its folder or one of its steps,
or in the middle of a file, where the limit on a file's size strikes.
"""

import dataclasses
import hashlib
import importlib
import json
import os
import random
import resource
import signal
import sys
import traceback
from pathlib import Path

import torch
from folders import disc
from runs import RECIPE, train

from training.augment import PixelStore

SHORT = dataclasses.replace(RECIPE, epochs=2, batch_size=3)
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")  # audit events

torch.set_num_threads(1)  # a pool of threads would not survive the fork
importlib.import_module("segmentation_models_pytorch")  # of the loss: once, and not in every child
store = PixelStore([disc(36, 44, i) for i in range(4)], None, "cpu")


def run(folder: Path, *, kill_at: int = 0, file_limit: int = 0) -> tuple[int, str]:
    """Train in a child: the signal that ended it, 0 for none, and what it answers."""
    answer = folder.with_suffix(".answer")
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        return os.WTERMSIG(status), answer.read_text() if os.waitstatus_to_exitcode(status) == 0 else ""
    try:
        moments = steps = 0

        def moment(event, arguments):
            nonlocal moments, steps
            steps += event == "step"
            if event == "step" or (event in TOUCHES and str(folder) in str(arguments[0])):
                moments += 1
                if moments == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        def validate(net):
            if file_limit and (folder / "checkpoint").exists():
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
            return net.head.weight.abs().sum().item()

        batch = store.batch
        store.batch = lambda *given, **options: (moment("step", ()), batch(*given, **options))[1]
        sys.addaudithook(moment)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        finished = train(folder, recipe=SHORT, store=store, validate=validate, resume=True)
        weights = b"".join(tensor.numpy().tobytes() for tensor in finished.net.state_dict().values())
        epochs = [json.loads(line)["epoch"] for line in (folder / "history.jsonl").read_text().splitlines()]
        result = [hashlib.sha256(weights).hexdigest(), finished.record["best_step"], epochs]
        answer.write_text(json.dumps([moments, steps, result]))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


root = Path(sys.argv[1])
_, answer = run(root / "whole")
moments, steps, whole = json.loads(answer)
half, draw = moments // 2, random.Random(0)
cases = [{"kill_at": at} for at in (*sorted(draw.sample(range(1, half), 3)), *range(half, moments + 1))]
cases += [{"file_limit": at} for at in sorted(draw.sample(range(100, 70_000), 5))]
for number, case in enumerate(cases):
    folder = root / str(number)
    killed, _ = run(folder, **case)
    assert killed in (signal.SIGKILL, signal.SIGXFSZ), (case, killed)
    left = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    ended, answer = run(folder)
    assert ended == 0, (case, left, ended)
    _, steps_again, result = json.loads(answer)
    assert result == whole, (case, left, answer, whole)
    if {"checkpoint", "checkpoint.previous"} & {*left}:
        assert steps_again <= steps // 2, (case, left, "a saved epoch was trained again")
    print(f"{case}: left {left}")
print(f"{len(cases)} kills, every time the same weights")
