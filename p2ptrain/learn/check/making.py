"""Is it a task, and can all be made that it promises: config, net, data."""

import dataclasses
import hashlib
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from p2ptrain.core.errors import ManifestError, P2PTrainError
from p2ptrain.learn.check.bench import BATCH_SIZE, Bench, TaskError, own_code, some
from p2ptrain.learn.data.source import Examples
from p2ptrain.learn.data.splits import load, split
from p2ptrain.learn.randomness import mix
from p2ptrain.learn.task import find
from p2ptrain.learn.weights import packing
from p2ptrain.learn.weights.codecs import CODECS
from p2ptrain.learn.weights.vector import Spec, Vector

SAMPLED = 16
"""So many examples of each split are looked at."""

FUNCTIONS = {"model": True, "data": True, "loss": True} | dict.fromkeys(
    ("optimizer", "evaluate", "sample", "collate", "prepare"), False
)
"""What a task consists of, and whether it must be there."""


def check_task(bench: Bench) -> str:
    """Find it."""
    with own_code(f"`{bench.reference}` cannot be imported", "repair the module that it is in"):
        task = find(bench.reference)
    if not isinstance(task.name, str) or not task.name or not isinstance(task.version, str):
        raise TaskError(
            f"name and version of `{bench.reference}` are no words", 'write Task("name", version="1", …'
        )
    for name, needed in FUNCTIONS.items():
        value = getattr(task, name)
        if not callable(value) and (needed or value is not None):
            raise TaskError(f"`{name}` of the task is a {type(value).__name__}, not a function")
    bench.task = task
    return f"{task.name}, version {task.version}"


def check_config(bench: Bench) -> str:
    """Read settings into its config, and look whether they can travel."""
    kind = bench.task.config
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        shown = getattr(kind, "__name__", type(kind).__name__)
        raise TaskError(f"the config `{shown}` is no dataclass", "declare it with @dataclass(frozen=True)")
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise TaskError(f"the setting `{field.name}` has no default", f"write `{field.name}: … = value`")
    with own_code("the config cannot be made"):
        _check_types(kind())
        bench.cfg = bench.task.configure(bench.settings)
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TaskError("the config can change while it is used", "declare it with @dataclass(frozen=True)")
    size = getattr(bench.cfg, "batch_size", BATCH_SIZE)
    if not isinstance(size, int) or size < 1:
        raise TaskError(f"batches of {size} examples", "set `batch_size` to 1 or more")
    return f"{len(dataclasses.fields(kind))} settings"


def _check_types(cfg: Any) -> None:
    kind = type(cfg)
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if not isinstance(value, bool | int | float | str | None):
            raise TaskError(
                f"the setting `{field.name}` is a {type(value).__name__}: it cannot travel in a manifest",
                "use bool, int, float or str",
            )
        try:
            msgspec.convert({field.name: value}, kind)
        except msgspec.ValidationError as error:
            raise TaskError(f"the default of a setting has another type than it declares: {error}") from None


def check_model(bench: Bench) -> str:
    """Build the net twice: peers must get the same."""
    nets = [bench.build(mix("start", 0)) for _ in range(2)]
    for net in nets:
        if not isinstance(net, nn.Module):
            raise TaskError(f"`model` gives a {type(net).__name__}, not a torch.nn.Module")
    first, second = (_flat(bench, net) for net in nets)
    if first.spec != second.spec:
        raise TaskError(
            f"the model is built differently each time: {_difference(first.spec, second.spec)}",
            "let names and shapes follow from the config alone",
        )
    unequal = [
        entry.name
        for (entry, one), (_, other) in zip(first.views(first.flat), second.views(second.flat), strict=True)
        if not torch.equal(one, other)
    ]
    if unequal:
        raise TaskError(
            f"the model starts from other weights each time, in spite of the same seed: {some(unequal)}",
            "draw random numbers from torch's own generator only: it is seeded for each start",
        )
    bench.net = nets[0]
    spec = first.spec
    bench.figures |= {"parameters": spec.trainable, "numbers": spec.count}
    frozen = spec.count - spec.trainable
    return f"{spec.trainable:,} parameters" + (f", and {frozen:,} frozen ones and buffers" if frozen else "")


