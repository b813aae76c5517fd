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
from p2ptrain.core.types import OWN, BlobId, Ranges, Ref, Seconds, Slot
from p2ptrain.learn.data.splits import Selection
from p2ptrain.learn.parts import Parts, parts_of_task
from p2ptrain.learn.randomness import mix
from p2ptrain.learn.training.aside import Aside
from p2ptrain.learn.training.guide import found
from p2ptrain.learn.training.stage import Part, begun
from p2ptrain.learn.training.threads import set_fastest
from p2ptrain.learn.training.trainer import Trainer
from p2ptrain.learn.training.tuning import tune
from p2ptrain.learn.weights import packing, pieces
from p2ptrain.learn.weights.blobs import Blobs
from p2ptrain.learn.weights.checkpoint import Checkpoints, Facts, MemoryCheckpoints, State
from p2ptrain.learn.weights.combine import combine
from p2ptrain.learn.weights.evaluate import difference_error
from p2ptrain.learn.weights.refs import Refs, home_of
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
        build: makes what it drives; by default the net and the data of the setup's task.

    Attributes:
        device: where the net lives.
        part: in a line of peers, if there is one; its owner has it work, and forgets it after its answer.
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
        self.part: Part | None = None
        self._aside = Aside(self.device)
        self._home = home_of(self.device, self._trainer.vector.flat)
        self._start_norm = packing.norm(self._trainer.vector.flat)
        self._memory = b""
        self.notices = parts.notices
        self.notices += self._resume()

    # -- for the owner -----------------------------------------------------------------------------

    def ready(self) -> inputs.TrainerReady:
        """Return the first input: what was built, and where it goes on."""
        spec = self._trainer.vector.spec
        size_bytes = packing.blob_bytes(spec, self._codec)
        with self._randomness.borrowed():
            layers = self._trainer.layers
        step, samples = self._trainer.step, self._trainer.samples
        return inputs.TrainerReady(
            step, samples, spec.trainable, size_bytes, self._memory, spec.count, layers
        )

    def perform(self, effect: Learning) -> Outcome | None:
        """Carry out an effect at once, a `Train` to its end; None for what is not answered."""
        outcome = self.begin(effect)
        if isinstance(effect, effects.Train) and outcome is None:
            return self.advance()
        return outcome() if callable(outcome) else outcome

    def begin(self, effect: Learning) -> Outcome | Job | None:
        """Carry out what must be done in order; return the rest as a job, or the answer.

        A `Train` is only noted, for `advance`; a second one adds its steps to one under way, and ends it
        where it fails itself. What cannot be done is answered by `LearnFailed`, with the effect's tag or
        else its name.
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

    def guide(self, guide: effects.Guide | None) -> None:
        """Have the steps from now on taken like this.

        Raises:
            WeightsError: that cannot be done here, or weights that it names are gone.
        """
        with self._randomness.borrowed():
            self._trainer.guide(None if guide is None else found(guide, self._kept))

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

    def numbers(self, ref: Ref, ranges: Ranges) -> Tensor:
        """Return some numbers of any weights, or all, as they are now: nobody changes them any more.

        Raises:
            WeightsError: they are not here.
        """
        count = self._trainer.vector.spec.count
        pieces.check(ranges, count)
        return pieces.take(self._own() if ref == OWN else self._refs.get(ref), ranges or ((0, count),))

    def fill(self, out: Slot, ranges: Ranges, numbers: Tensor) -> None:
        """Put numbers from elsewhere into a slot; where nothing else is in it, there are zeros.

        Raises:
            WeightsError: they are too few or too many, not finite, or absurdly large.
        """
        count = self._trainer.vector.spec.count
        pieces.check(ranges, count)
        ranges = ranges or ((0, count),)
        if len(numbers) != pieces.size(ranges):
            raise WeightsError(f"{len(numbers)} numbers for {pieces.size(ranges)} places")
        length = packing.norm(numbers)
        if not length <= self._norm_limit():
            raise WeightsError(f"weights of length {length:.3g}")
        self._refs.change(out, ranges, numbers.to(self._home), count)

    # -- effects -----------------------------------------------------------------------------------

    def _begin(self, effect: Learning) -> Outcome | Job | None:
        match effect:
            case effects.Fresh():
                return self._fresh(effect)
            case effects.Train():
                self._train(effect)
            case effects.Stage():
                self.part = begun(self._trainer, self._splits.training, effect, self._clock)
            case effects.Halt():
                part, self.part = self.part, None
                if part is not None:
                    return part.end("stopped by its owner")
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
            if effect.out != OWN:
                self._refs.put(effect.out, self._trainer.draw(effect.seed).to(self._home))
                return inputs.Combined("fresh")
            self._trainer.restart(effect.seed)
        self._trainer.lr_scale = effect.lr_scale
        return inputs.Adopted("fresh")

    def _train(self, effect: effects.Train) -> None:
        try:
            self.guide(effect.guide)
        except WeightsError:
            self._run = None
            raise
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
        losses, errors, accuracies, *_ = zip(*scores, strict=True) if scores else ((), (), ())
        differences = tuple(difference_error(scores[0], score) for score in scores)
        seconds = self._clock() - began
        return inputs.Evaluated(
            effect.tag, losses, errors, accuracies, tuple(distances), len(examples), seconds, differences
        )

    def _combine(self, effect: effects.Combine) -> Outcome:
        if len(effect.terms) > limits.TERMS_MAX:
            raise WeightsError(f"{len(effect.terms)} terms in one combination, more than {limits.TERMS_MAX}")
        spec = self._trainer.vector.spec
        pieces.check(effect.ranges, spec.count)
        ranges = effect.ranges or ((0, spec.count),)
        coefficients = [coefficient for coefficient, _ in effect.terms]
        vectors = [pieces.take(self._vector(ref), ranges) for _, ref in effect.terms]
        trained = pieces.size(pieces.part(ranges, 0, spec.trainable))
        combined = combine(effect.rule, coefficients, vectors, trained)
        if effect.out == OWN:
            pieces.put(self._trainer.vector.flat, ranges, combined)
        else:
            self._refs.change(effect.out, ranges, combined, spec.count)
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
                parts = packing.encode(vector, spec, codec, base, effect.ranges)
            blob, size_bytes = self._blobs.put(parts)
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

    def _kept(self, ref: Ref) -> Tensor:
        """Return any weights as they are now, on the device; they stay like that."""
        return (self._own() if ref == OWN else self._refs.get(ref)).to(self.device)

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
        with self._randomness.borrowed():
            trainer.restore(state.tensors, state.facts.numbers)
        trainer.step, trainer.lr_scale = state.facts.step, state.facts.lr_scale
        self._memory = state.facts.memory
        for name, vector in state.tensors.items():
            if name.startswith(_SLOT):
                self._refs.put(Slot(Ref(name.removeprefix(_SLOT))), vector.to(self._home))
        return notices


def _or_failed(effect: Learning, act: Callable[[], _T]) -> _T | inputs.LearnFailed:
    """Act; what cannot be done is an answer, not an accident."""
    try:
        return act()
    except P2PTrainError as error:
        tag: str = getattr(effect, "tag", type(effect).__name__.lower())
        return inputs.LearnFailed(tag, error.message)
