"""docs/migration.md: what it names is served, and what each server's users call is on it."""

import re
from pathlib import Path

import pytest

from serve_app.config import ServeConfig

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
PATHS = sorted(set(re.findall(r"`(?:GET |POST )?(/[\w./{}-]*)`", PAGE)))
NOT_HERE = {
    *("/embed", "/embed_all", "/embed_sparse", "/similarity", "/predict", "/tokenize", "/decode"),
    *("/embeddings", "/v1/embeddings", "/classify", "/pooling", "/detokenize", "/load"),
    *("/v1/embed", "/v2/embed", "/v1/tokenize", "/v1/license", "/v1/manifest", "/token"),
    *("/props", "/slots", "/v1/retrieval/{name}/reranking", "/vertex", "/api-doc/openapi.json"),
}
ASKED = {"query": "capital", "documents": ["bananas", "the capital"]}
NAMED = {**ASKED, "model": "rerank-v3.5"}
TWO = {"text_1": "capital", "text_2": ["bananas", "the capital"]}
# What each server's own documentation and clients have their users send; None: a GET.
SENT = {
    "TEI": {
        "/rerank": {"query": "a", "texts": ["b"], "raw_scores": False, "truncate": True},
        **dict.fromkeys(("/info", "/health", "/ping", "/metrics", "/docs")),
    },
    "Infinity": {
        "/rerank": {**ASKED, "model": "default/not-specified", "raw_scores": False, "top_n": 1},
        **dict.fromkeys(("/models", "/health", "/metrics", "/docs")),
    },
    "vLLM": {
        **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank", "/invocations"), ASKED),
        **dict.fromkeys(("/score", "/v1/score"), TWO),
        **dict.fromkeys(("/v1/models", "/health", "/version", "/metrics")),
        "/ping": {},
    },
    "Cohere": {
        **dict.fromkeys(("/v2/rerank", "/v1/rerank"), NAMED),
        "/v1/check-api-key": {},
        **dict.fromkeys(("/v1/models", "/v1/models/{name}")),
    },
    "NVIDIA": {
        "/v1/ranking": {"query": {"text": "a"}, "passages": [{"text": "b"}], "truncate": "END"},
        **dict.fromkeys(("/v1/models", "/v1/metadata", "/v1/metrics")),
        **dict.fromkeys(("/v1/health/live", "/v1/health/ready")),
    },
    "Xinference": {
        "/v1/rerank": {**ASKED, "model": "lexical", "return_len": False, "kwargs": "{}"},
        **dict.fromkeys(("/v1/cluster/auth", "/v1/models", "/v1/models/{name}", "/status")),
    },
    "llama.cpp": {
        **dict.fromkeys(("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"), ASKED),
        **dict.fromkeys(("/health", "/v1/health", "/v1/models", "/models")),
    },
    "Mixedbread": {
        "/v1/reranking": {"query": "a", "input": ["b"], "top_k": 1, "return_input": True},
    },
    "SageMaker": {"/invocations": TWO, "/ping": None},
    "Jina": {
        "/v1/rerank": {**ASKED, "model": "jina-reranker-v3", "top_n": 1, "return_documents": False},
    },
    "Voyage": {
        "/v1/rerank": {**ASKED, "model": "rerank-2.5", "top_k": 1, "truncation": True},
    },
}


@pytest.fixture
def caller(gateway_of):
    return gateway_of(model_names=["rerank-v3.5"])


def get(caller, path):
    return caller.send("GET", path.format(name="lexical"))


@pytest.mark.parametrize("path", PATHS)
def test_every_path_on_the_page_is_served_or_said_not_to_be(caller, path):
    answer = get(caller, path)
    assert answer.status_code == (404 if path in NOT_HERE else 405 if is_posted(path) else 200)


def test_the_page_is_no_probe(gateway_of, pools):
    broken = gateway_of(pools.failing(RuntimeError("no")))
    answered = [broken.send("GET", path).status_code for path in ("/", "/health")]
    assert (answered[0], answered[1] >= 500) == (200, True)


def is_posted(path):
    bodies = [sent[path] for sent in SENT.values() if path in sent]
    return bool(bodies) and None not in bodies


def test_what_is_not_here_is_said_on_the_page():
    assert set(PATHS) >= NOT_HERE


@pytest.mark.parametrize("server", SENT)
def test_what_users_of_a_server_send_is_answered_and_on_the_page(caller, server):
    (section,) = (text for title, text in SECTIONS.items() if server in title)
    everyone = SECTIONS["What changes for everyone"]
    for path, body in SENT[server].items():
        answer = get(caller, path) if body is None else caller.post(path, body)
        assert answer.status_code == 200, path
        assert f"{path}`" in section or f"`{path}`" in everyone, path


def test_every_setting_on_the_page_exists():
    blocks = {name: field.annotation for name, field in ServeConfig.model_fields.items()}
    named = re.findall(r"`(scorer|limits|admission|batching|scaling)\.(\w+)", PAGE)
    assert len(named) >= 3
    for block, field in named:
        assert field in blocks[block].model_fields
    for name in ("api_keys_file", "model_names", "unknown_models"):
        assert f"`{name}" in PAGE
        assert name in blocks


def test_every_command_on_the_page_is_taken():
    commands = re.findall(r"^serve run serve_app:app (.+?)(?: *#.*)?$", PAGE, flags=re.MULTILINE)
    assert len(commands) >= 2
    for words in commands:
        ServeConfig.model_validate(dict(word.split("=") for word in words.split()))


@pytest.mark.seconds
def test_the_python_on_the_page_runs(capsys):
    (code,) = re.findall(r"```python\n(from rerank_core .+?)```", PAGE, flags=re.DOTALL)
    exec(code.replace("BAAI/bge-reranker-v2-m3", "embedded"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1
