"""A task of your own: on which of two spirals is a point? `python examples/own_task.py` trains it here."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from p2ptrain import Task
from p2ptrain.cli.main import cli
from p2ptrain.learn.recipe import Recipe


def model(cfg):
    return nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))


def data(cfg, split):  # torch's generator is seeded for this: every peer gets the same
    arm, turn = torch.arange(2000) % 2, 1 + 9 * torch.rand(2000)
    angle = turn + torch.pi * arm
    return TensorDataset(torch.stack([angle.cos() * turn, angle.sin() * turn], 1) / 5, arm)


def loss(net, batch):
    out, arm = net(batch[0]), batch[1]
    return nn.functional.cross_entropy(out, arm, reduction="none"), {"accuracy": out.argmax(1) == arm}


task = Task("spirals", version="1", model=model, data=data, loss=loss, config=Recipe)
if __name__ == "__main__":
    cli(["task", "run", "own_task:task", "--steps", "4000", "--set", "lr=0.1"])
