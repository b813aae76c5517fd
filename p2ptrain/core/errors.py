"""Everything that can go wrong, as types.

A message is a sentence for the owner; `hint` says what to do about it.
"""

from enum import StrEnum


class P2PTrainError(Exception):
    """An error that a person may read: what is wrong, and `hint`: how to repair it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class Offence(StrEnum):
    """What a peer did wrong. The value is shown to people and never changes."""

    MALFORMED = "malformed message"
    OVERSIZED = "oversized message"
    FORGED = "wrong signature"
    FOREIGN = "certificate of another swarm"
    OUT_OF_RANGE = "number out of range"
    REPLAYED = "replayed message"
    FLOODING = "too many messages"
    BAD_WEIGHTS = "weights that do not fit or are not finite"
    WRONG_BYTES = "bytes that do not match their hash"
    FALSE_CLAIM = "weights worse than claimed"


class ProtocolError(P2PTrainError):
    """A rule of the protocol was broken: see the two subclasses for by whom."""


class LocalProtocolError(ProtocolError):
    """Our own code broke a rule: a bug."""


class RemoteProtocolError(ProtocolError):
    """A peer broke a rule; its bytes are dropped and `offence` is charged to it."""

    def __init__(self, offence: Offence, detail: str) -> None:
        super().__init__(f"{offence}: {detail}")
        self.offence = offence
        self.detail = detail


class ManifestError(P2PTrainError):
    """This swarm needs another version, strategy or task than is here."""


class InviteError(P2PTrainError):
    """The invite is mistyped, expired, forged, used up or of another version."""


class RefusedError(P2PTrainError):
    """The other side answered, and said no."""


class UnreachableError(P2PTrainError):
    """Nobody answered."""


class WeightsError(P2PTrainError):
    """Weights do not fit the model, or are not finite."""


class ConfigError(P2PTrainError):
    """A setting is wrong: the message names the place and the nearest known word."""


class ControlError(P2PTrainError):
    """The daemon does not run, or refused a command."""
