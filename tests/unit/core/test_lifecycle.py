"""The table of states: nothing is missing and nobody gets stuck."""

import pytest

from p2ptrain.core.lifecycle import TRANSITIONS, State, Turn, follow


def reachable(state: State) -> set[State]:
    found, waiting = {state}, [state]
    while waiting:
        for after in TRANSITIONS[waiting.pop()].values():
            if after not in found:
                found.add(after)
                waiting.append(after)
    return found


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_turn_leads_somewhere() -> None:
    assert {turn for row in TRANSITIONS.values() for turn in row} == set(Turn)


def test_every_state_can_be_reached() -> None:
    assert reachable(State.STARTING) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.LEFT])
def test_from_everywhere_one_can_leave(state: State) -> None:
    assert follow(state, Turn.LEAVE) is State.LEFT


@pytest.mark.parametrize("state", [State.STARTING, State.TRAINING, State.PAUSED, State.RECOVERING])
def test_as_long_as_there_is_work_one_can_come_back_to_it(state: State) -> None:
    assert State.TRAINING in reachable(state)
    assert State.FINISHED in reachable(state)


@pytest.mark.parametrize("turn", Turn)
def test_having_left_is_final(turn: Turn) -> None:
    assert follow(State.LEFT, turn) is State.LEFT


@pytest.mark.parametrize("turn", [turn for turn in Turn if turn is not Turn.LEAVE])
def test_having_finished_is_only_followed_by_leaving(turn: Turn) -> None:
    assert follow(State.FINISHED, turn) is State.FINISHED


def test_a_pause_holds_until_it_is_taken_back() -> None:
    for turn in (Turn.TRAINER_READY, Turn.TRAINER_LOST, Turn.PAUSE):
        assert follow(State.PAUSED, turn) is State.PAUSED


@pytest.mark.parametrize("state", State)
def test_people_read_each_state_as_one_word(state: State) -> None:
    assert str(state).isalpha()
    assert str(state) == str(state).lower()
