"""Differences travel in place of weights, and what a codec leaves out is told later: by today's effects."""

import msgspec
import pytest
import torch

from p2ptrain.core.effects import Adopt, Combine, Drop, Evaluate, Publish, Train
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.inputs import Combined, Evaluated, LearnFailed, Published
from p2ptrain.core.types import OWN, BlobId, Ref, Slot
from p2ptrain.learn.weights import packing
from p2ptrain.learn.weights.codecs import DECAY
from tests.learn.codec_accuracy import Plan, train

SUM, RESIDUAL, MOVE = Slot(Ref("sum")), Slot(Ref("residual")), Slot(Ref("move"))


def own(engine):
    return engine._trainer.vector.flat.clone()


def slot(engine, name):
    return engine._refs.get(name)


def trained(engine):
    return engine._trainer.vector.spec.trainable


@pytest.mark.parametrize("task", ["toys:plain", "toys:normed"])
@pytest.mark.parametrize("codec", ["f32", "bf16", "int8", "topk", "topk10"])
def test_two_peers_agree_and_lose_nothing(engine, task, codec):
    """base + mean of what was told is where both are; told + left out = moved, in each round."""
    peers = [engine(task, slot=number, parts=2, peer_seed=number) for number in range(2)]
    left = [torch.zeros_like(own(peers[0])) for _ in peers]
    feedback = ()
    for _ in range(4):
        base = [peer.perform(Publish("base")).blob for peer in peers]
        assert base[0] == base[1], "the common weights have one name, and need not travel"
        before, told, moves = own(peers[0]), [], []
        for peer in peers:
            peer.perform(Train(5))
            moves.append(own(peer) - before)
            assert peer.perform(Combine("c", SUM, ((1.0, OWN), *feedback))) == Combined("c")
            published = peer.perform(Publish("p", SUM, base[0], codec))
            assert published.size_bytes == packing.blob_bytes(peer._trainer.vector.spec, codec, base[0])
            assert peer.perform(Combine("c", RESIDUAL, ((1.0, SUM), (-1.0, published.blob)))) == Combined("c")
            told.append(published.blob)
        feedback = ((DECAY, RESIDUAL),)
        for number, peer in enumerate(peers):
            peer._blobs.take(told[1 - number], peers[1 - number]._blobs)
            peer.accept(told[1 - number])
            assert peer.perform(Combine("c", OWN, tuple((0.5, blob) for blob in told))) == Combined("c")
        assert torch.equal(own(peers[0]), own(peers[1]))
        count = trained(peers[0])
        for number, peer in enumerate(peers):
            said = slot(peer, told[number]) - before
            expected = moves[number] + DECAY * left[number]
            left[number] = slot(peer, RESIDUAL).clone()
            torch.testing.assert_close((said + left[number])[:count], expected[:count], atol=1e-6, rtol=0)
            assert not left[number][count:].any(), "statistics are told exactly"
        assert codec == "f32" or left[0].any()


def test_a_delta_may_come_before_its_base(engine):
    one, other = engine(), engine(seed=1)
    base = one.perform(Publish("base")).blob
    one.perform(Train(5))
    delta = one.perform(Publish("p", OWN, base)).blob
    other._blobs.take(delta, one._blobs)
    other.accept(delta)
    for effect in (Adopt("x", delta), Combine("x", MOVE, ((1.0, delta),)), Evaluate("x", (delta,))):
        answer = other.perform(effect)
        assert isinstance(answer, LearnFailed)
        assert answer.reason == f"the base {base[:12]} is not here"
    other._blobs.take(base, one._blobs)
    assert isinstance(other.perform(Evaluate("x", (delta, base))), Evaluated)
    other.perform(Adopt("a", delta))
    torch.testing.assert_close(own(other), own(one), atol=1e-6, rtol=0)


def test_a_difference_is_a_combination(engine):
    """No reference to a bare difference is needed: coefficients that add up to 0 make one."""
    one = engine()
    base = one.perform(Publish("base")).blob
    start = own(one)
    one.perform(Train(5))
    delta = one.perform(Publish("p", OWN, base, "f32")).blob
    assert one.perform(Combine("c", MOVE, ((1.0, delta), (-1.0, base)))) == Combined("c")
    torch.testing.assert_close(slot(one, MOVE), own(one) - start, atol=1e-6, rtol=0)


@pytest.mark.attack
def test_deltas_do_not_build_on_deltas(engine):
    one, other = engine(), engine()
    base = one.perform(Publish("base")).blob
    one.perform(Train(5))
    delta = one.perform(Publish("p", OWN, base)).blob
    answer = one.perform(Publish("x", OWN, delta))
    assert isinstance(answer, LearnFailed)
    assert "cannot build on another delta" in answer.reason
    spec = one._trainer.vector.spec
    second, _ = one._blobs.put(packing.encode(own(one), spec, "f32", packing.Base(delta, own(one))))
    other._blobs.take(second, one._blobs)
    other.accept(second)
    other._blobs.take(delta, one._blobs)
    for _ in range(2):
        with pytest.raises(WeightsError, match="cannot build on another delta"):
            other.accept(second)
    itself = packing.encode(own(one), spec, "f32", packing.Base(BlobId(Ref("7" * 64)), own(one)))
    one._blobs._held["7" * 64] = b"".join(itself)
    with pytest.raises(WeightsError, match="cannot build on another delta"):
        one.accept(BlobId(Ref("7" * 64)))


def test_what_cannot_be_published(engine):
    one = engine()
    base = one.perform(Publish("base")).blob
    for effect, reason in (
        (Publish("x", OWN, None, "topk"), "for differences"),
        (Publish("x", OWN, base, "f8"), "no codec `f8`"),
        (Publish("x", OWN, BlobId(Ref("0" * 64))), "not here"),
    ):
        answer = one.perform(effect)
        assert isinstance(answer, LearnFailed)
        assert answer.tag == "x"
        assert reason in answer.reason
    one.perform(Drop(base))
    assert isinstance(one.perform(Publish("x", OWN, base)), LearnFailed)


def test_whole_weights_in_f32_where_the_manifest_says_int8(engine):
    one, other = engine(codec="int8"), engine(codec="int8", seed=1)
    small, exact = one.perform(Publish("p")), one.perform(Publish("p", codec="f32"))
    assert isinstance(small, Published)
    assert small.size_bytes < exact.size_bytes
    other._blobs.take(exact.blob, one._blobs)
    other.perform(Adopt("a", exact.blob))
    assert torch.equal(own(other), own(one))


def test_journals_of_older_versions_have_the_same_effects():
    assert msgspec.json.encode(Publish("p")) == b'{"type":"Publish","tag":"p","ref":"own"}'


def test_one_percent_with_feedback_is_nearly_as_good_as_everything():
    """A short form of `python -m tests.learn.codec_accuracy`."""
    plan = Plan(task="digits", steps=300, local_steps=5)
    exact, sparse = train(plan, "f32", seed=0), train(plan, "topk", seed=0)
    assert exact.accuracy > 0.85
    assert sparse.accuracy > exact.accuracy - 0.03
    assert sparse.sent_bytes < exact.sent_bytes / 20
