"""Some of the numbers travel and change, all others stay as they are; strangers' ranges are refused."""

from random import Random

import pytest
import torch
from safetensors.torch import load
from torch import nn

from p2ptrain.core import limits
from p2ptrain.core.effects import Adopt, Combine, Publish, Train
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.inputs import Adopted, Combined, LearnFailed, Published
from p2ptrain.core.types import OWN, BlobId, Ref, Slot
from p2ptrain.learn.weights import packing, pieces
from p2ptrain.learn.weights.codecs import CODECS
from p2ptrain.learn.weights.vector import Vector

A = Slot(Ref("a"))
BASE = BlobId(Ref("5" * 64))


@pytest.fixture
def vector():
    torch.manual_seed(0)
    return Vector(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)))


def some(spec):
    """Ranges of every kind: inside of a tensor, across tensors, across the border, and one number."""
    border, count = spec.trainable, spec.count
    yield ((0, count),)
    yield ((3, 40), (41, 42), (border - 2, border + 3), (count - 1, count))
    yield ((0, 5), (5, 9))
    yield ((border, count),)
    yield ((1, 2),)


def inside(spec, ranges):
    marks = torch.zeros(spec.count, dtype=torch.bool)
    for begin, end in ranges:
        marks[begin:end] = True
    return marks


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("is_delta", [False, True])
def test_pieces_come_back_and_nothing_else(vector, codec, is_delta):
    spec, how = vector.spec, CODECS[codec]
    if not (how.whole or is_delta):
        return
    base = packing.Base(BASE, vector.flat + 0.01 * torch.randn(spec.count)) if is_delta else None
    outside = torch.zeros(spec.count) if base is None else base.vector
    for ranges in some(spec):
        parts = packing.encode(vector.flat, spec, codec, base, ranges)
        data = b"".join(parts)
        assert len(data) == packing.blob_bytes(spec, codec, base and BASE, ranges)
        assert packing.kind_of(data) == packing.Kind(codec, base and BASE, ranges)
        assert all(name.startswith(".") for name in load(data))
        back = packing.decode(data, spec, "bf16", find=lambda _, outside=outside: outside)
        mask = inside(spec, ranges)
        assert torch.equal(back[~mask], outside[~mask])
        fixed = mask.clone()
        fixed[: spec.trainable] = False
        assert torch.equal(back[fixed], vector.flat[fixed])
        trained = mask & ~fixed
        if trained.any():
            sent = (vector.flat - outside)[trained]
            error = (back - vector.flat)[trained].abs()
            assert (error <= how.bound(sent.contiguous()) + 1e-6).all()


def test_pieces_in_f32_come_back_exactly_and_are_small(vector):
    ranges = ((0, 4), (vector.spec.count - 2, vector.spec.count))
    data = b"".join(packing.encode(vector.flat, vector.spec, "f32", None, ranges))
    assert len(data) - len(packing.header(vector.spec, "f32", None, ranges)) == 4 * 6
    back = packing.decode(data, vector.spec, "f32")
    assert torch.equal(pieces.take(back, ranges), pieces.take(vector.flat, ranges))


def test_the_format_of_pieces_never_changes():
    vector = Vector(nn.BatchNorm1d(2))
    vector.flat.copy_(torch.tensor([1.0, -2.0, 3.0, 4.0, 0.5, 0.25, 7.0, 8.0]))
    text = (
        b'{"__metadata__":{"format":"p2ptrain-weights-1","codec":"bf16","ranges":"1-2,3-5"},'
        b'".fixed":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'".numbers":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}}'
    )
    text += b" " * (-len(text) % 8)
    data = b"".join(packing.encode(vector.flat, vector.spec, "bf16", None, ((1, 2), (3, 5))))
    numbers = torch.tensor([0.5]).view(torch.uint8).numpy().tobytes() + b"\x00\xc0\x80\x40"
    assert data == len(text).to_bytes(8, "little") + text + numbers


