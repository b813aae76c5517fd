"""Strategies that come from elsewhere: how they are found, and that `strategy check` sees what is wrong."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from p2ptrain import strategies
from p2ptrain.core.effects import Adopt, Effect, Fetch, Note, Send, Train
from p2ptrain.core.errors import ManifestError
from p2ptrain.core.messages import Leave
from p2ptrain.sim.conformance import REQUIREMENTS, Blaming, NotMetError, examine
from p2ptrain.strategies import check_known, load
from tests.daemon.helpers import p2ptrain

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = "own_strategy:Strategy"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands run where the example lies."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    sys.modules.pop("own_strategy", None)


# -- finding ---------------------------------------------------------------------------------------


def test_a_strategy_is_found_by_its_place_its_class_and_its_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strategies, "installed", lambda: {"their-way": EXAMPLE})
    for reference in (EXAMPLE, "own_strategy:", "their-way"):
        check_known(reference)
        rules = load(reference)
        assert (rules.name, rules.build.__name__, rules.messages) == (reference, "Strategy", ())
    assert strategies.known() == sorted([*strategies.names(), "their-way"])


def test_entry_points_are_listed_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [SimpleNamespace(name="their-way", value="no.such:module")]
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: found if "strategies" in group else []
    )
    assert strategies.installed() == {"their-way": "no.such:module"}
    with pytest.raises(ManifestError, match="`their-way` cannot be loaded: No module named 'no'"):
        load("their-way")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("gosip", "did you mean `gossip`"),
        ("qqqqq", "known are: allreduce, federated, gossip, "),
        ("no.such:thing", "install the package that brings it"),
        ("own_strategy:Nothing", "install the package that brings it"),
        ("math:pi", "`math:pi` is a float, not a strategy"),
        ("json:dumps", "has no `Config`"),
        ("a b:c", "install the package that brings it"),
    ],
)
def test_what_is_no_strategy_is_told_in_a_sentence(reference: str, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        load(reference)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Config": 3}, "a `Config` that is no class"),
        ({"MESSAGES": [int]}, "no tuple of kinds of `Message`"),
        ({"Strategy": object}, "a `Strategy` without `start`"),
    ],
)
def test_a_file_that_lacks_something_is_told(
    change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = sys.modules[load(EXAMPLE).build.__module__]
    module = ModuleType("lacking")
    module.__dict__.update(
        {name: getattr(example, name) for name in ("Config", "MESSAGES", "Strategy")} | change
    )
    monkeypatch.setitem(sys.modules, "lacking", module)
    with pytest.raises(ManifestError, match=said):
        load("lacking:")


# -- checking --------------------------------------------------------------------------------------


def test_the_example_meets_all_requirements() -> None:
    assert [fault for fault in examine(EXAMPLE) if fault[1]] == []


def test_the_example_is_short() -> None:
    assert len((EXAMPLES / "own_strategy.py").read_text(encoding="utf-8").splitlines()) < 80


def test_the_example_runs() -> None:
    words = ("simulate", "toy", "--strategy", EXAMPLE, "--peers", "16", "--seed", "1")
    result = p2ptrain(*words, "--json").json
    assert result["loss"] < result["alone_loss"]


Change = Callable[[Any, Any, list[Effect]], list[Effect]]
"""Takes a strategy, a context and what an honest one wants."""


def crash(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    return [wishes[100]]


def never_finish(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    return [wish for wish in wishes if type(wish).__name__ != "Finish"]


def train_on(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    return [Train(wish.steps + 1) if isinstance(wish, Train) else wish for wish in wishes]


def stay_alone(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    return strategy.train(ctx) if any(isinstance(wish, Fetch) for wish in wishes) else wishes


def trust_all(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    offers = [offer for _, offer in ctx.ledger.ranked(ctx.now, 1e9, ctx.me)]
    liar = next((one.report for one in ctx.ledger.entries() if not ctx.trusts(one.report.sender)), None)
    if liar is None or liar.message.offer is None or not offers:
        return wishes
    return [*wishes, ctx.fetch(liar.sender, liar.message.offer)]


def take_unseen(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    return [Adopt("mixed", wish.terms[1][1]) if type(wish).__name__ == "Combine" else wish for wish in wishes]


def chatter(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    return [*wishes, *(Send(peer, Leave("hello")) for peer in ctx.partners() for _ in range(9))]


def gamble(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    type(strategy).calls += 1  # remembered across runs, as a global generator is
    return stay_alone(strategy, ctx, wishes) if type(strategy).calls % 7 == 0 else wishes


def say_nothing(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    return [wish for wish in wishes if not (isinstance(wish, Note) and wish.event == "diverged")]


def wait_for_the_dead(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    some_are_gone = len(ctx.partners()) + 1 < len(ctx.membership.trainers)
    return never_finish(strategy, ctx, wishes) if some_are_gone else wishes


def stop_when_full(strategy: Any, ctx: Any, wishes: list[Effect]) -> list[Effect]:
    return [] if strategy.failed else wishes


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make a strategy that is the example, and does one thing wrong; return its reference."""
    example = sys.modules[load(EXAMPLE).build.__module__]

    def make(change: Change, memory: bytes | None = None) -> str:
        class Broken(example.Strategy):  # type: ignore[misc, name-defined]
            failed = False
            calls = 0

            def handle(self, ctx: Any, event: Any) -> Any:
                self.failed = self.failed or type(event).__name__ == "LearnFailed"
                wishes = super().handle(ctx, event)
                return change(self, ctx, wishes) if wishes else wishes

            def memory(self) -> bytes:
                return super().memory() if memory is None else memory

        module = ModuleType("broken")
        module.__dict__.update(Config=example.Config, MESSAGES=(), Strategy=Broken)
        monkeypatch.setitem(sys.modules, "broken", module)
        return "broken:"

    return make


