"""A learner in virtual time behaves like the trainer process, as far as strategies can tell."""

import pytest

from p2ptrain.core.effects import Adopt, Effect, Evaluate, Guide, Halt, Publish, Train
from p2ptrain.core.inputs import Evaluated, Input, Published, Trained
from p2ptrain.core.types import OWN, Seconds
from p2ptrain.sim.toy import ToyLearner
from p2ptrain.sim.trainer import SimTrainer

STEP_S = 0.1


class Bench:
    """A trainer, and the clock that wakes it."""

    def __init__(self) -> None:
        self.now: Seconds = 0.0
        self.learner = ToyLearner(0, 1, {})
        self.answers: list[tuple[Seconds, Input]] = []
        self._wakes: list[tuple[Seconds, int]] = []
        self.trainer = SimTrainer(
            self.learner,
            self.learner.ready(),
            STEP_S,
            lambda delay, answer: self.answers.append((self.now + delay, answer)),
            lambda delay, job: self._wakes.append((self.now + delay, job)),
        )

    def perform(self, effect: Effect, at: Seconds) -> None:
        self.run(at)
        self.trainer.perform(self.now, effect)

    def run(self, until: Seconds) -> None:
        while self._wakes and min(self._wakes)[0] <= until:
            wake = min(self._wakes)
            self._wakes.remove(wake)
            self.now, job = wake
            self.trainer.on_wake(self.now, job)
        self.now = until

    def trained(self) -> list[tuple[Seconds, int]]:
        return [(pytest.approx(at), a.step) for at, a in self.answers if isinstance(a, Trained)]


def test_steps_take_their_time() -> None:
    bench = Bench()
    bench.perform(Train(50), at=0.0)
    bench.run(4.9)
    assert bench.trained() == []
    bench.run(5.1)
    assert bench.trained() == [(5.0, 50)]


def test_more_steps_add_to_those_under_way_and_one_answer_counts_for_all() -> None:
    bench = Bench()
    bench.perform(Train(50), at=0.0)
    bench.perform(Train(30), at=2.0)
    bench.run(20.0)
    assert bench.trained() == [(8.0, 80)]


def test_halting_is_answered_with_the_steps_taken() -> None:
    bench = Bench()
    bench.perform(Train(50), at=0.0)
    bench.perform(Halt(), at=2.05)
    bench.run(20.0)
    assert bench.trained() == [(2.05, 20)]
    bench.perform(Halt(), at=21.0)
    assert len(bench.answers) == 1, "who does not train has nothing to say"


def test_what_comes_in_between_sees_the_weights_of_that_moment() -> None:
    bench = Bench()
    bench.perform(Train(50), at=0.0)
    bench.perform(Publish("half"), at=2.55)
    bench.perform(Publish("later"), at=4.0)
    half, later = [answer for _, answer in bench.answers if isinstance(answer, Published)]
    assert half.blob != later.blob
    assert bench.learner.perform(Evaluate("x", (OWN, later.blob))).distances == (0.0, 0.0)  # type: ignore[union-attr]


def test_measuring_delays_training_and_takes_longer_for_more_weights() -> None:
    bench = Bench()
    bench.perform(Train(50), at=0.0)
    bench.perform(Evaluate("two", (OWN, OWN)), at=2.0)
    bench.run(20.0)
    assert [at for at, answer in bench.answers if isinstance(answer, Evaluated)] == [pytest.approx(2.2)]
    assert bench.trained() == [(5.2, 50)]


def test_adopting_does_not_stop_training() -> None:
    bench = Bench()
    bench.perform(Train(50), at=0.0)
    bench.perform(Adopt("x", OWN), at=2.0)
    bench.run(20.0)
    assert bench.trained() == [(5.0, 50)]


@pytest.mark.parametrize(
    ("guide", "seconds"),
    [
        (Guide(layers=(0, 4)), 4.0),
        (Guide(layers=(0, 1)), 4.0 * (1 + 3 * 2 / 3) / 4),
        (Guide(layers=(3, 4)), 4.0 * (3 / 3 + 1) / 4),
        (Guide(layers=(0, 1), local=True), 4.0 * 1 / 4),
        (Guide(layers=(2, 4), local=True), 4.0 * (2 / 3 + 2) / 4),
    ],
    ids=["all layers", "the first", "the last", "the first, locally", "the last two, locally"],
)
def test_a_guided_step_takes_its_share_of_the_time(guide: Guide, seconds: float) -> None:
    """The toy has four layers of equal cost: a step of 0.1 s, forty of them."""
    bench = Bench()
    bench.perform(Train(40, 0, guide), at=0.0)
    bench.run(seconds - 0.05)
    assert bench.trained() == []
    bench.run(20.0)
    assert bench.trained() == [(seconds, 40)]
    assert bench.answers[-1][1].seconds == pytest.approx(seconds)  # type: ignore[union-attr]
    bench.perform(Train(10), at=20.0)
    bench.run(30.0)
    assert bench.trained()[-1] == (21.0, 50), "the next step is of the whole net again"
