"""Every bound that a stranger, a peer or time could push against, with unit and reason."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

FRAME_BYTES_MAX = 64 * KIB
"""One WebSocket frame. Weights never travel in messages."""

ADDRESSES_MAX = 8
"""Addresses that one contact may name."""

ADDRESS_CHARS_MAX = 64
"""`[ipv6]:port` with scope fits twice."""

CERTIFICATE_BYTES_MAX = 4 * KIB
"""A member's chain is about 1 KiB."""

PEERS_MAX = 10_000
"""Members of one swarm that a node remembers."""

CONTACTS_PER_MESSAGE_MAX = 24
"""Contacts are about 1.3 KiB with their certificates: half a frame."""

MESH_PEERS_MAX = 9
"""Up to here everyone is connected with everyone (research: net 4.3)."""

TAGS_MAX = 3 * KIB
"""Tags that one message states: 24 KiB, more than a fifth of the largest directory."""

WANTED_MAX = 480
"""Records asked for at once: twenty messages, about half a MiB."""

IDS_PER_MESSAGE_MAX = 512
"""Ids of contacts that one message names: what the largest swarm renews in 15 s."""

IDS_MAX = 32_768
"""Ids of contacts seen in the last 10 min: in the largest swarm 20,000 (research: net 4.3)."""

MISSING_MAX = 4096
"""Ids announced here of contacts that did not come yet."""

REPORTS_MAX = 128
"""Reports that a node keeps; the best and the freshest stay."""

REPORTS_PER_NEWS_MAX = 16
"""Signed reports that one message may carry: those of a whole small swarm."""

ABSOLUTE_NUMBER_MAX = 1e30
"""No loss, coefficient or rate outside this range is believed."""

BLOB_CHUNK_BYTES = MIB
"""Weights are hashed in pieces of this size, so that a wrong one is found early."""

BLOB_BYTES_MAX = 16 * GIB
"""Four thousand million f32 parameters."""

BLOB_HEADER_BYTES_MAX = MIB
"""The names and shapes of the largest models take about 100 KiB."""

HELD_BLOBS_MAX = 12
"""Blobs kept for peers to fetch, besides the one that the own report names."""

FETCHES_MAX = 2
"""Blobs fetched at once: more only share the same line."""

SLOTS_MAX = 8
"""Weights that a strategy may keep by name in the trainer."""

TERMS_MAX = 64
"""Terms of one combination."""

RANGES_MAX = 1024
"""Ranges that name some of the numbers of weights: several for each layer of a deep net. Guess."""

REPLAY_WINDOW = 1024
"""Sequence numbers that may arrive late, per peer."""

SENDERS_MAX = 16_384
"""Peers whose replay windows are kept, more than a swarm has; the one met first is forgotten first."""

OPENED_MAX = 16_384
"""Opened messages that are recognised without checking the signature again."""

NAME_CHARS_MAX = 40
"""Names that people give to peers and swarms."""

MEMORY_BYTES_MAX = 256 * KIB
"""What a strategy may keep across a restart."""

OUTBOX_FRAMES_MAX = 256
"""Frames waiting for one slow peer; older ones are dropped first."""

JOURNAL_BYTES_MAX = 64 * MIB
"""The journal stops here: a bug report must fit in a mail."""
