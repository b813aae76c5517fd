"""What a simulated liar writes is what its attack says, whatever the codec."""

import pytest
import torch

from p2ptrain.core.effects import Combine, Publish, Train
from p2ptrain.core.inputs import Published
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import OWN, Ref, Slot
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.torch_learner import TorchLearner


@pytest.mark.byzantine
@pytest.mark.parametrize("codec", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("delta", [False, True])
def test_poison_goes_through_every_codec(codec, delta):
    manifest = Manifest(name="x", task="toys:normed", codec=codec)
    liar, victim = TorchLearner(manifest, 0), TorchLearner(manifest, 1)
    base = liar.perform(Publish("base", codec="f32")).blob if delta else None
    liar.perform(Train(3))
    if base is not None:
        assert victim.accept(base, liar) == ""
    for poison, refused in ((None, False), (Poison.CLAIM, False), (Poison.NAN, True), (Poison.FLIP, False)):
        liar.poison = poison
        published = liar.perform(Publish("p", OWN, base, "topk" if delta else None))
        assert isinstance(published, Published)
        reason = victim.accept(published.blob, liar)
        assert bool(reason) == refused, poison
    own = liar._engine._trainer.vector.flat
    trained = liar.blobs.trained
    turned = victim._engine._refs.get(published.blob)
    assert 0 < trained < len(own)
    start = victim._engine._refs.get(base) if base is not None else torch.zeros_like(own)
    said = (turned - start)[:trained]
    kept = said != 0
    cosine = torch.cosine_similarity(said[kept], (own - start)[:trained][kept], dim=0)
    assert float(cosine) < -0.9
    torch.testing.assert_close(turned[trained:], -4 * own[trained:])
    victim.perform(Combine("c", Slot(Ref("a")), ((1.0, published.blob),)))
