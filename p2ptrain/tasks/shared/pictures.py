"""What the tasks share that tell what a picture shows: settings, the way from bytes to numbers, guesses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import Dataset, TensorDataset

from p2ptrain.learn.losses import classification, smoothed
from p2ptrain.learn.recipe import Recipe
from p2ptrain.learn.task import Task
from p2ptrain.tasks import models
from p2ptrain.tasks.shared import pretrained
from p2ptrain.tasks.shared.seeing import see

SHIFT = 8
"""In training pictures move by up to an eighth of their side: 4 pixels of 32 (He 2015)."""

GUESSES = 3

IMAGENET_MEAN: tuple[float, ...] = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: tuple[float, ...] = (0.229, 0.224, 0.225)
"""Of red, green and blue from 0 to 1: what nets for photographs are used to."""


@dataclass(frozen=True, kw_only=True)
class PictureConfig(Recipe):
    """Settings that tasks with pictures share.

    model: `cnn2`, `cnn3`, `mlp`, `resnet20`; with the extra `zoo` also `vgg16`, `vgg19`, `resnet50`,
        `resnet152`, `inceptionv4`, `mobilenetv3`.
    width: of the first layer, in models that can have another; 0: what suits the model.
    dropout: share that is left out, in models that do that; below 0: what suits the model.
    """

    model: str = "cnn3"
    width: int = 0
    dropout: float = -1.0


@dataclass(frozen=True, kw_only=True)
class PhotoConfig(PictureConfig):
    """Settings of tasks with small photographs.

    examples: so many of the training set; 0: all.
    pretrained: resnet20 begins with published weights, all but its last layer.
    """

    examples: int = 0
    pretrained: bool = False


@dataclass(frozen=True)
class Look:
    """What the pictures of a data set are like.

    size: pixels along a side.
    names: gives the name of each class in order.
    mean, deviation: of the pixels as shares of `white`, one for each channel.
    flips: a mirrored picture shows the same thing.
    white: the largest value of a pixel.
    """

    size: int
    classes: int
    names: Callable[[], Sequence[str]]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    flips: bool = True
    white: int = 255

    @property
    def channels(self) -> int:
        """How many numbers a pixel has."""
        return len(self.mean)


def picture_task(
    name: str,
    look: Callable[[Any], Look],
    data: Callable[[Any, str], "Dataset[Any]"],
    config: type[PictureConfig],
) -> Task:
    """Return a task whose examples are pictures and classes.

    Args:
        name: what manifests call it.
        look: tells from the config what the pictures are like.
        data: gives uint8 of shape (channels, size, size), and the class as int64.
        config: has the defaults of this task.
    """

    def sample(net: nn.Module, cfg: Any, prompt: str) -> str:
        return guess(net, look(cfg), prompt)

    return Task(
        name,
        version="1",
        model=lambda cfg: build(cfg, look(cfg)),
        data=data,
        loss=classification,
        config=config,
        sample=sample,
        prepare=lambda cfg, batch, training: prepare(cfg, look(cfg), batch, training),
    )


def first(count: int, images: Tensor, labels: Tensor) -> TensorDataset:
    """Return the first examples of a set; 0: all of them."""
    return TensorDataset(images[:count], labels[:count]) if count else TensorDataset(images, labels)


def build(cfg: PictureConfig, look: Look) -> nn.Module:
    """Return the model that the config names, for pictures that look like this."""
    wanted = {"width": cfg.width} if cfg.width > 0 else {}
    settings: dict[str, Any] = wanted | ({"dropout": cfg.dropout} if cfg.dropout >= 0 else {})
    known = models.settings_of(cfg.model)
    net = models.build(
        cfg.model,
        in_channels=look.channels,
        size=look.size,
        classes=look.classes,
        **{name: value for name, value in settings.items() if name in known},
    )
    if isinstance(cfg, PhotoConfig) and cfg.pretrained:
        pretrained.begin(net, cfg.model)
    return net


def prepare(
    cfg: PictureConfig, look: Look, batch: tuple[Tensor, Tensor], training: bool
) -> tuple[Tensor, Tensor]:
    """Make numbers of bytes; in training, as the config says, move and mirror pictures and smooth labels.

    Args:
        cfg: says what is done in training.
        look: of the pictures.
        batch: uint8 of shape (examples, channels, size, size), and int64 of shape (examples,).
        training: whether the batch is for training.

    Returns:
        float32 of the same shape, and the classes, or the share of each class (examples, classes).
    """
    images, labels = batch
    if training and cfg.augment:
        images = moved(images, look.size // SHIFT)
        images = mirrored(images) if look.flips else images
    if training and cfg.label_smoothing:
        labels = smoothed(labels, look.classes, cfg.label_smoothing)
    return normalised(images, look), labels


def normalised(images: Tensor, look: Look) -> Tensor:
    """Return bytes as numbers with mean 0 and deviation 1: float32, of the same shape."""
    numbers = images / look.white
    if any(look.mean):
        numbers.sub_(_column(look.mean, images.device))
    if any(one != 1 for one in look.deviation):
        numbers.div_(_column(look.deviation, images.device))
    return numbers


def moved(images: Tensor, most: int) -> Tensor:
    """Move each picture by up to `most` pixels in both directions; what comes in from outside is 0."""
    count, _, height, width = images.shape
    padded = pad(images, (most, most, most, most))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    down, right = torch.randint(2 * most + 1, (2, count), device=images.device)
    return windows[torch.arange(count, device=images.device), :, down, right]


def mirrored(images: Tensor) -> Tensor:
    """Swap left and right in every other picture, by chance."""
    turned = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(turned.view(-1, 1, 1, 1), images.flip(3), images)


def guess(net: nn.Module, look: Look, path: str) -> str:
    """Return the likeliest classes of the picture in a file and how sure the net is, one a line.

    Raises:
        ConfigError: there is no picture in that file.
    """
    image = see(path, look.size, look.channels, look.white)
    return answer(shares(net, look, image.unsqueeze(0))[0], look.names())


@torch.no_grad()
def shares(net: nn.Module, look: Look, images: Tensor) -> Tensor:
    """Return how sure the net is of each class: float32 of shape (examples, classes), on the CPU."""
    was_training = net.training
    net.eval()
    scores: Tensor = net(normalised(images.to(next(net.parameters()).device), look))
    net.train(was_training)
    return scores.float().softmax(1).cpu()


def answer(of_classes: Tensor, names: Sequence[str]) -> str:
    """Say which classes are likeliest, and how likely, one a line."""
    best = of_classes.topk(min(GUESSES, len(names)))
    lines = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return "\n".join(f"{share:6.1%}  {_name(names, index)}" for share, index in lines)


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"class {index}"


@lru_cache(maxsize=64)
def _column(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """Return one number a channel, on the device: copying it there for every batch would make it wait."""
    return torch.tensor(numbers, device=device).view(-1, 1, 1)
