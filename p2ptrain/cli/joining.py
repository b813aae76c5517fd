"""Becoming a member by invite, as `join` and `bootstrap` do."""

import asyncio
import sys
from functools import partial

import click

from p2ptrain.cli.foreground import new_seed
from p2ptrain.cli.output import say
from p2ptrain.core.envelope import sender_of
from p2ptrain.daemon.home import Home
from p2ptrain.daemon.swarms import SwarmFolder, Swarms
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.members.invite import Invite
from p2ptrain.net.members.join import Welcome, join
from p2ptrain.net.trust.certificates import Role, wall_clock
from p2ptrain.net.trust.identity import Identity


def ask_to_join(invite: Invite, identity: Identity, *, confirm: bool) -> Welcome:
    """Say what an invite means, and ask the issuers that it names; this computer may be among them.

    Raises:
        P2PTrainError: it expired, nobody answered, or the answer was no.
    """
    invite.check_expiry(wall_clock())
    _show(invite)
    if confirm and sys.stdin.isatty():
        click.confirm("Join?", abort=True, err=True)
    return asyncio.run(join(invite, identity, partial(is_dialable, loopback=True)))


def keep(home: Home, welcome: Welcome, invite: Invite | None = None) -> SwarmFolder:
    """Write down what an issuer gave, and the invite if the founder must see it."""
    folder = Swarms(home.swarms).add(welcome, new_seed())
    if invite is not None and invite.role is Role.ISSUER:
        folder.save_claim(invite)
    folder.save_contacts({sender_of(raw): raw for raw in welcome.contacts})
    manifest = folder.manifest()
    say(f"joined `{manifest.name}`: {manifest.task} by {manifest.strategy}")
    return folder


def _show(invite: Invite) -> None:
    where = ", ".join(f"{door.host}:{door.port}" for door in invite.doors)
    say(f"  swarm        {invite.swarm.hex()[:16]}")
    say(f"  asks         {where}")
    say(f"  valid until  {invite.expires_at:%Y-%m-%d %H:%M} UTC, for {invite.uses} computer(s)")
    say("  others see   your IP address, a nickname, your training results; never files or programs")
