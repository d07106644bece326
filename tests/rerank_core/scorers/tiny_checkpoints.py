"""Tiny checkpoints with random weights from a seed, complete with tokenizers, for the tests."""

import re
import string
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CamembertForSequenceClassification,
    CohereConfig,
    CohereForCausalLM,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertForSequenceClassification,
    ElectraForSequenceClassification,
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GlmConfig,
    GlmForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GraniteConfig,
    GraniteForCausalLM,
    LongformerForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5ForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLNetForSequenceClassification,
)

TEXT = [
    "The quick brown fox jumps over the lazy dog, and a river runs through the old town.",
    "Beijing is the capital of China; Paris is the capital of France. 12345 67890",
    "北京是中国的政治中心和首都。上海是中国最大的城市,经济发达。苹果是一种水果,富含维生素。",
    "how many people live here? what is it? who wrote the book about packed attention",
]
_SIZE = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
_WIDE = {**_SIZE, "intermediate_size": 128, "num_labels": 1, "initializer_range": 0.1}


def bert_tokenizer(max_length: int = 128) -> PreTrainedTokenizerFast:
    """WordPiece with [CLS] A [SEP] B [SEP] and token types 0 and 1."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_words(), *_letters()]
    pieces += [f"##{letter}" for letter in _letters()]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def roberta_tokenizer(max_length: int = 128) -> PreTrainedTokenizerFast:
    """Unigram with <s> A </s></s> B </s>, no token types, padding id 1: as XLM-R has it."""
    pieces = [f"▁{word}" for word in _words()] + ["▁", *_letters()]
    scored = [(piece, -1.0 - i / 100) for i, piece in enumerate(dict.fromkeys(pieces))]
    special = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    backend = Tokenizer(models.Unigram([*special, *scored], unk_id=3))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def _words() -> list[str]:
    return [word.lower() for line in TEXT for word in re.findall(r"[A-Za-z]+", line)]


def _letters() -> list[str]:
    return sorted({*string.printable.strip().lower(), *"".join(TEXT).lower()} - {" "})


def modernbert_tokenizer(max_length: int = 256) -> PreTrainedTokenizerFast:
    """As BERT's, without token types."""
    tokenizer = bert_tokenizer(max_length)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def save_bert(folder: Path, **changes) -> Path:
    tokenizer = bert_tokenizer()
    config = BertConfig(
        **{**_WIDE, **changes},
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        pad_token_id=0,
    )
    return _save(folder, BertForSequenceClassification, config, tokenizer)


def save_roberta(folder: Path, **changes) -> Path:
    tokenizer = roberta_tokenizer()
    config = RobertaConfig(
        **_WIDE, vocab_size=len(tokenizer), max_position_embeddings=130, pad_token_id=1, **changes
    )
    return _save(folder, RobertaForSequenceClassification, config, tokenizer)


def save_xlm_roberta(folder: Path, **changes) -> Path:
    tokenizer = roberta_tokenizer()
    wanted = _WIDE | {"vocab_size": len(tokenizer), "max_position_embeddings": 130} | changes
    config = XLMRobertaConfig(**wanted, pad_token_id=1)
    return _save(folder, XLMRobertaForSequenceClassification, config, tokenizer)


def save_modernbert(folder: Path, **changes) -> Path:
    tokenizer = modernbert_tokenizer()
    wanted = {
        **_WIDE,
        "local_attention": 16,
        "global_attn_every_n_layers": 3,
        "classifier_pooling": "cls",
    } | changes
    config = ModernBertConfig(
        **wanted,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
    )
    return _save(folder, ModernBertForSequenceClassification, config, tokenizer)


def save_deberta(folder: Path, **changes) -> Path:
    tokenizer = bert_tokenizer()
    config = DebertaV2Config(
        **_WIDE,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        pad_token_id=0,
        **changes,
    )
    return _save(folder, DebertaV2ForSequenceClassification, config, tokenizer)


CONTROL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")


