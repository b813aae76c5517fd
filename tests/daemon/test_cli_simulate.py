"""`p2ptrain simulate`: the seed comes first, the same seed is the same run, programs can read it."""

from pathlib import Path

import msgspec

from p2ptrain.sim.scenario import Summary
from tests.daemon.helpers import p2ptrain

KEYS = {
    "seed",
    "peers",
    "strategy",
    "virtual_s",
    "cpu_s",
    "trace_digest",
    "messages_per_peer",
    "bytes_per_peer",
    "informed_share",
    "loss",
    "best_loss",
    "accuracy",
    "alone_accuracy",
    "notes",
}
TOY = ("simulate", "toy", "--peers", "5", "--for", "10s", "--loss", "20%", "--churn", "20%")


def test_the_seed_is_said_before_anything_can_go_wrong() -> None:
    assert p2ptrain(*TOY, "--seed", "7").err == "seed 7\n"
    assert p2ptrain("simulate", "zebra", "--seed", "8").err.startswith("seed 8\nerror: ")
    drawn = p2ptrain(*TOY)
    assert int(drawn.err.removeprefix("seed ")) >= 0
    assert drawn.err != p2ptrain(*TOY).err


def test_the_same_seed_is_the_same_run() -> None:
    runs = [p2ptrain(*TOY, "--seed", seed, "--json").json for seed in ("7", "7", "8")]
    assert runs[0]["trace_digest"] == runs[1]["trace_digest"] != runs[2]["trace_digest"]
    for run in runs[:2]:
        del run["cpu_s"]
    assert runs[0] == runs[1]


def test_the_answer_for_programs_has_the_documented_keys(tmp_path: Path) -> None:
    run = p2ptrain(*TOY, "--seed", "7", "--json")
    assert set(run.json) >= KEYS
    assert set(run.json) == {field.name for field in msgspec.structs.fields(Summary)}
    assert (run.json["seed"], run.json["peers"], run.json["virtual_s"]) == (7, 5, 10.0)
    assert run.json["accuracy"] is run.json["alone_accuracy"] is None
    assert p2ptrain(*TOY, "--seed", "7", "--json", tmp_path / "run.json").out == ""
    assert set(msgspec.json.decode((tmp_path / "run.json").read_bytes())) == set(run.json)


def test_a_real_task_has_accuracies_together_and_alone() -> None:
    run = p2ptrain("simulate", "digits", "--peers", "2", "--steps", "60", "--seed", "1", "--json").json
    assert 0.2 < run["accuracy"] <= 1
    assert 0.2 < run["alone_accuracy"] <= 1
    assert run["finished_share"] == 1
    assert run["bytes_per_peer"] > 1000


def test_people_are_told_the_same() -> None:
    said = p2ptrain(*TOY, "--seed", "7")
    assert said.out.startswith("5 peers by gossip: 10.0 virtual seconds in ")
    for word in ("loss", "messages", "informed", "finished", "notes", "trace"):
        assert f"\n  {word} " in said.out
