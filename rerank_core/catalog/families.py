"""Families of rerankers as data: how each is asked, and the names it goes by.

A family added here, or in a user's own file, needs no code. It does not know tokenizers or torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

_PLACE = re.compile(r"\{(instruction_line|instruction|query)\}")
_ANY_PLACE = re.compile(r"\{(?:instruction_line|instruction|query|document)\}")


@dataclass(frozen=True, slots=True)
class Family:
    """How a language model is asked whether a document answers a query.

    The prompt is `before` + `document` + `behind`; every piece is tokenised on its own, as the
    authors do, and control tokens stand only in pieces without a placeholder. Placeholders are
    `{query}` in `before`, `{document}` in `document`, and `{instruction}` anywhere else;
    `{instruction_line}` becomes `instruction_line` where there is an instruction, else nothing.
    The score is the logit of `positive` minus that of `negative`, where there is one; a model
    converted to a classifier has one output, or two: no and yes.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    name: str
    before: tuple[str, ...]
    document: str
    behind: tuple[str, ...]
    positive: str
    negative: str | None = None
    instruction: str = ""
    instruction_line: str = ""
    starts_with_bos: bool = False
    max_length: int = 8192
    model_types: tuple[str, ...] = ()
    name_parts: tuple[str, ...] = ()

    @property
    def takes_instruction(self) -> bool:
        """Whether the prompt has a place for what relevance means."""
        return any("{instruction" in piece for piece in self.before + self.behind)

    @property
    def prompt(self) -> list[object]:
        """Everything of it that decides a score, for the fingerprint."""
        return [self.before, self.document, self.behind, self.positive, self.negative,
                self.instruction_line, self.starts_with_bos]  # fmt: skip

    def pieces(
        self, part: tuple[str, ...], query: str, instruction: str | None
    ) -> list[tuple[str, bool]]:
        """Fill in `before` or `behind`: each piece, and whether it holds a caller's text.

        An empty `instruction` means the family's own.
        """
        wanted = instruction or self.instruction
        line = self.instruction_line.replace("{instruction}", wanted) if wanted else ""
        texts = {"instruction": wanted, "instruction_line": line, "query": query}
        # Not str.format: all texts may hold braces of their own.
        filled = [_PLACE.sub(lambda found: texts[found[1]], piece) for piece in part]
        return [(text, text != piece) for text, piece in zip(filled, part, strict=True)]

    def around(self, document: str) -> str:
        """Return the document's text, as it stands in the prompt."""
        return self.document.replace("{document}", document)


QWEN3_RERANKER = Family(
    name="qwen3-reranker",
    model_types=("qwen3",),
    name_parts=("qwen3-reranker",),
    before=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query"
        ' and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n",
        "<Instruct>: {instruction}\n<Query>: {query}\n<Document>:",
    ),
    document=" {document}",
    behind=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    positive="yes",
    negative="no",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)
BGE_GEMMA = Family(
    name="bge-reranker-v2-gemma",
    model_types=("gemma",),
    name_parts=("bge-reranker-v2-gemma",),
    before=("A: {query}", "\n"),
    document="B: {document}",
    behind=("\n", "{instruction}"),
    positive="Yes",
    instruction="Given a query A and a passage B, determine whether the passage contains an answer"
    " to the query by providing a prediction of either 'Yes' or 'No'.",
    starts_with_bos=True,
)
MXBAI_V2 = Family(
    name="mxbai-rerank-v2",
    model_types=("qwen2",),
    name_parts=("mxbai-rerank-base-v2", "mxbai-rerank-large-v2"),
    before=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n",
        "{instruction_line}query: {query}",
        "\n",
    ),
    document="document: {document}",
    behind=(
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries."
        " For each query-document pair, carefully analyze the semantic relationship between them,"
        " then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    positive="1",
    negative="0",
    instruction_line="instruction: {instruction}\n",
)
FAMILIES = {family.name: family for family in (QWEN3_RERANKER, BGE_GEMMA, MXBAI_V2)}
# The tokenizer's own pair of texts, for language models that were trained without a prompt.
PAIR = "pair"
_FILE_ENDINGS = (".yaml", ".yml")


def has_place(piece: str) -> bool:
    """Whether a caller's text comes into this piece of a prompt."""
    return _PLACE.search(piece) is not None


def is_template(name: str) -> bool:
    """Whether `template` may be this: a family's name, `pair`, or the name of a YAML file."""
    return name in FAMILIES or name == PAIR or name.endswith(_FILE_ENDINGS)


def read_template(name: str) -> Family | None:
    """Return the family of a template's name or file, None for `pair`; ValueError says the fix."""
    if name == PAIR or name in FAMILIES:
        return FAMILIES.get(name)
    try:
        content = yaml.safe_load(Path(name).expanduser().read_text(encoding="utf-8"))
        # As JSON, where a list may stand for a tuple and `yes` without quotes is still no text.
        family = TypeAdapter(Family).validate_json(json.dumps(content))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found)
        raise ValueError(f"template {name}: {told} (quote words such as yes and no)") from None
    except (OSError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"template {name} cannot be read ({type(error).__name__})") from None
    _refuse_places(name, family)
    return family


def _refuse_places(name: str, family: Family) -> None:
    """Raise ValueError where a text has no place, or a placeholder stands where none is filled."""
    if (
        not any("{query}" in piece for piece in family.before)
        or "{document}" not in family.document
    ):
        raise ValueError(f"template {name} needs {{query}} in `before`, {{document}} in `document`")
    if not family.document.endswith("{document}") or family.document.count("{document}") > 1:
        raise ValueError(f"`document` in template {name} must end with {{document}}, its only one")
    around = {"{instruction}", "{instruction_line}"}
    for part, pieces, filled in (
        ("before", family.before, around | {"{query}"}),
        ("document", (family.document,), {"{document}"}),
        ("behind", family.behind, around),
        ("instruction_line", (family.instruction_line,), {"{instruction}"}),
    ):
        for place in sorted({p for piece in pieces for p in _ANY_PLACE.findall(piece)} - filled):
            told = " and ".join(sorted(filled))
            raise ValueError(f"{place} in `{part}` of template {name} is never filled; use {told}")


def find_family(model: str, model_type: str) -> Family | None:
    """Return the family whose name the model's own name has and whose type it is of.

    Only the last component of a path counts: the folders above are the user's.
    """
    name = Path(model).name.lower().replace("_", "-")
    for family in FAMILIES.values():
        if model_type in family.model_types and any(part in name for part in family.name_parts):
            return family
    return None
