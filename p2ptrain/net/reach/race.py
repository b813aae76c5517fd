"""Attempts at one thing, each with a head start on the next: the first success ends all others."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from p2ptrain.core.types import Seconds

T = TypeVar("T")
Attempt = Callable[[], Coroutine[Any, Any, T]]


async def race(
    attempts: Iterable[Attempt[T]],
    stagger_s: Seconds,
    failed: Callable[[OSError], None],
    discard: Callable[[T], None],
) -> T | None:
    """Return the first success; None: all failed. When it returns or is cancelled, nothing goes on.

    Args:
        attempts: started in this order, each `stagger_s` after the one before, or when one fails.
        stagger_s: the head start.
        failed: told of every attempt that failed.
        discard: given every success but the first.

    Raises:
        Exception: what an attempt raised that is no OSError.
    """
    waiting = list(attempts)
    running: list[asyncio.Task[T]] = []
    try:
        while waiting or running:
            if waiting:
                running.append(asyncio.create_task(waiting.pop(0)()))
            timeout_s = stagger_s if waiting else None
            done, _ = await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task in done]:
                running.remove(task)
                try:
                    return task.result()
                except OSError as error:
                    failed(error)
        return None
    finally:
        for task in running:
            task.add_done_callback(partial(_discard, discard))
            task.cancel()
        if running:
            await asyncio.wait(running)


def _discard(discard: Callable[[T], None], task: asyncio.Task[T]) -> None:
    """A loser may have succeeded in the moment in which it lost."""
    if not task.cancelled() and task.exception() is None:
        discard(task.result())
