"""Whole answers of each dialect, against a pool whose scores are known."""

import json
import math
import time

import pytest

from rerank_core import QueryDocumentPair, ScorerConfig
from rerank_core.calibration import Calibration
from serve_app.config import Limits, ServeConfig
from serve_app.dialects import choose
from serve_app.dialects.decoding import slice_fields

DOCS = ["-1 first", "2 second", "0 third"]


def sigmoid(x):
    return pytest.approx(1 / (1 + math.exp(-x)), abs=1e-6)


def without_ids(body):
    return {name: value for name, value in body.items() if name not in ("id", "created")}


META = {
    "api_version": {"version": "2", "is_experimental": False},
    "billed_units": {"search_units": 1},
    "tokens": {"input_tokens": 30, "output_tokens": 0},
    "truncated": [],
}
USAGE = {"prompt_tokens": 30, "total_tokens": 30}


def test_cohere_v2_sorts_and_does_not_echo_documents(fixed):
    answer = fixed.post("/v2/rerank", {"model": "lexical", "query": "q", "documents": DOCS})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["id"].startswith("rerank-")
    assert without_ids(answer.json()) == {
        "model": "lexical",
        "results": [
            {"index": 1, "relevance_score": sigmoid(2)},
            {"index": 2, "relevance_score": sigmoid(0)},
            {"index": 0, "relevance_score": sigmoid(-1)},
        ],
        "meta": META,
        "usage": USAGE,
    }


def test_v1_hands_documents_back_as_objects_with_their_own_fields(fixed):
    documents = ["1 a", {"text": "3 b", "id": "B", "page": 4}]
    answer = fixed.post("/v1/rerank", {"query": "q", "documents": documents, "top_n": 9})
    assert without_ids(answer.json()) == {
        "model": "lexical",
        "results": [
            {
                "index": 1,
                "relevance_score": sigmoid(3),
                "document": {"text": "3 b", "id": "B", "page": 4},
            },
            {"index": 0, "relevance_score": sigmoid(1), "document": {"text": "1 a"}},
        ],
        "meta": {
            **META,
            "api_version": {"version": "1", "is_experimental": False},
            "tokens": {"input_tokens": 20, "output_tokens": 0},
        },
        "usage": {"prompt_tokens": 20, "total_tokens": 20},
    }


def test_return_documents_false_wins_on_every_path(fixed):
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        body = {"query": "q", "documents": DOCS, "return_documents": False}
        results = fixed.post(path, body).json()["results"]
        assert all(set(result) == {"index", "relevance_score"} for result in results)


def test_rerank_with_documents_answers_as_vllm_without_object(fixed):
    answer = fixed.post("/rerank", {"query": "q", "documents": DOCS, "top_n": 1})
    assert without_ids(answer.json()) == {
        "model": "lexical",
        "usage": USAGE,
        "results": [
            {"index": 1, "relevance_score": sigmoid(2), "document": {"text": "2 second"}},
        ],
        "meta": {"truncated": []},
    }


def test_rerank_with_texts_answers_as_tei_with_a_bare_list(fixed):
    body = {"query": "q", "texts": DOCS, "raw_scores": True, "return_text": True, "top_n": 1}
    assert fixed.post("/rerank", {**body, "truncation_direction": "Right"}).json() == [
        {"index": 1, "score": 2.0, "text": "2 second"},
        {"index": 2, "score": 0.0, "text": "0 third"},
        {"index": 0, "score": -1.0, "text": "-1 first"},
    ]


def test_nulls_and_unknown_fields_are_taken_everywhere(fixed):
    nothing = ("top_n", "model", "rank_fields", "return_documents", "max_tokens_per_doc")
    extras = {**dict.fromkeys(nothing), "priority": 1, "kwargs": "{}", "relevant_spans": {}}
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        answer = fixed.post(path, {"query": "q", "documents": DOCS, **extras})
        assert [result["index"] for result in answer.json()["results"]] == [1, 2, 0]
    body = {"query": "q", "texts": DOCS, "truncate": None, "return_text": None, "model": "x"}
    assert [hit["index"] for hit in fixed.post("/rerank", body).json()] == [1, 2, 0]


