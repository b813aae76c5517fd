"""Weights of others: read by their names, whatever is around them, and never run."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from p2ptrain.core.errors import WeightsError
from p2ptrain.learn.weights.foreign import fit, read


def net(seed: int = 0, inner: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    return nn.ModuleDict({"inner": made}) if inner else made


def state(**changes: Tensor) -> dict[str, Tensor]:
    return dict(net(1).state_dict()) | changes


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state().items()}


@pytest.mark.parametrize(
    "content",
    [
        state(),
        {"state_dict": state(), "best_prec1": 91.7, "epoch": 200},
        {"model": state(), "optimizer": {"lr": 0.1}},
        {"net": prefixed("module."), "acc": 0.9},
        {"model_state_dict": prefixed("_orig_mod.module.")},
        {"state_dict": prefixed("model.")},
        {"checkpoint": 3, "model": {"state_dict": prefixed("anything.at.all.")}},
    ],
    ids=range(7),
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_of_torch_in_all_their_wrappings(content: Any, zipped: bool, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    own = net(0)
    fit(read(tmp_path / "x.pt"), own)
    assert equal(own, net(1))


@pytest.mark.parametrize("prefix", ["", "module.", "net._orig_mod."])
def test_safetensors_with_and_without_a_prefix(prefix: str, tmp_path: Path) -> None:
    save_file(prefixed(prefix), tmp_path / "x.safetensors")
    own = net(0)
    fit(read(tmp_path / "x.safetensors"), own)
    assert equal(own, net(1))


def test_a_prefix_that_only_the_model_has_is_added() -> None:
    own = net(0, inner=True)
    fit(state(), own)
    assert equal(own, net(1, inner=True))


def test_counters_may_be_missing_and_halves_are_read() -> None:
    own, other = net(0), net(1)
    found = {name: value for name, value in state().items() if "num_batches" not in name}
    fit({name: value.half() for name, value in found.items()}, own)
    torch.testing.assert_close(own[2].weight, other[2].weight, rtol=1e-3, atol=1e-3)
    assert own[2].weight.dtype == torch.float32


def without(name: str) -> dict[str, Tensor]:
    return {other: value for other, value in state().items() if other != name}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (without("2.weight"), "of another model: `2.weight` missing"),
        (without("1.running_var"), "`1.running_var` missing"),
        (state(extra=torch.zeros(1)), "of another model: `extra` too many"),
        ({"a.b": torch.zeros(1)}, "`0.weight`, `0.bias`, `1.weight` and 5 more missing, and `a.b` too many"),
        (state(**{"0.weight": torch.zeros(8, 5)}), "`0.weight` is (8, 5) there and (8, 4) in the model"),
        (state(**{"0.bias": torch.full((8,), torch.nan)}), "not finite: `0.bias`"),
    ],
    ids=range(6),
)
def test_what_does_not_fit_is_refused_by_name_and_changes_nothing(
    found: dict[str, Tensor], words: str
) -> None:
    own = net(0)
    with pytest.raises(WeightsError) as caught:
        fit(found, own)
    assert words in caught.value.message
    assert caught.value.hint
    assert equal(own, net(0))


class Code:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder / "run"),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(wrapped: bool, zipped: bool, tmp_path: Path) -> None:
    content = {"state_dict": state(), "x": Code(tmp_path)} if wrapped else Code(tmp_path)
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"holds code.*mkdir.*was not run"):
        read(tmp_path / "x.pt")
    assert not (tmp_path / "run").exists()


def test_a_whole_net_is_code_too(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="holds code"):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], torch.zeros(3), {"state_dict": {"a": 1}}])
def test_a_checkpoint_without_weights_says_so(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="holds no weights"):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4" + b"x" * 50, b"\x80\2", b"\xff" * 100])
def test_other_files_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    for path in (tmp_path / "x", tmp_path / "nowhere", tmp_path):
        with pytest.raises(WeightsError) as caught:
            read(path)
        assert str(path) in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("name", ["zip.pt", "old.pt", "x.safetensors"])
def test_damaged_files_raise_nothing_else(name: str, tmp_path: Path) -> None:
    """Cut anywhere, or with bytes changed anywhere; whatever can still be read is tensors."""
    path = tmp_path / name
    if name == "x.safetensors":
        save_file(state(), path)
    else:
        torch.save(state(), path, _use_new_zipfile_serialization=name == "zip.pt")
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for number in range(80):
        content = bytearray(whole)
        places = torch.randint(len(whole), (1 + number % 5,), generator=generator).tolist()
        for place in places:
            content[place] ^= 1 + number
        path.write_bytes(content[: places[0]] if number % 3 == 0 else content)
        try:
            said = "" if all(isinstance(value, Tensor) for value in read(path).values()) else "no tensor"
        except WeightsError as error:
            said = error.message.removeprefix(str(path)) if str(path) in error.message else "no name"
        assert not said.startswith("no "), number
