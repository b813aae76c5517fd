"""Blobs from strangers: either they are weights of this model, or they are refused with a sentence."""

import math
from random import Random

import pytest
import torch
from safetensors.torch import load
from torch import nn

from p2ptrain.core import limits
from p2ptrain.core.errors import ManifestError, WeightsError
from p2ptrain.core.types import BlobId, Ref
from p2ptrain.learn.weights import packing
from p2ptrain.learn.weights.blobs import GoneError
from p2ptrain.learn.weights.codecs import CODECS
from p2ptrain.learn.weights.vector import Vector

WHOLE = [name for name, codec in CODECS.items() if codec.whole]
BASE = BlobId(Ref("5" * 64))


@pytest.fixture
def vector():
    torch.manual_seed(0)
    return Vector(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)))


def blob(vector, codec="f32", flat=None):
    return b"".join(packing.encode(vector.flat if flat is None else flat, vector.spec, codec))


@pytest.mark.parametrize("codec", WHOLE)
def test_weights_come_back(vector, codec):
    data = blob(vector, codec)
    assert len(data) == packing.blob_bytes(vector.spec, codec)
    back = packing.decode(data, vector.spec, codec)
    trained = vector.flat[: vector.spec.trainable]
    bound = CODECS[codec].bound(trained)
    assert ((back[: len(trained)] - trained).abs() <= bound).all()
    assert torch.equal(back[len(trained) :], vector.flat[len(trained) :])


def test_f32_comes_back_exactly(vector):
    assert torch.equal(packing.decode(blob(vector), vector.spec, "f32"), vector.flat)


@pytest.mark.parametrize("codec", WHOLE)
def test_a_variance_stays_above_zero(vector, codec):
    """It is no trained number: rounded to a share of its neighbours, it would be zero."""
    vector.flat[-4:] = torch.tensor([1e-9, 1e3, 1e-30, 1.0])
    back = packing.decode(blob(vector, codec), vector.spec, codec)
    assert torch.equal(back[-4:], vector.flat[-4:])


@pytest.mark.parametrize("codec", CODECS)
def test_a_blob_is_a_safetensors_file(vector, codec):
    base = None if CODECS[codec].whole else packing.Base(BASE, torch.zeros_like(vector.flat))
    tensors = load(b"".join(packing.encode(vector.flat, vector.spec, codec, base)))
    parts = CODECS[codec].parts(vector.spec.trainable)
    assert [len(tensors.pop(part.name)) for part in parts] == [part.count for part in parts]
    for entry, view in vector.views(vector.flat):
        if entry.offset >= vector.spec.trainable or codec == "f32":
            assert torch.equal(tensors[entry.name], view)
        elif CODECS[codec].tag:
            assert tensors[entry.name].shape == view.shape
        else:
            assert entry.name not in tensors


@pytest.mark.parametrize("codec", CODECS)
def test_a_delta_comes_back_as_weights(vector, codec):
    """The net moved a little, and its statistics much."""
    spec, base = vector.spec, packing.Base(BASE, vector.flat.clone())
    moved = base.vector.clone()
    moved[: spec.trainable] += 0.01 * torch.randn(spec.trainable)
    moved[spec.trainable :] = torch.rand(spec.count - spec.trainable) * 1e-9
    data = b"".join(packing.encode(moved, spec, codec, base))
    assert len(data) == packing.blob_bytes(spec, codec, BASE)
    assert packing.kind_of(data) == packing.Kind(codec, BASE)
    back = packing.decode(data, spec, "f32", find={BASE: base.vector}.__getitem__)
    difference = (moved - base.vector)[: spec.trainable]
    error = (back - moved)[: spec.trainable].abs()
    assert (error <= CODECS[codec].bound(difference) + 1e-6).all()
    assert torch.equal(back[spec.trainable :], moved[spec.trainable :])
    assert torch.equal(base.vector, vector.flat)


def test_whole_weights_name_no_base(vector):
    assert packing.base_of(blob(vector)) is None
    assert packing.kind_of(blob(vector, "int8")) == packing.Kind("int8")


def test_a_codec_for_differences_takes_no_whole_weights(vector):
    with pytest.raises(WeightsError, match="for differences"):
        blob(vector, "topk")


def test_f32_is_taken_whatever_the_manifest_says(vector):
    assert torch.equal(packing.decode(blob(vector), vector.spec, "bf16"), vector.flat)
    with pytest.raises(WeightsError, match="`bf16`: not expected"):
        packing.decode(blob(vector, "bf16"), vector.spec, "int8")


def test_decoded_weights_own_their_memory(vector):
    data = bytearray(blob(vector))
    back = packing.decode(memoryview(data), vector.spec, "f32")
    data[-4:] = b"\xff\xff\xff\xff"
    assert torch.equal(back, vector.flat)


