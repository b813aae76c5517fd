"""Photographs of textures, a folder for each class, cut into patches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from p2ptrain.core.errors import ConfigError
from p2ptrain.tasks.loaders import textures
from p2ptrain.tasks.loaders.decoding import size_of
from p2ptrain.tasks.loaders.files import reading
from p2ptrain.tasks.shared.pictures import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Look,
    PictureConfig,
    answer,
    picture_task,
    shares,
)

GREY: tuple[tuple[float, ...], tuple[float, ...]] = (0.45,), (0.23,)
"""Mean and deviation of the brightness, from those of the colours."""

PATCHES_MAX = 64
"""Of a photograph whose class is guessed."""


@dataclass(frozen=True, kw_only=True)
class Config(PictureConfig):
    """Settings of the patches.

    classes: so many folders of photographs may there be; 47 as in the Describable Textures Dataset.
    size: side of a patch, in pixels; the source of this task has 256.
    overlap: of neighbouring patches, as a share of their side.
    turns: 1, 2 or 4 directions in which each patch is seen.
    colours: or grey.
    contrast: all patches are given the same.
    """

    classes: int = 47
    size: int = 64
    overlap: float = 0.5
    turns: int = 4
    colours: bool = True
    contrast: bool = True


def look(cfg: Config) -> Look:
    mean, deviation = (IMAGENET_MEAN, IMAGENET_DEVIATION) if cfg.colours else GREY
    if cfg.contrast:
        mean = (textures.MIDDLE / 255,) * len(mean)
        deviation = (textures.DEVIATION / 255,) * len(mean)
    return Look(cfg.size, cfg.classes, lambda: names(cfg), mean, deviation)


def names(cfg: Config) -> Sequence[str]:
    found = textures.class_names(textures.find())
    if len(found) > cfg.classes:
        raise ConfigError(
            f"there are {len(found)} classes of textures here, more than {cfg.classes}",
            f"set `classes` to {len(found)}",
        )
    return found


def data(cfg: Config, split: str) -> textures.Patches:
    names(cfg)
    return textures.read(textures.find(), split, cut(cfg))


def cut(cfg: Config) -> textures.Cut:
    return textures.Cut(
        cfg.size,
        cfg.overlap,
        turns=cfg.turns,
        channels=3 if cfg.colours else 1,
        contrast=cfg.contrast,
    )


def sample(net: nn.Module, cfg: Any, prompt: str) -> str:
    """Let all patches of a photograph say what they see."""
    file = Path(prompt)
    with reading(file):
        width, height = size_of(file)
    whole = textures.Patches(
        [textures.Photograph(file, 0, width, height)], replace(cut(cfg), overlap=0, turns=1)
    )
    if not len(whole):
        raise ConfigError(f"{file} is smaller than a patch of {cfg.size} pixels", "choose another photograph")
    patches, _ = whole.take(torch.arange(min(len(whole), PATCHES_MAX)))
    return answer(shares(net, look(cfg), patches).mean(0), names(cfg))


task = replace(picture_task("textures", look, data, Config), sample=sample)
