"""The demo's questions and the documents that answer them, written before any model was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict


class Question(TypedDict):
    """One entry of questions.json; `language` is `en` or `zh`, any of `answers` is right."""

    id: str
    language: str
    question: str
    answers: list[str]


def read_questions() -> list[Question]:
    """Return the questions in file order."""
    path = Path(__file__).with_name("questions.json")
    questions: list[Question] = json.loads(path.read_text(encoding="utf-8"))
    return questions
