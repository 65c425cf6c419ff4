"""Run by torchrun in test_distributed: do several processes have the loss and the gradient of one?"""

import copy
import dataclasses

import torch
from accelerate import Accelerator

from training.distributed import GlobalBatchNorm, gather
from training.loss import SegmentationLoss
from unet import ARCHITECTURES, UNet

accelerator = Accelerator(mixed_precision="no")
for architecture in ("residual-add", "crop-concat"):
    config = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    config = dataclasses.replace(
        config, widths=tuple(w // 16 for w in config.widths), batch_norm="before_relu", num_outputs=3, dropout=()
    )
    net = UNet(config).double()
    alone = copy.deepcopy(net)
    size = config.input_size((16, 24))
    images = torch.randn(4, 3, *size, dtype=torch.double)
    labels = torch.randint(0, 3, (4, *config.output_size(size)))
    labels[0] = 255  # one process has more void than the other: a mean of their means would be wrong
    labels[3] = 2  # and only one has seen some classes
    loss_function = SegmentationLoss(3, torch.tensor([1.0, 2.0, 5.0], dtype=torch.double))

    GlobalBatchNorm.convert(net)
    model = accelerator.prepare(net)
    part = images.chunk(accelerator.num_processes)[accelerator.process_index]
    loss = loss_function(gather(model(part), accelerator), labels)
    accelerator.backward(loss)
    expected = loss_function(alone(images), labels)
    expected.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for (name, parameter), other in zip(net.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-6, atol=1e-12, msg=name)
    for buffer, other in zip(net.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=1e-12, atol=1e-12)
    print(f"{architecture}: process {accelerator.process_index} of {accelerator.num_processes} agrees")
