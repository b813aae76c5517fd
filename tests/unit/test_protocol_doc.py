"""docs/PROTOCOL.md and the messages agree, and bytes that were ever sent can still be read."""

import re
from pathlib import Path

import pytest

from p2ptrain.core import limits
from p2ptrain.core.conduct import CLOSES, DISTRUST_S, DOUBLINGS_MAX, REFUSE_S
from p2ptrain.core.envelope import Opener, Verified
from p2ptrain.core.errors import Offence
from p2ptrain.core.messages import CARRIES, KINDS, STRATEGY_KIND_FIRST, Message, Offer
from p2ptrain.sim.keys import SWARM, SimVerifier
from p2ptrain.strategies import load, names
from tests.golden.write import AUTHOR, BOOT, FOLDER, STRATEGIES, codec, messages

PAGE = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")

SECTIONS: dict[str, type[Message]] = {
    f"{type_.__name__}, kind {kind}": type_ for kind, type_ in KINDS.items()
}
PRIVATE = [message for name in names() for message in load(name).messages]

EXAMPLES = [("restart", name, message) for name, message in messages().items()]
EXAMPLES += [(strategy, name, m) for strategy, found in STRATEGIES.items() for name, m in found.items()]


def section(title: str) -> str:
    assert f"### {title}\n" in PAGE, f"the page has no section `{title}`"
    return re.split(r"^#+ ", PAGE.split(f"### {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def documented(text: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_message_and_field_is_described_in_order(title: str) -> None:
    fields = list(SECTIONS[title].__struct_fields__)
    inner = list(Offer.__struct_fields__) if "offer" in fields else []
    assert documented(section(title)) == fields + inner


def test_no_message_is_described_that_does_not_exist() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == list(SECTIONS)


def test_the_messages_of_strategies_are_on_their_pages() -> None:
    section_of_strategies = PAGE.split("## Messages of strategies")[1].split("\n## ")[0]
    assert f"Kinds from {STRATEGY_KIND_FIRST} on" in section_of_strategies
    assert re.findall(r"\(strategies/(\w+)\.md\)", section_of_strategies) == names()


@pytest.mark.parametrize("offence", Offence)
def test_every_offence_is_described_with_its_consequence(offence: Offence) -> None:
    assert f"| {offence} | {'yes' if CLOSES[offence] else 'no'} |" in PAGE


@pytest.mark.parametrize(
    "figure",
    [
        f"{limits.FRAME_BYTES_MAX:,} bytes",
        f"highest {limits.REPLAY_WINDOW:,} sequence numbers",
        f"at most {limits.REPORTS_PER_NEWS_MAX} envelopes",
        f"at most {limits.CONTACTS_PER_MESSAGE_MAX} envelopes",
        f"at most {limits.CERTIFICATE_BYTES_MAX:,} bytes",
        f"at most {limits.ADDRESSES_MAX} texts of at most {limits.ADDRESS_CHARS_MAX} characters",
        f"at most {limits.NAME_CHARS_MAX} characters",
        f"{limits.BLOB_CHUNK_BYTES} u32",
        f"{REFUSE_S:.0f} s",
        f"{DISTRUST_S:.0f} s",
        f"up to {2**DOUBLINGS_MAX} times",
    ],
)
def test_the_figures_are_those_of_the_code(figure: str) -> None:
    assert figure in PAGE


def opened(strategy: str, name: str) -> Verified[Message] | None:
    raw = (FOLDER / f"{name}.bin").read_bytes()
    opener = Opener(SimVerifier(), SWARM, codec(strategy))
    if type({n: m for _, n, m in EXAMPLES}[name]) in CARRIES.values():
        return opener.open_statement(raw)
    return opener.receive(raw, AUTHOR)


@pytest.mark.parametrize(("strategy", "name", "message"), EXAMPLES, ids=[name for _, name, _ in EXAMPLES])
def test_bytes_that_were_ever_sent_are_read_as_they_were_meant(
    strategy: str, name: str, message: Message
) -> None:
    found = opened(strategy, name)
    assert found is not None
    assert (found.message, found.sender, found.boot, found.sequence) == (message, AUTHOR, BOOT, 1)


def test_every_message_has_its_bytes_and_all_bytes_are_read() -> None:
    assert {type(message) for _, _, message in EXAMPLES} == {*SECTIONS.values(), *PRIVATE}
    assert sorted(f"{name}.bin" for _, name, _ in EXAMPLES) == sorted(p.name for p in FOLDER.glob("*.bin"))
    assert sorted(STRATEGIES) == names()