def causal_tokenizer() -> PreTrainedTokenizerFast:
    """Case-sensitive WordPiece that knows every family's answers as single tokens."""
    letters = sorted({*string.printable.strip(), *"".join(TEXT)} - {" "})
    pieces = ["[PAD]", "[UNK]", "[BOS]", *CONTROL, "yes", "no", "Yes", *_words(), *letters]
    pieces += [f"##{letter}" for letter in letters]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(list(CONTROL[:2]))
    backend.add_tokens(list(CONTROL[2:]))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]"
    )


_CAUSAL = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma": (GemmaConfig, GemmaForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "granite": (GraniteConfig, GraniteForCausalLM),
    "cohere": (CohereConfig, CohereForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "glm": (GlmConfig, GlmForSequenceClassification),
    "gpt2": (GPT2Config, GPT2ForSequenceClassification),
    "falcon_h1": (FalconH1Config, FalconH1ForCausalLM),
    "opt": (OPTConfig, OPTForCausalLM),
}


def save_causal(folder: Path, kind: str, flat: bool = False, model_class=None, **changes) -> Path:
    """Save a language model of a kind; a `flat` one gives every pair the same score."""
    tokenizer = causal_tokenizer()
    config_class, usual_class = _CAUSAL[kind]
    model_class = model_class or usual_class
    wanted = dict(
        **_SIZE,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=128,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=2,
    )
    _save(folder, model_class, config_class(**(wanted | changes)), tokenizer)
    if flat:
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"] *= 0
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def xlnet_tokenizer() -> PreTrainedTokenizerFast:
    """A <sep> B <sep> <cls> with types 0, 1 and 2, padded on the left."""
    tokenizer = bert_tokenizer(10**30)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]:2",
        pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """A </s> B </s>."""
    tokenizer = roberta_tokenizer(10**30)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    return tokenizer


_ROBERTA = {"max_position_embeddings": 66, "pad_token_id": 1}
# What people have beside the families above: model class, tokenizer, settings.
ENCODERS = {
    "electra": (ElectraForSequenceClassification, bert_tokenizer, {"embedding_size": 32}),
    "albert": (AlbertForSequenceClassification, bert_tokenizer, {"embedding_size": 32}),
    "distilbert": (
        DistilBertForSequenceClassification,
        modernbert_tokenizer,
        {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4},
    ),
    "mpnet": (MPNetForSequenceClassification, roberta_tokenizer, _ROBERTA),
    "camembert": (CamembertForSequenceClassification, roberta_tokenizer, _ROBERTA),
    "longformer": (
        LongformerForSequenceClassification,
        roberta_tokenizer,
        {**_ROBERTA, "attention_window": [8, 8]},
    ),
    "xlnet": (
        XLNetForSequenceClassification,
        xlnet_tokenizer,
        {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128},
    ),
    "t5": (
        T5ForSequenceClassification,
        t5_tokenizer,
        {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
         "decoder_start_token_id": 1, "pad_token_id": 1, "eos_token_id": 2},
    ),
}  # fmt: skip


def save_encoder(folder: Path, kind: str, *, unlimited: bool = False, **changes) -> Path:
    """Save one of `ENCODERS`; an `unlimited` tokenizer names no model_max_length."""
    model_class, make_tokenizer, settings = ENCODERS[kind]
    tokenizer = make_tokenizer(10**30) if unlimited else make_tokenizer()
    wanted = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "num_labels": 1,
        "initializer_range": 0.1,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "vocab_size": len(tokenizer),
    }
    if kind in ("distilbert", "xlnet", "t5"):
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
        ):
            del wanted[name]
    if kind == "xlnet":
        del wanted["max_position_embeddings"]
    config = model_class.config_class(**(wanted | settings | changes))
    return _save(folder, model_class, config, tokenizer)


def _save(folder: Path, model_class, config, tokenizer) -> Path:
    torch.manual_seed(7)
    model_class(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
