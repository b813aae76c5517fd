"""Every effect of learning, and what happens when it cannot be carried out."""

import math

import pytest
import torch

from p2ptrain.core import limits
from p2ptrain.core.effects import (
    Adopt,
    Checkpoint,
    Combine,
    Drop,
    Evaluate,
    Fresh,
    Publish,
    Split,
    Train,
)
from p2ptrain.core.errors import ConfigError, WeightsError
from p2ptrain.core.inputs import Adopted, Combined, LearnFailed, Published, Saved
from p2ptrain.core.types import OWN, BlobId, Ref, Slot
from p2ptrain.learn.weights.blobs import MemoryBlobs

A, B = Slot(Ref("a")), Slot(Ref("b"))
NOWHERE = BlobId(Ref("0" * 64))


def weights(engine):
    return engine._trainer.vector.flat.clone()


def test_ready_says_what_was_built(engine):
    one = engine("toys:normed")
    ready = one.ready()
    assert (ready.step, ready.samples, ready.memory) == (0, 0, b"")
    assert ready.parameters == 4 * 8 + 8 + 16 + 8 * 3 + 3
    assert ready.blob_bytes == one.perform(Publish("p")).size_bytes


def test_evaluate_equals_a_plain_computation(engine):
    one = engine()
    one.perform(Train(50))
    answer = one.perform(Evaluate("t", (OWN,), Split.TEST))
    net = one._trainer.net
    assert net.training
    net.eval()
    inputs, classes = one._splits.test.take(slice(None))
    with torch.no_grad():
        scores = net(inputs)
    losses = torch.nn.functional.cross_entropy(scores, classes, reduction="none")
    assert answer.tag == "t"
    assert answer.examples == 50
    assert answer.losses[0] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert answer.errors[0] == pytest.approx(float(losses.std() / 50**0.5), rel=1e-5)
    assert answer.accuracies[0] == pytest.approx(float((scores.argmax(1) == classes).float().mean()))
    assert answer.distances == (0.0,)


def test_a_loss_for_the_whole_batch_has_an_error_too(engine):
    one, other = engine("toys:normed"), engine()
    batches = one.perform(Evaluate("t", (OWN,), Split.TEST))
    examples = other.perform(Evaluate("t", (OWN,), Split.TEST))
    assert 0 < batches.errors[0] < 10 * examples.errors[0]
    assert math.isnan(batches.accuracies[0])
    few = one.perform(Evaluate("t", (OWN,), examples_max=3))
    assert few.errors == (math.inf,)


def test_evaluate_is_repeatable_and_changes_nothing(engine):
    one = engine("toys:normed")
    one.perform(Train(20))
    before, training = weights(one), [module.training for module in one._trainer.net.modules()]
    one.perform(Combine("c", A, ((0.5, OWN),)))
    first = one.perform(Evaluate("t", (OWN, A, OWN)))
    again = one.perform(Evaluate("t", (A, OWN)))
    assert first.losses[0] == first.losses[2] == again.losses[1]
    assert first.losses[1] == again.losses[0]
    assert first.distances[1] == pytest.approx(0.5 * float(before.norm()), rel=1e-6)
    assert first.distances[2] == 0.0
    assert torch.equal(weights(one), before)
    assert [module.training for module in one._trainer.net.modules()] == training


def test_evaluate_takes_the_first_examples(engine):
    one = engine()
    assert one.perform(Evaluate("t", (OWN,))).examples == 30
    assert one.perform(Evaluate("t", (OWN,), examples_max=10)).examples == 10
    assert one.perform(Evaluate("t", (OWN,), examples_max=1000)).examples == 30
    assert one.perform(Evaluate("t", ())).losses == ()


def test_combine_is_the_linear_combination(engine):
    one = engine()
    start = weights(one)
    assert one.perform(Combine("c", A, ((1.0, OWN),))) == Combined("c")
    one.perform(Train(10))
    own = weights(one)
    one.perform(Combine("c", B, ((0.25, A), (1.5, OWN), (-0.5, A))))
    torch.testing.assert_close(one._refs.get(B), 1.5 * own - 0.25 * start)
    assert torch.equal(one._refs.get(A), start)
    assert torch.equal(weights(one), own)
    one.perform(Combine("c", A, ((0.5, A), (0.5, A))))
    assert torch.equal(one._refs.get(A), start)
    one.perform(Combine("c", OWN, ((1.0, A),)))
    assert torch.equal(weights(one), start)


def test_a_pair_keeps_its_mean(engine):
    one, other = engine(), engine(seed=1)
    sum_before = weights(one) + weights(other)
    blobs = {each: each.perform(Publish("p")).blob for each in (one, other)}
    for here, there in ((one, other), (other, one)):
        here._blobs.take(blobs[there], there._blobs)
        here.perform(Combine("c", A, ((0.5, OWN), (0.5, blobs[there]))))
    for each in (one, other):
        each.perform(Adopt("a", A))
    torch.testing.assert_close(weights(one) + weights(other), sum_before)
    assert torch.equal(weights(one), weights(other))


def test_publish_accept_adopt(engine):
    one, other = engine(), engine(seed=1)
    one.perform(Train(5))
    published = one.perform(Publish("p"))
    assert isinstance(published, Published)
    assert other._blobs.take(published.blob, one._blobs)
    other.accept(published.blob)
    assert other.perform(Adopt("a", published.blob)) == Adopted("a")
    assert torch.equal(weights(one), weights(other))
    assert other.perform(Publish("p")).blob == published.blob


def test_publish_is_a_snapshot(engine):
    one = engine()
    start = weights(one)
    job = one.begin(Publish("p"))
    one.perform(Train(5))
    one.perform(Adopt("a", job().blob))
    assert torch.equal(weights(one), start)


