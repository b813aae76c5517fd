"""Whose weights are let in, and how far they move ours. ALGORITHMS 2.7, rule by rule."""

import math
from random import Random
from statistics import quantiles

import msgspec
import pytest

from p2ptrain.core.mixing import DISTANCES_MAX, LENGTH_FACTOR, PAST, PEERS_MAX, WORSE_MAX, Mixing

pytestmark = pytest.mark.byzantine


def test_a_mixture_that_helps_is_let_in() -> None:
    assert Mixing().accepts("anna", own=1.0, mixed=0.9)


def test_a_mixture_that_hurts_a_little_is_let_in_and_one_that_hurts_more_is_not() -> None:
    assert Mixing().accepts("anna", own=1.0, mixed=1.0 + WORSE_MAX)
    assert not Mixing().accepts("anna", own=1.0, mixed=1.01 + WORSE_MAX)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["own", "mixed"])
def test_weights_of_no_finite_loss_are_refused_and_leave_no_trace(which: str, number: float) -> None:
    mixing = Mixing()
    assert not mixing.accepts("anna", **{"own": 1.0, "mixed": 0.9, which: number})
    assert mixing == Mixing()


def test_the_judgement_is_a_running_average() -> None:
    mixing = Mixing()
    mixing.accepts("anna", own=1.0, mixed=0.8)
    mixing.accepts("anna", own=1.0, mixed=1.2)
    effect = 0.2 / 1.05
    assert mixing.effects["anna"] == pytest.approx(PAST * -effect + (1 - PAST) * effect)


def test_one_bad_day_does_not_condemn_an_honest_peer() -> None:
    mixing = Mixing()
    for _ in range(5):
        assert mixing.accepts("anna", own=1.0, mixed=0.9)
    assert mixing.accepts("anna", own=1.0, mixed=1.1)


def test_who_keeps_hurting_is_refused_even_on_a_good_day() -> None:
    mixing = Mixing()
    for _ in range(5):
        mixing.accepts("mallory", own=1.0, mixed=1.5)
    assert not mixing.accepts("mallory", own=1.0, mixed=0.98)


def test_peers_are_judged_each_by_its_own() -> None:
    mixing = Mixing()
    for _ in range(5):
        mixing.accepts("mallory", own=1.0, mixed=1.5)
    assert mixing.accepts("anna", own=1.0, mixed=0.98)


@pytest.mark.parametrize("seed", range(5))
def test_sign_flippers_are_found_and_honest_peers_are_not_refused(seed: int) -> None:
    """A quarter of the flips pass a single test; the running average refuses nearly all (ALGORITHMS 4.6)."""
    rng, mixing = Random(seed), Mixing()
    refused = {"honest": 0, "flipped": 0}
    for meeting in range(400):
        kind = "flipped" if meeting % 5 == 0 else "honest"
        effect = rng.gauss(0.12, 0.10) if kind == "flipped" else rng.gauss(-0.03, 0.03)
        refused[kind] += not mixing.accepts(f"{kind}{meeting % 20}", 1.0, 1.0 + effect)
    assert refused["flipped"] >= 0.85 * 80, (seed, refused)
    assert refused["honest"] <= 0.03 * 320, (seed, refused)


def test_the_first_moves_are_of_any_length() -> None:
    mixing = Mixing()
    assert [mixing.share(distance) for distance in (1.0, 100.0, 5.0)] == [1.0, 1.0, 1.0]


def test_a_move_is_not_much_longer_than_usual() -> None:
    mixing = Mixing()
    for _ in range(DISTANCES_MAX):
        mixing.share(1.0)
    assert mixing.share(1.9) == 1.0
    assert mixing.share(40.0) * 40.0 == pytest.approx(LENGTH_FACTOR)


def test_one_far_exchange_a_round_is_usual_too() -> None:
    """Half of the exchanges are near, half are far: none is cut."""
    mixing = Mixing()
    assert [mixing.share(distance) for distance in (10.0, 1.0) * 20] == [1.0] * 40


@pytest.mark.parametrize("seed", range(5))
def test_no_move_is_longer_than_the_bound_whatever_came_before(seed: int) -> None:
    rng, mixing = Random(seed), Mixing()
    for _ in range(300):
        distance = rng.expovariate(1.0) * (1000.0 if rng.random() < 0.2 else 1.0)
        usual = quantiles(mixing.distances, n=4)[2] if len(mixing.distances) >= 3 else math.inf
        assert mixing.share(distance) * distance <= LENGTH_FACTOR * usual * (1 + 1e-9), seed


def test_equal_weights_are_no_move() -> None:
    mixing = Mixing()
    for _ in range(5):
        assert mixing.share(0.0) == 1.0
    assert mixing.share(3.0) == 0.0


def test_what_is_remembered_is_bounded() -> None:
    mixing = Mixing()
    for number in range(2 * PEERS_MAX):
        mixing.accepts(f"peer{number}", 1.0, 1.0)
        mixing.share(1.0)
    assert len(mixing.effects) == PEERS_MAX
    assert f"peer{2 * PEERS_MAX - 1}" in mixing.effects
    assert len(mixing.distances) == DISTANCES_MAX


def test_what_is_thought_of_a_peer_survives_a_restart() -> None:
    """A peer cannot wash its name by waiting for one (M3)."""
    mixing = Mixing({"mallory": 0.5}, [1.0])
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(mixing), type=Mixing)
    assert again == mixing
    assert not again.accepts("mallory", own=1.0, mixed=0.9)
