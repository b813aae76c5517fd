"""Everybody computes the same parts of the data, for any round at once."""

import hashlib
import os
import subprocess
import sys
from fractions import Fraction
from math import floor

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2ptrain.core.effects import Checkpoint, Train
from p2ptrain.core.errors import ManifestError
from p2ptrain.learn.data.formation import ALWAYS, NEVER, turns
from p2ptrain.learn.data.partition import PART_MIN, Division, Plan, balance_of
from p2ptrain.learn.weights.checkpoint import MemoryCheckpoints

FORMATIONS = ("static", "dynamic", "stochastic", "hybrid")
DIFFERENCES = (
    {},
    {"balance": 0.8},
    {"balance": 0.0, "classes": 1},
    {"skew": 0.5},
    {"uneven": 0.5},
)


def labels_of(count, classes=10):
    return torch.arange(count) * 7 % classes


def divisions(count, plan):
    labels = labels_of(count) if plan.by_class else None
    return [Division(count, plan, slot, labels) for slot in range(plan.parts)]


@st.composite
def cases(draw):
    """A number of examples, and how they are divided."""
    parts = draw(st.integers(2, 6))
    plan = Plan(
        seed=draw(st.integers(0, 2**40)),
        parts=parts,
        pool=draw(st.sampled_from((0, 31))),
        formation=draw(st.sampled_from(FORMATIONS)),
        keep=draw(st.sampled_from((0.0, 0.29, 0.5, 0.7, 0.9, 0.99))),
        disjoint=draw(st.booleans()),
        **draw(st.sampled_from(DIFFERENCES)),
    )
    return draw(st.integers(150 * parts, 200 * parts)), plan, draw(st.integers(0, 10_000))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_parts_in_any_round(case):
    count, plan, round_ = case
    mine = divisions(count, plan)
    before = [division.training(round_).tolist() for division in mine]
    after = [division.training(round_ + 1).tolist() for division in mine]
    held_out = [set(division.validation.tolist()) for division in mine]
    nobodys = set().union(*held_out)
    static = [Division(count, fixed(plan), slot, labels_of(count)) for slot in range(plan.parts)]
    for slot, (old, new) in enumerate(zip(before, after, strict=True)):
        assert len(set(old)) == len(old) == len(new) == len(static[slot].training())
        assert held_out[slot] == set(static[slot].validation.tolist())
        assert not nobodys & set(old)
        assert set(old) <= set(range(count))
        if plan.formation == "hybrid":
            kept = sum(a == b for a, b in zip(old, new, strict=True))
            assert kept >= floor(Fraction(str(plan.keep)) * len(old))
    if plan.formation in ("static", "dynamic") or plan.disjoint:
        together = [index for part in before for index in part]
        assert len(set(together)) == len(together)
    if plan.pool == 0:
        assert sum(map(len, held_out)) == len(nobodys)


def fixed(plan):
    return Plan(**{name: getattr(plan, name) for name in plan.__struct_fields__} | {"formation": "static"})


@given(st.integers(1, 3000), st.sampled_from((0.0, 0.1, 0.29, 0.5, 0.57, 0.7, 0.9, 0.95, 0.99)))
@settings(max_examples=100, deadline=None)
@example(1, 0.99)
def test_exactly_the_share_to_keep_is_not_dealt_anew(size, keep):
    turn = turns(torch.arange(size), torch.full((size,), size), keep)
    kept = floor(Fraction(str(keep)) * size)
    going_round = turn[turn > ALWAYS].bincount()[ALWAYS + 1 :].tolist()
    for count in going_round or [0]:
        assert size - int((turn == ALWAYS).sum()) - count == kept
    assert int((turn == NEVER).sum()) < max(2, len(going_round)) or not going_round


@pytest.mark.parametrize(("count", "parts"), [(1000, 1), (1000, 7), (64, 32)])
def test_static_parts_are_complete(count, parts):
    mine = divisions(count, Plan(seed=3, parts=parts))
    size = count // parts
    for division in mine:
        assert len(division.validation) == max(1, round(0.15 * size))
        assert len(division.training()) + len(division.validation) == size
    seen = torch.cat([torch.cat([division.training(), division.validation]) for division in mine]).tolist()
    assert len(seen) == len(set(seen)) == count // parts * parts