@pytest.mark.parametrize(
    ("change", "requirement", "said"),
    [
        (
            crash,
            "ends with 1, 2, 3 and 5 peers",
            r"IndexError: list index out of range \(line \d+ of .*test_own",
        ),
        (never_finish, "ends with 1, 2, 3 and 5 peers", "not every peer has ended with `Finish`"),
        (train_on, "takes the steps that were agreed, and no more", r"took were 3\d\d; 300 were agreed"),
        (stay_alone, "comes further together than alone", "no gain of 15 %"),
        (trust_all, "fetches nothing from whom it does not believe", "ask `ctx.trusts` before `ctx.fetch`"),
        (take_unseen, "survives calm", r"unmeasured \(G7\)"),
        (chatter, "keeps to its budget of messages", "messages a second, more than"),
        (gamble, "does the same again with the same seed", "take all chance from `ctx.rng`"),
        (say_nothing, "comes back from NaN and harms nobody", "did not say so"),
        (
            wait_for_the_dead,
            "goes on when anybody is gone for ever, at any message",
            r"was gone after \d+ messages",
        ),
        (stop_when_full, "ends with a full disk", "`Publish` fails after 0 times"),
    ],
)
def test_what_is_wrong_is_said(
    broken: Callable[..., str], change: Change, requirement: str, said: str
) -> None:
    (wanted,) = [one for one in REQUIREMENTS if one.name == requirement]
    with pytest.raises(NotMetError, match=said), Blaming():
        wanted.try_(broken(change))


def test_a_long_memory_is_noticed(broken: Callable[..., str]) -> None:
    (wanted,) = [one for one in REQUIREMENTS if one.name == "keeps little across restarts"]
    with pytest.raises(NotMetError, match="`memory\\(\\)` is 100000 bytes"):
        wanted.try_(broken(lambda strategy, ctx, wishes: wishes, bytes(100_000)))


# -- commands --------------------------------------------------------------------------------------


def test_strategies_are_listed_and_shown() -> None:
    listed = p2ptrain("strategy", "list", "--json").json["strategies"]
    assert [one["name"] for one in listed] == strategies.names()
    assert "built in  Gossip averaging: after every few steps" in p2ptrain("strategy", "list").out
    shown = p2ptrain("strategy", "show", EXAMPLE, "--json").json
    assert shown["settings"][0] == {
        "name": "round_steps",
        "range": "any",
        "default": 20,
        "meaning": "optimiser steps between two looks at others.",
    }
    gossip = p2ptrain("strategy", "show", "gossip").out
    assert "messages of its own: Swap, Answer, Busy" in gossip
    assert "optimiser steps of a round" in gossip


def test_all_strategies_are_explained_at_once() -> None:
    told = p2ptrain("strategies")
    assert [line for line in told.out.splitlines() if line in strategies.names()] == strategies.names()
    facts = p2ptrain("strategies", "--json").json["strategies"]
    assert all(one["document"] and one["settings"] for one in facts)


def test_the_page_of_a_strategy_has_settings_messages_and_states() -> None:
    page = p2ptrain("strategy", "show", "gossip", "--page").out
    assert "| `exchange_steps` | from 1 | 50 | optimiser steps" in page
    assert "### Swap, kind 32" in page
    assert "| `blob` | 64 hex digits |" in page
    assert "    [*] --> RUN\n" in page
    assert "## States" not in p2ptrain("strategy", "show", EXAMPLE, "--page").out


def test_check_says_what_fails_and_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(name: str) -> None:
        raise NotMetError("it never does")

    good, bad = REQUIREMENTS[0]._replace(try_=lambda name: None), REQUIREMENTS[1]._replace(try_=ends)
    monkeypatch.setattr("p2ptrain.sim.conformance.REQUIREMENTS", (good, bad))
    said = p2ptrain("strategy", "check", "gossip")
    assert (said.code, said.out.splitlines()) == (1, [f"✔ {good.name}", f"✖ {bad.name}: it never does"])
    assert "1 of 2 requirements are not met" in said.err
    answer = p2ptrain("strategy", "check", "gossip", "--json").json
    assert [one["ok"] for one in answer["findings"]] == [True, False]
    monkeypatch.setattr("p2ptrain.sim.conformance.REQUIREMENTS", (good,))
    assert p2ptrain("strategy", "check", "gossip").code == 0
    assert "did you mean `gossip`" in p2ptrain("strategy", "check", "gosip").err
