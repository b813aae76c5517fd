"""All of Shakespeare's plays in one text of 1.1 million characters: a small GPT learns what comes next."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from p2ptrain.learn.losses import smoothed
from p2ptrain.learn.recipe import Recipe
from p2ptrain.learn.task import Task
from p2ptrain.tasks import models
from p2ptrain.tasks.loaders import text
from p2ptrain.tasks.loaders.text import Vocabulary
from p2ptrain.tasks.models.gpt import Gpt, write

CHARACTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

WRITTEN = 400
"""Characters that a sample adds."""


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """Settings of the net.

    context: characters that it sees at once.
    width: numbers that stand for a character.
    layers: transformer blocks.
    heads: of attention in each; they share `width`.
    dropout: share that is left out of each part's result.
    tied: characters have the same numbers where they enter and where they are scored; a net that is not
        tied can be cut into layers, for `layerwise` and `pipeline`.
    """

    context: int = 64
    width: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    tied: bool = True
    optimizer: str = "adamw"
    lr: float = 1e-3


def model(cfg: Config) -> nn.Module:
    return models.build(
        "gpt",
        in_channels=1,
        size=cfg.context,
        classes=len(CHARACTERS),
        width=cfg.width,
        layers=cfg.layers,
        heads=cfg.heads,
        dropout=cfg.dropout,
        tied=cfg.tied,
    )


def data(cfg: Config, split: str) -> TensorDataset:
    tokens, _ = text.read(text.find(), split, "shakespeare")
    return TensorDataset(*text.windows(tokens, cfg.context))


def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy in nats a character, and the share of them that is right; one of each an example.

    Args:
        net: a GPT.
        batch: characters of shape (examples, context), int64; and those that follow each, or the share of
            each character as floats of shape (examples, context, characters).
    """
    seen, following = batch
    scores = net(seen)
    losses = cross_entropy(scores.flatten(0, 1), following.flatten(0, 1), reduction="none")
    right = scores.argmax(2) == (following if following.ndim == 2 else following.argmax(2))
    return losses.view(seen.shape).mean(1), {"accuracy": right.float().mean(1)}


def prepare(cfg: Config, batch: tuple[Tensor, Tensor], training: bool) -> tuple[Tensor, Tensor]:
    """Smooth what follows in training, if the config says so."""
    seen, following = batch
    if training and cfg.label_smoothing:
        following = smoothed(following, len(CHARACTERS), cfg.label_smoothing)
    return seen, following


def sample(net: nn.Module, cfg: Any, prompt: str) -> str:
    """Go on with a text; characters that Shakespeare lacks are left out."""
    vocabulary = Vocabulary(CHARACTERS)
    begin = vocabulary.encode(prompt)
    if not len(begin):
        begin = vocabulary.encode("\n")
    was_training = net.training
    net.eval()
    added = write(cast(Gpt, net), begin.tolist(), WRITTEN)
    net.train(was_training)
    return vocabulary.decode(torch.cat([begin, torch.tensor(added)]))


task = Task(
    "shakespeare",
    version="1",
    model=model,
    data=data,
    loss=loss,
    config=Config,
    sample=sample,
    prepare=prepare,
)
