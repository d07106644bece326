"""Prompted families are asked with the very ids that their authors' own code makes.

The authors' steps are told again here, apart from our families: which pieces of text are tokenised
on their own, and in which order they are joined. What both give is recorded in `golden_ids.json`;
`python -m tests.rerank_core.scorers.test_prompt_ids` records it again.
"""

import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rerank_core import QueryDocumentPair
from rerank_core.catalog.families import BGE_GEMMA, FAMILIES, MXBAI_V2, QWEN3_RERANKER
from rerank_core.scorers.encoder import PairEncoder, items_of
from rerank_core.scorers.frame import PromptFrame
from tests.rerank_core.scorers.tiny_checkpoints import CONTROL, TEXT

GOLDEN = Path(__file__).with_name("golden_ids.json")
QUERIES = ("how many people live here?", "中国的首都是哪里")
DOCUMENTS = ("About three million.", "北京是中国的首都。", "", " (a space\nand a line", "\nyes")
INSTRUCTIONS = (None, "Find the {tool}.")
CASES = [
    QueryDocumentPair(query, document, instruction=instruction)
    for query in QUERIES
    for document in DOCUMENTS
    for instruction in INSTRUCTIONS
]

JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".'
)
SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
PREDICT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query"
    " by providing a prediction of either 'Yes' or 'No'."
)
EXPERT = (
    "You are a search relevance expert who evaluates how well documents match search queries. For"
    " each query-document pair, carefully analyze the semantic relationship between them, then"
    " provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
ASSISTANT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
# How Qwen splits text before its byte pairs are merged: its published tokenizer.json.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def merged(tokenizer: Tokenizer, alphabet: list[str], words: list[str]) -> Tokenizer:
    """Give a tokenizer pairs to merge: each word grows from its front."""
    merges = dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word)))
    pieces = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges)])
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer.model = models.BPE(vocabulary, list(merges), byte_fallback="<0x00>" in vocabulary)
    return tokenizer


def qwen() -> PreTrainedTokenizerFast:
    """Byte pairs within Qwen's own splits of a text; nothing stands before it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    text = "\n".join([*TEXT, JUDGE, SEARCH, EXPERT, ASSISTANT, "<Instruct>: <Query>: <Document>:"])
    words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    merged(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()), words)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CONTROL[:2]))
    tokenizer.add_tokens(list(CONTROL[2:]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=CONTROL[1])


def gemma() -> PreTrainedTokenizerFast:
    """Pairs of letters with spaces as `▁`, bytes for what is unknown, <bos> before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    alphabet = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    text = "\n".join([*TEXT, PREDICT, "A: B: Yes"]).replace(" ", "▁")
    words = text.replace("▁", " ▁").split(" ")
    merged(tokenizer, [*alphabet, *sorted(set(text))], words)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", pad_token="<pad>", unk_token="<unk>"
    )


def asks_qwen3(ids, pair) -> list[int]:
    """Qwen/Qwen3-Reranker, model card, `format_instruction` and `process_inputs`: three pieces."""
    asked = pair.instruction or SEARCH
    return [
        *ids(f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n"),
        *ids(f"<Instruct>: {asked}\n<Query>: {pair.query}\n<Document>: {pair.document}"),
        *ids("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ]


def asks_mxbai(ids, pair) -> list[int]:
    """mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py, `prepare_inputs`: each text on its own."""
    line = f"instruction: {pair.instruction}\n" if pair.instruction else ""
    return [
        *ids(f"<|im_start|>system\n{ASSISTANT}<|im_end|>\n<|im_start|>user\n"),
        *ids(f"{line}query: {pair.query}"),
        *ids("\n"),
        *ids(f"document: {pair.document}"),
        *ids("\n"),
        *ids(EXPERT),
        *ids("<|im_end|>\n<|im_start|>assistant\n"),
    ]


def asks_bge_gemma(ids, pair) -> list[int]:
    """FlagOpen/FlagEmbedding, reranker/decoder_only/base.py: <bos>, and the prompt comes last."""
    return [
        *ids("<bos>"),
        *ids(f"A: {pair.query}"),
        *ids("\n"),
        *ids(f"B: {pair.document}"),
        *ids("\n"),
        *ids(pair.instruction or PREDICT),
    ]


AUTHORS = {
    QWEN3_RERANKER: (qwen, asks_qwen3),
    MXBAI_V2: (qwen, asks_mxbai),
    BGE_GEMMA: (gemma, asks_bge_gemma),
}


def authors_ids(family) -> list[list[int]]:
    """The ids of every case as the family's authors make them."""
    make_tokenizer, asks = AUTHORS[family]
    tokenizer = make_tokenizer()

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return [asks(ids, pair) for pair in CASES]


def our_ids(family) -> list[list[int]]:
    """The ids of every case as the scorer makes them."""
    encoder = PairEncoder(PromptFrame(family, None, AUTHORS[family][0]()), 8192, None, None)
    prepared = encoder.encode(CASES)
    assert {pair.error for pair in prepared} == {None}
    return [[*item.head.tolist(), *item.tail.tolist()] for item in items_of(prepared)]


def test_every_prompted_family_has_its_authors_steps_told_here():
    assert {family.name for family in AUTHORS} == set(FAMILIES)


@pytest.mark.parametrize("family", AUTHORS, ids=lambda family: family.name)
def test_a_family_is_asked_with_the_ids_that_its_authors_code_makes(family):
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))[family.name]
    assert our_ids(family) == recorded
    assert authors_ids(family) == recorded


def test_the_recorded_ids_tell_the_cases_apart():
    for recorded in json.loads(GOLDEN.read_text(encoding="utf-8")).values():
        assert len({tuple(ids) for ids in recorded}) == len(CASES)


def record() -> None:
    """Write what the authors' steps give."""
    lines = (
        f"{json.dumps(family.name)}: [\n" + ",\n".join(map(json.dumps, authors_ids(family))) + "\n]"
        for family in AUTHORS
    )
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record()
