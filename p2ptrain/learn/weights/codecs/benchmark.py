"""How fast each codec is on a device, beside plain copies, and on which lines it saves time."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from msgspec import Struct
from torch import Tensor

from p2ptrain.core.types import Seconds
from p2ptrain.learn.device import describe
from p2ptrain.learn.weights.codecs import CODECS, Codec


class Speed(Struct, frozen=True):
    """One codec on normal random numbers.

    encode_gb_s, decode_gb_s: 10^9 bytes of float32 a second, into new memory.
    bytes_per_number: without a blob's header.
    error: length of what is lost, by the length of the numbers. `topk` loses nearly all, for a while: what
        it leaves out is told later.
    pays_below_mbit_s: a line up to which encoding, sending and decoding, one after the other, take less
        time than for f32; 0: on none, None: on any.
    """

    encode_gb_s: float
    decode_gb_s: float
    bytes_per_number: float
    error: float
    pays_below_mbit_s: float | None


class Figures(Struct, frozen=True):
    """Medians over rounds in which everything takes its turn.

    copy_gb_s: into memory that was used before. new_copy_gb_s: into new memory, as codecs do.
    """

    device: str
    numbers: int
    rounds: int
    copy_gb_s: float
    new_copy_gb_s: float
    codecs: dict[str, Speed]


def measure(numbers: int, device: torch.device, rounds: int) -> Figures:
    """Encode and decode so many numbers, once for each round after one that is not counted."""
    vector = torch.randn(numbers, device=device)
    used, written = torch.empty_like(vector), {name: codec.encode(vector) for name, codec in CODECS.items()}
    ways: dict[str, Callable[[], Tensor]] = {"copy": partial(used.copy_, vector), "new": vector.clone}
    for name, codec in CODECS.items():
        ways[f"encode {name}"] = partial(codec.encode, vector)
        ways[f"decode {name}"] = partial(codec.decode, written[name], numbers)
    turns = [{way: _seconds(act, device) for way, act in ways.items()} for _ in range(rounds + 1)]
    seconds = {way: median(turn[way] for turn in turns[1:]) for way in ways}
    rates = {way: 4e-9 * numbers / taken for way, taken in seconds.items()}
    plain = seconds["encode f32"] + seconds["decode f32"]
    speeds = {}
    for name, codec in CODECS.items():
        saved = vector.nbytes - len(written[name])
        extra = seconds[f"encode {name}"] + seconds[f"decode {name}"] - plain
        speeds[name] = Speed(
            rates[f"encode {name}"],
            rates[f"decode {name}"],
            len(written[name]) / numbers,
            _error(codec, vector, written[name]),
            _pays_below(saved, extra),
        )
    return Figures(describe(device), numbers, rounds, rates["copy"], rates["new"], speeds)


def _pays_below(saved_bytes: int, extra: Seconds) -> float | None:
    if saved_bytes <= 0:
        return 0.0
    return 8e-6 * saved_bytes / extra if extra > 0 else None


def _error(codec: Codec, vector: Tensor, written: Tensor) -> float:
    lost = torch.linalg.vector_norm(codec.decode(written, len(vector)) - vector)
    return float(lost / torch.linalg.vector_norm(vector))


def _seconds(act: Callable[[], Tensor], device: torch.device) -> Seconds:
    _wait(device)
    began = time.perf_counter()
    result = act()
    _wait(device)
    taken = time.perf_counter() - began
    del result  # giving memory back is not counted
    return taken


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