def test_bf16_travels_in_half_the_bytes(engine):
    half, full = engine(codec="bf16"), engine()
    published = half.perform(Publish("p"))
    assert published.size_bytes < full.perform(Publish("p")).size_bytes
    half.perform(Combine("c", A, ((1.0, OWN), (-1.0, published.blob))))
    assert 0 < float(half._refs.get(A).norm()) < 2**-8 * float(weights(half).norm())


def test_buffers_travel_and_counters_do_not(engine):
    one, other = engine("toys:normed"), engine("toys:normed")
    one.perform(Train(20))
    blob = one.perform(Publish("p")).blob
    other._blobs.take(blob, one._blobs)
    other.perform(Adopt("a", blob))
    assert torch.equal(other._trainer.net[1].running_mean, one._trainer.net[1].running_mean)
    assert other._trainer.net[1].num_batches_tracked == 0


@pytest.mark.parametrize("ref", [A, NOWHERE, Ref("../../etc/passwd"), Ref("/" * 64)])
def test_weights_that_are_gone(engine, ref):
    one = engine()
    before = weights(one)
    for effect in (
        Evaluate("x", (OWN, ref)),
        Combine("x", B, ((1.0, ref),)),
        Adopt("x", ref),
        Publish("x", ref),
    ):
        answer = one.perform(effect)
        assert isinstance(answer, LearnFailed)
        assert answer.tag == "x"
    with pytest.raises(WeightsError):
        one.accept(ref)
    assert torch.equal(weights(one), before)


def test_dropped_blobs_are_gone(engine):
    one = engine()
    blob = one.perform(Publish("p")).blob
    one.accept(blob)
    assert one.perform(Drop(blob)) is None
    assert isinstance(one.perform(Adopt("x", blob)), LearnFailed)
    assert one.perform(Drop(blob)) is None


@pytest.mark.parametrize(
    "effect",
    [
        Combine("x", Slot(NOWHERE), ((1.0, OWN),)),
        Combine("x", A, ()),
        Combine("x", A, ((1.0, OWN),), rule="magic"),
        Combine("x", A, ((1.0, OWN), (1e39, OWN))),
        Combine("x", A, ((math.nan, OWN),)),
        Combine("x", A, ((1.0, OWN),) * (limits.TERMS_MAX + 1)),
    ],
)
def test_combinations_that_make_no_sense(engine, effect):
    assert isinstance(engine().perform(effect), LearnFailed)


def test_slots_are_bounded(engine):
    one = engine()
    for number in range(limits.SLOTS_MAX):
        assert one.perform(Combine("c", Slot(Ref(f"s{number}")), ((1.0, OWN),))) == Combined("c")
    assert isinstance(one.perform(Combine("c", A, ((1.0, OWN),))), LearnFailed)
    assert one.perform(Combine("c", Slot(Ref("s0")), ((2.0, OWN),))) == Combined("c")


def test_diverged_weights_are_not_published_and_are_left_by_adopting(engine):
    one = engine(task_config={"lr": 3e38})
    start = one.perform(Publish("p")).blob
    one.perform(Train(20))
    assert isinstance(one.perform(Publish("p")), LearnFailed)
    one.accept(start)
    assert one.perform(Adopt("a", start, lr_scale=1e-40)) == Adopted("a")


def test_decoded_blobs_are_bounded(engine, monkeypatch):
    one = engine()
    blobs = []
    for _ in range(4):
        one.perform(Train(1))
        blobs.append(one.perform(Publish("p")).blob)
    monkeypatch.setattr("p2ptrain.learn.weights.refs.CACHE_BYTES_MAX", 2 * 67 * 4)
    for blob in blobs:
        one.accept(blob)
    assert list(one._refs._decoded) == blobs[2:]
    monkeypatch.setattr("p2ptrain.learn.weights.refs.CACHE_BYTES_MAX", 1)
    one.accept(blobs[0])
    assert list(one._refs._decoded) == blobs[:1]


def test_checkpoint_without_a_disk(engine):
    assert isinstance(engine().perform(Checkpoint(b"")), Saved)


def test_blobs_are_whole_files_named_by_their_id(engine, tmp_path):
    from p2ptrain.core.blobid import hash_blob
    from p2ptrain.learn.weights.blobs import FolderBlobs

    (tmp_path / "77.trainer-part").write_bytes(b"left over")
    on_disk, in_memory = engine(blobs=FolderBlobs(tmp_path)), engine()
    published = on_disk.perform(Publish("p"))
    assert published == in_memory.perform(Publish("p"))
    assert [path.name for path in tmp_path.iterdir()] == [published.blob]
    content = (tmp_path / published.blob).read_bytes()
    assert len(content) == published.size_bytes
    assert hash_blob(content) == published.blob
    on_disk.accept(published.blob)
    on_disk.perform(Drop(published.blob))
    assert not list(tmp_path.iterdir())
    (tmp_path / NOWHERE).write_bytes(b"")
    with pytest.raises(WeightsError, match="not here"):
        on_disk.accept(NOWHERE)


def test_a_blob_that_another_does_not_hold(engine):
    assert not MemoryBlobs().take(NOWHERE, MemoryBlobs())


def test_devices(engine):
    with pytest.raises(ConfigError, match="not a device"):
        engine(device="quantum")
    with pytest.raises(ConfigError, match="is not here; here is: cpu"):
        engine(device="cuda:7")
    assert engine(device="cpu").device.type == "cpu"
    assert engine().perform(Fresh(1)) == Adopted("fresh")
