"""Rounded to 8 bits of precision: 2 bytes a number."""

import torch
from torch import Tensor

from p2ptrain.learn.weights.codecs.codec import Part
from p2ptrain.learn.weights.codecs.finite import check_finite

PRECISION = 2.0**-8
"""Largest relative error of a number that is not tiny."""

TINIEST = 2.0**-133
"""The smallest number of this format above zero."""


class BF16:
    """Range of float32, up to 3.39e38."""

    name = "bf16"
    whole = True
    tag = "BF16"
    width = 2

    def parts(self, count: int) -> tuple[Part, ...]:
        return ()

    def encode(self, vector: Tensor) -> Tensor:
        numbers = vector.to(torch.bfloat16)
        check_finite(numbers)
        return numbers.view(torch.uint8)

    def decode(self, data: Tensor, count: int) -> Tensor:
        vector = data.view(torch.bfloat16).float()
        check_finite(vector)
        return vector

    def bound(self, vector: Tensor) -> Tensor:
        return vector.abs() * PRECISION + TINIEST
