"""The states of a node, as a table. A missing entry means: nothing changes."""

from enum import StrEnum


class State(StrEnum):
    """What a node is doing, in one word that people read."""

    STARTING = "starting"
    TRAINING = "training"
    PAUSED = "paused"
    RECOVERING = "recovering"
    SERVING = "serving"
    FINISHED = "finished"
    LEFT = "left"


class Turn(StrEnum):
    """What moves a node from state to state."""

    TRAINER_READY = "trainer ready"
    TRAINER_LOST = "trainer lost"
    SERVE = "serve"
    PAUSE = "pause"
    RESUME = "resume"
    FINISH = "finish"
    LEAVE = "leave"


TRANSITIONS: dict[State, dict[Turn, State]] = {
    State.STARTING: {
        Turn.TRAINER_READY: State.TRAINING,
        Turn.TRAINER_LOST: State.RECOVERING,
        Turn.SERVE: State.SERVING,
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
    State.SERVING: {
        Turn.LEAVE: State.LEFT,
    },
    State.FINISHED: {
        Turn.LEAVE: State.LEFT,
    },
    State.LEFT: {},
}
"""A bootstrap serves until it leaves.
A finished node has nothing left to pause; a trainer lost then is started again without a word."""


def follow(state: State, turn: Turn) -> State:
    """Return the state after a turn."""
    return TRANSITIONS[state].get(turn, state)


def usual_reason(state: State, others: int, partners: int) -> str:
    """Say why a node is in a state that nothing special led to.

    Args:
        state: now.
        others: members that can be reached.
        partners: those of them that train.
    """
    if state is State.STARTING:
        return "loading the task and the last checkpoint"
    if state is State.SERVING:
        return f"introduces and relays for {count(others, 'peer')}"
    if partners:
        return f"with {count(partners, 'other peer')}"
    alone = "nobody else trains now" if others else "no other peer is connected"
    return f"alone: {alone}; `p2ptrain invite` lets others in"


def count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
