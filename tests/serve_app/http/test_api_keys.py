import base64
import os
import re
from pathlib import Path

import pytest

from serve_app.dialects import ROUTES
from serve_app.http.api_keys import ApiKeys, parse_keys
from serve_app.http.errors import RefusedRequest
from serve_app.http.routes import OPEN_PATHS


def check(keys, header):
    return keys.check("/rerank", {b"authorization": header} if header else {})


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# made for tests\nalice: secret-a\nbob: secret:b\n", encoding="utf-8")
    return file


def test_keys_have_names_and_may_hold_colons(key_file):
    keys = ApiKeys(key_file, "carol: secret-c")
    assert check(keys, b"Bearer secret-a") == "alice"
    assert check(keys, b"bearer secret:b") == "bob"
    assert check(keys, b"Bearer secret-c") == "carol"


@pytest.mark.parametrize(
    "header",
    [
        *(None, b"", b"Bearer", b"Bearer ", b"Bearer None", b"Basic secret-a", b"secret-a"),
        *(b"Bearer secret-A", b"Bearer secret-a x", b"Bearer \xff\xfe", b"Bearer " + b"x" * 9000),
    ],
)
def test_everything_else_is_a_401(key_file, header):
    with pytest.raises(RefusedRequest) as refused:
        check(ApiKeys(key_file), header)
    assert refused.value.reply.status == 401


def basic(password):
    return {b"authorization": b"Basic " + base64.b64encode(b"anyone:" + password)}


def test_a_browser_opens_the_playground_with_the_key_as_password(key_file):
    keys = ApiKeys(key_file)
    with pytest.raises(RefusedRequest) as refused:
        keys.check("/", {})
    assert refused.value.reply.headers["www-authenticate"].startswith("Basic ")
    assert keys.check("/", basic(b"secret:b")) == "bob"
    for path, headers in (
        ("/", basic(b"wrong")),
        ("/", {b"authorization": b"Basic %%%"}),
        ("/rerank", basic(b"secret-a")),
        ("/info", basic(b"secret-a")),
    ):
        with pytest.raises(RefusedRequest):
            keys.check(path, headers)


def test_without_keys_any_header_comes_in():
    assert check(ApiKeys(), b"Bearer fake-api-key") == ""
    assert check(ApiKeys(), None) == ""


def test_a_given_file_without_keys_lets_nobody_in(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# none yet\n", encoding="utf-8")
    with pytest.raises(RefusedRequest):
        check(ApiKeys(file), b"Bearer anything")


@pytest.mark.parametrize("environment", ["", " \n", ",", "# none yet"])
def test_an_environment_that_holds_no_key_stops_the_start(environment):
    with pytest.raises(ValueError, match="unset it, or give keys"):
        ApiKeys(None, environment)


def test_a_changed_file_counts_without_a_restart_and_a_broken_one_does_not(key_file, monkeypatch):
    monkeypatch.setattr("serve_app.http.api_keys._LOOK_AGAIN_S", 0.0)
    keys = ApiKeys(key_file)
    key_file.write_text("alice: rotated\n", encoding="utf-8")
    assert check(keys, b"Bearer rotated") == "alice"
    with pytest.raises(RefusedRequest):
        check(keys, b"Bearer secret-a")
    key_file.write_text("no colon here\n", encoding="utf-8")
    assert check(keys, b"Bearer rotated") == "alice"
    os.remove(key_file)
    assert check(keys, b"Bearer rotated") == "alice"


def test_a_missing_file_or_a_bad_line_stops_the_start(tmp_path):
    with pytest.raises(OSError, match="absent"):
        ApiKeys(tmp_path / "absent")
    with pytest.raises(ValueError, match="line 2"):
        parse_keys("a: b\nnonsense\n")


@pytest.mark.parametrize(
    "path",
    [
        *ROUTES,
        *("/", "/info", "/v1/models", "/openapi.json", "/nowhere", "/docs", "/v1/rerank/"),
        *("/V1/RERANK", "//rerank", "/v1/metadata", "/v1/models/lexical", "/health/ready/../info"),
    ],
)
def test_every_path_is_closed_by_default(gateway_of, key_file, path):
    caller = gateway_of(api_keys=ApiKeys(key_file))
    for method in ("GET", "POST"):
        answer = caller.send(method, path, headers={"host": "localhost/health/live"})
        assert answer.status_code == 401
        # httpx takes //rerank for a host and asks it for its page.
        asked = "Basic" if path in ("/", "/docs", "//rerank") else "Bearer"
        assert answer.headers["www-authenticate"].split()[0] == asked


def test_what_probes_and_scrapes_ask_for_is_open(gateway_of, key_file):
    caller = gateway_of(api_keys=ApiKeys(key_file))
    assert caller.send("GET", "/health/live").json() == {"status": "alive"}
    assert caller.send("GET", "/health/ready").json() == {"status": "ready"}
    assert caller.send("GET", "/v1/cluster/auth").json() == {"auth": True}
    assert gateway_of().send("GET", "/v1/cluster/auth").json() == {"auth": False}
    for path in OPEN_PATHS:
        assert caller.send("GET", f"{path}/").status_code == 200


def test_the_page_on_security_names_what_is_open_and_nothing_else():
    page = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith("| anyone may ask |"))
    assert set(re.findall(r"`(/[^`]*)`", row)) == OPEN_PATHS


def test_a_right_key_comes_in(gateway_of, key_file):
    headers = {"authorization": "Bearer secret-a"}
    caller = gateway_of(api_keys=ApiKeys(key_file))
    answer = caller.post("/rerank", {"query": "q", "texts": ["q"]}, headers=headers)
    assert answer.status_code == 200