def test_dynamic_parts_are_complete_in_a_round_and_show_everything_in_time():
    mine = divisions(1003, Plan(seed=3, parts=4, formation="dynamic"))
    nobodys = {index for division in mine for index in division.validation.tolist()}
    union = {index for division in mine for index in division.training(7).tolist()}
    assert len(union) == 4 * (250 - 38)  # three are left out, others in another round
    seen = {index for round_ in range(40) for index in mine[0].training(round_).tolist()}
    assert seen == set(range(1003)) - nobodys


@pytest.mark.parametrize("disjoint", [False, True])
def test_what_hybrid_parts_draw_is_theirs_only_if_wanted(disjoint):
    mine = divisions(2000, Plan(seed=3, parts=4, formation="hybrid", disjoint=disjoint))
    union = {index for division in mine for index in division.training(7).tolist()}
    assert (len(union) == 4 * 425) is disjoint
    seen = {index for round_ in range(120) for index in mine[0].training(round_).tolist()}
    assert len(seen) == 1700


def test_members_with_one_part_draw_on_their_own():
    plan = Plan(parts=4, formation="stochastic")
    first, fifth = (Division(1000, plan, slot) for slot in (0, 4))
    assert torch.equal(first.validation, fifth.validation)
    assert set(first.training(1).tolist()) != set(fifth.training(1).tolist())
    plan = Plan(parts=4, formation="dynamic")
    first, fifth = (Division(1000, plan, slot) for slot in (0, 4))
    assert torch.equal(first.training(1), fifth.training(1))


@pytest.mark.parametrize("formation", FORMATIONS)
@pytest.mark.parametrize("balance", [0.0, 0.3, 0.8, 0.9, 1.0])
def test_balance_is_what_was_asked_for(balance, formation):
    plan = Plan(parts=10, balance=balance, formation=formation)
    labels = labels_of(20_000)
    for slot in range(3):
        division = Division(20_000, plan, slot, labels)
        for examples in (division.training(3), division.validation):
            assert balance_of(labels, examples, plan) == pytest.approx(balance, abs=0.12)
    many = torch.arange(20_000) % 200
    few = Plan(parts=5, balance=balance, formation=formation)
    measured = balance_of(many, Division(20_000, few, 1, many).training(3), few)
    assert measured == pytest.approx(
        balance, abs=0.12
    )  # two classes of 200 could not fill a fifth of the data


def test_one_main_class_is_the_pathological_division():
    plan = Plan(parts=10, balance=0.0, classes=1)
    labels = labels_of(1000)
    held = [set(labels[division.training()].tolist()) for division in divisions(1000, plan)]
    assert sorted(label for classes in held for label in classes) == list(range(10))


def test_class_shares_stay_while_examples_change():
    plan = Plan(parts=5, skew=0.3, formation="hybrid", disjoint=True)
    labels = labels_of(3000)
    division = Division(3000, plan, 2, labels)
    counts = [labels[division.training(round_)].bincount(minlength=10) for round_ in (0, 1, 8)]
    assert torch.equal(counts[0], counts[1])
    assert torch.equal(counts[0], counts[2])
    assert len(counts[0].unique()) > 3


@pytest.mark.parametrize("difference", [{"skew": 0.3}, {"uneven": 1.0}])
def test_uneven_parts_have_their_minimum(difference):
    for seed in range(5):
        plan = Plan(seed=seed, parts=8, **difference)
        sizes = [len(d.training()) + len(d.validation) for d in divisions(1600, plan)]
        assert min(sizes) >= PART_MIN
        assert sum(sizes) == 1600
        assert max(sizes) > 1.5 * min(sizes)
    with pytest.raises(ManifestError, match="enough"):
        divisions(100, Plan(parts=6, **difference))


def test_labels_may_have_gaps():
    plan = Plan(parts=4, balance=0.5, formation="dynamic")
    labels = labels_of(1000)
    gaps = labels * 10**12 - 5
    assert torch.equal(Division(1000, plan, 1, labels).training(2), Division(1000, plan, 1, gaps).training(2))


