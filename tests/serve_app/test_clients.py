"""Real client libraries against the gateway, with a key and without one.

The gateway is served by uvicorn without Ray: what the clients see is the same (test_service).
"""

import httpx
import pytest

from serve_app.http.api_keys import ApiKeys

QUERY = "capital of China"
DOCS = ["bananas are yellow", "the capital of China is Beijing", "capital letters"]
ORDER = [1, 2, 0]
KEY = "sesame-123"

# What the libraries themselves do when they are imported is not ours to fix.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(params=["open", "locked"])
def url(request, gateway_of, serve_over_http):
    keys = ApiKeys(environment=f"tests: {KEY}") if request.param == "locked" else ApiKeys()
    with serve_over_http(gateway_of(api_keys=keys, unknown_models="refuse").gateway) as base:
        yield base


@pytest.fixture
def locked_url(gateway_of, serve_over_http):
    with serve_over_http(gateway_of(api_keys=ApiKeys(environment=f"tests: {KEY}")).gateway) as base:
        yield base


def indices(results):
    return [result["index"] for result in results]


class TestCohere:
    def test_v2(self, url):
        import cohere

        with httpx.Client() as http:
            client = cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=http)
            answer = client.rerank(model="lexical", query=QUERY, documents=DOCS, top_n=10)
        assert [result.index for result in answer.results] == ORDER
        assert answer.meta.billed_units.search_units == 1

    def test_v1_with_objects_and_documents_back(self, url):
        import cohere

        documents = [{"text": text, "id": str(i)} for i, text in enumerate(DOCS)]
        with httpx.Client() as http:
            client = cohere.Client(api_key=KEY, base_url=url, httpx_client=http)
            answer = client.rerank(
                query=QUERY, documents=documents, top_n=2, return_documents=True, rank_fields=None
            )
        assert [result.document.text for result in answer.results] == [DOCS[1], DOCS[2]]

    def test_the_key_and_the_models_can_be_looked_at(self, url):
        import cohere
        from cohere.base_client import BaseCohere

        with httpx.Client() as http:
            client = cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=http)
            # Version 5 hides what its own base has.
            assert BaseCohere.check_api_key(client).valid
            listed = client.models.list(endpoint="rerank").models
            assert [(model.name, model.endpoints) for model in listed] == [("lexical", ["rerank"])]
            assert client.models.get("lexical") == listed[0]

    def test_a_wrong_key_is_their_unauthorized_error(self, locked_url):
        import cohere
        from cohere.base_client import BaseCohere

        with httpx.Client() as http:
            client = cohere.ClientV2(api_key="wrong", base_url=locked_url, httpx_client=http)
            with pytest.raises(cohere.UnauthorizedError):
                client.rerank(model="lexical", query=QUERY, documents=DOCS)
            with pytest.raises(cohere.UnauthorizedError):
                BaseCohere.check_api_key(client)

    def test_an_unknown_model_is_their_not_found_error(self, url):
        import cohere

        with httpx.Client() as http:
            client = cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=http)
            with pytest.raises(cohere.NotFoundError):
                client.rerank(model="elsewhere", query=QUERY, documents=DOCS)


@pytest.mark.seconds
class TestOpenAI:
    def test_post_and_models(self, url):
        openai = pytest.importorskip("openai")

        with openai.OpenAI(api_key=KEY, base_url=f"{url}/v1") as client:
            body = {"model": "lexical", "query": QUERY, "documents": DOCS}
            answer = client.post("/rerank", body=body, cast_to=httpx.Response).json()
            assert [model.id for model in client.models.list()] == ["lexical"]
        assert indices(answer["results"]) == ORDER

    def test_their_errors(self, locked_url):
        openai = pytest.importorskip("openai")

        body = {"query": QUERY, "documents": []}
        base = f"{locked_url}/v1"
        wrong = openai.OpenAI(api_key="wrong", base_url=base)
        with wrong as client, pytest.raises(openai.AuthenticationError):
            client.post("/rerank", body=body, cast_to=httpx.Response)
        right = openai.OpenAI(api_key=KEY, base_url=base)
        with right as client, pytest.raises(openai.UnprocessableEntityError, match="not be empty"):
            client.post("/rerank", body=body, cast_to=httpx.Response)


@pytest.mark.seconds
class TestHaystack:
    def documents(self):
        from haystack import Document

        return [Document(content=text) for text in DOCS]

    def ranked(self, ranker):
        ranker.warm_up() if hasattr(ranker, "warm_up") else None
        answer = ranker.run(query=QUERY, documents=self.documents())
        return [DOCS.index(document.content) for document in answer["documents"]]

    def test_cohere(self, url):
        module = pytest.importorskip("haystack_integrations.components.rankers.cohere")
        from haystack.utils import Secret

        ranker = module.CohereRanker(
            model="lexical", api_key=Secret.from_token(KEY), api_base_url=url
        )
        assert self.ranked(ranker) == ORDER

    def test_jina(self, url):
        module = pytest.importorskip("haystack_integrations.components.rankers.jina")
        from haystack.utils import Secret

        ranker = module.JinaRanker(
            model="lexical", api_key=Secret.from_token(KEY), base_url=f"{url}/v1/rerank"
        )
        assert self.ranked(ranker) == ORDER


@pytest.mark.seconds
class TestLlamaIndex:
    def ranked(self, ranker):
        from llama_index.core.schema import NodeWithScore, TextNode

        nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCS]
        ranked = ranker.postprocess_nodes(nodes, query_str=QUERY)
        return [DOCS.index(node.node.text) for node in ranked]

    def test_jina(self, url):
        module = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")

        ranker = module.JinaRerank(model="lexical", api_key=KEY, base_url=f"{url}/v1", top_n=3)
        assert self.ranked(ranker) == ORDER

    def test_tei(self, url):
        module = pytest.importorskip("llama_index.postprocessor.tei_rerank")

        ranker = module.TextEmbeddingInference(base_url=url, top_n=3, auth_token=f"Bearer {KEY}")
        assert self.ranked(ranker) == ORDER


@pytest.mark.seconds
def test_langchain_jina(url, monkeypatch):
    module = pytest.importorskip("langchain_community.document_compressors.jina_rerank")

    # Its address is a constant; it has no parameter for another one.
    monkeypatch.setattr(module, "JINA_API_URL", f"{url}/v1/rerank")
    ranker = module.JinaRerank(model="lexical", jina_api_key=KEY, top_n=None)
    assert indices(ranker.rerank(DOCS, QUERY)) == ORDER