@pytest.mark.parametrize(
    "ranges",
    [
        ((0, 0),),
        ((5, 4),),
        ((-1, 4),),
        ((0, 10**6),),
        ((4, 8), (0, 2)),
        ((0, 5), (4, 8)),
        tuple((at, at + 1) for at in range(limits.RANGES_MAX + 1)),
    ],
)
def test_ranges_that_make_no_sense(engine, vector, ranges):
    with pytest.raises(WeightsError):
        packing.encode(vector.flat, vector.spec, "f32", None, ranges)
    one = engine()
    for effect in (Publish("x", ranges=ranges), Combine("x", A, ((1.0, OWN),), ranges=ranges)):
        answer = one.perform(effect)
        assert isinstance(answer, LearnFailed)
        assert answer.tag == "x"


def hostile(vector):
    """Name and bytes of pieces that must be refused."""
    ranges = ((0, 4), (6, 8))
    good = b"".join(packing.encode(vector.flat, vector.spec, "f32", None, ranges))
    size = int.from_bytes(good[:8], "little")
    numbers = good[8 + size :]
    text = good[8 : 8 + size].rstrip()

    def told(ranges, numbers=numbers):
        changed = text.replace(b'"0-4,6-8"', b'"' + ranges + b'"')
        changed += b" " * (-len(changed) % 8)
        return len(changed).to_bytes(8, "little") + changed + numbers

    yield "good", good
    for ranges in (
        b"6-8,0-4",
        b"0-4,3-5",
        b"0-4,6-9",
        b"0-4,06-8",
        b"0-4,6-8,",
        b"0-4,6-8,9-9",
        b"4-0,6-8",
        b"-4,6-8",
        b"0-4,106-108",
        b"0-4,6-999999999999",
        b"0-4,6-9999999999999",
        b"0-4,6-" + b"9" * 5000,
        b",".join(b"%d-%d" % (at, at + 1) for at in range(limits.RANGES_MAX + 6)),
        b"1-2," * 10**5 + b"3-4",
        b"--",
        b"-",
        b",",
    ):
        yield str(ranges[:40]), told(ranges)
    yield "other ranges of that size", told(b"0-4,7-9").replace(b".numbers", b".other00")
    yield "ranges of no numbers", told(b"")
    yield "all numbers", told(b"0-%d" % vector.spec.count)
    yield "truncated", good[:-1]
    yield "longer", good + b"\0"
    yield "a codec for differences", good.replace(b'"f32"', b'"topk"')
    for value in (torch.nan, torch.inf, 1e30):
        bad = torch.frombuffer(bytearray(numbers), dtype=torch.float32)
        bad[2] = value
        yield f"{value}", told(b"0-4,6-8", bad.numpy().tobytes())


@pytest.mark.attack
def test_hostile_pieces_are_refused(vector):
    limit = packing.norm_limit(packing.norm(vector.flat))
    (_, good), *bad = hostile(vector)
    packing.decode(good, vector.spec, "f32", limit)
    for name, data in bad:
        with pytest.raises(WeightsError) as caught:
            packing.decode(data, vector.spec, "f32", limit)
        assert caught.value.message, name


@pytest.mark.attack
@pytest.mark.parametrize("codec", CODECS)
def test_mutants_are_weights_or_refused(vector, codec):
    rng = Random(2)
    found = packing.Base(BASE, vector.flat / 2)
    base = None if CODECS[codec].whole else found
    good = b"".join(packing.encode(vector.flat, vector.spec, codec, base, ((2, 30), (60, 70))))
    limit = packing.norm_limit(packing.norm(vector.flat))
    refused = 0
    for _ in range(300):
        mutant = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            mutant[rng.randrange(len(mutant))] = rng.choice(b'0123456789-,"{}:f\xff')
        try:
            back = packing.decode(bytes(mutant), vector.spec, codec, limit, lambda _: found.vector)
        except WeightsError:
            refused += 1
        else:
            assert packing.norm(back) <= limit
    assert 100 < refused < 300


# -- by effects ------------------------------------------------------------------------------------


def own(engine):
    return engine._trainer.vector.flat.clone()


