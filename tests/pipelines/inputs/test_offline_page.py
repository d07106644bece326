"""The tables of docs/offline.md say what the code says: its words of refusal, and its suffixes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pipelines.inputs.paths import KINDS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "offline.md").read_text(encoding="utf-8")
INPUT = PAGE[PAGE.index("Tables of many hands:") : PAGE.index("A job keeps the version")]
# What stands for a file, a column, a type or a value in the page's words.
EXAMPLES = {"A", "B", "x", "int64", "string", "timestamp[ns]", "candidates", "text", "x=1", "ORC"}


def said() -> str:
    """Every text of the code, one a line; what is put into it is a blank."""
    texts = []
    for path in sorted((ROOT / "pipelines" / "inputs").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else " " for p in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(" ".join(text.split()) for text in texts)


SAID = said()
WORDS = [words for line in INPUT.splitlines() for words in re.findall(r'"([^"]+)"', line)]


def pattern(words: str) -> str:
    """A pattern of the page's words, with anything in the place of an example."""
    parts = [""]
    for word in words.replace("...", "").split():
        if word.strip(":,") in EXAMPLES:
            parts.append("")
        else:
            parts[-1] += f" {word}"
    return ".*".join(re.escape(part.strip()) for part in parts)


@pytest.mark.parametrize("words", WORDS)
def test_words_that_the_page_quotes_are_words_of_the_code(words):
    assert re.search(pattern(words), SAID), pattern(words)


def test_every_row_of_the_tables_says_what_becomes_of_the_input():
    rows = [line for line in INPUT.splitlines() if line.startswith("| ")]
    told = [row.split("|")[2].strip() for row in rows]
    kinds = ("read", "unified", "refused", "left out", "bad file", "---", "")
    assert [text for text in told if not text.startswith(kinds)] == []
    assert len(WORDS) > 12


def test_every_suffix_that_is_read_is_on_the_page():
    assert [suffix for suffix in KINDS if f"`{suffix}`" not in INPUT] == []
