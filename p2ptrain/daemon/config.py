"""The owner's settings: read once from TOML, strict, never shared with anyone."""

import difflib
import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import ConfigError
from p2ptrain.net.addresses import PORT_MIN, Address, is_dialable, parse_address, plain_host

MBIT_MIN = 1
"""Below, transfers are given up as stalled, and weights are out of date when they arrive (guess)."""

MBIT_MAX = 1_000_000

DUTY_MIN = 0.01
"""Below, nothing gets done; `p2ptrain pause` stops the work."""


class Network(Struct, frozen=True, forbid_unknown_fields=True):
    """How this node is reached, and how much of its line it may use.

    listen: an IP address of this computer; empty: all of them.
    port: TCP; 0: a free one, chosen once and kept for each swarm.
    address: an IP address that others dial, where this computer cannot know it: rented ones often have a
    private one, and their provider passes on what comes for a public one. With or without `:port`.
    upload_mbit, download_mbit: at most so many Mbit/s (10^6) of weights leave and enter, all transfers
    together; at least 1; 0: no bound.
    lan: find members on the local network, and be found; only members can read what is announced.
    map_port: ask the home's router to open the port for others (PCP, NAT-PMP, UPnP).
    relay: pass on what members say who cannot reach each other, unread, if this node can be reached.
    relay_mbit, relay_gb_a_day: at most so many Mbit/s (10^6), all of them together, and GB (10^9) a day; each
    byte comes in and goes out; 0: no bound. By default half of a slow home line, and a third of what the
    tightest plans allow in a month (guess).
    """

    listen: str = ""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    address: str = ""
    upload_mbit: Annotated[float, Meta(ge=0, le=MBIT_MAX)] = 0.0
    download_mbit: Annotated[float, Meta(ge=0, le=MBIT_MAX)] = 0.0
    lan: bool = True
    map_port: bool = True
    relay: bool = True
    relay_mbit: Annotated[float, Meta(ge=0, le=MBIT_MAX)] = 10.0
    relay_gb_a_day: Annotated[float, Meta(ge=0, le=1_000_000)] = 10.0


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """What the trainer may use, and how it computes; what it computes is the manifest's affair.

    device: `auto`, `cpu`, `cuda:0`, `mps`; several GPUs train together: `cuda:0,cuda:1` or `cuda:all`.
    threads: CPU threads; 0: as many as the net gets faster by.
    precision: of products and activations; weights and losses are float32. `f32`; `tf32`, which some GPUs
        multiply faster in; `bf16`; or `auto`: bf16 where the device is faster with it.
    compile: have torch compile the net at the start, which takes minutes and a C++ compiler.
    memory_gb: so many GB (2^30) of the device's memory; 0: all that is free. Batches are cut to fit.
    duty: share of the time that the device works; 0.5: it rests as long as it works.
    data: folders of data sets, separated as in PATH; empty: where the environment's P2PTRAIN_DATA says.
    """

    device: str = "auto"
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    precision: Literal["auto", "f32", "tf32", "bf16"] = "auto"
    compile: bool = False
    memory_gb: Annotated[float, Meta(ge=0, le=65536)] = 0.0
    duty: Annotated[float, Meta(ge=DUTY_MIN, le=1)] = 1.0
    data: str = ""


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
        check_network(config.network)
    except ValueError as error:  # of msgspec too
        raise ConfigError(f"a setting in {path} is wrong: {error}") from None
    return config


def check_network(network: Network) -> None:
    """Demand what types cannot say.

    Raises:
        ValueError: names the setting.
    """
    if network.listen and not _is_address(network.listen):
        raise ValueError(f"network.listen: `{network.listen}` is no IP address")
    if network.address and named_address(network.address, PORT_MIN) is None:
        raise ValueError(f"network.address: `{network.address}` is no IP address that can be dialled")
    if 0 < network.port < PORT_MIN:
        raise ValueError(f"network.port: nobody dials a port below {PORT_MIN}")
    for name in ("upload_mbit", "download_mbit", "relay_mbit"):
        mbit = getattr(network, name)
        if not (mbit == 0 or mbit >= MBIT_MIN):
            raise ValueError(f"network.{name}: weights need at least {MBIT_MIN} Mbit/s; 0 is no bound")
    if not network.relay_gb_a_day >= 0:  # not a number
        raise ValueError("network.relay_gb_a_day: a number of GB; 0 is no bound")


def named_address(text: str, port: int) -> Address | None:
    """Read an IP address with or without a port; None: it is none that a peer could have."""
    try:
        found = parse_address(text)
    except ValueError:
        try:
            found = Address(plain_host(text), port)
        except ValueError:
            return None
    return found if is_dialable(found, loopback=True) else None


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
