"""Model families as data: the prompt, the answer tokens, the names they go by.

A language model scores nonsense without the prompt it was trained with, so the prompts live here,
spelled as their authors' code spells them. It does not know tokenizers or torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLACE = re.compile(r"\{(instruction|query)\}")


@dataclass(frozen=True, slots=True)
class CausalFamily:
    """How a language model is asked whether a document answers a query.

    The prompt is `head` + `document` + `tail`; every piece is tokenised on its own, as the authors
    do. Placeholders are `{query}` in the head, `{document}` in the document, and `{instruction}` in
    the head or tail of a family that takes one.
    The score is the logit of `positive` minus that of `negative`, where there is one.
    """

    name: str
    model_types: tuple[str, ...]
    name_parts: tuple[str, ...]
    head: tuple[str, ...]
    document: str
    tail: tuple[str, ...]
    positive: str
    negative: str | None
    instruction: str = ""
    starts_with_bos: bool = False
    max_length: int = 8192

    @property
    def takes_instruction(self) -> bool:
        """Whether the prompt has a place for what relevance means."""
        return any("{instruction}" in piece for piece in self.head + self.tail)

    def head_pieces(self, query: str, instruction: str | None) -> list[str]:
        """Return the head's texts for a query; an empty `instruction` means the family's own."""
        texts = {"instruction": instruction or self.instruction, "query": query}
        # Not str.format: both texts may hold braces of their own.
        return [_PLACE.sub(lambda found: texts[found[1]], piece) for piece in self.head]

    def tail_pieces(self, instruction: str | None) -> list[str]:
        """Return the tail's texts; an empty `instruction` means the family's own."""
        wanted = instruction or self.instruction
        return [piece.replace("{instruction}", wanted) for piece in self.tail]

    def document_piece(self, document: str) -> str:
        """Return the document's text, as it stands in the prompt."""
        return self.document.replace("{document}", document)


QWEN3_RERANKER = CausalFamily(
    name="qwen3-reranker",
    model_types=("qwen3",),
    name_parts=("qwen3-reranker",),
    head=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query"
        ' and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n",
        "<Instruct>: {instruction}\n<Query>: {query}\n<Document>:",
    ),
    document=" {document}",
    tail=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    positive="yes",
    negative="no",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)
BGE_GEMMA = CausalFamily(
    name="bge-reranker-v2-gemma",
    model_types=("gemma",),
    name_parts=("bge-reranker-v2-gemma", "bge-reranker-v2-minicpm"),
    head=("A: {query}", "\n"),
    document="B: {document}",
    tail=("\n", "{instruction}"),
    positive="Yes",
    negative=None,
    instruction="Given a query A and a passage B, determine whether the passage contains an answer"
    " to the query by providing a prediction of either 'Yes' or 'No'.",
    starts_with_bos=True,
)
MXBAI_V2 = CausalFamily(
    name="mxbai-rerank-v2",
    model_types=("qwen2",),
    name_parts=("mxbai-rerank-base-v2", "mxbai-rerank-large-v2"),
    head=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n",
        "query: {query}",
        "\n",
    ),
    document="document: {document}",
    tail=(
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries."
        " For each query-document pair, carefully analyze the semantic relationship between them,"
        " then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    positive="1",
    negative="0",
)
CAUSAL_FAMILIES = {family.name: family for family in (QWEN3_RERANKER, BGE_GEMMA, MXBAI_V2)}