def _flat(bench: Bench, net: nn.Module) -> Vector:
    try:
        return Vector(net.to(bench.device))
    except ManifestError as error:
        fix = error.hint or "the parameters must be in net.parameters() with requires_grad on"
        raise TaskError(error.message, fix) from None
    except StopIteration:
        raise TaskError("the model has no parameters to train", "give it layers with parameters") from None


def _difference(first: Spec, second: Spec) -> str:
    for one, other in zip(first.entries, second.entries, strict=False):
        if one.name != other.name:
            return f"`{one.name}`, then `{other.name}`"
        if one.shape != other.shape:
            return f"`{one.name}` is {one.shape}, then {other.shape}"
    return f"{len(first.entries)} tensors, then {len(second.entries)}"


def check_travel(bench: Bench) -> str:
    """Say how much a round sends."""
    spec = Vector(bench.net).spec
    try:
        sizes = {codec: packing.blob_bytes(spec, codec) for codec in CODECS}
    except P2PTrainError as error:
        raise TaskError(error.message, "make the model smaller") from None
    bench.figures["megabytes"] = {codec: size / 1e6 for codec, size in sizes.items()}
    return f"a round sends {sizes['f32'] / 1e3:,.4g} kB as f32, {min(sizes.values()) / 1e3:,.3g} kB at least"


def check_train_data(bench: Bench) -> str:
    """Load it, and load it again: each peer takes its part of the same."""
    count, digest = _check_split(bench, "train")
    bench.figures |= {"train_examples": count, "train_digest": digest}
    return f"{count:,} examples, the same twice"


def check_test_data(bench: Bench) -> str:
    """The same of what results are measured on."""
    count, digest = _check_split(bench, "test")
    bench.figures |= {"test_examples": count, "test_digest": digest}
    return f"{count:,} examples, the same twice"


def check_division(bench: Bench) -> str:
    """Take a peer's part."""
    with own_code("the data cannot be divided"):
        bench.splits = split(bench.task, bench.cfg, bench.device, bench.setup())
    training, validation, _ = bench.splits
    return f"alone, a peer trains on {len(training):,} and decides on {len(validation):,}"


def _check_split(bench: Bench, split: str) -> tuple[int, str]:
    """Return the number of examples, and a digest of some."""
    with own_code(f"the {split} data cannot be loaded"):
        examples = load(bench.task, bench.cfg, split)
    with own_code(f"the {split} data cannot be loaded a second time"):
        again = load.__wrapped__(bench.task, bench.cfg, split)
    if len(examples) != len(again):
        raise TaskError(
            f"the {split} data has {len(examples)} examples, then {len(again)}: peers would differ",
            "let it follow from the config alone",
        )
    places = sorted({round(at * (len(examples) - 1) / SAMPLED) for at in range(SAMPLED + 1)})
    first, second = (_digest(bench, loaded, split, places) for loaded in (examples, again))
    if first != second:
        raise TaskError(
            f"the {split} data is not the same twice: peers would have other examples",
            "sort names of files, and draw from torch's own generator only: it is seeded before",
        )
    return len(examples), first


def _digest(bench: Bench, examples: Examples, split: str, places: list[int]) -> str:
    found = []
    for place in places:
        bench.randomness.reseed(place)
        with own_code(f"example {place} of the {split} data cannot be read"):
            example = examples[place]
        numbers = [leaf for leaf in _leaves(example) if isinstance(leaf, Tensor)]
        if not all(torch.isfinite(tensor).all() for tensor in numbers if tensor.is_floating_point()):
            raise TaskError(
                f"example {place} of the {split} data holds NaN or infinity", "leave it out, or fill the gaps"
            )
        found += [_plain(leaf) for leaf in _leaves(example)]
    return _joined(found)


def _joined(leaves: list[bytes]) -> str:
    """Return eight bytes, in hexadecimal, that tell data apart."""
    digest = hashlib.blake2b(digest_size=8)
    for leaf in leaves:
        digest.update(len(leaf).to_bytes(8, "big") + leaf)
    return digest.hexdigest()


def _leaves(example: Any) -> list[Any]:
    if isinstance(example, dict):
        return [leaf for item in example.values() for leaf in _leaves(item)]
    if isinstance(example, tuple | list):
        return [leaf for item in example for leaf in _leaves(item)]
    return [example]


def _plain(leaf: Any) -> bytes:
    if isinstance(leaf, Tensor):
        return leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return repr(leaf).encode()
