"""The owner's settings: strict, explained, and never written by the daemon."""

import socket
from pathlib import Path

import pytest

from p2ptrain.core.errors import ConfigError
from p2ptrain.daemon.config import Config, load_config
from p2ptrain.daemon.swarms import Swarms
from p2ptrain.daemon.trainer import trainer_setup
from p2ptrain.learn.wire import HEAD_BYTES, decode_setup, frame
from tests.daemon.helpers import Home


def write(home: Home, text: str | bytes) -> None:
    (home.home / "config.toml").write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('nmae = "a"', ["a setting `nmae` that does not exist", "did you mean `name`?"]),
        ("[network]\nprot = 1", ["a setting `network.prot`", "did you mean `network.port`?"]),
        ("[training]\nthread = 1", ["a setting `training.thread`", "did you mean `training.threads`?"]),
        ("[zebra]\na = 1", ["a setting `zebra`", "known here: name, network, training"]),
        ('[network]\nport = "many"', ["is wrong", "Expected `int`, got `str`", "network.port"]),
        ("[network]\nport = 99999", ["is wrong", "<= 65535", "network.port"]),
        ("[network]\nport = 443", ["is wrong", "network.port", "1024"]),
        ("network = 3", ["is wrong", "Expected `object`, got `int`"]),
        ('[network]\nlisten = "home"', ["is wrong", "network.listen", "`home` is no IP address"]),
        ("[training]\nthreads = -1", ["is wrong", "training.threads"]),
        ("[training]\nthreads = 1.5", ["is wrong", "training.threads"]),
        ('[training]\nprecision = "fp16"', ["is wrong", "training.precision"]),
        ("[training]\nduty = 0.0", ["is wrong", ">= 0.01", "training.duty"]),
        (f'name = "{41 * "a"}"', ["is wrong", "<= 40"]),
        ("name = ", ["is not valid TOML"]),
        ("[network", ["is not valid TOML"]),
        (b'name = "\xff"', ["is not valid TOML"]),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, list) else "",
)
@pytest.mark.parametrize("command", ["start", "invite"])
def test_a_wrong_setting_is_a_sentence_with_file_and_setting(
    text: str | bytes, words: list[str], command: str, home: Home
) -> None:
    home.found(task="digits")
    write(home, text)
    said = home.call(command)
    assert said.code == 2
    assert str(home.home / "config.toml") in said.err
    for word in words:
        assert word in said.err, said.err


def test_a_file_that_cannot_be_read_is_a_sentence(home: Home) -> None:
    home.found(task="digits")
    (home.home / "config.toml").unlink()
    (home.home / "config.toml").mkdir()
    said = home.call("start")
    assert said.code == 2
    assert "config.toml cannot be read" in said.err


def test_no_file_means_the_defaults(home: Home) -> None:
    assert load_config(home.home / "nowhere.toml") == Config()


def test_how_training_is_carried_out_reaches_the_trainer(home: Home) -> None:
    home.found(task="digits")
    folder = Swarms(home.home / "swarms").find(None)
    numbers = "threads = 3\ncompile = true\nmemory_gb = 1.5\nduty = 0.5\n"
    write(home, f'[training]\n{numbers}precision = "bf16"\ndata = "sets"\n')
    config = load_config(home.home / "config.toml").training
    told = trainer_setup(folder.manifest(), config, folder)
    assert (told.threads, told.precision, told.compile) == (3, "bf16", True)
    assert (told.memory_gb, told.duty, told.data) == (1.5, 0.5, "sets")
    assert decode_setup(frame(told)[HEAD_BYTES:]) == told


def test_a_port_in_use_is_a_sentence(home: Home) -> None:
    home.found(task="digits")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        write(home, f'[network]\nlisten = "127.0.0.1"\nport = {port}\n')
        said = home.call("start")
    assert said.code == 2
    assert f"port {port} is in use by another program" in said.err
    assert f"set `listen` or `port` under [network] in {home.home / 'config.toml'}" in said.err
    assert not home.control.exists()


def test_an_address_of_another_computer_is_a_sentence(home: Home) -> None:
    home.found(task="digits")
    write(home, '[network]\nlisten = "192.0.2.1"\n')
    said = home.call("start")
    assert said.code == 2
    assert "cannot listen on 192.0.2.1" in said.err


@pytest.mark.parametrize("name", ["upload_mbit", "download_mbit", "relay_mbit"])
@pytest.mark.parametrize("value", ["-1", "0.5", "nan", "inf", "1e9", '"fast"'])
def test_a_bound_on_bytes_is_none_or_one_that_works(name: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[network]\n{name} = {value}")
    with pytest.raises(ConfigError, match=name):
        load_config(path)


def test_bounds_on_bytes(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[network]\nupload_mbit = 4\ndownload_mbit = 12.5")
    network = load_config(path).network
    assert (network.upload_mbit, network.download_mbit) == (4.0, 12.5)
    assert (Config().network.upload_mbit, Config().network.download_mbit) == (0.0, 0.0)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", '"much"'])
def test_what_is_passed_on_in_a_day_is_a_number(value: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[network]\nrelay_gb_a_day = {value}")
    with pytest.raises(ConfigError, match="relay_gb_a_day"):
        load_config(path)


def test_what_is_given_to_others_as_a_relay(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[network]\nrelay = false\nrelay_mbit = 50\nrelay_gb_a_day = 0")
    network = load_config(path).network
    assert (network.relay, network.relay_mbit, network.relay_gb_a_day) == (False, 50.0, 0.0)
    given = Config().network
    assert given.relay
    assert min(given.relay_mbit, given.relay_gb_a_day) > 0
