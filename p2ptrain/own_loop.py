"""`p2ptrain.attach`: a training loop of one's own takes part in a swarm.

The loop keeps the net, the optimiser, the data and the loss. A daemon in a process of its own speaks with
the peers; between two steps the loop lets it read, measure and mix the weights.
"""

import atexit
import hashlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from torch import Tensor, nn, optim
from torch.utils.data import Dataset

from p2ptrain.control.api import Status
from p2ptrain.control.client import Client
from p2ptrain.core import effects
from p2ptrain.core.errors import ConfigError, ControlError, P2PTrainError, WeightsError
from p2ptrain.core.inputs import LearnFailed, Trained
from p2ptrain.core.types import Seconds
from p2ptrain.learn import losses, wire
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.loop import Evaluate, Loop, OwnLoop, Restart, parts_of_loop
from p2ptrain.learn.process import greeting
from p2ptrain.learn.process.greeting import START_SEED, Request
from p2ptrain.learn.process.line import Gone, Line
from p2ptrain.learn.task import find
from p2ptrain.learn.weights.blobs import FolderBlobs
from p2ptrain.learn.weights.checkpoint import FolderCheckpoints
from p2ptrain.learn.weights.raw import move
from p2ptrain.learn.weights.vector import Spec, Vector

logger = logging.getLogger("p2ptrain.attach")

RETRY_FIRST_S: Seconds = 1.0
RETRY_MAX_S: Seconds = 60.0

END_S: Seconds = 20.0
"""So long a daemon may take to save and to say goodbye; then it is killed."""

LOOK_EVERY_S: Seconds = 0.2

STOPPED = "p2ptrain was stopped"
ENDED = "p2ptrain's daemon has ended"

SKIPPED_AT_THE_END = (effects.Evaluate, effects.Publish)
"""Nobody waits for their answers any more."""


def attach(
    net: nn.Module,
    *,
    swarm: str = "",
    invite: str = "",
    evaluate: Evaluate | None = None,
    held_out: "tuple[Tensor, ...] | Dataset[Any] | None" = None,
    loss: Callable[[nn.Module, Any], Any] = losses.classification,
    optimizer: optim.Optimizer | None = None,
    start: Literal["seed", "mine"] = "seed",
    restart: Restart | None = None,
    home: str | Path = "",
    **founding: Any,
) -> "Attached":
    """Take part in a swarm with a net that an own loop trains. Call `step` after each optimizer step.

    Args:
        net: in float32, on the device where it stays. Its tensors become views into one; `close` gives
            it tensors of its own again.
        swarm: name or id of a swarm of this computer; if there is none of that name, it is made.
        invite: of a swarm to join, for who is no member yet.
        evaluate: `evaluate(net)` gives the loss on examples that nobody trains on: a number or better
            one an example, or (loss, {"accuracy": ...}). It is called in evaluation mode, without gradients.
        held_out: such examples, in place of `evaluate`: tensors of inputs and classes, or a dataset.
        loss: of a batch of those, as a task's; by default cross-entropy.
        optimizer: forgets its momentum where the strategy says so, and is saved; else it is left alone.
        start: "seed": all members begin at the random weights of the swarm's seed, and what is in the net
            is lost; "mine": everybody brings the same weights.
        restart: `restart(net)` draws all weights anew; by default each module's `reset_parameters`.
        home: folder of this node; two loops on one computer need two.
        founding: of a swarm that is made: `strategy`, `strategy_config`, `spread_config`, `steps`,
            `target_loss`, `codec`, `seed`, as in a manifest. One that there is must have the same.

    Raises:
        ConfigError: an argument is missing or wrong, or a daemon runs in this home.
        ManifestError: the net is not the swarm's, or the strategy is not here.
        P2PTrainError: the swarm cannot be joined.
    """
    _check(net, swarm or invite, evaluate, held_out)
    plain = getattr(net, "_orig_mod", net)  # `torch.compile` wraps
    vector = Vector(plain, gradients=False)
    begins = START_SEED if start == START_SEED else _digest(vector.flat)
    here = greeting.describe(_layout(vector.spec), begins)
    request = Request(swarm=swarm, invite=invite, home=str(home), task_config=here, founding=founding)
    loop = Loop(plain, vector, optimizer, evaluate, held_out, loss, restart, start != START_SEED)
    return Attached(loop, request)