def test_strings_for_booleans_and_numbers_are_taken_as_real_clients_send_them(fixed):
    body = {"query": "q", "documents": DOCS, "return_documents": "true", "top_n": "2"}
    answer = fixed.post("/v2/rerank", body)
    assert [hit["document"]["text"] for hit in answer.json()["results"]] == [DOCS[1], DOCS[2]]


def test_ties_keep_the_input_order(fixed):
    answer = fixed.post("/v2/rerank", {"query": "q", "documents": ["1 a", "1 b", "1 c"]})
    assert [result["index"] for result in answer.json()["results"]] == [0, 1, 2]


def test_rank_fields_choose_what_is_read(fixed):
    documents = [{"a": "1 x", "b": "9"}, {"a": "2 y"}]
    body = {"query": "q", "documents": documents, "rank_fields": ["a"], "raw_scores": True}
    answer = fixed.post("/v1/rerank", body)
    assert answer.json()["results"] == [
        {"index": 1, "relevance_score": 2.0, "document": {"text": "2 y", "a": "2 y"}},
        {"index": 0, "relevance_score": 1.0, "document": {"text": "1 x", "a": "1 x", "b": "9"}},
    ]


def test_threshold_applies_to_the_scores_that_are_shown(fixed):
    body = {"query": "q", "documents": DOCS, "score_threshold": 0.5}
    assert [r["index"] for r in fixed.post("/v2/rerank", body).json()["results"]] == [1, 2]
    body = {**body, "use_activation": False}
    assert [r["index"] for r in fixed.post("/v2/rerank", body).json()["results"]] == [1]


def test_truncated_documents_are_named_in_meta(fixed):
    body = {"query": "q", "documents": ["1", "2 long", "3 long"]}
    assert fixed.post("/v2/rerank", body).json()["meta"]["truncated"] == [1, 2]


def test_tei_refuses_truncation_when_told_to(fixed):
    answer = fixed.post("/rerank", {"query": "q", "texts": ["1", "2 long"], "truncate": False})
    assert (answer.status_code, answer.json()) == (
        422,
        {
            "error": "document 1 is longer than the model reads; shorten it or allow truncation",
            "error_type": "Validation",
        },
    )


def test_an_empty_list_is_refused_in_each_dialects_own_way(fixed):
    message = "the list of documents must not be empty"
    answer = fixed.post(
        "/v1/rerank", {"query": "q", "documents": []}, headers={"x-request-id": "r1"}
    )
    assert (answer.status_code, answer.json()) == (
        422,
        {
            "message": message,
            "detail": [
                {"loc": ["body", "documents"], "msg": message, "type": "invalid_request_error"}
            ],
            "error": {
                "message": message,
                "type": "invalid_request_error",
                "param": "documents",
                "code": 422,
            },
            "request_id": "r1",
        },
    )
    answer = fixed.post("/rerank", {"query": "q", "texts": []})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "the list of texts must not be empty", "error_type": "Empty"},
    )


def test_info_has_what_tei_clients_insist_on_and_the_fingerprint(fixed):
    body = fixed.send("GET", "/info").json()
    assert set(body) >= {
        *("version", "sha", "docker_label", "model_id", "model_dtype", "max_concurrent_requests"),
        *("max_input_length", "max_batch_tokens", "max_batch_requests", "max_client_batch_size"),
        *("tokenization_workers", "fingerprint"),
    }
    assert set(body["model_type"]["reranker"]) == {"id2label", "label2id"}


def test_infinity_gets_usage_model_no_object_and_raw_scores_when_asked(fixed):
    body = {"query": "q", "documents": DOCS, "return_documents": False, "raw_scores": True}
    answer = fixed.post("/rerank", {**body, "top_n": None})
    assert without_ids(answer.json()) == {
        "model": "lexical",
        "usage": USAGE,
        "results": [
            {"index": 1, "relevance_score": 2.0},
            {"index": 2, "relevance_score": 0.0},
            {"index": 0, "relevance_score": -1.0},
        ],
        "meta": {"truncated": []},
    }