def test_two_halves_make_a_whole(engine):
    """A sharded server: each half is fetched from elsewhere, and put into its place."""
    one, other = engine("toys:normed"), engine("toys:normed", seed=1)
    one.perform(Train(5))
    spec = one._trainer.vector.spec
    count, middle = spec.count, spec.count // 3
    for ranges in (((0, middle),), ((middle, count),)):
        published = one.perform(Publish("p", ranges=ranges))
        assert isinstance(published, Published)
        assert published.size_bytes == packing.blob_bytes(spec, "f32", None, ranges)
        other._blobs.take(published.blob, one._blobs)
        other.accept(published.blob)
        assert other.perform(Combine("c", OWN, ((1.0, published.blob),), ranges=ranges)) == Combined("c")
    assert torch.equal(own(one), own(other))


def test_a_slot_changes_in_these_numbers_only(engine):
    one = engine()
    start = own(one)
    assert one.perform(Combine("c", A, ((1.0, OWN),), ranges=((3, 7),))) == Combined("c")
    held = one._refs.get(A)
    assert torch.equal(held[3:7], start[3:7])
    assert not held[:3].any()
    assert not held[7:].any()
    one.perform(Combine("c", A, ((2.0, OWN),), ranges=((0, 4), (10, 12))))
    now = one._refs.get(A)
    assert torch.equal(now[:4], 2 * start[:4])
    assert torch.equal(now[4:7], start[4:7])
    assert torch.equal(now[10:12], 2 * start[10:12])
    assert not held[10:12].any(), "who was given the old vector keeps it"
    one.perform(Combine("c", OWN, ((0.0, OWN),), ranges=((1, 2),)))
    assert own(one)[1] == 0
    assert torch.equal(own(one)[2:], start[2:])


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum", "centered_clip"])
def test_rules_look_at_these_numbers_only(engine, rule):
    one = engine()
    start = own(one)
    blobs = [one.perform(Publish("p", ranges=((0, 4),))).blob for _ in range(3)]
    terms = tuple((1.0, blob) for blob in blobs)
    assert one.perform(Combine("c", OWN, terms, rule, ((0, 4),))) == Combined("c")
    torch.testing.assert_close(own(one), start)


@pytest.mark.parametrize("codec", ["f32", "int8", "topk10"])
def test_a_delta_of_pieces_stands_for_the_base_with_these_replaced(engine, codec):
    one, other = engine("toys:normed"), engine("toys:normed", seed=1)
    base, start = one.perform(Publish("base")).blob, own(one)
    one.perform(Train(5))
    ranges = ((2, 20), (len(start) - 3, len(start)))
    delta = one.perform(Publish("p", OWN, base, codec, ranges)).blob
    for blob in (base, delta):
        other._blobs.take(blob, one._blobs)
        other.accept(blob)
    assert other.perform(Adopt("a", delta)) == Adopted("a")
    expected = start.clone()
    expected[2:20], expected[-3:] = own(one)[2:20], own(one)[-3:]
    torch.testing.assert_close(own(other), expected, atol=0.0 if codec == "f32" else 0.5, rtol=1e-6)
    untouched = ~inside(one._trainer.vector.spec, ranges)
    assert torch.equal(own(other)[untouched], start[untouched])


def test_a_delta_may_build_on_pieces(engine):
    """A worker tells a shard what changed in it."""
    one, other = engine(), engine(seed=1)
    shard = ((5, 25),)
    base = one.perform(Publish("base", ranges=shard)).blob
    one.perform(Train(5))
    delta = one.perform(Publish("p", OWN, base, "f32", shard)).blob
    for blob in (delta, base):
        other._blobs.take(blob, one._blobs)
        other.accept(blob)
    other.perform(Combine("c", A, ((1.0, delta), (-1.0, base))))
    assert not other._refs.get(A)[25:].any()
    other.perform(Combine("c", OWN, ((1.0, delta),), ranges=shard))
    torch.testing.assert_close(own(other)[5:25], own(one)[5:25], atol=1e-6, rtol=0)
