"""Any finite numbers come back within the bound; any bytes give finite numbers, or are refused."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2ptrain.core.errors import ManifestError, WeightsError
from p2ptrain.learn.weights.codecs import CODECS, bits, find, squeeze
from p2ptrain.learn.weights.codecs.codec import size
from p2ptrain.learn.weights.codecs.topk import CHUNK

LIMITS = {"f32": 3.4e38, "bf16": 3.38e38, "int8": 1.6e38, "topk": 3.4e38, "topk3": 3.4e38, "topk10": 3.4e38}
SPARSE = [name for name, codec in CODECS.items() if not codec.whole]

every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
every_sparse_codec = pytest.mark.parametrize("codec", [find(name) for name in SPARSE], ids=SPARSE)

counts = st.one_of(
    st.integers(1, 50), st.sampled_from([1023, 1024, 1025, 2048, 4095, 4096, 4097, 9000, 64 * 4096 + 1])
)
spreads = st.sampled_from([0.0, 1e-45, 1e-40, 1e-3, 1.0, 1e30, 3e37])
outliers = st.lists(
    st.tuples(st.integers(0, 10**6), st.floats(allow_nan=False, allow_infinity=False, width=32)), max_size=5
)


def vector_of(count, spread, outliers, seed):
    numbers = torch.empty(count).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed)) * spread
    for place, value in outliers:
        numbers[place % count] = value
    return numbers


@every_codec
@settings(max_examples=30)
@given(counts, spreads, outliers, st.integers(0, 2**32))
@example(1, 0.0, [], 0)
@example(4096, 1e-3, [(5, 1e30), (2000, -1e30)], 0)
@example(1024, 0.0, [(5, 1e-45)], 0)
def test_finite_numbers_come_back_within_the_bound(codec, count, spread, outliers, seed):
    vector = vector_of(count, spread, outliers, seed).clamp_(-LIMITS[codec.name], LIMITS[codec.name])
    before = vector.clone()
    data = codec.encode(vector)
    assert data.dtype == torch.uint8
    assert len(data) == size(codec, count)
    back = codec.decode(data, count)
    assert (back.shape, back.dtype) == ((count,), torch.float32)
    assert bool(torch.isfinite(back).all())
    exact, bound = vector.double(), codec.bound(vector).double()
    assert bool(((back.double() - exact).abs() <= bound).all())
    assert torch.equal(vector, before)
    assert torch.equal(codec.encode(vector), data)


@every_codec
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("count", [1, 4096, 5000])
def test_numbers_that_are_not_finite_are_refused(codec, value, count):
    for place in (0, count // 2, count - 1):
        vector = torch.zeros(count)
        vector[place] = value
        with pytest.raises(WeightsError, match="not finite"):
            codec.encode(vector)


@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_numbers_out_of_range_are_refused(name):
    with pytest.raises(WeightsError, match="out of range"):
        find(name).encode(torch.tensor([1.0, 3.4028e38]))


@every_codec
@pytest.mark.attack
@settings(max_examples=30)
@given(st.sampled_from([1, 2, 99, 101, 1025, 4096, 4097, 9000]), st.integers(0, 2**32), st.booleans())
def test_any_bytes_give_finite_numbers_or_are_refused(codec, count, seed, mutant):
    """Pure noise is nearly always refused; so are noise in a few places."""
    chance = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (size(codec, count),), dtype=torch.uint8, generator=chance)
    data = noise
    if mutant:
        data = codec.encode(torch.randn(count, generator=chance)).clone()
        places = torch.randint(0, len(data), (3,), generator=chance)
        data[places] = noise[places]
    try:
        back = codec.decode(data, count)
    except WeightsError:
        return
    assert len(back) == count
    assert bool(torch.isfinite(back).all())


@pytest.mark.attack
@pytest.mark.parametrize("name", ["int8", *SPARSE])
@pytest.mark.parametrize("scale", [torch.nan, torch.inf, -torch.inf, -1.0])
def test_scales_that_are_no_sizes_are_refused(name, scale):
    codec = find(name)
    data = codec.encode(torch.randn(5000))
    scales = data[: codec.parts(5000)[0].size_bytes].view(torch.float32)
    for place in (0, len(scales) - 1):
        bad = data.clone()
        bad[4 * place : 4 * place + 4] = torch.tensor([scale]).view(torch.uint8)
        with pytest.raises(WeightsError):
            codec.decode(bad, 5000)


@pytest.mark.attack
def test_a_step_of_nothing_and_of_too_much_is_refused():
    for scale in (0.0, 1e-39, 2.0**121):
        data = find("int8").encode(torch.ones(10))
        data[:4] = torch.tensor([scale]).view(torch.uint8)
        with pytest.raises(WeightsError):
            find("int8").decode(data, 10)


@every_sparse_codec
@pytest.mark.attack
def test_places_out_of_order_twice_or_outside_are_refused(codec):
    count = CHUNK + 200
    data = codec.encode(torch.randn(count))
    scales, places, _ = (part.size_bytes for part in codec.parts(count))
    kept = (size(codec, count) - scales - places) * 4
    kept -= kept % 2
    good = bits.unpack_places(data[scales : scales + places], places // 3 * 2)

    def refused(change):
        bad, changed = data.clone(), good.clone()
        change(changed)
        bad[scales : scales + places] = bits.pack_places(changed)
        with pytest.raises(WeightsError):
            codec.decode(bad, count)

    in_chunk = codec.parts(CHUNK)[2].size_bytes * 4
    assert in_chunk > 2

    def swap(p):
        p[:2] = p[:2].flip(0)

    def double(p):
        p[1] = p[0]

    def outside(p):
        last = (p[1:] < p[:-1]).nonzero()[0] + 1  # the first place of the second chunk
        p[last] = 4095

    refused(swap)
    refused(double)
    refused(outside)


@every_sparse_codec
def test_the_largest_of_each_chunk_are_kept_by_sign_and_nearly_by_size(codec):
    torch.manual_seed(1)
    vector = torch.randn(3 * CHUNK + 300)
    back = codec.decode(codec.encode(vector), len(vector))
    for begin in range(0, len(vector), CHUNK):
        chunk, drawn = vector[begin : begin + CHUNK], back[begin : begin + CHUNK]
        kept = drawn != 0
        count = int(kept.sum())
        assert count == -(-len(chunk) * int(codec.name[4:] or 1) // 100)
        assert torch.equal(chunk.abs().topk(count).indices.sort().values, kept.nonzero().squeeze(1))
        assert torch.equal(drawn[kept].sign(), chunk[kept].sign())
        assert drawn.abs().unique().numel() <= 3
        assert float((drawn - chunk)[kept].norm() / chunk[kept].norm()) < 0.2


@every_sparse_codec
@settings(max_examples=15)
@given(counts, spreads, outliers, st.integers(0, 2**32))
def test_less_is_left_out_than_there_was(codec, count, spread, outliers, seed):
    """So feedback cannot grow: of each chunk of n numbers at least 1/n of the squares is sent."""
    vector = vector_of(count, spread, outliers, seed)
    left = (vector.double() - codec.decode(codec.encode(vector), count).double()).square()
    for begin in range(0, count, CHUNK):
        squares = vector[begin : begin + CHUNK].double().square()
        limit = (1 - 1 / len(squares)) * float(squares.sum())
        assert float(left[begin : begin + CHUNK].sum()) <= limit * (1 + 1e-5) + 1e-80


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4095), min_size=1, max_size=20), st.lists(st.integers(0, 3), min_size=1))
def test_bits_come_back(places, values):
    packed = bits.pack_places(torch.tensor(places))
    assert len(packed) == bits.places_bytes(len(places))
    assert bits.unpack_places(packed, len(places)).tolist() == places
    packed = bits.pack_values(torch.tensor(values))
    assert len(packed) == bits.values_bytes(len(values))
    assert bits.unpack_values(packed, len(values)).tolist() == values


def test_the_bytes_never_change():
    numbers = torch.tensor([1.0, -2.0, 0.5])
    assert find("f32").encode(numbers).numpy().tobytes().hex() == "0000803f000000c00000003f"
    assert find("bf16").encode(numbers).numpy().tobytes().hex() == "803f00c0003f"
    assert find("int8").encode(numbers).numpy().tobytes().hex() == "0402813c408120"
    sparse = torch.tensor(
        [*torch.tensor([0.5, 3.0]).view(torch.uint8).tolist(), 3, 0, 0, 0b11], dtype=torch.uint8
    )
    assert find("topk").decode(sparse, 5).tolist() == [0, 0, 0, -3, 0]
    assert torch.equal(find("topk").encode(torch.tensor([0, 1, 0, -2.0, 0]))[8:], sparse[8:])
    places = torch.tensor([0x123, 0xABC, 0xDEF])
    assert bits.pack_places(places).numpy().tobytes().hex() == "23c1abef0d00"
    assert bits.pack_values(torch.tensor([1, 2, 3, 0, 3])).numpy().tobytes().hex() == "3903"


@every_codec
def test_feedback_says_all_in_the_end(codec):
    """What is told again and again is understood, however little is said at once."""
    delta = torch.randn(500, generator=torch.Generator().manual_seed(3))
    told, residual = torch.zeros(500), None
    for _ in range(60):
        data, residual = squeeze(codec, delta, residual, decay=1.0)
        told += codec.decode(data, 500)
    torch.testing.assert_close(told + residual, 60 * delta, rtol=1e-4, atol=1e-3)
    assert float((told / 60 - delta).norm() / delta.norm()) < 0.6


def test_a_codec_that_is_not_known():
    with pytest.raises(ManifestError, match="no codec `f8`"):
        find("f8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@every_codec
def test_a_gpu_reads_what_a_cpu_writes_and_the_reverse(codec):
    vector = torch.randn(3 * CHUNK + 300)
    here, there = codec.encode(vector), codec.encode(vector.cuda())
    assert torch.equal(codec.decode(here.cuda(), len(vector)).cpu(), codec.decode(here, len(vector)))
    assert torch.equal(codec.decode(there.cpu(), len(vector)), codec.decode(there, len(vector)).cpu())
