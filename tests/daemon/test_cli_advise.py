"""`p2ptrain advise`, as people type it."""

import pytest

from p2ptrain import strategies
from tests.daemon.helpers import p2ptrain

QUICK = ("advise", "digits", "--step-time", "5ms")


def test_every_strategy_has_a_line_a_reason_and_the_best_one_a_command() -> None:
    said = p2ptrain(*QUICK, "--peers", "6")
    assert said.code == 0, said.err
    assert "digits: 2,410 parameters in 2 layers, 10.0 kB of weights, 0.005 s a step on CPU" in said.out
    for name in strategies.names():
        assert f"\n{name}: " in said.out
        assert f"\n{name} " in said.out
    assert said.out.splitlines()[-1] == "begin: p2ptrain swarm create --task digits --strategy gossip"


def test_programs_get_what_was_measured_too() -> None:
    answer = p2ptrain(*QUICK, "--unsure", "--json").json
    assert {one["strategy"] for one in answer["advice"]} == set(strategies.names())
    assert answer["advice"][0]["fit"] == "good"
    assert answer["measured"]["weights_bytes"] == 9984
    assert len(answer["measured"]["layers"]) == 2


def test_a_step_is_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2ptrain.cli.advise.MEASURE_S", 0.2)
    said = p2ptrain("advise", "digits", "--json")
    assert 0 < said.json["measured"]["step_s"] < 0.2
    assert "training digits here" in said.err


def test_what_makes_no_sense_is_said() -> None:
    assert "did you mean `digits`" in p2ptrain("advise", "digit").err
    assert p2ptrain(*QUICK, "--peers", "1").code == 2
    assert "write 2MB or 5Mbit" in p2ptrain(*QUICK, "--up", "fast").err
