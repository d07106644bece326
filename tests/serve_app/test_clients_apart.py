"""litellm's, Infinity's and Xinference's clients against the gateway, run in `.venv-clients`.

One process of theirs answers all calls, because importing litellm takes seconds.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from serve_app.http.api_keys import ApiKeys

pytestmark = pytest.mark.seconds

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("RERANK_CLIENTS_VENV", ROOT / ".venv-clients")) / "bin" / "python"
QUERY = "capital of China"
DOCS = ["bananas are yellow", "the capital of China is Beijing", "capital letters"]
ORDER = [1, 2, 0]
KEY = "sesame-123"


@pytest.fixture(scope="module")
def apart():
    """Return a function that has one call made in the other environment."""
    if not PYTHON.exists():
        pytest.skip("no .venv-clients here; make clients")
    script = Path(__file__).with_name("clients_apart.py")
    with subprocess.Popen(
        [PYTHON, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def call(name, **arguments):
            process.stdin.write(json.dumps([name, arguments]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield call
        process.stdin.close()


@pytest.fixture(params=["open", "locked"])
def url(request, gateway_of, serve_over_http):
    keys = ApiKeys(environment=f"tests: {KEY}") if request.param == "locked" else ApiKeys()
    with serve_over_http(gateway_of(api_keys=keys).gateway) as base:
        yield base


@pytest.fixture
def locked_url(gateway_of, serve_over_http):
    with serve_over_http(gateway_of(api_keys=ApiKeys(environment=f"tests: {KEY}")).gateway) as base:
        yield base


def test_infinity_ranks(apart, url):
    body = {"query": QUERY, "documents": DOCS, "return_documents": True}
    gave = apart("infinity", base_url=url, token=KEY, **body)["gave"]
    assert gave["indices"] == ORDER
    assert gave["tokens"] > 0


def test_infinity_reads_a_refusal(apart, url):
    answer = apart("infinity", base_url=url, token=KEY, query=" ", documents=DOCS)
    assert answer == {"gave": {"refused": "query must not be blank"}}


def test_xinference_lists_the_models_and_ranks(apart, url):
    asked = {"query": QUERY, "documents": DOCS, "top_n": 2, "return_documents": True}
    gave = apart("xinference", base_url=url, api_key=KEY, **asked)["gave"]
    assert gave["models"] == ["lexical"]
    assert [result["index"] for result in gave["results"]] == ORDER[:2]
    assert [result["document"]["text"] for result in gave["results"]] == [DOCS[1], DOCS[2]]


def test_xinference_gets_the_model_by_the_name_that_it_had_elsewhere(apart, url):
    asked = {"uid": "bge-reranker-v2-m3", "query": QUERY, "documents": DOCS}
    gave = apart("xinference", base_url=url, api_key=KEY, **asked)["gave"]
    assert [result["index"] for result in gave["results"]] == ORDER


def test_xinference_reads_a_refusal(apart, url):
    answer = apart("xinference", base_url=url, api_key=KEY, query=" ", documents=DOCS)
    assert answer["raised"] == "RuntimeError"
    assert "'msg': 'query must not be blank'" in answer["message"]


def test_a_wrong_key_is_xinferences_error(apart, locked_url):
    answer = apart("xinference", base_url=locked_url, api_key="wrong", query=QUERY, documents=DOCS)
    assert answer["raised"] == "RuntimeError"
    assert "Incorrect API key provided" in answer["message"]


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("cohere", {}),
        ("jina_ai", {}),
        ("hosted_vllm", {}),
        ("infinity", {"return_documents": False}),
        ("huggingface", {"return_documents": False}),
        # Without top_n its body is Jina's to the letter.
        ("voyage", {"top_n": 3}),
        ("nvidia_nim/ranking", {}),
    ],
)
def test_each_provider_of_litellm_ranks(apart, url, provider, options):
    asked = {"model": f"{provider}/lexical", "query": QUERY, "documents": DOCS}
    assert apart("litellm", **asked, **options, api_base=url, api_key=KEY) == {"gave": ORDER}


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "hosted_vllm", "huggingface"])
def test_a_wrong_key_is_litellms_authentication_error(apart, locked_url, provider):
    asked = {"model": f"{provider}/lexical", "query": QUERY, "documents": DOCS}
    answer = apart("litellm", **asked, api_base=locked_url, api_key="wrong")
    assert answer["raised"] == "AuthenticationError"
