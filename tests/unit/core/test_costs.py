"""The model of links against the worked figures of ALGORITHMS 2.4, 4.3 and B9."""

import pytest
from msgspec.structs import replace

from p2ptrain.core.costs import (
    Cost,
    Situation,
    central_server,
    federated,
    gossip,
    layerwise,
    parameter_server,
    pipeline,
    ring,
)

MBIT_50 = 50e6 / 8
WEIGHTS = 10e6

LINE = Situation(weights_bytes=WEIGHTS, peers=4, up=MBIT_50, down=MBIT_50, latency_s=0.0, step_s=0.0)


def test_a_ring_of_four_is_five_times_a_server_where_the_line_is_the_bottleneck() -> None:
    """B9: 2 N M / B against 2 (N - 1) / N M / B at 50 Mbit/s."""
    server, round_ = central_server(LINE), ring(LINE)
    assert server.round_s == pytest.approx(2 * 4 * WEIGHTS / MBIT_50)
    assert round_.round_s == pytest.approx(1.5 * WEIGHTS / MBIT_50)
    assert server.round_s / round_.round_s == pytest.approx(5.3, abs=0.05)


def test_a_ring_sends_its_share_and_waits_for_each_hop() -> None:
    assert ring(LINE).sent_bytes == 2 * 3 / 4 * WEIGHTS
    assert ring(replace(LINE, latency_s=0.1)).round_s - ring(LINE).round_s == pytest.approx(0.6)


def test_as_many_shards_as_peers_cost_what_a_ring_costs() -> None:
    assert parameter_server(LINE, 4).round_s == pytest.approx(ring(LINE).round_s)
    assert parameter_server(LINE, 4).sent_bytes == pytest.approx(ring(LINE).sent_bytes)


def test_more_shards_take_less_time_until_there_is_one_for_each() -> None:
    times = [parameter_server(replace(LINE, peers=16), shards).round_s for shards in (1, 2, 4, 8, 16, 32)]
    assert times == sorted(times, reverse=True)
    assert times[0] == pytest.approx(2 * 15 * WEIGHTS / MBIT_50)
    assert times[-1] == times[-2]


def test_a_home_line_sends_more_slowly_than_it_receives() -> None:
    home = replace(LINE, up=MBIT_50 / 5)
    assert ring(home).exchange_s == pytest.approx(5 * ring(LINE).exchange_s)
    alone = WEIGHTS / MBIT_50
    assert parameter_server(home, 1).exchange_s == pytest.approx(alone * (5 + 3 * 5))  # changes, then numbers


def test_half_the_time_on_vgg_small_takes_so_many_steps() -> None:
    """ALGORITHMS 4.3: 11.2 MB at 20 Mbit/s and 38 ms a step: K >= 120."""
    line = 20e6 / 8
    vgg = Situation(
        weights_bytes=11.2e6, peers=2, up=line, down=line, latency_s=0.0, step_s=0.038, round_steps=120
    )
    assert gossip(vgg).exchange_s == pytest.approx(4.5, abs=0.05)
    waits = Cost(vgg.train_s, gossip(vgg).exchange_s, 0.0)
    assert waits.busy == pytest.approx(0.5, abs=0.01)
    assert gossip(vgg).busy == 1.0


def test_who_trains_on_meanwhile_waits_for_the_longer_of_both_only() -> None:
    now = replace(LINE, step_s=1.0, round_steps=2)
    assert parameter_server(now, waits=False).round_s == pytest.approx(2.4)
    assert parameter_server(now, waits=True).round_s == pytest.approx(4.4)
    assert gossip(now, 3).round_s == pytest.approx(3 * WEIGHTS / MBIT_50)


def test_new_weights_spread_in_the_time_of_two_lines_however_many_take_part() -> None:
    """The upload of one client and of all together, both one line's time; only gathering grows."""
    few, many = federated(LINE), federated(replace(LINE, peers=40))
    one_s = WEIGHTS / MBIT_50
    assert few.exchange_s == pytest.approx(3 * one_s + one_s)
    assert many.exchange_s == pytest.approx(39 * one_s + one_s)


def test_layers_apart_save_time_on_computing_and_send_less_than_all() -> None:
    now = replace(LINE, step_s=0.038, round_steps=16)
    apart = layerwise(now, 0.4)
    assert apart.train_s == pytest.approx(0.4 * now.train_s)
    assert apart.sent_bytes == 0.75 * WEIGHTS


def test_stages_take_as_long_as_the_slowest_part_and_the_filling_of_the_line() -> None:
    now = replace(LINE, step_s=0.4, round_steps=10)
    free = pipeline(now, 0.0, micro=8, share=0.25)
    assert free.round_s == pytest.approx(10 * (8 + 3) * 0.4 * 0.25 / 8)
    assert free.busy == pytest.approx(8 / 11)
    jammed = pipeline(now, 4e6, micro=8, share=0.25)
    assert jammed.round_s == pytest.approx(10 * 11 * 4e6 / 8 / MBIT_50)
    far = pipeline(replace(now, latency_s=0.05), 0.0, micro=8, share=0.25)
    assert far.round_s - free.round_s == pytest.approx(10 * 6 * 0.05)


@pytest.mark.parametrize("model", [parameter_server, ring, gossip, federated])
def test_who_is_alone_sends_nothing(model: object) -> None:
    alone = replace(LINE, peers=1, step_s=0.5, latency_s=0.1)
    cost = model(alone)  # type: ignore[operator]
    assert (cost.round_s, cost.sent_bytes, cost.busy) == (0.5, 0.0, 1.0)
