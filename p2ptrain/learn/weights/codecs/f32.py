"""As the numbers are: 4 bytes each, exact."""

import torch
from torch import Tensor

from p2ptrain.learn.weights.codecs.codec import Part
from p2ptrain.learn.weights.codecs.finite import check_finite


class F32:
    """Neither way copies anything."""

    name = "f32"
    whole = True
    tag = "F32"
    width = 4

    def parts(self, count: int) -> tuple[Part, ...]:
        return ()

    def encode(self, vector: Tensor) -> Tensor:
        check_finite(vector)
        return vector.view(torch.uint8)

    def decode(self, data: Tensor, count: int) -> Tensor:
        vector = data.view(torch.float32)
        check_finite(vector)
        return vector

    def bound(self, vector: Tensor) -> Tensor:
        return torch.zeros_like(vector)
