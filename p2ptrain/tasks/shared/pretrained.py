"""Nets that begin with weights that others published, all but their last layer."""

from torch import nn

from p2ptrain.core.errors import ManifestError
from p2ptrain.learn.weights import foreign
from p2ptrain.tasks import models
from p2ptrain.tasks.loaders import files

WEIGHTS = "resnet20_cifar10"
FILE = "resnet20-12fca82f.th"
"""ResNet-20, 91.73 % on CIFAR-10, for pictures with the mean and deviation of ImageNet (Idelbayev 2018)."""

LAST = "linear."


def begin(net: nn.Module, model: str) -> None:
    """Give a ResNet-20 the published weights; its last layer stays as it was drawn.

    Raises:
        ManifestError: no weights are known for this net.
        ConfigError: they are not here, and could not be got.
    """
    twin = models.build("resnet20", in_channels=3, size=32, classes=10)
    mine, theirs = net.state_dict(), twin.state_dict()
    body = [name for name in theirs if not name.startswith(LAST)]
    if model != "resnet20" or any(mine[name].shape != theirs[name].shape for name in body):
        raise ManifestError(
            "published weights are known for resnet20 of the usual width",
            "`--set model=resnet20`, or `--set pretrained=false`",
        )
    path = files.find(WEIGHTS) / FILE
    files.read(path, WEIGHTS)  # compares its checksum
    foreign.fit(foreign.read(path), twin)
    net.load_state_dict({name: theirs[name] for name in body}, strict=False)
