"""A sample of `python -m tests.fuzz --live 200000`."""

import asyncio

import pytest

from tests.net.fuzz_live import Live


@pytest.mark.attack
async def test_what_a_live_member_is_sent(tmp_path):
    live = Live(tmp_path, seed=5)
    await live.run(1000)
    assert live.wrong == [], "seed 5"
    assert all(live.done[kind] > 50 for kind in ("names", "requests", "frames", "chunks")), live.done
    asyncio.get_running_loop().set_exception_handler(None)
