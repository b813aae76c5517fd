"""`bench`: how fast this computer is at what p2ptrain does, beside the best that is possible here."""

import tempfile
from pathlib import Path

import click

from p2ptrain.cli.output import json_option, say, write_json

MB = 1_000_000


@click.group()
def bench() -> None:
    """Measure this computer."""


@bench.command(epilog="\b\nExample:\n  p2ptrain bench transfer --size 10 --rounds 1")
@click.option("--size", type=click.IntRange(1, 4096), default=100, show_default=True, help="MB a transfer.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Counted rounds.")
@json_option
def transfer(size: int, rounds: int, json_file: str | None) -> None:
    """Fetch weights from another process, also through a relay, in turns with a plain TLS 1.3 socket."""
    from p2ptrain.net.benchmark import measure

    with tempfile.TemporaryDirectory(prefix="p2ptrain-bench-") as folder:
        figures = measure(Path(folder), size * MB, rounds)
    if json_file is not None:
        write_json(figures, json_file)
        return
    say(f"{rounds} rounds of {size} MB between processes, medians:")
    click.echo(f"plain socket  {figures.blocking_tls_mb_s:.0f} MB/s, TLS 1.3, thrown away")
    click.echo(
        f"GET           {figures.get_mb_s:.0f} MB/s, thrown away; {figures.cpu_s_per_gb:.2f} CPU s a GB"
    )
    click.echo(f"ratio         {figures.get_over_blocking_tls:.2f}")
    click.echo(f"fetch         {figures.fetch_mb_s:.0f} MB/s, checked chunk by chunk and on the disk")
    click.echo(f"relay         {figures.relay_mb_s:.0f} MB/s, a GET through a relay in a third process")
    click.echo(f"ratio         {figures.relay_splice_over_blocking_tls:.2f}")
