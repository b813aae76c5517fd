"""`bench`: how fast this computer is at what p2ptrain does, beside the best that is possible here."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2ptrain.cli.output import human_bytes, json_option, percent, say, table, write_json

if TYPE_CHECKING:
    from p2ptrain.cli.pace import Pace
    from p2ptrain.learn.weights.codecs.benchmark import Speed

MB = 1_000_000
NETS = ("cnn", "resnet20", "resnet50")


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


@bench.command(epilog="\b\nExample:\n  p2ptrain bench ring --size 1 --rounds 1")
@click.option("--peers", type=click.IntRange(2, 16), default=4, show_default=True, help="In the ring.")
@click.option("--size", type=click.IntRange(1, 4096), default=10, show_default=True, help="MB of weights.")
@click.option("--mbit", type=click.FloatRange(0, 100_000), default=50.0, show_default=True, help="Of a line.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Counted rounds.")
@json_option
def ring(peers: int, size: int, mbit: float, rounds: int, json_file: str | None) -> None:
    """Average weights by a ring, in turns with a parameter server, on lines of a given speed."""
    from p2ptrain.daemon.ring_benchmark import measure

    figures = measure(peers, size * MB, mbit, rounds)
    if json_file is not None:
        write_json(figures, json_file)
    if json_file == "-":
        return
    say(f"{rounds} rounds of {size} MB among {peers} peers, medians:")
    click.echo(f"ring      {figures.ring_s:.2f} s, {figures.bytes_over_least:.4f} of the least bytes")
    click.echo(f"server    {figures.server_s:.2f} s, {figures.ring_over_server:.2f} times as long")
    click.echo(f"streamed  {figures.streamed_s:.2f} s, {figures.ring_over_streamed:.2f} times as long")
    click.echo(f"same bits everywhere: {'yes' if figures.identical else 'NO'}")


@bench.command(epilog="\b\nExample:\n  p2ptrain bench train --model cnn --seconds 10 --rounds 1")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(NETS),
    help="Which nets.  [default: cnn and resnet20; on a GPU resnet50]",
)
@click.option("--seconds", type=click.FloatRange(1, 3600), default=20.0, show_default=True, help="Of a turn.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Turns.")
@click.option("--device", default="auto", show_default=True, help="What to train on.")
@click.option("--precision", type=click.Choice(["f32", "bf16"]), help="[default: bf16 on a GPU, else f32]")
@json_option
def train(json_file: str | None, models: tuple[str, ...], **options: Any) -> None:
    """Train in two daemons that exchange weights, in turns with plain PyTorch loops.

    Pictures are random: only how many a second are trained on counts.
    """
    from p2ptrain.cli.pace import Figures, measure, workloads

    done = {}
    for workload in workloads(models, **options):
        say(f"{workload.name}: {workload.rounds} turns of {workload.seconds:.0f} s for daemons and for loops")
        with tempfile.TemporaryDirectory(prefix="p2ptrain-bench-") as folder:
            done[workload.name] = measure(Path(folder), workload)
    if json_file is not None:
        write_json(Figures(min(pace.over_plain_loop for pace in done.values()), done), json_file)
    if json_file != "-":
        click.echo(_paces(done))


def _paces(done: "dict[str, Pace]") -> str:
    """Write how fast nets were trained, for people."""
    head = ["NET", "SAMPLES/S", "PLAIN LOOP", "RATIO", "OF PEAK", "PLAIN", "EXCHANGES", "SENT"]
    rows = [
        [
            name,
            f"{pace.samples_per_s:.1f}",
            f"{pace.plain_samples_per_s:.1f}",
            f"{pace.over_plain_loop:.3f}",
            percent(pace.utilisation),
            percent(pace.plain_utilisation),
            f"{pace.exchanges} in {pace.rounds_trained:.1f} rounds",
            human_bytes(pace.bytes_sent),
        ]
        for name, pace in done.items()
    ]
    any_ = next(iter(done.values()))
    return f"{table([head, *rows], right=' rrrrr')}\non {any_.device}, {any_.precision}, medians"


@bench.command(epilog="\b\nExample:\n  p2ptrain bench codecs --size 20 --rounds 1")
@click.option("--size", type=click.IntRange(1, 65536), default=100, show_default=True, help="MB of weights.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Counted rounds.")
@click.option("--device", default="auto", show_default=True, help="Where the weights are.")
@json_option
def codecs(size: int, rounds: int, device: str, json_file: str | None) -> None:
    """Write weights by each codec and read them again, in turns with plain copies of memory."""
    from p2ptrain.learn.device import choose
    from p2ptrain.learn.weights.codecs.benchmark import measure

    figures = measure(size * MB // 4, choose(device), rounds)
    if json_file is not None:
        write_json(figures, json_file)
    if json_file != "-":
        say(f"{rounds} rounds of {size} MB of f32 on {figures.device}, medians:")
        click.echo(_codec_table(figures.codecs))
        click.echo(f"copy    {figures.copy_gb_s:.2f} GB/s, {figures.new_copy_gb_s:.2f} GB/s into new memory")


def _codec_table(speeds: "dict[str, Speed]") -> str:
    """Write how fast codecs are, for people."""
    rows = [["CODEC", "ENCODE", "DECODE", "BYTES", "LOST", "PAYS"]]
    for name, speed in speeds.items():
        line = speed.pays_below_mbit_s
        pays = "always" if line is None else f"below {line:.0f} Mbit/s" if line else "never"
        pace = [f"{rate:.2f} GB/s" for rate in (speed.encode_gb_s, speed.decode_gb_s)]
        rows.append([name, *pace, f"{speed.bytes_per_number:.3f} a number", percent(speed.error), pays])
    return table(rows, right=" rrrr")
