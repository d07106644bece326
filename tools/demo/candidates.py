"""The first stage: TF-IDF proposes candidates for each question, written as Parquet pairs.

It knows words and their statistics, never the answers: what it misses stays missed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import linear_kernel

from tools.demo.questions import Question

PER_QUESTION = 30

# Inside names: fileName -> file Name, HTTPServer -> HTTP Server, get_data -> get data.
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")
_WORD = re.compile(r"[a-z0-9]+")
_CHINESE = re.compile(r"[\u3400-\u9fff]+")

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("text", pa.string()),
        ("first_stage_rank", pa.int32()),
        ("first_stage_score", pa.float32()),
    ]
)


def terms(text: str) -> list[str]:
    """Return single words, word pairs and, in Chinese, character pairs."""
    words = _WORD.findall(_HUMP.sub(" ", text).lower())
    chinese = [a + b for run in _CHINESE.findall(text) for a, b in pairwise(run)]
    return words + [f"{a} {b}" for a, b in pairwise(words)] + chinese


def propose(
    documents: dict[str, str], questions: Sequence[Question], per_question: int = PER_QUESTION
) -> pa.Table:
    """Return the best documents of each question, best first, as rows of SCHEMA.

    A document without any common term is no candidate; equal scores keep the documents' order.
    """
    vectorizer = TfidfVectorizer(analyzer=terms, sublinear_tf=True, dtype=np.float32)
    matrix = vectorizer.fit_transform(documents.values())
    asked = vectorizer.transform(question["question"] for question in questions)
    names = list(documents)
    rows = []
    for question, scores in zip(questions, linear_kernel(asked, matrix), strict=True):
        best = np.argsort(-scores, kind="stable")[:per_question]
        for rank, place in enumerate(best[scores[best] > 0], start=1):
            name = names[place]
            rows.append(
                {
                    "query_id": question["id"],
                    "query": question["question"],
                    "doc_id": name,
                    "text": documents[name],
                    "first_stage_rank": rank,
                    "first_stage_score": float(scores[place]),
                }
            )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write_candidates(table: pa.Table, path: Path) -> None:
    """Write the rows as one Parquet file; the folder must exist."""
    pq.write_table(table, path)