def hostile(vector):
    """Name and bytes of blobs that must be refused."""
    good = blob(vector)
    size = int.from_bytes(good[:8], "little")
    text, numbers = good[8 : 8 + size], good[8 + size :]

    def framed(text, numbers=numbers):
        return len(text).to_bytes(8, "little") + text + numbers

    other = Vector(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(3, 16)))
    yield "empty", b""
    yield "half a length", good[:5]
    yield "truncated", good[:-1]
    yield "longer", good + b"\0"
    yield "header only", good[: 8 + size]
    yield "huge header", (2**63 - 1).to_bytes(8, "little") + good[8:]
    yield "header of a MiB", framed(text + b" " * limits.BLOB_HEADER_BYTES_MAX)
    yield "wrong shape", framed(text.replace(b"[4,1,3,3]", b"[1,4,3,3]"))
    yield "wrong offsets", framed(text.replace(b"[32,176]", b"[36,180]"))
    yield "wrong type", framed(text.replace(b"F32", b"I32"))
    yield "another name", framed(text.replace(b'"0.weight"', b'"9.weight"'))
    yield "extra tensor", framed(b'{"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + text[1:])
    yield "not json", framed(b"\xff" * size)
    yield "another model", blob(other)
    yield "another codec", blob(vector, "bf16")
    for value in (torch.nan, torch.inf, -torch.inf, 1e30):
        for place in (0, 7, 8, vector.spec.count - 1):
            bad = torch.frombuffer(bytearray(numbers), dtype=torch.float32)
            bad[place] = value
            yield f"{value} at {place}", framed(text, bad.numpy().tobytes())


@pytest.mark.attack
def test_hostile_blobs_are_refused(vector):
    limit = packing.norm_limit(packing.norm(vector.flat))
    good = blob(vector)
    for name, data in hostile(vector):
        assert data != good, name
        with pytest.raises(WeightsError) as caught:
            packing.decode(data, vector.spec, "f32", limit)
        assert caught.value.message, name


def hostile_deltas(vector):
    """Name, bytes and what a base is found to be, of deltas that must be refused."""
    spec, zeros = vector.spec, torch.zeros_like(vector.flat)
    good = b"".join(packing.encode(vector.flat, spec, "topk", packing.Base(BASE, zeros)))
    found = {BASE: zeros}
    yield "truncated", good[:-1], found
    yield "longer", good + b"\0", found
    yield "a base in capitals", good.replace(BASE.encode(), b"A" * 64), found
    yield "a base that is short", good.replace(BASE.encode(), b"5" * 63 + b'"'), found
    yield "a path", good.replace(BASE.encode(), b"../" * 21 + b"5"), found
    yield "no base", good.replace(b',"base":"' + BASE.encode() + b'"', b" " * 74), found
    yield "another codec", good.replace(b'"topk"', b'"f32" '), found
    yield "an unknown codec", good.replace(b'"topk"', b'"topx"'), found
    renamed = blob(vector).replace(b'"f32"}', b'"f32","base":"' + BASE.encode() + b'"}')
    yield "whole weights that name a base", renamed, found
    long = packing.encode(vector.flat * 1e6, spec, "topk", packing.Base(BASE, zeros))
    yield "too long", b"".join(long), found
    yield "too long with its base", good, {BASE: vector.flat * 1e6}
    yield "a base that is not finite", good, {BASE: zeros + torch.inf}


@pytest.mark.attack
def test_hostile_deltas_are_refused(vector):
    limit = packing.norm_limit(packing.norm(vector.flat))
    for name, data, found in hostile_deltas(vector):
        with pytest.raises(WeightsError) as caught:
            packing.decode(data, vector.spec, "f32", limit, found.__getitem__)
        assert caught.value.message, name


@pytest.mark.attack
def test_a_delta_before_its_base_is_checked_as_far_as_it_can_be(vector):
    """What is wrong with it is its author's fault; that its base is missing is nobody's."""
    spec = vector.spec
    limit = packing.norm_limit(packing.norm(vector.flat))

    def gone(blob):
        raise GoneError("not here")

    pieces = packing.encode(vector.flat, spec, "topk", packing.Base(BASE, torch.zeros_like(vector.flat)))
    with pytest.raises(packing.BaseGoneError, match="the base 555555555555 is not here"):
        packing.decode(b"".join(pieces), spec, "f32", limit, gone)
    long = packing.encode(vector.flat * 1e6, spec, "f32", packing.Base(BASE, torch.zeros_like(vector.flat)))
    with pytest.raises(WeightsError, match="of length"):
        packing.decode(b"".join(long), spec, "f32", limit, gone)
    with pytest.raises(WeightsError, match="not expected"):
        packing.decode(b"".join(pieces), spec, "f32", limit)


@pytest.mark.attack
@pytest.mark.parametrize("codec", CODECS)
def test_mutants_are_weights_or_refused(vector, codec):
    rng = Random(1)
    found = packing.Base(BASE, vector.flat / 2)
    good = b"".join(packing.encode(vector.flat, vector.spec, codec, None if CODECS[codec].whole else found))
    limit = packing.norm_limit(packing.norm(vector.flat))
    refused = 0
    for _ in range(500):
        mutant = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(mutant))
            match rng.randrange(4):
                case 0:
                    mutant[place] = rng.randrange(256)
                case 1:
                    del mutant[place : place + rng.randint(1, 40)]
                case 2:
                    mutant[place:place] = rng.randbytes(rng.randint(1, 40))
                case 3:
                    mutant[place] ^= 1 << rng.randrange(8)
        try:
            back = packing.decode(bytes(mutant), vector.spec, codec, limit, lambda _: found.vector)
        except WeightsError:
            refused += 1
        else:
            assert packing.norm(back) <= limit
    assert 250 < refused < 500
    for size in (0, 1, 7, 8, 9, 100, len(good)):
        with pytest.raises(WeightsError):
            packing.decode(rng.randbytes(size), vector.spec, codec)


