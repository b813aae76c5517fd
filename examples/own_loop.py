"""A training loop of your own in a swarm: `python examples/own_loop.py` runs it twice, as two PCs would.

On another computer: `python own_loop.py p2pt1…` with the invite that the first one prints.
"""

import subprocess
import sys
import tempfile

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import p2ptrain
from p2ptrain.tasks.digits import data

STEPS = 400


def digits(split):
    images, classes = data(None, split).tensors
    return images.float() / 16, classes


def main(invite="", home=""):
    torch.set_num_threads(1)
    images, classes = digits("train")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    with p2ptrain.attach(
        net,
        swarm="" if invite else "own-loop",
        invite=invite,
        held_out=digits("test"),
        optimizer=optimizer,
        home=home,
        steps=STEPS,
        strategy_config={"exchange_steps": 20},
    ) as swarm:
        if not invite:
            friend = subprocess.Popen([sys.executable, __file__, swarm.invite()])
        swarm.wait_for(1)
        mine = torch.arange(swarm.slot % 2, len(images), 2)  # each of two members has its own half
        while not swarm.done:
            batch = mine[torch.randint(len(mine), (32,))]
            optimizer.zero_grad()
            cross_entropy(net(images[batch]), classes[batch]).backward()
            optimizer.step()
            swarm.step(len(batch))
        agreed = swarm.finish()
        result = swarm.status().node
        print(f"member {swarm.slot}: agreed {agreed}, accuracy {result.accuracy:.3f}, {result.reason}")
    if not invite:
        friend.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else "", folder)
