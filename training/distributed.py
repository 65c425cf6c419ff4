"""Let several processes train as one, on CPUs and GPUs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import torch
import torch.distributed.nn.functional as distributed
from accelerate import Accelerator
from torch import Tensor, nn

from unet.predict import has_native_bfloat16

from .checkpoint import TrainingError


def make_accelerator(tracker: str | None = None) -> Accelerator:
    """This process's Accelerator, in bfloat16 where native.

    ACCELERATE_MIXED_PRECISION overrides the precision. tracker: "trackio" or "tensorboard".
    Raises TrainingError where the tracker is not installed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Left to choose, Accelerate would take Apple's or Intel's GPU, on which nothing here is tested, and under torchrun
    # it would not join processes without a GPU into one group.
    cpu = device.type == "cpu"
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION") or ("bf16" if has_native_bfloat16(device) else "no")
    if tracker and importlib.util.find_spec(tracker) is None:
        raise TrainingError(f"{tracker} is not installed; run `pip install {tracker}`, or leave --track out")
    project = "runs" if tracker else None
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=project)


def gather(x: Tensor, accelerator: Accelerator) -> Tensor:
    """Concatenate the parts of all processes, with gradient.

    Each then has the loss of the whole batch; its gradient is the mean over processes, which is what DDP takes.
    """
    return torch.cat(distributed.all_gather(x)) if accelerator.num_processes > 1 else x


def reduce_max(values: Sequence[float], accelerator: Accelerator) -> list[float]:
    """Take the largest of each value over all processes."""
    # What decides the next step must be the same for all, or they would wait for each other for ever.
    if accelerator.num_processes == 1:
        return list(values)
    largest = torch.tensor(values, dtype=torch.double, device=accelerator.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return largest.tolist()


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm over all processes; SyncBatchNorm refuses CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        processes = torch.distributed.get_world_size()
        values = x.to(self.running_mean)  # of bfloat16, sums would lose digits
        mean = distributed.all_reduce(values.mean(dim=(0, 2, 3), keepdim=True)) / processes
        deviation = values - mean
        variance = distributed.all_reduce(deviation.square().mean(dim=(0, 2, 3), keepdim=True)) / processes
        with torch.no_grad():
            count = processes * x.numel() / x.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.view(-1), self.momentum)
            self.running_var.lerp_(variance.view(-1) * (count / (count - 1)), self.momentum)
        weight, bias = self.weight.view(1, -1, 1, 1), self.bias.view(1, -1, 1, 1)
        return (deviation * (weight * (variance + self.eps).rsqrt()) + bias).to(x.dtype)

    @staticmethod
    def convert(net: nn.Module) -> None:
        """Replace every BatchNorm2d of ``net``, in place."""
        for module in net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = GlobalBatchNorm
