"""How a net is trained, as settings of a manifest: what every built-in task knows."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of training. A task's config inherits them, and may choose other defaults.

    optimizer: `sgd`, `momentum`, `nesterov`, `rmsprop`, `adam`, `adagrad`, `nadam`, `adamw`.
    lr: learning rate; 0: what suits this optimizer.
    batch_size: examples of one step of the optimizer.
    accumulate: the batch goes through the net in so many pieces, whose gradients are added.
    clip: longest gradient, Euclidean; 0: any.
    schedule: of the learning rate: `constant`, `linear`, `cosine`, `step`; needs a planned number of steps.
    warmup: the rate rises from zero over so many steps.
    lr_final: share of the rate that is left at the end.
    label_smoothing: so much of the truth is given to all classes alike, in training.
    augment: chance changes of pictures in training.
    """

    optimizer: str = "momentum"
    lr: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 32
    accumulate: int = 1
    clip: float = 0.0
    schedule: str = "linear"
    warmup: int = 0
    lr_final: float = 0.1
    label_smoothing: float = 0.0
    augment: bool = False
