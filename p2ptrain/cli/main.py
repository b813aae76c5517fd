"""The command line. Commands are imported when they are called: `status` must answer at once."""

import keyword
import sys
from typing import Any

import click

from p2ptrain import __version__
from p2ptrain.cli.lazy import Lazy
from p2ptrain.cli.output import Exit, exit_code, say
from p2ptrain.core.errors import P2PTrainError

COMMANDS = {
    "start": ("run", "Train: in a swarm, or alone until others join."),
    "bootstrap": ("bootstrap", "Help a swarm without training: admit, introduce, relay."),
    "stop": ("run", "Save and end the daemon."),
    "pause": ("run", "Stop the work; the daemon stays."),
    "resume": ("run", "Go on with the work."),
    "status": ("run", "Show what the daemon is doing, and why."),
    "logs": ("run", "Show what the daemon said."),
    "join": ("swarm", "Join a swarm by invite, or ask one nearby."),
    "invite": ("invite", "Make an invite for others."),
    "peers": ("swarm", "List the members of the swarm."),
    "swarm": ("swarm", "Make, list, show or leave swarms; let members go."),
    "export": ("results", "Write the trained weights as a file, with a card."),
    "evaluate": ("results", "Measure weights on a task's data."),
    "try": ("results", "See what the net can do now."),
    "history": ("history", "Show how training went on."),
    "task": ("task", "List tasks, check your own, train one alone."),
    "strategies": ("strategy", "Say what each way of cooperating does, and what can be set."),
    "strategy": ("strategy", "Look at one strategy, try your own."),
    "advise": ("advise", "Say which strategy fits a task, computers and lines, and why."),
    "demo": ("demo", "Watch several real daemons train one network on this computer."),
    "simulate": ("simulate", "Run a whole swarm in virtual time, with faults."),
    "doctor": ("doctor", "Look for what is wrong, and say what to do about it."),
    "bench": ("bench", "Measure this computer."),
    "replay": ("simulate", "Live the journal of a run again and compare."),
}

EPILOG = """\b
Examples:
  p2ptrain demo                     three daemons train together, right here
  p2ptrain start                    train; `p2ptrain invite` lets others in
  p2ptrain join p2pt1… --start      help a swarm that you were invited to

\b
Exit codes: 0 done, 1 failed, 2 wrong use or setting, 3 daemon not running,
4 refused (invite or permission), 5 running but in trouble, 6 nobody answered,
130 interrupted.
"""


def _function(name: str) -> str:
    """Return what Python calls a command: some names are its own."""
    return f"{name}_" if keyword.iskeyword(name) else name


class Commands(Lazy):
    """All that people type after `p2ptrain`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands,
    places={name: (module, _function(name)) for name, (module, _) in COMMANDS.items()},
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--home", metavar="DIR", help="Folder for everything (also: P2PTRAIN_HOME).")
@click.version_option(__version__, prog_name="p2ptrain")
@click.pass_context
def cli(ctx: click.Context, home: str | None) -> None:
    """Train one PyTorch network together with other people's computers."""
    ctx.obj = home


def home_option(command: Any) -> Any:
    """Let `--home` stand after the command too."""

    def remember(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.obj = value

    return click.option(
        "--home",
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="Folder for everything (also: P2PTRAIN_HOME).",
    )(command)


def main() -> None:
    """Run a command; errors become a sentence and an exit code."""
    try:
        # What a command ends with by `click.exceptions.Exit` comes back as a number.
        code: int = cli.main(prog_name="p2ptrain", standalone_mode=False) or Exit.OK
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        code = Exit.INTERRUPTED
    except P2PTrainError as error:
        say(f"error: {error.message}")
        if error.hint:
            say(f"  fix: {error.hint}")
        code = exit_code(error)
    sys.exit(code)