class Attached:
    """A net in a swarm. It ends with `close`, the `with` that it stands in, or the program.

    Attributes:
        slot: this member's number, from 0: choose another part of the data by it.
        lost: why no daemon is there, empty if one is.
    """

    def __init__(self, loop: Loop, request: Request) -> None:
        self._loop, self._request = loop, request
        self._items: SimpleQueue[Any] = SimpleQueue()
        self._files = ThreadPoolExecutor(1, "p2ptrain-files")
        self._left, self._since = 0, 0.0
        self._retry_s, self._retry_at = RETRY_FIRST_S, 0.0
        self._closed, self._pid = False, os.getpid()
        self.lost = ""
        self._line: Line | None = None
        try:
            line = self._line = Line(request)
            self._setup = line.begun.setup
            loop = self._fit(loop)
            self._steps = OwnLoop(loop)
            self._engine = Engine(
                self._setup,
                FolderBlobs(Path(self._setup.blob_folder)),
                FolderCheckpoints(Path(self._setup.checkpoint_folder)),
                build=partial(parts_of_loop, loop, self._steps),
            )
        except BaseException:
            self._end()
            raise
        for notice in self._engine.notices:
            logger.warning("%s", notice)
        self.slot = self._setup.slot
        atexit.register(self.close)
        self._welcome(line)

    # -- for the loop ------------------------------------------------------------------------------

    def step(self, samples: int = 1) -> None:
        """One step was taken, on so many examples: let the swarm in, if it waits for something.

        Raises only what `evaluate` raises: whatever happens to the swarm, training goes on.
        """
        self._steps.step += 1
        self._steps.samples += samples
        if self._left:
            self._steps.shift()
            self._left -= 1
            self._report_if_due()
        if not self._items.empty():
            self._attend()
        elif self._retry_at and time.monotonic() >= self._retry_at:
            self._retry_at = 0.0
            Thread(target=self._connect, daemon=True).start()

    @property
    def steps(self) -> int:
        """Steps taken since this member's beginning, those before a break among them."""
        return self._steps.step

    @property
    def samples(self) -> int:
        """Examples trained on since this member's beginning."""
        return self._steps.samples

    @property
    def lr_scale(self) -> float:
        """What the rates in `optimizer` were multiplied by; a schedule that sets them itself needs it."""
        return self._steps.lr_scale

    @property
    def done(self) -> bool:
        """Whether the steps that were planned for each member are taken; never without a plan."""
        return 0 < self._setup.steps <= self._steps.step

    def finish(self, timeout_s: Seconds = 60.0) -> bool:
        """Wait, without training, until the swarm has agreed on the result; say whether it has.

        That takes a planned number of steps, all of them taken, and the other members.
        """
        return self.done and self._until(lambda status: status.node.state == "finished", timeout_s)

    def wait_for(self, others: int = 1, timeout_s: Seconds = 60.0) -> bool:
        """Wait, without training, for so many members that train too; say whether they came."""
        return self._until(
            lambda status: sum(peer.connected and peer.trains for peer in status.node.peers) >= others,
            timeout_s,
        )

    def invite(self, *options: str) -> str:
        """Make an invite for others. options: of `p2ptrain invite make`, as `"--uses", "5"`.

        Raises:
            ConfigError: another computer made the swarm.
        """
        assert self._line is not None
        begun = self._line.begun
        words = ["--home", begun.home, "invite", "make", begun.swarm[:16], "--json", *options]
        done = subprocess.run(
            [sys.executable, "-m", "p2ptrain", *words], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            problem, _, fix = done.stderr.strip().partition("\n  fix: ")
            raise ConfigError(problem.removeprefix("error: "), fix)
        return str(msgspec.json.decode(done.stdout)["invite"])

    def status(self) -> Status:
        """Return what `p2ptrain status` shows.

        Raises:
            ControlError: the daemon does not answer.
        """
        assert self._line is not None
        return Client(Path(self._line.begun.control)).status()

    def close(self) -> None:
        """Save, say goodbye to the peers, and end the daemon. The net keeps its weights."""
        if self._closed or os.getpid() != self._pid:  # a copy by `fork` ends nothing
            return
        self._closed = True
        atexit.unregister(self.close)
        try:
            if not self.lost and self._line is not None:
                self._say_goodbye(self._line)
        finally:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _until(self, question: Callable[[Status], bool], timeout_s: Seconds) -> bool:
        ends = time.monotonic() + timeout_s
        while not self.lost and time.monotonic() < ends:
            self._wait(LOOK_EVERY_S)
            try:
                if question(self.status()):
                    self._attend()
                    return True
            except ControlError:
                continue  # it starts, or it just ended: then the pipe says so
        return False

    # -- what the daemon wants ---------------------------------------------------------------------

    def _attend(self) -> None:
        """Carry out all that came."""
        self._loop.vector.settle()
        while not self._items.empty():
            self._handle(self._items.get())

    def _wait(self, seconds: Seconds) -> None:
        """Carry out what comes, at most one thing after so long."""
        try:
            item = self._items.get(timeout=seconds)
        except Empty:
            return
        self._handle(item)
        self._attend()

    def _handle(self, item: Any) -> None:
        match item:
            case effects.Train():
                self._train(item)
            case effects.Halt():
                self._report()
            case wire.Accept(blob=blob):
                try:
                    self._engine.accept(blob)
                except WeightsError as error:
                    self._tell(wire.Refused(blob, error.message))
                else:
                    self._tell(wire.Accepted(blob))
            case wire.Export() | wire.Import():
                self._tell(move(self._engine, item))
            case Line():
                self._welcome(item)
            case wire.Quit():
                self._finish_writing()
            case wire.Crashed(reason=reason) | Gone(reason=reason):
                self._on_gone(reason)
            case _ if isinstance(item, wire.Learning):
                outcome = self._engine.begin(item)
                if callable(outcome):
                    self._files.submit(outcome).add_done_callback(self._tell_result)
                elif outcome is not None:
                    self._tell(outcome)
            case _:
                pass  # what an owner allows a trainer means nothing to a loop

    def _fit(self, loop: Loop) -> Loop:
        """Compare the net with the swarm's; where that is a task's, begin as the task does.

        Raises:
            ManifestError: they differ.
        """
        setup, here = self._setup, self._request.task_config
        if setup.task.startswith(greeting.TASK):
            greeting.check_same(setup.task_config, here)
            return loop
        task = find(setup.task)
        cfg = task.configure(setup.task_config)

        def restart(net: nn.Module) -> None:
            loop.vector.flat.copy_(Vector(task.model(cfg), gradients=False).flat)

        spec = Vector(task.model(cfg), gradients=False).spec
        greeting.check_same(greeting.describe(_layout(spec), START_SEED), here)
        return loop._replace(restart=restart)

    def _train(self, effect: effects.Train) -> None:
        try:
            self._engine.guide(effect.guide)
        except WeightsError as error:
            self._left, self._since = 0, 0.0
            return self._tell(LearnFailed("train", error.message))
        self._since = self._since if self._left else time.monotonic()
        self._left += effect.steps
        self._report_if_due()

    def _report_if_due(self) -> None:
        if self._left <= 0 or self.done:
            self._report()

    def _report(self) -> None:
        """Answer a `Train` that is under way, whether or not all its steps were taken."""
        if self._since == 0.0:
            return
        seconds, self._left, self._since = time.monotonic() - self._since, 0, 0.0
        self._tell(Trained(self._steps.step, self._steps.samples, float("nan"), seconds))

    def _tell_result(self, written: Future[wire.Outcome]) -> None:
        if not written.cancelled():
            self._tell(written.result())

    def _tell(self, answer: wire.Answer) -> None:
        if self._line is not None:
            self._line.send(answer)

    # -- the daemon comes and goes -----------------------------------------------------------------

    def _welcome(self, line: Line) -> None:
        """Begin to work for a daemon."""
        if self.lost:
            logger.warning("the swarm is back")
        self._line, self.lost, self._left, self._since = line, "", 0, 0.0
        self._retry_at = 0.0
        self._tell(self._engine.ready())
        line.listen(self._items.put)

    def _connect(self) -> None:
        try:
            line = Line(self._request)
        except P2PTrainError as error:
            self._items.put(Gone(error.message))
            return
        if self._closed:
            line.end(0.0)
        self._items.put(line)

    def _on_gone(self, reason: str) -> None:
        if self.lost == STOPPED or self._retry_at:
            return
        if not self.lost and not self._closed:
            logger.warning("%s; training goes on alone", reason or ENDED)
            self._retry_s = RETRY_FIRST_S
        if self._line is not None:
            self._line.end(0.0)
        self.lost = reason or ENDED
        self._left, self._since = 0, 0.0
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(RETRY_MAX_S, 2 * self._retry_s)

    def _finish_writing(self) -> None:
        """The daemon was told to end: let files become whole, say so, and hang up."""
        self._files.shutdown()
        self._files = ThreadPoolExecutor(1, "p2ptrain-files")
        self.lost, self._retry_at = STOPPED, 0.0
        if self._line is not None:
            self._line.hang_up()
        if not self._closed:
            logger.warning("%s; training goes on alone until `attach` is called again", STOPPED)

    def _say_goodbye(self, line: Line) -> None:
        ends = time.monotonic() + END_S
        try:
            Client(Path(line.begun.control)).stop()
        except ControlError:
            return
        while not self.lost and (left_s := ends - time.monotonic()) > 0:
            try:
                item = self._items.get(timeout=left_s)
            except Empty:
                return
            if not isinstance(item, SKIPPED_AT_THE_END):
                self._handle(item)

    def _end(self) -> None:
        self._files.shutdown(wait=False, cancel_futures=True)
        if self._line is not None:
            self._line.end(END_S if self.lost == STOPPED else 0.0)
        self._loop.vector.release(self._loop.net)


def _check(net: Any, where: str, evaluate: Any, held_out: Any) -> None:
    if not isinstance(net, nn.Module):
        raise ConfigError(f"`attach` takes a torch.nn.Module, not a {type(net).__name__}")
    if not where:
        raise ConfigError(
            "it is not said which swarm",
            'give `swarm="name"` to make one or go on with it, or `invite="p2pt1…"` to join one',
        )
    if (evaluate is None) == (held_out is None):
        raise ConfigError(
            "without a loss on examples that nobody trains on, nobody's weights could be judged",
            "give either `held_out=(inputs, classes)` or `evaluate=function`",
        )
    examples = held_out[0] if isinstance(held_out, tuple) else held_out
    if held_out is not None and not (hasattr(examples, "__getitem__") and hasattr(examples, "__len__")):
        raise ConfigError("`held_out` cannot be indexed", "give tensors, or a map-style dataset")


def _layout(spec: Spec) -> list[str]:
    frozen = [entry.offset >= spec.trainable for entry in spec.entries]
    return [
        f"`{entry.name}` {list(entry.shape)}{' fixed' if fixed else ''}"
        for entry, fixed in zip(spec.entries, frozen, strict=True)
    ]


def _digest(flat: Tensor) -> str:
    return hashlib.sha256(flat.detach().cpu().numpy().data).hexdigest()[:32]
