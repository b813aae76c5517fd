"""The terms of the data of built-in tasks, for whoever passes on what was trained on it.

As noted down when the data sets were collected in November 2026, several of them from memory: the publishers'
pages were not read again for this list.
"""

LICENCES = {
    "digits": "UCI optical recognition of handwritten digits: CC BY 4.0",
    "fashion": "Fashion-MNIST, Zalando SE: MIT",
    "mnist": "MNIST, LeCun and Cortes: none stated by them; Keras's documentation says CC BY-SA 3.0",
    "cifar10": "CIFAR-10: none stated; cite Krizhevsky 2009",
    "cifar100": "CIFAR-100: none stated; cite Krizhevsky 2009",
    "tiny_imagenet": "Tiny-ImageNet: research that is not commercial (image-net.org)",
    "textures": "of the photographs that you gave it",
    "imagenet_synthetic": "random pixels: none",
    "shakespeare": "public domain",
    "census": "UCI Adult: CC BY 4.0",
}
