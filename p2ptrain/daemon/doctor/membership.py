"""Can this node take part: its certificate, the swarm's task and that task's data."""

from datetime import timedelta

from cryptography import x509

from p2ptrain.control.api import Finding
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import PeerId
from p2ptrain.daemon.doctor.findings import broken, failure, ok, skipped, warning
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.learn.process.equipment import Equipment, Stage
from p2ptrain.net.members.state import read_state
from p2ptrain.net.trust.certificates import Clock, wall_clock

SOON = timedelta(days=3)
"""A member asks for a new certificate ten days before its end: whoever got none for a week needs help."""

JOIN_AGAIN = "join again: ask for an invite, then `p2ptrain join INVITE`"


def certificate(folder: SwarmFolder, here: PeerId | None, clock: Clock = wall_clock) -> Finding:
    """Look at what makes this node a member, by this computer's clock."""
    try:
        membership, title = folder.membership(), folder.title
        revoked = read_state(membership.root_key, folder.state()).peers
        begins = x509.load_der_x509_certificate(membership.leaf).not_valid_before_utc
    except P2PTrainError as error:
        return broken("swarm", error)
    now, member = clock(), membership.member
    if here not in (None, member.peer):
        return failure("swarm", f"{title}: its certificate is of another identity", JOIN_AGAIN)
    if member.peer in revoked:
        return failure("swarm", f"{title}: this computer was revoked", "ask whoever runs the swarm")
    if now < begins:
        seen = f"{title}: by this computer's clock its certificate begins {_day(begins - now)} from now"
        return failure("swarm", seen, "set the clock right")
    if now >= member.expires:
        seen = f"{title}: the certificate expired {_day(now - member.expires)} ago"
        return failure("swarm", seen, f"if the clock is right: {JOIN_AGAIN}")
    if member.expires - now < SOON:
        seen = f"{title}: the certificate ends in {_day(member.expires - now)}"
        return warning("swarm", seen, "let p2ptrain run while the computer that made the swarm is on")
    return ok("swarm", f"{title}, member until {member.expires:%Y-%m-%d}")


def task(manifest: Manifest, found: Equipment) -> Finding:
    """Say whether the swarm's task is here, in the swarm's version."""
    if found.task_trouble:
        seen, _, repair = found.task_trouble.partition("\n")
        return failure("task", seen, repair)
    if not found.task_version:
        return skipped("task", f"{manifest.task}: not looked at, see gpu")
    if found.task_version != manifest.task_version:
        wanted = f"the swarm trains version {manifest.task_version}"
        seen = f"{manifest.task} is here in version {found.task_version}, {wanted}"
        return failure("task", seen, "install the version of its package that the swarm has")
    return ok("task", f"{manifest.task}, version {found.task_version}")


def data(manifest: Manifest, found: Equipment) -> Finding:
    """Say whether the task finds its data."""
    if found.data_trouble:
        seen, _, repair = found.data_trouble.partition("\n")
        return failure("data", seen, repair)
    if found.stage is Stage.DATA:
        return ok("data", f"{found.examples:,} examples to train on")
    if found.task_version:
        return skipped("data", "not read in time: they may be large, or being downloaded")
    return skipped("data", "not looked at, see task")


def _day(span: timedelta) -> str:
    hours = round(span.total_seconds() / 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