def test_weights_that_are_not_finite_are_not_sent(vector):
    for value in (torch.nan, torch.inf):
        vector.flat[3] = value
        with pytest.raises(WeightsError, match="not finite"):
            blob(vector)
    vector.flat[3] = 3.4e38
    blob(vector)
    with pytest.raises(WeightsError, match="not finite"):
        blob(vector, "bf16")


def test_models_and_codecs_that_cannot_travel(vector, monkeypatch):
    with pytest.raises(ManifestError, match="no codec `f8`"):
        packing.header(vector.spec, "f8")
    monkeypatch.setattr(limits, "BLOB_BYTES_MAX", 100)
    with pytest.raises(ManifestError, match="too many to be sent"):
        packing.header(vector.spec, "f32")
    monkeypatch.setattr(limits, "BLOB_HEADER_BYTES_MAX", 100)
    with pytest.raises(ManifestError, match="names and shapes"):
        packing.header(vector.spec, "f32")


def test_the_format_never_changes():
    net = nn.Linear(2, 1)
    vector = Vector(net)
    vector.flat.copy_(torch.tensor([1.0, -2.0, 0.5]))
    text = (
        b'{"__metadata__":{"format":"p2ptrain-weights-1","codec":"bf16"},'
        b'"weight":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},'
        b'"bias":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]}}'
    )
    text += b" " * (-len(text) % 8)
    assert blob(vector, "bf16") == len(text).to_bytes(8, "little") + text + b"\x80\x3f\x00\xc0\x00\x3f"


def test_the_format_of_deltas_never_changes():
    """What is not trained comes first, exactly; then what the codec writes."""
    vector = Vector(nn.BatchNorm1d(1))
    vector.flat.copy_(torch.tensor([1.0, -2.0, 0.5, 0.25]))
    text = (
        b'{"__metadata__":{"format":"p2ptrain-weights-1","codec":"int8","base":"' + BASE.encode() + b'"},'
        b'"running_mean":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"running_var":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},'
        b'".scales":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},'
        b'"weight":{"dtype":"I8","shape":[1],"data_offsets":[12,13]},'
        b'"bias":{"dtype":"I8","shape":[1],"data_offsets":[13,14]}}'
    )
    text += b" " * (-len(text) % 8)
    base = packing.Base(BASE, torch.tensor([0.0, -2.0 - 127.0, 7.0, 7.0]))
    data = b"".join(packing.encode(vector.flat, vector.spec, "int8", base))
    numbers = torch.tensor([0.5, 0.25, 1.0]).view(torch.uint8).numpy().tobytes() + b"\x01\x7f"
    assert data == len(text).to_bytes(8, "little") + text + numbers


def test_the_length_is_that_of_doubles():
    numbers = torch.randn(3 * packing.AT_ONCE + 5)
    assert packing.norm(numbers) == pytest.approx(float(numbers.double().norm()), rel=1e-12)
    assert packing.norm(torch.empty(0)) == 0
    assert packing.norm(torch.full((4,), 3e38)) == pytest.approx(6e38)
    assert not math.isfinite(packing.norm(torch.tensor([1.0, torch.nan])))
    assert not math.isfinite(packing.norm(torch.tensor([1.0, -torch.inf])))
