"""Carries out the effects of learning for one peer. It has no thread of its own: its owner drives it.

The worker process drives one in real time, the simulator many in virtual time.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, assert_never

import torch
from torch import Tensor

from p2ptrain.core import effects, inputs, limits
from p2ptrain.core.effects import OptimizerState
from p2ptrain.core.errors import P2PTrainError, WeightsError
from p2ptrain.core.types import OWN, BlobId, Ref, Seconds, Slot
from p2ptrain.learn.data.splits import Selection
from p2ptrain.learn.parts import Parts, parts_of_task
from p2ptrain.learn.randomness import mix
from p2ptrain.learn.training.aside import Aside
from p2ptrain.learn.training.memory import free_bytes
from p2ptrain.learn.training.threads import set_fastest
from p2ptrain.learn.training.trainer import Trainer
from p2ptrain.learn.training.tuning import tune
from p2ptrain.learn.weights import packing
from p2ptrain.learn.weights.blobs import Blobs
from p2ptrain.learn.weights.checkpoint import Checkpoints, Facts, MemoryCheckpoints, State
from p2ptrain.learn.weights.combine import combine
from p2ptrain.learn.weights.refs import Refs
from p2ptrain.learn.wire import Learning, Outcome, Setup

_T = TypeVar("_T")
_SLOT = "slot/"

VECTORS_ROOM = 40
"""A GPU with room for so many vectors keeps those at hand that a strategy works with. Guess: activations
take most of the rest."""

Job = Callable[[], Outcome]
"""The slow rest of an effect: it touches nothing of the engine, so any thread may do it."""


@dataclass
class Run:
    """A `Train` under way."""

    left: int
    loss_sum: Tensor
    taken: int = 0
    seconds: Seconds = 0.0


class Engine:
    """The net of one peer, and all weights that its strategy names.

    Training is the same, bit by bit on a CPU, for the same setup and effects: however it is cut into
    slices, and whatever other engines do in between.

    Args:
        setup: its folders are the owner's affair.
        blobs: where published and fetched weights lie.
        checkpoints: where to go on from, if something is there.
        clock: seconds, for `Trained.seconds` and slices.
        build: makes what it drives; by default the net and the data of the setup's task.

    Attributes:
        device: where the net lives.
        balance: of the classes in the own part, see `partition.balance_of`; None: not looked at.
        notices: what the owner should read; whoever shows it takes it out.

    Raises:
        ManifestError: the task is not here, or cannot be trained like this.
        ConfigError: the device is not here.
    """

    def __init__(
        self,
        setup: Setup,
        blobs: Blobs,
        checkpoints: Checkpoints | None = None,
        clock: Callable[[], Seconds] = time.perf_counter,
        build: Callable[[Setup], Parts] = parts_of_task,
    ) -> None:
        parts = build(setup)
        self.device, self._randomness = parts.device, parts.randomness
        self._splits, self._trainer, self._evaluator = parts.splits, parts.trainer, parts.evaluator
        self._fingerprint = parts.fingerprint
        self.balance = parts.splits.training.balance
        self._codec, self._seed = setup.codec, setup.seed
        self._blobs, self._clock = blobs, clock
        self._checkpoints = checkpoints or MemoryCheckpoints()
        self._refs = Refs(self._decode)
        self._run: Run | None = None
        self._aside = Aside(self.device)
        self._home = _home(self.device, self._trainer.vector.flat)
        self._start_norm = packing.norm(self._trainer.vector.flat)
        self._memory = b""
        self.notices = parts.notices
        self.notices += self._resume()

    # -- for the owner -----------------------------------------------------------------------------

    def ready(self) -> inputs.TrainerReady:
        """Return the first input: what was built, and where it goes on."""
        spec = self._trainer.vector.spec
        size_bytes = packing.blob_bytes(spec, self._codec)
        return inputs.TrainerReady(
            self._trainer.step, self._trainer.samples, spec.trainable, size_bytes, self._memory
        )

    def perform(self, effect: Learning) -> Outcome | None:
        """Carry out an effect at once, a `Train` to its end; None for what is not answered."""
        outcome = self.begin(effect)
        if isinstance(effect, effects.Train):
            return self.advance()
        return outcome() if callable(outcome) else outcome

    def begin(self, effect: Learning) -> Outcome | Job | None:
        """Carry out what must be done in order; return the rest as a job, or the answer.

        A `Train` is only noted, for `advance`; a second one adds its steps to one under way. What
        cannot be done is answered by `LearnFailed`, with the effect's tag or else its name.
        """
        return _or_failed(effect, lambda: self._begin(effect))

    def advance(self, steps: int | None = None, seconds: Seconds = math.inf) -> inputs.Trained | None:
        """Go on with the `Train` under way, if any, for so many steps or so long; answer when it is done."""
        run = self._run
        if run is None:
            return None
        began = self._clock()
        with self._randomness.borrowed():
            for _ in range(run.left if steps is None else min(run.left, steps)):
                run.loss_sum += self._trainer.take_step()
                run.taken += 1
                run.left -= 1
                if self._clock() - began >= seconds:
                    break
        self._trainer.vector.settle()
        run.seconds += self._clock() - began
        return None if run.left else self._finish()

    def choose_threads(self) -> None:
        """Set torch to the number of CPU threads that this net trains fastest on; leaves no other trace."""
        self._try(lambda: set_fastest(self._trainer.take_step, torch.get_num_threads()))

    def tune(self, setup: Setup) -> None:
        """Find out how this net trains fastest here, within what the owner wants; leaves no other trace.

        Raises:
            ConfigError: the owner allows less memory than is needed.
        """
        trainer = self._trainer
        if isinstance(trainer, Trainer):
            self._try(lambda: self.notices.extend(tune(trainer, setup)))

    @property
    def manner(self) -> str:
        """How the net computes, for people: the end of a sentence, empty if as usual."""
        return str(self._trainer.manner) if isinstance(self._trainer, Trainer) else ""

    def wait(self) -> None:
        """Wait until the device has done what it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def _try(self, act: Callable[[], None]) -> None:
        """Take steps that do not count."""
        trainer = self._trainer
        state, step = trainer.state(), trainer.step
        with self._randomness.borrowed():
            act()
        trainer.restore(*state)
        trainer.step = step

    @property
    def is_training(self) -> bool:
        """Whether `advance` has something to do."""
        return self._run is not None

    def accept(self, blob: BlobId) -> None:
        """Check weights that were fetched; a delta may come before its base.

        Raises:
            WeightsError: they are not of this model, not finite, or absurdly large.
        """
        with suppress(packing.BaseGoneError):
            self._refs.get(blob)

    def begin_accept(self, blob: BlobId) -> Callable[[], None]:
        """Begin to check weights that were fetched, as `accept` does; any thread may do the rest.

        Raises:
            WeightsError: as `accept`; what is returned raises it too.
        """
        with self._blobs.open(blob) as content:
            is_delta = packing.base_of(content) is not None
        if is_delta:  # its base is among what only this thread touches
            self.accept(blob)
            return lambda: None
        spec, limit, moment = self._trainer.vector.spec, self._norm_limit(), self._aside.now()

        def check() -> None:
            with self._blobs.open(blob) as content, self._aside.after(moment):
                vector = self._aside.give(packing.decode(content, spec, self._codec, limit).to(self._home))
            self._refs.bring(blob, vector)

        return check

    # -- effects -----------------------------------------------------------------------------------

    def _begin(self, effect: Learning) -> Outcome | Job | None:
        match effect:
            case effects.Fresh():
                return self._fresh(effect)
            case effects.Train():
                self._train(effect)
            case effects.Halt():
                return self._finish() if self._run else None
            case effects.Evaluate():
                return self._evaluate(effect)
            case effects.Combine():
                return self._combine(effect)
            case effects.Adopt():
                return self._adopt(effect)
            case effects.Publish():
                return self._publish(effect)
            case effects.Checkpoint():
                return self._checkpoint(effect)
            case effects.Drop():
                self._refs.forget(effect.blob)
                self._blobs.drop(effect.blob)
            case _:
                assert_never(effect)
        return None

    def _fresh(self, effect: effects.Fresh) -> Outcome:
        with self._randomness.borrowed():
            self._trainer.restart(effect.seed)
        self._trainer.lr_scale = effect.lr_scale
        return inputs.Adopted("fresh")

    def _train(self, effect: effects.Train) -> None:
        if self._run is None:
            exact = torch.float32 if self.device.type == "mps" else torch.float64
            self._run = Run(0, torch.zeros((), dtype=exact, device=self.device))
        self._run.left += effect.steps
        self._splits.training.turn_to(effect.round)

    def _finish(self) -> inputs.Trained:
        run, self._run = self._run, None
        assert run is not None
        loss = float(run.loss_sum) / run.taken if run.taken else math.nan
        return inputs.Trained(self._trainer.step, self._trainer.samples, loss, run.seconds)

    def _evaluate(self, effect: effects.Evaluate) -> Outcome:
        began = self._clock()
        flat, own = self._trainer.vector.flat, self._own()
        examples: Selection = getattr(self._splits, effect.split.value)
        examples = examples.first(effect.examples_max)
        scores, distances, first = [], [], None
        with self._randomness.borrowed():
            try:
                for ref in effect.refs:
                    vector = own if ref == OWN else self._refs.get(ref)
                    flat.copy_(vector)
                    self._randomness.reseed(mix("evaluate", self._seed))
                    scores.append(self._evaluator.score(examples))
                    first = vector if first is None else first
                    distances.append(packing.norm(vector - first))
            finally:
                flat.copy_(own)
        losses, errors, accuracies = zip(*scores, strict=True) if scores else ((), (), ())
        seconds = self._clock() - began
        return inputs.Evaluated(
            effect.tag, losses, errors, accuracies, tuple(distances), len(examples), seconds
        )

    def _combine(self, effect: effects.Combine) -> Outcome:
        if len(effect.terms) > limits.TERMS_MAX:
            raise WeightsError(f"{len(effect.terms)} terms in one combination, more than {limits.TERMS_MAX}")
        coefficients = [coefficient for coefficient, _ in effect.terms]
        vectors = [self._vector(ref) for _, ref in effect.terms]
        combined = combine(effect.rule, coefficients, vectors, self._trainer.vector.spec.trainable)
        if effect.out == OWN:
            self._trainer.vector.flat.copy_(combined)
        else:
            self._refs.put(effect.out, combined)
        return inputs.Combined(effect.tag)

    def _adopt(self, effect: effects.Adopt) -> Outcome:
        self._trainer.vector.flat.copy_(self._vector(effect.ref))
        if effect.optimizer is OptimizerState.RESET:
            self._trainer.forget_momentum()
        if effect.lr_scale is not None:
            self._trainer.lr_scale = effect.lr_scale
        return inputs.Adopted(effect.tag)

    def _publish(self, effect: effects.Publish) -> Job:
        vector = self._own() if effect.ref == OWN else self._refs.get(effect.ref)
        spec, codec, moment = self._trainer.vector.spec, effect.codec or self._codec, self._aside.now()
        base = None if effect.base is None else packing.Base(effect.base, self._base(effect.base))

        def write() -> Outcome:
            with self._aside.after(moment):
                pieces = packing.encode(vector, spec, codec, base)
            blob, size_bytes = self._blobs.put(pieces)
            return inputs.Published(effect.tag, blob, size_bytes)

        return lambda: _or_failed(effect, write)

    def _checkpoint(self, effect: effects.Checkpoint) -> Job:
        began, self._memory = self._clock(), effect.memory
        facts, tensors, moment = *self._state(effect.memory), self._aside.now()

        def save() -> Outcome:
            with self._aside.after(moment):
                state = State(facts, {name: tensor.cpu() for name, tensor in tensors.items()})
            self._checkpoints.save(state)
            return inputs.Saved(facts.step, self._clock() - began)

        return lambda: _or_failed(effect, save)

    # -- weights -----------------------------------------------------------------------------------

    def _own(self) -> Tensor:
        """Return a copy of the own weights."""
        return self._trainer.vector.flat.to(self._home, copy=True)

    def _vector(self, ref: Ref) -> Tensor:
        """Return any weights, to be read at once."""
        return self._trainer.vector.flat.to(self._home) if ref == OWN else self._refs.get(ref)

    def _decode(self, blob: BlobId) -> Tensor:
        spec, limit = self._trainer.vector.spec, self._norm_limit()
        with self._blobs.open(blob) as content:
            return packing.decode(content, spec, self._codec, limit, self._base).to(self._home)

    def _norm_limit(self) -> float:
        own = packing.norm(self._trainer.vector.flat)
        return packing.norm_limit(own if math.isfinite(own) else self._start_norm)

    def _base(self, blob: BlobId) -> Tensor:
        """Return what a delta builds on."""
        with self._blobs.open(blob) as content:
            if packing.base_of(content) is not None:
                raise WeightsError("a delta cannot build on another delta", "name whole weights as its base")
        return self._refs.get(blob)

    def _state(self, memory: bytes) -> tuple[Facts, dict[str, Tensor]]:
        trainer = self._trainer
        tensors, numbers = trainer.state()
        tensors |= {f"{_SLOT}{name}": vector for name, vector in self._refs.slots.items()}
        facts = Facts(
            fingerprint=self._fingerprint,
            step=trainer.step,
            lr_scale=trainer.lr_scale,
            memory=memory,
            numbers=numbers,
        )
        return facts, tensors

    def _resume(self) -> list[str]:
        state, notices = self._checkpoints.load(self._fingerprint)
        if state is None:
            return notices
        trainer = self._trainer
        trainer.restore(state.tensors, state.facts.numbers)
        trainer.step, trainer.lr_scale = state.facts.step, state.facts.lr_scale
        self._memory = state.facts.memory
        for name, vector in state.tensors.items():
            if name.startswith(_SLOT):
                self._refs.put(Slot(Ref(name.removeprefix(_SLOT))), vector.to(self._home))
        return notices


def _home(device: torch.device, flat: Tensor) -> torch.device:
    """Return where vectors are kept: on a GPU that has room for many, else in the computer's memory."""
    has_room = device.type == "cuda" and free_bytes(device) > VECTORS_ROOM * flat.nbytes
    return device if has_room else torch.device("cpu")


def _or_failed(effect: Learning, act: Callable[[], _T]) -> _T | inputs.LearnFailed:
    """Act; what cannot be done is an answer, not an accident."""
    try:
        return act()
    except P2PTrainError as error:
        tag: str = getattr(effect, "tag", type(effect).__name__.lower())
        return inputs.LearnFailed(tag, error.message)
