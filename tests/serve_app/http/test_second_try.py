"""What an application left unanswered is asked once more, if it is ours to repeat."""

import asyncio

import pytest

from serve_app.http.second_try import SecondTry

BODY = [
    {"type": "http.request", "body": b'{"query": ', "more_body": True},
    {"type": "http.request", "body": b'"q"}', "more_body": False},
]
ANSWER = [
    {"type": "http.response.start", "status": 200, "headers": []},
    {"type": "http.response.body", "body": b"{}"},
]
GONE = {"type": "http.disconnect"}


class Dying:
    """Reads a body and dies before it answers, or after the first message, so many times."""

    def __init__(self, deaths, sends=0):
        self.deaths, self.sends, self.bodies = deaths, sends, []

    async def __call__(self, scope, receive, send):
        scope["path"] = "changed"
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        if len(self.bodies) > self.deaths:
            self.sends = len(ANSWER)
        for message in ANSWER[: self.sends]:
            await send(message)


def ask(app, path="/v2/rerank", method="POST", sent=BODY):
    """Return what a caller receives."""
    received, coming = [], iter(sent)

    async def receive():
        return next(coming, GONE)

    async def send(message):
        received.append(message)

    scope = {"type": "http", "method": method, "path": path}
    asyncio.run(SecondTry(app)(scope, receive, send))
    return received


@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank", "//v1/rerank/", "/prefix/v1/reranking"])
def test_a_request_whose_gateway_died_is_asked_once_more_whole(path):
    app = Dying(1)
    assert ask(app, path) == ANSWER
    assert app.bodies == [b'{"query": "q"}'] * 2


def test_there_is_no_third_try():
    app = Dying(2)
    assert ask(app) == []
    assert len(app.bodies) == 2


@pytest.mark.parametrize(
    "asked", [("/predict", "POST"), ("/invocations", "POST"), ("/rerank", "PUT")]
)
def test_what_may_be_another_applications_is_not_repeated(asked):
    app = Dying(1)
    assert ask(app, *asked) == []
    assert len(app.bodies) == 1


def test_an_answer_that_has_begun_is_not_begun_again():
    app = Dying(1, sends=1)
    assert ask(app) == ANSWER[:1]
    assert len(app.bodies) == 1


def test_nobody_is_asked_again_for_a_caller_who_left():
    app = Dying(1)
    assert ask(app, sent=[BODY[0], GONE]) == []
    assert app.bodies == []
