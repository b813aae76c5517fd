"""What a swarm trains is read strictly, and a typing error names the nearest known word."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from p2ptrain.core.errors import ManifestError
from p2ptrain.core.manifest import Manifest, Settings, decode_manifest, read_settings
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.strategies import load, names

MANIFEST = Manifest(name="t", task="digits", strategy_config={"settle_s": 3.0}, seed=7, target_loss=0.5)


def test_a_manifest_survives_being_signed_and_sent() -> None:
    assert decode_manifest(MANIFEST.encode()) == MANIFEST


def test_equal_manifests_have_equal_bytes() -> None:
    again = Manifest(name="t", task="digits", strategy_config={"settle_s": 3.0}, seed=7, target_loss=0.5)
    assert again.encode() == MANIFEST.encode()


BAD: dict[str, Any] = {
    "an unknown field": {"planet": "mars"},
    "no name": {"name": ""},
    "an endless name": {"name": "n" * 41},
    "an endless task": {"task": "t" * 101},
    "negative steps": {"steps": -1},
    "no parts": {"parts": 0},
    "an unknown codec": {"codec": "f8"},
    "a codec with a line break": {"codec": "f32\n"},
    "an infinite target": {"target_loss": float("inf")},
    "a target that is no number": {"target_loss": float("nan")},
    "a setting that is a list": {"strategy_config": {"a": [1]}},
    "an unknown formation": {"formation": "solid", "parts": 2},
    "parts that keep everything": {"formation": "hybrid", "keep": 1.0, "parts": 2},
    "a balance above one": {"balance": 1.1, "parts": 2},
    "two ways to differ": {"balance": 0.5, "skew": 0.5, "parts": 2},
    "sizes and classes that differ": {"uneven": 0.5, "skew": 0.5, "parts": 2},
    "main classes of parts that are alike": {"classes": 3, "parts": 2},
    "one part that changes": {"formation": "dynamic"},
    "one part that differs": {"balance": 0.5},
    "static parts that keep some": {"keep": 0.3, "parts": 2},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_a_manifest_with_anything_odd_is_refused(changes: dict[str, Any]) -> None:
    good = {"name": "t", "task": "digits"}
    with pytest.raises(ManifestError):
        decode_manifest(msgspec.msgpack.encode({**good, **changes}))


@pytest.mark.parametrize("data", [b"", b"\xc1", MANIFEST.encode()[:-1], b"\xff" * 100, b"\x81\xa1\xff\x01"])
def test_damaged_bytes_are_refused_with_advice(data: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        decode_manifest(data)
    assert "update" in caught.value.hint


class Wheels(Struct, forbid_unknown_fields=True):
    wheel_count: Annotated[int, Meta(ge=1)] = 4
    tyre_width: float = 0.2


@dataclass
class Plain:
    wheel_count: int = 4


def test_settings_are_differences_from_the_defaults() -> None:
    assert read_settings(Wheels, {}, "the car") == Wheels()
    assert read_settings(Wheels, {"tyre_width": 0.3}, "the car") == Wheels(4, 0.3)
    assert read_settings(Plain, {"wheel_count": 3}, "the car") == Plain(3)


def test_a_mistyped_setting_is_told_the_nearest_known_one() -> None:
    with pytest.raises(ManifestError) as caught:
        read_settings(Wheels, {"weel_count": 3}, "the car")
    assert str(caught.value) == "the car has no setting `weel_count`\ndid you mean `wheel_count`?"


def test_a_setting_unlike_any_other_is_told_all() -> None:
    with pytest.raises(ManifestError) as caught:
        read_settings(Wheels, {"colour": 3}, "the car")
    assert caught.value.hint == "known are: wheel_count, tyre_width"


@pytest.mark.parametrize("settings", [{"wheel_count": 0}, {"wheel_count": "4"}, {"tyre_width": True}])
def test_a_setting_of_the_wrong_kind_is_refused(settings: Settings) -> None:
    with pytest.raises(ManifestError, match="a setting of the car is wrong"):
        read_settings(Wheels, settings, "the car")


@pytest.mark.parametrize("config", [SpreadConfig, *[load(name).config for name in names()]])
def test_every_default_is_a_valid_setting(config: Any) -> None:
    assert read_settings(config, msgspec.to_builtins(config()), "it") == config()


def test_an_unknown_strategy_is_told_the_known_ones() -> None:
    with pytest.raises(ManifestError) as caught:
        load("gosip")
    assert "gossip" in caught.value.hint
