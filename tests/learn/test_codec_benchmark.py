"""The benchmark of codecs measures what it says."""

import torch

from p2ptrain.learn.weights.codecs import CODECS
from p2ptrain.learn.weights.codecs.benchmark import _pays_below, measure


def test_every_codec_is_measured_beside_copies():
    figures = measure(50_000, torch.device("cpu"), rounds=1)
    assert (figures.numbers, figures.rounds, list(figures.codecs)) == (50_000, 1, list(CODECS))
    assert min(figures.copy_gb_s, figures.new_copy_gb_s) > 0
    assert all(min(speed.encode_gb_s, speed.decode_gb_s) > 0 for speed in figures.codecs.values())
    width = {name: round(speed.bytes_per_number, 2) for name, speed in figures.codecs.items()}
    assert width == {"f32": 4, "bf16": 2, "int8": 1, "topk": 0.02, "topk3": 0.05, "topk10": 0.18}
    error = {name: speed.error for name, speed in figures.codecs.items()}
    assert error["f32"] == 0 < error["bf16"] < error["int8"] < 0.01
    assert 0.7 < error["topk10"] < error["topk3"] < error["topk"] < 1
    assert figures.codecs["f32"].pays_below_mbit_s == 0


def test_a_codec_pays_while_the_line_takes_longer_than_the_work():
    assert _pays_below(1_000_000, 1.0) == 8.0
    assert _pays_below(0, 1.0) == 0.0
    assert _pays_below(1_000_000, -0.1) is None
