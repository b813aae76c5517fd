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

TAG_BYTES = 8
"""Tells a record from others of its bucket: nobody gains from two that look alike but their author."""

ID_BYTES = 16
"""Tells a signed contact from all others."""

BUCKETS_MAX = 256
"""One for each first byte of a peer id."""

TagBytes = Annotated[bytes, Meta(max_length=limits.TAGS_MAX * TAG_BYTES)]

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
    """Where a member can be reached, in its own words, with the certificate that makes it a member.

    trains: false on a bootstrap, which introduces and relays only.
    """

    certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES_MAX)]
    addresses: Annotated[tuple[Address, ...], Meta(max_length=limits.ADDRESSES_MAX)] = ()
    name: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)] = ""
    version: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)] = ""
    trains: bool = True


class Contacts(Message, frozen=True):
    """Contacts that the speaker knows, each in its subject's envelope.

    ages: for each of them, how many seconds the speaker has known it.
    """

    carried: Annotated[tuple[SignedBytes, ...], Meta(max_length=limits.CONTACTS_PER_MESSAGE_MAX)]
    ages: Annotated[tuple[Natural, ...], Meta(max_length=limits.CONTACTS_PER_MESSAGE_MAX)] = ()


class Leave(Message, frozen=True):
    """The speaker goes; it may come back."""

    reason: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)] = ""


class Compare(Message, frozen=True):
    """The speaker's directory in short: whoever has another one says what is in it.

    hashes: 8 bytes a bucket, of 1, 2, 4 and so on up to 256 buckets.
    """

    hashes: Annotated[bytes, Meta(min_length=TAG_BYTES, max_length=BUCKETS_MAX * TAG_BYTES)]


class Tags(Message, frozen=True):
    """What lies in the buckets that differ.

    count: of buckets in all.
    numbers: which ones these are, a byte each.
    tags: for each of them its records, 8 bytes each.
    """

    count: Annotated[int, Meta(ge=1, le=BUCKETS_MAX)]
    numbers: Annotated[bytes, Meta(max_length=BUCKETS_MAX)]
    tags: Annotated[tuple[TagBytes, ...], Meta(max_length=BUCKETS_MAX)]


class Want(Message, frozen=True):
    """Records that the speaker lacks, 8 bytes each."""

    tags: Annotated[bytes, Meta(max_length=limits.WANTED_MAX * TAG_BYTES)]


class Link(Message, frozen=True):
    """Whether the speaker wants this connection as one of its links."""

    wanted: bool


class Push(Message, frozen=True):
    """Contacts that changed just now, each in its subject's envelope, for everybody."""

    carried: Annotated[tuple[SignedBytes, ...], Meta(max_length=limits.CONTACTS_PER_MESSAGE_MAX)]


class Have(Message, frozen=True):
    """What the speaker would push, 16 bytes each."""

    ids: Annotated[bytes, Meta(max_length=limits.IDS_PER_MESSAGE_MAX * ID_BYTES)]


class Graft(Message, frozen=True):
    """What the speaker lacks of that, 16 bytes each; from now on it is to be pushed to it again."""

    ids: Annotated[bytes, Meta(max_length=limits.IDS_PER_MESSAGE_MAX * ID_BYTES)]


class Prune(Message, frozen=True):
    """What came was known: from now on it is enough to say what there is."""


Signable = Report | Contact

KINDS: dict[int, type[Message]] = {
    1: Report,
    2: News,
    3: Contact,
    4: Contacts,
    5: Leave,
    6: Compare,
    7: Tags,
    8: Want,
    9: Link,
    10: Push,
    11: Have,
    12: Graft,
    13: Prune,
}
"""Append only: a kind is never used again for something else."""

CARRIES: dict[type[Message], type[Message]] = {News: Report, Contacts: Contact, Push: Contact}
"""Messages with statements for third parties inside, and of which kind."""

STATEMENTS = dict.fromkeys(CARRIES.values())
"""They never arrive alone."""
