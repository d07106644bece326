"""How bodies are parsed beside an event loop."""

import asyncio
import threading

from serve_app.dialects.decoding import Parsing

SMALL, LARGE = bytes(999_999), bytes(1_000_000)


def test_a_small_body_is_parsed_at_once_and_a_large_one_in_another_thread():
    async def go():
        parsing = Parsing()
        return [await parsing(body, threading.get_ident) for body in (SMALL, LARGE)]

    small, large = asyncio.run(go())
    assert small == threading.get_ident() != large


def test_while_a_large_body_is_parsed_the_loop_runs_and_the_next_one_waits():
    begun, may_end = [], threading.Event()

    def parse(name):
        begun.append(name)
        assert may_end.wait(20)
        return name

    async def go():
        parsing = Parsing()
        both = asyncio.gather(*(parsing(LARGE, parse, name) for name in "ab"))
        while not begun:
            await asyncio.sleep(0.001)
        assert await parsing(SMALL, str.upper, "c") == "C"
        assert begun == ["a"]
        may_end.set()
        return await both

    assert asyncio.run(go()) == ["a", "b"]
    assert begun == ["a", "b"]
