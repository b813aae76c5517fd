"""In which precision a net computes, and how pictures lie in memory. What it computes stays the same.

Weights, gradients and losses are float32 in any case, and a flat vector's order never changes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

T = TypeVar("T")

BF16_CAPABILITY = 8
"""NVIDIA GPUs compute in bf16 since this generation; earlier ones imitate it slowly."""


@dataclass
class Manner:
    """How a net computes on its device.

    bf16: products and activations in bfloat16 where torch's autocast thinks it safe, losses not.
    channels_last: pictures lie in memory point by point, with all channels of one together.
    """

    device: torch.device
    bf16: bool = False
    channels_last: bool = False

    def apply(self, function: Callable[[nn.Module, Any], T], net: nn.Module, batch: Any) -> T:
        """Call a task's `loss` or `evaluate` with a prepared batch on the device."""
        if self.channels_last:
            batch = over_tensors(batch, _channels_last)
        if not self.bf16:
            return function(net, batch)
        with torch.autocast(self.device.type, torch.bfloat16):
            return function(net, batch)

    def __str__(self) -> str:
        """Say what is not as usual: the end of a sentence."""
        return ", in bf16" if self.bf16 else ""


def manner_of(device: torch.device, net: nn.Module, precision: str) -> Manner:
    """Return how to compute: on a CPU what is always right, for `tuning` to find what is faster.

    Args:
        device: where the net lives.
        net: pictures lie in memory as suits its layers.
        precision: `f32`, `tf32`, `bf16` or `auto`. `f32` is exact; `tf32` has NVIDIA's tensor cores multiply
            with 11 instead of 24 bits of each number, and `bf16` leaves that to all that stays float32.
    """
    on_cuda = device.type == "cuda"
    if on_cuda:
        fast = torch.cuda.get_device_capability(device)[0] >= BF16_CAPABILITY or torch.version.hip is not None
        precision = ("bf16" if fast else "f32") if precision == "auto" else precision
        torch.backends.cudnn.allow_tf32 = precision != "f32"
        torch.set_float32_matmul_precision("highest" if precision == "f32" else "high")
    return Manner(device, precision == "bf16", on_cuda and convolves(net))


def convolves(net: nn.Module) -> bool:
    """Say whether a net has convolutions of pictures: the layout matters to them only."""
    return any(isinstance(module, _ConvNd) and len(module.kernel_size) == 2 for module in net.modules())


def cpu_has_bf16() -> bool:
    """Say whether this CPU multiplies in bf16 itself; else it is imitated."""
    return any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)


def over_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change each tensor of a batch: in tuples, lists and dicts, named ones too."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, dict):
        return {name: over_tensors(item, change) for name, item in batch.items()}
    if isinstance(batch, tuple | list):
        changed = [over_tensors(item, change) for item in batch]
        return type(batch)(*changed) if hasattr(batch, "_fields") else type(batch)(changed)
    return batch


def _channels_last(tensor: Tensor) -> Tensor:
    is_pictures = tensor.ndim == 4 and tensor.is_floating_point()
    return tensor.contiguous(memory_format=torch.channels_last) if is_pictures else tensor
