"""Carries out the effects of learning for one peer. It has no thread of its own: its owner drives it.

The worker process drives one in real time, the simulator many in virtual time.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, assert_never

import torch
from torch import Tensor

from p2ptrain.core import effects, inputs, limits
from p2ptrain.core.effects import OptimizerState, Split
from p2ptrain.core.errors import P2PTrainError, WeightsError
from p2ptrain.core.types import OWN, BlobId, Ref, Seconds, Slot
from p2ptrain.learn import data, device, weights
from p2ptrain.learn.blobs import Blobs
from p2ptrain.learn.checkpoint import Checkpoints, Facts, MemoryCheckpoints, State, fingerprint
from p2ptrain.learn.combine import combine
from p2ptrain.learn.evaluate import Evaluator
from p2ptrain.learn.randomness import Randomness, mix
from p2ptrain.learn.refs import Refs
from p2ptrain.learn.task import find
from p2ptrain.learn.threads import set_fastest
from p2ptrain.learn.trainer import Trainer
from p2ptrain.learn.wire import Learning, Outcome, Setup

_T = TypeVar("_T")
_SLOT = "slot/"

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

    Attributes:
        device: where the net lives.
        notices: what the owner should read about the start.

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
    ) -> None:
        task = find(setup.task)
        cfg = task.configure(setup.task_config)
        self.device = device.choose(setup.device)
        if setup.threads:
            torch.set_num_threads(setup.threads)
        self._codec, self._seed = setup.codec, setup.seed
        self._blobs, self._clock = blobs, clock
        self._checkpoints = checkpoints or MemoryCheckpoints()
        self._refs = Refs(self._decode)
        self._run: Run | None = None
        self._randomness = Randomness(self.device)
        with self._randomness.borrowed():
            self._splits = data.split(task, cfg, self.device, setup)
            self._trainer = Trainer(task, cfg, setup, self.device, self._randomness, self._splits.training)
            probe = self._splits.validation.take(slice(2))
            self._evaluator = Evaluator(self._trainer.net, task, cfg, probe)
        self._start_norm = weights.norm(self._trainer.vector.flat)
        self._fingerprint = fingerprint(task, cfg, setup.seed, self._trainer.vector.spec)
        self._memory = b""
        self.notices = self._resume()

    # -- for the owner -----------------------------------------------------------------------------

    def ready(self) -> inputs.TrainerReady:
        """Return the first input: what was built, and where it goes on."""
        spec = self._trainer.vector.spec
        size_bytes = weights.blob_bytes(spec, self._codec)
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
        trainer = self._trainer
        state, step = trainer.state(), trainer.step
        with self._randomness.borrowed():
            set_fastest(trainer.take_step, torch.get_num_threads())
        trainer.restore(*state)
        trainer.step = step

    @property
    def is_training(self) -> bool:
        """Whether `advance` has something to do."""
        return self._run is not None

    def accept(self, blob: BlobId) -> None:
        """Check weights that were fetched.

        Raises:
            WeightsError: they are not of this model, not finite, or absurdly large.
        """
        self._refs.get(blob)

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

    def _finish(self) -> inputs.Trained:
        run, self._run = self._run, None
        assert run is not None
        loss = float(run.loss_sum) / run.taken if run.taken else math.nan
        return inputs.Trained(self._trainer.step, self._trainer.samples, loss, run.seconds)

    def _evaluate(self, effect: effects.Evaluate) -> Outcome:
        flat, own = self._trainer.vector.flat, self._own()
        examples = self._splits.test if effect.split is Split.TEST else self._splits.validation
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
                    distances.append(weights.norm(vector - first))
            finally:
                flat.copy_(own)
        losses, errors, accuracies = zip(*scores, strict=True) if scores else ((), (), ())
        return inputs.Evaluated(effect.tag, losses, errors, accuracies, tuple(distances), len(examples))

    def _combine(self, effect: effects.Combine) -> Outcome:
        if len(effect.terms) > limits.TERMS_MAX:
            raise WeightsError(f"{len(effect.terms)} terms in one combination, more than {limits.TERMS_MAX}")
        coefficients = [coefficient for coefficient, _ in effect.terms]
        vectors = [self._vector(ref) for _, ref in effect.terms]
        combined = combine(effect.rule, coefficients, vectors)
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
        spec = self._trainer.vector.spec

        def write() -> Outcome:
            blob, size_bytes = self._blobs.put(weights.encode(vector, spec, self._codec))
            return inputs.Published(effect.tag, blob, size_bytes)

        return lambda: _or_failed(effect, write)

    def _checkpoint(self, effect: effects.Checkpoint) -> Job:
        began = self._clock()
        state = self._state(effect.memory)

        def save() -> Outcome:
            self._checkpoints.save(state)
            return inputs.Saved(state.facts.step, self._clock() - began)

        return lambda: _or_failed(effect, save)

    # -- weights -----------------------------------------------------------------------------------

    def _own(self) -> Tensor:
        """Return a copy of the own weights on the CPU."""
        return self._trainer.vector.flat.to("cpu", copy=True)

    def _vector(self, ref: Ref) -> Tensor:
        """Return any weights on the CPU, to be read at once."""
        return self._trainer.vector.flat.cpu() if ref == OWN else self._refs.get(ref)

    def _decode(self, blob: BlobId) -> Tensor:
        own = weights.norm(self._trainer.vector.flat)
        limit = weights.norm_limit(own if math.isfinite(own) else self._start_norm)
        with self._blobs.open(blob) as content:
            return weights.decode(content, self._trainer.vector.spec, self._codec, limit)

    def _state(self, memory: bytes) -> State:
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
        return State(facts, tensors)

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
                self._refs.put(Slot(Ref(name.removeprefix(_SLOT))), vector)
        return notices


def _or_failed(effect: Learning, act: Callable[[], _T]) -> _T | inputs.LearnFailed:
    """Act; what cannot be done is an answer, not an accident."""
    try:
        return act()
    except P2PTrainError as error:
        tag: str = getattr(effect, "tag", type(effect).__name__.lower())
        return inputs.LearnFailed(tag, error.message)
