"""`python -m tests.learn.codec_accuracy`: what a codec with feedback costs in accuracy, and saves in bytes.

Each peer trains on its own part for some steps and publishes how far it is from the common weights; these
move by the mean of what all have told. What the codec left out, the residual, is either kept in the peer's
own weights, where training goes on from (`own`), or beside them, and a share of it added to the next
message (`beside`: SparseLoCo). All of it is done by the effects that strategies have.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any, TypeVar

import torch

from p2ptrain.core.effects import Combine, Drop, Effect, Evaluate, Publish, Split, Train
from p2ptrain.core.inputs import Combined, Evaluated, Published
from p2ptrain.core.types import OWN, BlobId, Ref, Slot
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.weights.codecs import CODECS, DECAY
from p2ptrain.learn.wire import Setup

COMMON, SUM, RESIDUAL = Slot(Ref("common")), Slot(Ref("sum")), Slot(Ref("residual"))

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """So many peers train so many steps each, and exchange every `local_steps`.

    feedback: where residuals are kept, `own` or `beside`.
    decay: the share that is added to the next message, if `beside`.
    """

    task: str = "fashion"
    peers: int = 4
    steps: int = 1500
    local_steps: int = 2
    skew: float = 0.0
    feedback: str = "own"
    decay: float = DECAY
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Result:
    """accuracy: of the common weights, on all test examples. sent_bytes: by one peer, in one copy."""

    codec: str
    seed: int
    accuracy: float
    sent_bytes: int


class Peer:
    """One engine, and what it remembers from round to round."""

    def __init__(self, plan: Plan, seed: int, slot: int) -> None:
        self.blobs = MemoryBlobs()
        self.sent_bytes = 0
        self._beside = plan.feedback == "beside"
        self._decay = plan.decay
        self._engine = Engine(
            Setup(
                task=plan.task,
                task_config=dict(plan.settings),
                seed=seed,
                peer_seed=slot,
                slot=slot,
                parts=plan.peers,
                skew=plan.skew,
                steps=plan.steps,
                device="cpu",
                threads=1,
            ),
            self.blobs,
        )
        self._base = self._ask(Publish("base"), Published).blob
        self._feedback: tuple[tuple[float, Ref], ...] = ()

    def work(self, steps: int, codec: str) -> BlobId:
        """Train, and publish the difference from the common weights by that codec."""
        self._engine.perform(Train(steps))
        self._combine(SUM, (1.0, OWN), *self._feedback)
        published = self._ask(Publish("delta", SUM, self._base, codec), Published)
        self._combine(RESIDUAL, (1.0, SUM), (-1.0, published.blob))
        self._feedback = ((self._decay, RESIDUAL),) if self._beside else ()
        self.sent_bytes += published.size_bytes
        return published.blob

    def gather(self, deltas: Sequence[BlobId]) -> None:
        """Move the common weights by the mean of all, and go on from there."""
        for blob in deltas:
            self._engine.accept(blob)
        self._combine(COMMON, *((1 / len(deltas), blob) for blob in deltas))
        for blob in (*deltas, self._base):
            self._engine.perform(Drop(blob))
        self._base = self._ask(Publish("base", COMMON), Published).blob
        self._combine(OWN, (1.0, COMMON), *(() if self._beside else ((1.0, RESIDUAL),)))

    def accuracy(self) -> float:
        """Measure the common weights."""
        return self._ask(Evaluate("test", (COMMON,), Split.TEST), Evaluated).accuracies[0]

    def _combine(self, out: Slot, *terms: tuple[float, Ref]) -> None:
        self._ask(Combine("combine", out, terms), Combined)

    def _ask(self, effect: Effect, kind: type[_T]) -> _T:
        answer = self._engine.perform(effect)  # type: ignore[arg-type]
        assert isinstance(answer, kind), answer
        return answer


def train(plan: Plan, codec: str, seed: int) -> Result:
    """Train all peers to the end."""
    peers = [Peer(plan, seed, slot) for slot in range(plan.peers)]
    for _ in range(plan.steps // plan.local_steps):
        deltas = [peer.work(plan.local_steps, codec) for peer in peers]
        for peer in peers:
            for blob, author in zip(deltas, peers, strict=True):
                peer.blobs.take(blob, author.blobs)
        for peer in peers:
            peer.gather(deltas)
    return Result(codec, seed, peers[0].accuracy(), peers[0].sent_bytes)


def report(plan: Plan, codecs: Sequence[str], seeds: Sequence[int]) -> list[Result]:
    """Train by each codec from each seed, and write a table."""
    sys.stdout.write(f"{plan}\n")
    results: list[Result] = []
    for codec in codecs:
        same = [train(plan, codec, seed) for seed in seeds]
        results += same
        accuracy = mean(result.accuracy for result in same)
        first = [result for result in results if result.codec == codecs[0]]
        behind = accuracy - mean(result.accuracy for result in first)
        fewer = first[0].sent_bytes / same[0].sent_bytes
        each = " ".join(f"{100 * result.accuracy:.2f}" for result in same)
        sys.stdout.write(
            f"{codec:7} {100 * accuracy:.2f} % ({each})  {100 * behind:+.2f} points"
            f"  {same[0].sent_bytes:,} bytes a peer, {fewer:.0f} times fewer\n"
        )
        sys.stdout.flush()
    return results


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.learn.codec_accuracy", description=__doc__)
    parser.add_argument("--task", default="fashion")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--codecs", nargs="+", choices=list(CODECS), default=["f32", "topk"])
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1500, help="that each peer trains")
    parser.add_argument("--local-steps", type=int, default=2, help="between two exchanges")
    parser.add_argument("--skew", type=float, default=0.0, help="Dirichlet; 0: parts are alike")
    parser.add_argument("--feedback", choices=["own", "beside"], default="own")
    parser.add_argument("--decay", type=float, default=DECAY, help="of feedback kept beside")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=NUMBER", help="settings of the task")
    parser.add_argument("--json", metavar="FILE")
    words = parser.parse_args()
    torch.set_num_threads(1)
    pairs = (setting.partition("=") for setting in words.set)
    settings = tuple((name, json.loads(value)) for name, _, value in pairs)
    plan = Plan(
        words.task,
        words.peers,
        words.steps,
        words.local_steps,
        words.skew,
        words.feedback,
        words.decay,
        settings,
    )
    seeds = range(words.first_seed, words.first_seed + words.seeds)
    results = report(plan, words.codecs, seeds)
    if words.json:
        with open(words.json, "w", encoding="utf-8") as file:
            json.dump({"plan": asdict(plan), "results": [asdict(one) for one in results]}, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
