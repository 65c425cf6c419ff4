"""Several processes that train as one would on the whole batch, on CPUs and GPUs."""

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
    """The Accelerator of this process: bfloat16 where the hardware multiplies it natively, else float32.

    `accelerate launch` and ACCELERATE_MIXED_PRECISION override the precision.
    tracker: "trackio" or "tensorboard", which then gets loss and score. Raises TrainingError where it is not installed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Under torchrun, Accelerate joins processes without a GPU into one group only where it is told to use the CPU.
    cpu = device.type == "cpu" and int(os.environ.get("WORLD_SIZE", 1)) > 1
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION") or ("bf16" if has_native_bfloat16(device) else "no")
    if tracker and importlib.util.find_spec(tracker) is None:
        raise TrainingError(f"{tracker} is not installed; run `pip install {tracker}`, or leave --track out")
    project = "runs" if tracker else None
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=project)


def gather(x: Tensor, accelerator: Accelerator) -> Tensor:
    """Concatenate the parts (n, ...) of all processes; the gradient flows back to each part.

    Every process then has the whole batch's loss, whose gradient is the mean over processes, which is what DDP takes.
    """
    return torch.cat(distributed.all_gather(x)) if accelerator.num_processes > 1 else x


def agree(values: Sequence[float], accelerator: Accelerator) -> list[float]:
    """The largest of each of the ``values`` over all processes: what decides the next step must be one for all."""
    if accelerator.num_processes == 1:
        return list(values)
    largest = torch.tensor(values, dtype=torch.double, device=accelerator.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return largest.tolist()


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the parts (n, C, H, W) of a batch that all processes hold.

    torch's SyncBatchNorm does the same, but refuses tensors on a CPU.
    """

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
        """Make every BatchNorm2d of ``net`` one of these, in place; parameters and averages stay."""
        for module in net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = GlobalBatchNorm
