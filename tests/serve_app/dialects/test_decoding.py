"""How bodies are parsed beside an event loop."""

import asyncio
import threading
import time

import pytest

from rerank_core import DeadlineExceeded
from serve_app.dialects.decoding import Parsing

SMALL, LARGE = bytes(999_999), bytes(1_000_000)


def later(seconds=60):
    return time.monotonic() + seconds


class Held:
    """What parses until it may end, and notes when it began."""

    def __init__(self):
        self.begun, self.may_end = [], threading.Event()

    def parse(self, name):
        self.begun.append(name)
        assert self.may_end.wait(20)
        return name

    async def has_begun(self):
        while not self.begun:
            await asyncio.sleep(0.001)


def test_a_small_body_is_parsed_at_once_and_a_large_one_in_another_thread():
    async def go():
        parsing = Parsing()
        return [await parsing(body, later(), threading.get_ident) for body in (SMALL, LARGE)]

    small, large = asyncio.run(go())
    assert small == threading.get_ident() != large


def test_while_a_large_body_is_parsed_the_loop_runs_and_the_next_one_waits():
    held = Held()

    async def go():
        parsing = Parsing()
        both = asyncio.gather(*(parsing(LARGE, later(), held.parse, name) for name in "ab"))
        await held.has_begun()
        assert await parsing(SMALL, later(), str.upper, "c") == "C"
        assert held.begun == ["a"]
        held.may_end.set()
        return await both

    assert asyncio.run(go()) == ["a", "b"]
    assert held.begun == ["a", "b"]


def test_a_client_that_leaves_is_waited_for_while_its_body_is_parsed():
    held = Held()

    async def go():
        parsing = Parsing()
        left = asyncio.create_task(parsing(LARGE, later(), held.parse, "a"))
        await held.has_begun()
        left.cancel()
        after = asyncio.create_task(parsing(LARGE, later(), held.parse, "b"))
        await asyncio.sleep(0.05)
        assert (left.done(), held.begun) == (False, ["a"])
        held.may_end.set()
        await asyncio.wait([left])
        return left.cancelled(), await after

    assert asyncio.run(go()) == (True, "b")


def test_a_body_behind_others_is_given_up_at_its_deadline():
    held = Held()

    async def go():
        parsing = Parsing()
        first = asyncio.create_task(parsing(LARGE, later(), held.parse, "a"))
        await held.has_begun()
        with pytest.raises(DeadlineExceeded, match="before the body was parsed"):
            await parsing(LARGE, later(0.05), held.parse, "b")
        held.may_end.set()
        return await first

    assert asyncio.run(go()) == "a"
    assert held.begun == ["a"]
