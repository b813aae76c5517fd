"""The owner's settings: read once from TOML, strict, never shared with anyone."""

import difflib
import ipaddress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import ConfigError
from p2ptrain.net.addresses import PORT_MIN

MBIT_MIN = 1
"""Below, transfers are given up as stalled, and weights are out of date when they arrive (guess)."""

MBIT_MAX = 1_000_000


class Network(Struct, frozen=True, forbid_unknown_fields=True):
    """How this node is reached, and how much of its line it may use.

    listen: an IP address of this computer; empty: all of them.
    port: TCP; 0: a free one, chosen once and kept for each swarm.
    upload_mbit, download_mbit: at most so many Mbit/s (10^6) of weights leave and enter, all transfers
    together; at least 1; 0: no bound.
    lan: find members on the local network, and be found; only members can read what is announced.
    """

    listen: str = ""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    upload_mbit: Annotated[float, Meta(ge=0, le=MBIT_MAX)] = 0.0
    download_mbit: Annotated[float, Meta(ge=0, le=MBIT_MAX)] = 0.0
    lan: bool = True


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """What the trainer may use.

    device: `auto`, `cpu`, `cuda:0`, `mps`.
    threads: CPU threads; 0: all.
    """

    device: str = "auto"
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that this owner may set. `name`: what others see; empty: made from the identity."""

    name: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)] = ""
    network: Network = Network()
    training: Training = Training()


def load_config(path: Path) -> Config:
    """Read the settings; no file means the defaults.

    Raises:
        ConfigError: names the file, the setting and the nearest known one.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    try:
        tree = msgspec.toml.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    _check_names(tree, Config, path, "")
    try:
        config = msgspec.convert(tree, Config)
        _check_network(config.network)
    except ValueError as error:  # of msgspec too
        raise ConfigError(f"a setting in {path} is wrong: {error}") from None
    return config


def _check_network(network: Network) -> None:
    if network.listen and not _is_address(network.listen):
        raise ValueError(f"network.listen: `{network.listen}` is no IP address")
    if 0 < network.port < PORT_MIN:
        raise ValueError(f"network.port: nobody dials a port below {PORT_MIN}")
    for name, mbit in (("upload_mbit", network.upload_mbit), ("download_mbit", network.download_mbit)):
        if not (mbit == 0 or mbit >= MBIT_MIN):
            raise ValueError(f"network.{name}: weights need at least {MBIT_MIN} Mbit/s; 0 is no bound")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_names(tree: dict[str, Any], type_: type[Struct], path: Path, table: str) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(type_)}
    for name, value in tree.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{table}{near[0]}`?" if near else f"known here: {', '.join(known)}"
            raise ConfigError(f"{path} has a setting `{table}{name}` that does not exist", hint)
        inner = known[name]
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, Struct):
            _check_names(value, inner, path, f"{name}.")
