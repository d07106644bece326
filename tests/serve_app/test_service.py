"""The same routes through a real local Ray Serve."""

import os
import signal
import threading

import cohere
import httpx
import pytest
import ray
from ray import serve

pytestmark = pytest.mark.slow

BODY = {"query": "capital of China", "documents": ["bananas", "the capital of China is Beijing"]}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_each_path_ranks_over_http(service, path):
    answer = httpx.post(f"{service}{path}", json=BODY)
    assert [result["index"] for result in answer.json()["results"]] == [1, 0]
    assert float(answer.headers["x-compute-tokens"]) > 0


def test_tei_body_and_info_over_http(service):
    body = {"query": BODY["query"], "texts": BODY["documents"]}
    assert [hit["index"] for hit in httpx.post(f"{service}/rerank", json=body).json()] == [1, 0]
    assert httpx.get(f"{service}/info").json()["model_id"] == "lexical"


def test_errors_are_ours_and_not_serves(service):
    answer = httpx.post(f"{service}/v1/rerank", content=b"{")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "bad_json")
    assert httpx.get(f"{service}/v1/rerank").status_code == 405
    assert httpx.get(f"{service}/elsewhere").json()["error"]["code"] == 404


@pytest.mark.parametrize("client", [cohere.ClientV2, cohere.Client])
def test_the_official_cohere_clients_rank(service, client):
    with httpx.Client() as http:
        sdk = client(api_key="any", base_url=service, httpx_client=http)
        answer = sdk.rerank(model="lexical", **BODY, top_n=5)
    assert [result.index for result in answer.results] == [1, 0]


def test_a_request_with_many_documents_comes_back_whole_and_in_order(service):
    documents = [f"word{i} capital" if i % 3 else f"word{i}" for i in range(900)]
    body = {"query": "capital", "documents": documents, "return_documents": True}
    results = httpx.post(f"{service}/v2/rerank", json=body, timeout=30).json()["results"]
    assert sorted(result["index"] for result in results) == list(range(900))
    assert all(documents[r["index"]] == r["document"]["text"] for r in results)
    assert all(r["index"] % 3 for r in results[:600])


def test_no_request_fails_when_a_replica_is_killed(service):
    statuses = []

    def ask():
        with httpx.Client(base_url=service, timeout=30) as client:
            statuses.extend(client.post("/v2/rerank", json=BODY).status_code for _ in range(60))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    handle = serve.get_deployment_handle("Scorer", "rerank")
    os.kill(handle.pid.remote().result(), signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert statuses == [200] * 240
    assert ray.is_initialized()
