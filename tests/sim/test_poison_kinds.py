"""What liars offer is what their attack says, on the toy learner as on nets."""

from statistics import fmean, stdev

import pytest
import torch

from p2ptrain.core.effects import Publish, Train
from p2ptrain.core.inputs import Published
from p2ptrain.sim.poison import ALIE_DEVIATIONS, SEEN_MAX, Poison
from p2ptrain.sim.torch_learner import poisoned
from p2ptrain.sim.toy import ToyBlobs, ToyLearner, Vector

pytestmark = pytest.mark.byzantine


def offered(learner: ToyLearner, blobs: ToyBlobs) -> Vector:
    published = learner.perform(Publish("p"))
    assert isinstance(published, Published)
    return blobs[published.blob]


@pytest.mark.parametrize(
    ("poison", "factor"), [(Poison.ZEROS, 0.0), (Poison.MINUS, -1.0), (Poison.FLIP, -4.0)]
)
def test_weights_are_turned_or_left_out(poison: Poison, factor: float) -> None:
    blobs: ToyBlobs = {}
    liar = ToyLearner(0, 1, blobs)
    own = offered(liar, blobs)
    liar.poison = poison
    assert offered(liar, blobs) == pytest.approx([factor * x for x in own])
    assert poisoned(torch.tensor(own), poison).tolist() == pytest.approx([factor * x for x in own])


def test_noise_is_as_large_as_it_says_and_the_same_again() -> None:
    weights = torch.zeros(10_000) + 0.5
    noise = poisoned(weights, Poison.NOISE) - weights
    assert float(noise.std()) == pytest.approx(1.0, rel=0.05)
    assert abs(float(noise.mean())) < 0.05
    assert torch.equal(poisoned(weights, Poison.NOISE), weights + noise)


def test_a_little_is_as_much_as_others_differ() -> None:
    blobs: ToyBlobs = {}
    liar, others = ToyLearner(0, 1, blobs), [ToyLearner(0, n, blobs) for n in range(2, 8)]
    own, liar.poison = offered(liar, blobs), Poison.ALIE
    assert offered(liar, blobs) == own, "nothing was seen yet"
    for other in others:
        other.perform(Train(50))
        published = other.perform(Publish("p"))
        assert isinstance(published, Published)
        assert liar.accept(published.blob, other) == ""
    seen = [other._own for other in others[-SEEN_MAX:]]
    expected = [fmean(x) - ALIE_DEVIATIONS * stdev(x) for x in zip(*seen, strict=True)]
    assert offered(liar, blobs) == pytest.approx(expected)
    as_tensors = [torch.tensor(vector, dtype=torch.float64) for vector in seen]
    assert poisoned(torch.tensor(own), Poison.ALIE, as_tensors).tolist() == pytest.approx(expected)