def test_too_few_examples():
    with pytest.raises(ManifestError, match="too few for 6 parts"):
        Division(10, Plan(parts=6), 0)
    with pytest.raises(ManifestError, match="too few"):
        Division(10, Plan(pool=20), 0)


GOLDEN = {
    "static": ({}, "67593ac3ebff1c48"),
    "static-pool": ({"pool": 100}, "5cde85daf142bb1b"),
    "static-skew": ({"skew": 0.5}, "b5e78027ffbb2757"),
    "static-balance": ({"balance": 0.8}, "1da136fbe3022cf3"),
    "static-uneven": ({"uneven": 0.5}, "a70534a716ae7127"),
    "dynamic": ({"formation": "dynamic"}, "8ad6e0d65c222fd5"),
    "dynamic-skew": ({"formation": "dynamic", "skew": 0.5}, "6a98bfc55ce17f87"),
    "stochastic": ({"formation": "stochastic"}, "4bde6c8cbd146457"),
    "stochastic-balance": ({"formation": "stochastic", "balance": 0.9}, "f736e737d3e7f76b"),
    "hybrid": ({"formation": "hybrid"}, "086f5e7b4003f6d4"),
    "hybrid-disjoint": (
        {"formation": "hybrid", "disjoint": True, "keep": 0.7, "skew": 0.5},
        "2dd740cc1c841cc0",
    ),
}
"""Peers cut alike for ever: where one of these changes, swarms of two versions train on each other's data."""


def digest(plan):
    division = Division(1237, Plan(seed=11, parts=5, **plan), 8, labels_of(1237))
    total = hashlib.sha256(division.validation.numpy().astype("<i8").tobytes())
    for round_ in (0, 1, 2, 5000):
        total.update(division.training(round_).numpy().astype("<i8").tobytes())
    return total.hexdigest()[:16]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_parts_are_those_of_all_versions(name):
    plan, expected = GOLDEN[name]
    assert digest(plan) == expected


def test_another_process_computes_the_same():
    code = "import test_partition as t; print(t.digest(t.GOLDEN['hybrid'][0]))"
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.decode().strip() == GOLDEN["hybrid"][1]


@pytest.mark.parametrize("plan", [{}, {"skew": 0.5}, {"balance": 0.5}, {"uneven": 0.5}])
def test_what_is_held_out_is_like_what_is_trained_on(plan):
    labels = labels_of(10_000)
    for slot in range(10):
        division = Division(10_000, Plan(seed=3, parts=10, **plan), slot, labels)
        trained, held = (
            labels[part].bincount(minlength=10) / len(part)
            for part in (division.training(0), division.validation)
        )
        assert 0.5 * float((trained - held).abs().sum()) < 0.35, (slot, trained, held)


# -- in training -----------------------------------------------------------------------------------

DRAWN = {"parts": 4, "formation": "stochastic"}


def test_steps_are_taken_on_the_examples_of_their_round(engine):
    one = engine(**DRAWN)
    division = Division(200, Plan(**DRAWN), 0)
    taken = []
    source = one._splits.training._source
    take = source.take
    source.take = lambda indices: taken.append(set(indices.tolist())) or take(indices)
    for round_ in (3, 4, 3):
        one.begin(Train(2, round_))
        one.advance()
        examples = set(division.training(round_).tolist())
        assert all(indices <= examples for indices in taken)
        assert len(taken) == 2
        taken.clear()


def test_a_round_goes_on_where_it_stopped(engine):
    straight, checkpoints = engine(**DRAWN), MemoryCheckpoints()
    for round_ in (0, 1, 2):
        straight.perform(Train(7, round_))
    first = engine(checkpoints=checkpoints, **DRAWN)
    first.perform(Train(7, 0))
    first.perform(Train(3, 1))
    first.perform(Checkpoint(b""))
    second = engine(checkpoints=checkpoints, **DRAWN)
    second.perform(Train(4, 1))
    second.perform(Train(7, 2))
    assert torch.equal(straight._trainer.vector.flat, second._trainer.vector.flat)
