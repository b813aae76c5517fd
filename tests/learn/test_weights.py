"""Blobs from strangers: either they are weights of this model, or they are refused with a sentence."""

from random import Random

import pytest
import torch
from safetensors.torch import load
from torch import nn

from p2ptrain.core import limits
from p2ptrain.core.errors import ManifestError, WeightsError
from p2ptrain.learn import weights
from p2ptrain.learn.vector import Vector


@pytest.fixture
def vector():
    torch.manual_seed(0)
    return Vector(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)))


def blob(vector, codec="f32", flat=None):
    return b"".join(weights.encode(vector.flat if flat is None else flat, vector.spec, codec))


def test_f32_comes_back_exactly(vector):
    data = blob(vector)
    assert len(data) == weights.blob_bytes(vector.spec, "f32")
    assert torch.equal(weights.decode(data, vector.spec, "f32"), vector.flat)


def test_bf16_comes_back_rounded(vector):
    back = weights.decode(blob(vector, "bf16"), vector.spec, "bf16")
    assert ((back - vector.flat).abs() <= 2**-8 * vector.flat.abs()).all()


def test_a_blob_is_a_safetensors_file(vector):
    tensors = load(blob(vector))
    for entry, view in vector.views(vector.flat):
        assert torch.equal(tensors[entry.name], view)


def test_decoded_weights_own_their_memory(vector):
    data = bytearray(blob(vector))
    back = weights.decode(memoryview(data), vector.spec, "f32")
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
    yield "wrong offsets", framed(text.replace(b"[0,144]", b"[4,148]"))
    yield "wrong type", framed(text.replace(b"F32", b"I32"))
    yield "another name", framed(text.replace(b'"0.weight"', b'"9.weight"'))
    yield "extra tensor", framed(b'{"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + text[1:])
    yield "not json", framed(b"\xff" * size)
    yield "another model", blob(other)
    yield "another codec", blob(vector, "bf16")
    for value in (torch.nan, torch.inf, -torch.inf, 1e30):
        bad = vector.flat.clone()
        bad[7] = value
        yield str(value), text_and(good, size, bad)


def text_and(good, size, flat):
    return good[: 8 + size] + flat.numpy().tobytes()


@pytest.mark.attack
def test_hostile_blobs_are_refused(vector):
    limit = weights.norm_limit(weights.norm(vector.flat))
    for name, data in hostile(vector):
        with pytest.raises(WeightsError) as caught:
            weights.decode(data, vector.spec, "f32", limit)
        assert caught.value.message, name


@pytest.mark.attack
def test_mutants_are_weights_or_refused(vector):
    rng = Random(1)
    good = blob(vector)
    limit = weights.norm_limit(weights.norm(vector.flat))
    refused = 0
    for _ in range(2000):
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
            back = weights.decode(bytes(mutant), vector.spec, "f32", limit)
        except WeightsError:
            refused += 1
        else:
            assert weights.norm(back) <= limit
    assert 1000 < refused < 2000
    for size in (0, 1, 7, 8, 9, 100, len(good)):
        with pytest.raises(WeightsError):
            weights.decode(rng.randbytes(size), vector.spec, "f32")


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
        weights.header(vector.spec, "f8")
    monkeypatch.setattr(limits, "BLOB_BYTES_MAX", 100)
    with pytest.raises(ManifestError, match="too many to be sent"):
        weights.header(vector.spec, "f32")
    monkeypatch.setattr(limits, "BLOB_HEADER_BYTES_MAX", 100)
    with pytest.raises(ManifestError, match="names and shapes"):
        weights.header(vector.spec, "f32")


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
