"""A small GPT: a decoder of transformer blocks, normalised before each part (Radford 2019)."""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from p2ptrain.core.errors import ManifestError

SPREAD = 0.02
"""Standard deviation of fresh weights (Radford 2019)."""


def gpt(
    *,
    in_channels: int = 1,
    size: int,
    classes: int,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
    tied: bool = True,
) -> nn.Module:
    """Return a model of the next token.

    Args:
        in_channels: one.
        size: longest context, in tokens.
        classes: how many tokens there are.
        width: numbers that stand for a token.
        layers: transformer blocks.
        heads: of attention in each; they share `width`.
        dropout: share that is left out of each part's result.
        tied: tokens have the same numbers where they enter and where they are scored (Press 2017). A net
            that is not can be cut into layers.

    Raises:
        ManifestError: the width cannot be shared by that many heads.
    """
    if heads < 1 or width % heads:
        raise ManifestError(f"{heads} heads cannot share a width of {width}", "make it a multiple of `heads`")
    return Gpt(size, classes, width, layers, heads, dropout, tied)


class Gpt(nn.Module):
    """Scores (examples, tokens, classes) of what follows each token of (examples, tokens), int64.

    Attributes:
        context: longest input, in tokens.
    """

    def __init__(
        self,
        context: int,
        classes: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        tied: bool = True,
    ) -> None:
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(classes, width)
        self.places = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        blocks = [Block(width, heads, dropout) for _ in range(layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width, bias=False)
        self.scores = nn.Linear(width, classes, bias=False)
        if tied:
            self.scores.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=SPREAD)
        for block in blocks:
            for last in (block.attention.joined, block.shrink):
                nn.init.normal_(last.weight, std=SPREAD / sqrt(2 * layers))

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        numbers = self.dropout(self.tokens(tokens) + self.places(places))
        scores: Tensor = self.scores(self.norm(self.blocks(numbers)))
        return scores


class Block(nn.Module):
    """Attention, then two layers for each token alone; both are added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.gelu = nn.GELU()
        self.shrink = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, numbers: Tensor) -> Tensor:
        numbers = numbers + self.dropout(self.attention(self.norm1(numbers)))
        inner = self.shrink(self.gelu(self.widen(self.norm2(numbers))))
        return numbers + self.dropout(inner)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Each token looks at itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.asked = nn.Linear(width, 3 * width, bias=False)
        self.joined = nn.Linear(width, width, bias=False)

    def forward(self, numbers: Tensor) -> Tensor:
        examples, length, width = numbers.shape
        parts = self.asked(numbers).view(examples, length, 3, self._heads, width // self._heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        joined: Tensor = self.joined(seen.transpose(1, 2).reshape(examples, length, width))
        return joined


@torch.no_grad()
def write(net: Gpt, tokens: list[int], count: int, temperature: float = 0.8) -> list[int]:
    """Return `count` more tokens after these, drawn from torch's global generator.

    Args:
        net: in evaluation mode.
        tokens: at least one.
        count: how many to add.
        temperature: 1: as the net believes; towards 0: only the likeliest; 0.8 is a common choice.
    """
    device = net.tokens.weight.device
    text = list(tokens)
    for _ in range(count):
        seen = torch.tensor([text[-net.context :]], device=device)
        shares = (net(seen)[0, -1].float().cpu() / temperature).softmax(0)
        text.append(int(torch.multinomial(shares, 1)))
    return text[len(tokens) :]
