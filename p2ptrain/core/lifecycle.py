"""The states of a node, as a table. A missing entry means: nothing changes."""

from enum import StrEnum


class State(StrEnum):
    """What a node is doing, in one word that people read."""

    STARTING = "starting"
    TRAINING = "training"
    PAUSED = "paused"
    RECOVERING = "recovering"
    FINISHED = "finished"
    LEFT = "left"


class Turn(StrEnum):
    """What moves a node from state to state."""

    TRAINER_READY = "trainer ready"
    TRAINER_LOST = "trainer lost"
    PAUSE = "pause"
    RESUME = "resume"
    FINISH = "finish"
    LEAVE = "leave"


TRANSITIONS: dict[State, dict[Turn, State]] = {
    State.STARTING: {
        Turn.TRAINER_READY: State.TRAINING,
        Turn.TRAINER_LOST: State.RECOVERING,
        Turn.PAUSE: State.PAUSED,
        Turn.LEAVE: State.LEFT,
    },
    State.TRAINING: {
        Turn.TRAINER_LOST: State.RECOVERING,
        Turn.PAUSE: State.PAUSED,
        Turn.FINISH: State.FINISHED,
        Turn.LEAVE: State.LEFT,
    },
    State.PAUSED: {
        Turn.RESUME: State.STARTING,
        Turn.FINISH: State.FINISHED,
        Turn.LEAVE: State.LEFT,
    },
    State.RECOVERING: {
        Turn.TRAINER_READY: State.TRAINING,
        Turn.PAUSE: State.PAUSED,
        Turn.LEAVE: State.LEFT,
    },
    State.FINISHED: {
        Turn.LEAVE: State.LEFT,
    },
    State.LEFT: {},
}
"""A finished node has nothing left to pause; a trainer lost then is started again without a word."""


def follow(state: State, turn: Turn) -> State:
    """Return the state after a turn."""
    return TRANSITIONS[state].get(turn, state)
