"""What peers say to each other. PROTOCOL.md describes every message; kinds and fields are only ever appended.

Strategies add private messages of their own from kind `STRATEGY_KIND_FIRST` on.
"""

from typing import Annotated

from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.types import BlobId

Natural = Annotated[int, Meta(ge=0, le=2**53)]
Number = Annotated[float, Meta(ge=-limits.ABSOLUTE_NUMBER_MAX, le=limits.ABSOLUTE_NUMBER_MAX)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Scale = Annotated[float, Meta(gt=0.0, le=1e6)]
BlobName = Annotated[BlobId, Meta(pattern=r"^[0-9a-f]{64}\Z")]  # `$` lets a line break through
BlobBytes = Annotated[int, Meta(ge=1, le=limits.BLOB_BYTES_MAX)]
Address = Annotated[str, Meta(max_length=limits.ADDRESS_CHARS_MAX)]
SignedBytes = Annotated[bytes, Meta(max_length=limits.FRAME_BYTES_MAX)]

STRATEGY_KIND_FIRST = 32


class Message(Struct, frozen=True, array_like=True):
    """Base of all messages."""


class Offer(Struct, frozen=True, array_like=True):
    """Weights that the speaker lets others fetch, with the loss it measured on them."""

    blob: BlobName
    size_bytes: BlobBytes
    loss: Number
    lr_scale: Scale = 1.0


class Report(Message, frozen=True):
    """A peer's statement of its own loss; passed on unchanged by others.

    loss: on the speaker's held-out data, of the weights it trains now.
    offer: the best of its weights so far; a hint until fetched and measured by the reader.
    finished, paused: it does not train any more, or not now; its offer stands.
    """

    step: Natural
    samples: Natural
    loss: Number
    accuracy: Share | None = None
    offer: Offer | None = None
    finished: bool = False
    paused: bool = False


class News(Message, frozen=True):
    """Reports of the speaker and of others, each in its author's envelope.

    carried: signed reports.
    held: for each of them, whether the speaker holds the offered weights too.
    reply: sent in answer to news that were worse; never answered again.
    hops: how often this improvement may still be passed on at once.
    """

    carried: Annotated[tuple[SignedBytes, ...], Meta(max_length=limits.REPORTS_PER_NEWS_MAX)]
    held: Annotated[tuple[bool, ...], Meta(max_length=limits.REPORTS_PER_NEWS_MAX)] = ()
    reply: bool = False
    hops: Annotated[int, Meta(ge=0, le=16)] = 0


class Contact(Message, frozen=True):
    """Where a member can be reached, in its own words, with the certificate that makes it a member."""

    certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES_MAX)]
    addresses: Annotated[tuple[Address, ...], Meta(max_length=limits.ADDRESSES_MAX)] = ()
    name: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)] = ""
    version: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)] = ""


class Contacts(Message, frozen=True):
    """Contacts that the speaker knows, each in its subject's envelope."""

    carried: Annotated[tuple[SignedBytes, ...], Meta(max_length=limits.CONTACTS_PER_MESSAGE_MAX)]


class Leave(Message, frozen=True):
    """The speaker goes; it may come back."""

    reason: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)] = ""


Signable = Report | Contact

KINDS: dict[int, type[Message]] = {1: Report, 2: News, 3: Contact, 4: Contacts, 5: Leave}
"""Append only: a kind is never used again for something else."""

CARRIES: dict[type[Message], type[Message]] = {News: Report, Contacts: Contact}
"""Messages with statements for third parties inside, and of which kind: those never arrive alone."""