@pytest.mark.parametrize("path", ["/score", "/v1/score", "/invocations"])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("queries", "documents"),
        ("queries", "items"),
        ("text_1", "text_2"),
        ("data_1", "data_2"),
    ],
)
def test_scores_come_in_input_order_in_all_four_spellings(fixed, path, left, right):
    answer = fixed.post(path, {left: "q", right: DOCS, "use_activation": False})
    assert answer.json()["id"].startswith("score-")
    assert without_ids(answer.json()) == {
        "object": "list",
        "model": "lexical",
        "data": [
            {"index": 0, "object": "score", "score": -1.0},
            {"index": 1, "object": "score", "score": 2.0},
            {"index": 2, "object": "score", "score": 0.0},
        ],
        "usage": USAGE,
    }


def test_two_lists_are_scored_pair_by_pair_and_unequal_ones_refused(gateway_of):
    caller = gateway_of()
    body = {"queries": ["apple", "pear"], "documents": ["apple", "apple"], "raw_scores": True}
    first, second = (entry["score"] for entry in caller.post("/score", body).json()["data"])
    assert first > 0 > second
    answer = caller.post("/score", {"queries": ["a", "b"], "documents": ["a", "b", "c"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "queries")
    assert caller.post("/score", {"text_1": "apple", "text_2": "apple"}).status_code == 200


def test_a_query_makes_a_body_of_invocations_a_rerank_request(fixed):
    answer = fixed.post("/invocations", {"query": "q", "queries": "q", "documents": DOCS}).json()
    assert [hit["index"] for hit in answer["results"]] == [1, 2, 0]


def test_voyage_is_told_by_its_fields_and_gets_its_own_shape(fixed):
    body = {"query": "q", "documents": DOCS, "top_k": 2, "return_documents": True}
    assert fixed.post("/v1/rerank", {**body, "truncation": True}).json() == {
        "object": "list",
        "data": [
            {"index": 1, "relevance_score": sigmoid(2), "document": "2 second"},
            {"index": 2, "relevance_score": sigmoid(0), "document": "0 third"},
        ],
        "model": "lexical",
        "usage": {"total_tokens": 30},
    }


def test_nvidia_gets_rankings_of_logits(fixed):
    body = {"query": {"text": "q"}, "passages": [{"text": text} for text in DOCS]}
    assert fixed.post("/v1/ranking", {**body, "truncate": "END"}).json() == {
        "rankings": [
            {"index": 1, "logit": 2.0},
            {"index": 2, "logit": 0.0},
            {"index": 0, "logit": -1.0},
        ],
        "usage": USAGE,
    }


def test_a_query_may_be_an_object_and_an_instruction_goes_with_the_pair(gateway_of, pool):
    caller = gateway_of(pool)
    body = {"query": {"text": "q"}, "documents": [{"text": "d"}], "instruction": "Judge."}
    assert caller.post("/v1/rerank", body).status_code == 200
    body = {"queries": "q", "documents": ["d"], "instruction": "Judge."}
    assert caller.post("/score", body).status_code == 200
    asked = QueryDocumentPair("q", "d", instruction="Judge.")
    assert [pair for unit in pool.units for pair in unit.pairs] == [asked, asked]


def test_a_document_without_text_is_read_field_by_field(gateway_of, pool):
    caller = gateway_of(pool)
    body = {"query": "q", "documents": [{"title": "T", "year": 2001, "tags": ["x"]}]}
    assert caller.post("/v1/rerank", body).status_code == 200
    assert pool.units[0].pairs[0].document == "title: T\nyear: 2001"


def test_token_limits_travel_with_the_units_and_zero_means_none(gateway_of, pool):
    caller = gateway_of(pool)
    body = {"query": "q", "documents": ["d"], "max_tokens_per_doc": 7, "max_tokens_per_query": 0}
    assert caller.post("/v2/rerank", body).status_code == 200
    pair = pool.units[0].pairs[0]
    assert (pair.max_document_tokens, pair.max_query_tokens) == (7, None)


def test_a_callers_token_limit_is_kept_to_and_reported(gateway_of):
    body = {"query": "q", "documents": ["a b q", "q a b"], "max_tokens_per_doc": 2}
    answer = gateway_of().post("/v2/rerank", body).json()
    assert [hit["index"] for hit in answer["results"]] == [1, 0]
    assert answer["meta"]["truncated"] == [0, 1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/rerank", {"query": "q", "documents": 0}),
        ("/v1/rerank", {"query": "q", "documents": 0, "top_k": 2}),
        ("/rerank", {"query": "q", "texts": 0}),
        ("/score", {"queries": "q", "documents": 0}),
        ("/v1/ranking", {"query": {"text": "q"}, "passages": 0}),
    ],
)
def test_passages_and_calibrated_scores_reach_every_dialect(gateway_of, pools, path, body):
    calibration = Calibration(2.0, 0.0, "any", 10)
    scorer = {"model": "lexical", "max_length": 40, "long_documents": "split"}
    pool = pools.local(ScorerConfig(**scorer), calibration)
    texts = ["x " * 60 + "q", "q"]
    many = [{"text": text} for text in texts] if "passages" in body else texts
    answer = gateway_of(pool, **scorer).post(path, {k: v or many for k, v in body.items()}).json()
    hits = (
        answer
        if isinstance(answer, list)
        else next(answer[name] for name in ("results", "data", "rankings") if name in answer)
    )
    by_index = {hit["index"]: hit for hit in hits}
    start, end = by_index[0]["passage"]
    assert "q" in texts[0][start:end]
    assert "passage" not in by_index[1]
    assert 0.5 < by_index[1]["calibrated_score"] < 1


def test_a_cascade_sees_all_candidates_of_a_request_together(gateway_of, pool):
    settings = {"model": "lexical", "first_stage": {"model": "lexical", "keep": 2}}
    body = {"query": "q", "documents": ["q word " * 20] * 30}
    assert gateway_of(pool, unit_tokens=10, **settings).post("/v2/rerank", body).status_code == 200
    assert [len(unit.pairs) for unit in pool.units] == [30]


def test_a_lone_model_answers_to_any_name_and_says_its_own(fixed):
    body = {"model": "rerank-v3.5", "query": "q", "documents": DOCS}
    assert fixed.post("/v2/rerank", body).json()["model"] == "lexical"


def test_a_model_nobody_serves_is_a_404_where_the_config_says_so(gateway_of):
    body = {"model": "rerank-v3.5", "query": "q", "documents": ["q"]}
    answer = gateway_of(unknown_models="refuse").post("/v2/rerank", body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert "model_names, or set unknown_models: default" in answer.json()["message"]
    named = {"unknown_models": "refuse", "model_names": ["rerank-v3.5"]}
    assert gateway_of(**named).post("/v2/rerank", body).status_code == 200
    assert gateway_of(unknown_models="default").post("/v2/rerank", body).status_code == 200


def test_of_several_models_the_name_must_be_right(pools):
    settings = {"model": "lexical", "models": {"other": {"model": "lexical"}}}
    assert ServeConfig.model_validate(settings).model_for("third") is None
    settings["unknown_models"] = "default"
    assert ServeConfig.model_validate(settings).model_for("third") == "lexical"


def test_openapi_names_every_route_and_its_examples_work(fixed):
    from serve_app.dialects import ROUTES

    document = fixed.send("GET", "/openapi.json").json()
    assert set(ROUTES) <= set(document["paths"])
    for path in ROUTES:
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for option in content["schema"]["anyOf"]:
            assert option["$ref"].rsplit("/", 1)[1] in document["components"]["schemas"]
        for example in content["examples"].values():
            # Known scores need numbers for documents; that the body is understood is the point.
            body = {**example["value"], "model": None}
            assert fixed.post(path, {**body, **numbered(body)}).status_code == 200


def test_openapi_shows_each_dialects_own_answers(fixed):
    tei = fixed.send("GET", "/openapi.json").json()["paths"]["/rerank"]["post"]["responses"]

    def example(status):
        return tei[status]["content"]["application/json"]["examples"]["tei"]["value"]

    assert [hit["index"] for hit in example("200")] == [1, 0]
    assert example("429") == {
        "error": "too much work is under way; Retry-After says when",
        "error_type": "Overloaded",
    }
    assert {"405", "431", "500"} <= set(tei)


def numbered(body):
    name = next(n for n in ("documents", "texts", "passages", "input") if n in body)
    return {name: [{"text": "1"} if isinstance(v, dict) else "1" for v in body[name]]}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
@pytest.mark.parametrize(
    ("top_n", "kept"), [(0, 3), (None, 3), ("0", 3), (9, 3), (2, 2), ("2", 2), (2.0, 2)]
)
def test_top_n_means_the_same_on_every_path(fixed, path, top_n, kept):
    answer = fixed.post(path, {"query": "q", "documents": DOCS, "top_n": top_n})
    assert len(answer.json()["results"]) == kept


PARTS = [{"type": "text", "text": "q"}, {"type": "text", "text": "r"}]


@pytest.mark.parametrize(
    ("query", "read"),
    [
        (["q"], "q"),
        ([{"text": "q"}], "q"),
        (PARTS, "q\nr"),
        ({"content": PARTS}, "q\nr"),
        ({"content": "q"}, "q"),
    ],
)
def test_a_query_comes_in_many_shapes(gateway_of, pool, query, read):
    caller = gateway_of(pool)
    assert caller.post("/v2/rerank", {"query": query, "documents": ["d"]}).status_code == 200
    assert caller.post("/rerank", {"query": query, "texts": ["d"]}).status_code == 200
    assert [unit.pairs[0].query for unit in pool.units] == [read, read]


def test_documents_may_have_typed_content_parts(gateway_of, pool):
    caller = gateway_of(pool)
    document = {"content": PARTS}
    body = {"query": "q", "documents": [document], "return_documents": True}
    answer = caller.post("/v2/rerank", body).json()
    assert answer["results"][0]["document"] == {"text": "q\nr", **document}
    assert caller.post("/score", {"text_1": "q", "text_2": document}).status_code == 200
    assert [unit.pairs[0].document for unit in pool.units] == ["q\nr", "q\nr"]


def test_nested_fields_come_back_as_they_went_in(fixed):
    document = {"text": "1", "tags": ["x", {"deep": [1.5, None]}], "n": 12.0, "ok": True}
    body = {"query": "q", "documents": [document], "return_documents": True}
    assert fixed.post("/v2/rerank", body).json()["results"][0]["document"] == document


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v2/rerank", {"query": 7, "documents": ["a"]}, "query"),
        ("/v2/rerank", {"query": "q", "documents": ["a", 7]}, "documents.1"),
        ("/score", {"text_1": 7, "text_2": ["a"]}, "text_1.0"),
        ("/score", {"data_1": "q", "data_2": ["a", 7]}, "data_2.1"),
        ("/score", {"text_1": ["q", "r"], "text_2": ["a", "b", "c"]}, "text_1"),
        ("/score", {"text_1": "q", "items": []}, "items"),
    ],
)
def test_errors_name_the_callers_own_field(fixed, path, body, param):
    answer = fixed.post(path, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_infinitys_name_for_no_model_is_the_first_one(fixed):
    body = {"model": "default/not-specified", "query": "q", "documents": DOCS}
    assert fixed.post("/rerank", body).json()["model"] == "lexical"


def test_a_null_is_as_if_its_field_were_not_there(fixed):
    score = {"queries": None, "text_1": "q", "documents": None, "text_2": DOCS}
    assert len(fixed.post("/score", score).json()["data"]) == len(DOCS)
    tei = fixed.post("/rerank", {"query": "q", "documents": None, "texts": DOCS})
    assert [hit["index"] for hit in tei.json()] != []
    jina = {"query": "q", "documents": DOCS, "top_k": None, "top_n": 1}
    assert len(fixed.post("/v1/rerank", jina).json()["results"]) == 1


@pytest.mark.parametrize("path", ["/v2/rerank", "/v1/rerank", "/rerank"])
def test_fields_that_are_not_acted_on_are_named(fixed, path):
    body = {"query": "q", "documents": ["1", "2"], "encoding": "utf-8", "user": "x", "null": None}
    answer = fixed.post(path, body)
    assert answer.json()["meta"]["warnings"] == [
        "encoding is not acted on",
        "user is not acted on",
    ]
    assert answer.headers["x-ignored-fields"] == "encoding,user"
    clean = fixed.post(path, {"query": "q", "documents": ["1", "2"], "top_n": 1})
    assert "warnings" not in clean.json()["meta"]
    assert "x-ignored-fields" not in clean.headers


def test_a_dialect_without_meta_names_them_in_a_header(fixed):
    body = {"query": "q", "texts": ["1"], "top_n": 1, "truncation_direction": "LEFT", "a\r\nb": 1}
    answer = fixed.post("/rerank", body)
    assert answer.headers["x-ignored-fields"] == "truncation_direction,top_n"
    assert "x-ignored-fields" not in fixed.post("/rerank", {"query": "q", "texts": ["1"]}).headers


def test_a_million_unknown_fields_are_no_burden_and_not_named(fixed):
    junk = ",".join(f'"f{i}":0' for i in range(500_000))
    body = f'{{"query":"q","documents":["1"],{junk}}}'.encode()
    started = time.perf_counter()
    answer = fixed.send("POST", "/v2/rerank", content=body)
    assert time.perf_counter() - started < 5
    assert answer.status_code == 200
    assert "warnings" not in answer.json()["meta"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "q", "documents": ["d"]}),
        ("/score", {"queries": "q", "documents": ["d"]}),
        ("/v2/rerank", {"query": "q", "documents": ["d"]}),
    ],
)
def test_a_limit_of_tokens_for_the_whole_pair_reaches_the_scorer(gateway_of, pool, path, body):
    caller = gateway_of(pool)
    for limit in (128, -1, 0):
        assert caller.post(path, {**body, "truncate_prompt_tokens": limit}).status_code == 200
    assert [unit.pairs[0].max_tokens for unit in pool.units] == [128, None, None]
    assert pool.units[0].cost <= 128


