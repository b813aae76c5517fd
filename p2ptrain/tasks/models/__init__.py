"""Nets by name. A new one is a function in a file of its family, and a line in the table."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from p2ptrain.core.errors import ManifestError
from p2ptrain.tasks.models.cnn import cnn2, cnn3
from p2ptrain.tasks.models.gpt import gpt
from p2ptrain.tasks.models.inception import inceptionv4
from p2ptrain.tasks.models.mlp import mlp
from p2ptrain.tasks.models.mobilenet import mobilenetv3
from p2ptrain.tasks.models.resnet import resnet50, resnet152
from p2ptrain.tasks.models.resnet20 import resnet20
from p2ptrain.tasks.models.vgg import vgg16, vgg19

MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn2": cnn2,
    "cnn3": cnn3,
    "mlp": mlp,
    "resnet20": resnet20,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "resnet50": resnet50,
    "resnet152": resnet152,
    "inceptionv4": inceptionv4,
    "mobilenetv3": mobilenetv3,
    "gpt": gpt,
}
"""Each takes `in_channels`, `size`, `classes`, and settings of its own with defaults that suit it."""

PIXELS_MIN = {"cnn2": 3, "cnn3": 8, "vgg16": 32, "vgg19": 32, "inceptionv4": 13}
"""Along a side: of smaller pictures nothing is left before they are judged. Others take any."""

PICTURE_MODELS = tuple(name for name in MODELS if name != "gpt")


def build(name: str, *, in_channels: int, size: int, classes: int, **settings: Any) -> nn.Module:
    """Return a net in float32 with weights drawn from torch's global generator.

    Args:
        name: a key of `MODELS`.
        in_channels: of the pictures; a text has one.
        size: pixels along a side, or tokens of context.
        classes: scores that come out: shape (examples, classes), of a text (examples, tokens, classes).
        settings: of this model, see `settings_of`.

    Raises:
        ManifestError: there is no such model or setting, or the model cannot be built like that.
        ConfigError: the model comes with an extra that is not installed.
    """
    known = settings_of(name)
    for setting in settings:
        if setting not in known:
            raise ManifestError(
                f"the model {name} has no setting `{setting}`", f"known are: {', '.join(known) or 'none'}"
            )
    if size < (least := PIXELS_MIN.get(name, 1)):
        raise ManifestError(
            f"the model {name} takes pictures of {least} pixels a side or more, and these have {size}",
            "choose another model",
        )
    return MODELS[name](in_channels=in_channels, size=size, classes=classes, **settings)


def settings_of(name: str) -> tuple[str, ...]:
    """Return the names of a model's own settings.

    Raises:
        ManifestError: there is no such model.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        meant = f"did you mean `{near[0]}`?" if near else f"known are: {', '.join(MODELS)}"
        raise ManifestError(f"there is no model `{name}`", meant)
    parameters = inspect.signature(MODELS[name]).parameters.values()
    return tuple(one.name for one in parameters if one.default is not one.empty)
