"""The benchmark moves what it says, every way."""

from pathlib import Path

from p2ptrain.net.benchmark import measure


def test_every_way_moves_the_whole_blob(tmp_path: Path) -> None:
    figures = measure(tmp_path / "parties", 3_000_000, rounds=1)
    assert (figures.rounds, figures.size_bytes) == (1, 3_000_000)
    rates = figures.get_mb_s, figures.fetch_mb_s, figures.relay_mb_s, figures.blocking_tls_mb_s
    assert min(*rates, figures.cpu_s_per_gb) > 0
    assert figures.relay_splice_over_blocking_tls == figures.relay_mb_s / figures.blocking_tls_mb_s
    assert list((tmp_path / "parties" / "reader").iterdir()) == [tmp_path / "parties/reader/identity.pem"]