def test_priority_says_what_can_wait():
    def read(priority):
        fields = slice_fields(
            json.dumps({"query": "q", "documents": ["d"], "priority": priority}).encode()
        )
        return choose("/v2/rerank", fields).parse(fields, Limits()).can_wait

    assert [read(priority) for priority in (-5, 0, None, 1, 999)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_mixedbread_asks_by_input_and_gets_its_list(fixed):
    body = {"query": "q", "input": ["1", {"text": "2"}, "0"], "top_k": 2, "return_input": True}
    answer = fixed.post("/v1/reranking", body).json()
    hits = [(hit["index"], hit["input"], hit["object"]) for hit in answer["data"]]
    assert hits == [(1, "2", "rank_result"), (0, "1", "rank_result")]
    assert (answer["object"], answer["top_k"], answer["return_input"]) == ("list", 2, True)
    refused = fixed.post("/v1/reranking", {"query": "q", "input": []})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "input")


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (rb"a\\ud83d\udc00", "a\\ud83d\ufffd"),
        (rb"\\\ud83d \ud83d\ude00", "\\\ufffd \U0001f600"),
        (rb"\ude00\ude01\ud83d\ud83d\ude00", "\ufffd\ufffd\ufffd\U0001f600"),
        (rb"\\ud83d\\ud83d\ud83d", "\\ud83d\\ud83d\ufffd"),
        (b"\\" * 200 + rb"\ud83d", "\\" * 100 + "\ufffd"),
    ],
)
def test_only_half_an_emoji_is_replaced_whatever_stands_before_it(
    fixed, pool, gateway_of, sent, read
):
    body = b'{"query": "q", "documents": ["' + sent + b'"]}'
    assert gateway_of(pool).send("POST", "/v2/rerank", content=body).status_code == 200
    assert pool.units[0].documents == (read,)
