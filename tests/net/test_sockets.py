"""A connection can be cut from the inside, whatever loop it runs on."""

import asyncio

import pytest

from p2ptrain.net.channel.sockets import cut

pytestmark = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))


async def test_what_a_loop_shows_as_a_socket_can_be_cut():
    served: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: served.append(writer), "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not served:
            await asyncio.sleep(0)
        shown = served[0].get_extra_info("socket")
        cut(shown)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        for one in (writer, served[0]):
            one.close()
            await one.wait_closed()
        cut(shown)  # its number may be another's by now
