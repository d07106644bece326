"""From a ScorerConfig to what decides its scores: which frame, body and head, with which limits.

Everything is read off the checkpoint's small files, so a job can plan with it; the scorers act on
the same values. It does not know tokenizers or torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rerank_core.catalog.checkpoint import Checkpoint, find_checkpoint, has_weights, read_json
from rerank_core.catalog.code import own_code
from rerank_core.catalog.families import Family, find_family, read_template
from rerank_core.catalog.labels import declared_activation, output_count, positive_label
from rerank_core.catalog.lengths import longest_pair
from rerank_core.catalog.modules import needs_sentence_transformers, refuse_modules
from rerank_core.catalog.refusals import refuse_adapter, refuse_unasked, refuse_unsupported
from rerank_core.documents import SplitPolicy
from rerank_core.errors import ModelUnavailable
from rerank_core.limits import query_share, usable_length

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig

Engine = Literal["lexical", "transformers", "sentence_transformers"]

LEXICAL_LENGTH = 8192
_CAUSAL_TYPES = frozenset({
    "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "gemma", "gemma2", "gemma3", "gemma3_text", "llama",
    "mistral", "mixtral", "phi", "phi3", "granite", "smollm3", "olmo2", "starcoder2", "stablelm",
    "ministral", "minicpm", "arcee", "axk1", "axk2", "cohere_compass_text", "deepseek_v2",
    "deepseek_v3", "diffllama", "doge", "exaone4", "glm", "glm4", "gpt_oss", "helium",
    "hunyuan_v1_dense", "hunyuan_v1_moe", "jamba", "jetmoe", "minicpm3", "minimax", "ministral3",
    "mistral4", "nemotron", "olmo", "olmo3", "persimmon", "phimoe", "qwen3_5", "qwen3_5_text",
    "qwen3_next", "seed_oss", "biogpt", "bloom", "ctrl", "falcon", "gpt-sw3", "gpt2", "gpt_bigcode",
    "gpt_neo", "gpt_neox", "gptj", "modernbert-decoder", "mpt", "openai-gpt", "opt", "zamba",
    "zamba2",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resolved:
    """What decides a score. `max_length` counts a pair's tokens with its frame.

    `family` is the prompt (None: the tokenizer's own pair), `causal` the body's kind, `answers`
    whether the head is the answers' rows of the output layer, `positive` which of two outputs
    means relevant (None: there is one output), `code` which code of its own it runs (None: none).
    """

    config: ScorerConfig
    engine: Engine
    max_length: int
    activation: str
    checkpoint: Checkpoint | None = None
    adapter: Path | None = None
    family: Family | None = None
    causal: bool = False
    answers: bool = False
    outputs: int = 1
    positive: int | None = None
    code: list[Any] | None = None

    @property
    def source(self) -> Checkpoint:
        """The checkpoint of a model that has one."""
        if self.checkpoint is None:
            raise ModelUnavailable(f"{self.engine} has no checkpoint")
        return self.checkpoint

    @property
    def adapter_settings(self) -> Any:
        """What adapter_config.json says."""
        return {} if self.adapter is None else read_json(self.adapter / "adapter_config.json")

    @property
    def instruction(self) -> str | None:
        """What relevance means: configured, else the family's own."""
        return self.config.instruction or (self.family.instruction if self.family else None) or None

    @property
    def max_query_tokens(self) -> int:
        """How much of `max_length` a query may keep."""
        return min(query_share(self.max_length, self.config.max_query_tokens), self.max_length)

    @property
    def policy(self) -> SplitPolicy | None:
        """How long documents are split; None where they are cut."""
        c = self.config
        settings = (c.passage_tokens, c.passage_overlap, c.passage_score, c.max_passages)
        return SplitPolicy(*settings) if c.long_documents == "split" else None


def resolve(config: ScorerConfig) -> Resolved:
    """Resolve a config; ModelUnavailable says what to change where no reranker comes out of it."""
    if "lexical" in (config.model, config.backend):
        limit = usable_length(config.max_length or LEXICAL_LENGTH)
        activation = "sigmoid" if config.activation == "auto" else config.activation
        return Resolved(config, "lexical", limit, activation)
    checkpoint, adapter = _find(config)
    try:
        return _read(config, checkpoint, adapter)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelUnavailable(
            f"model {config.model!r} says something in its JSON files that is not of the kind that"
            f" belongs there ({type(error).__name__}: {error}); fetch them again, or mend that"
        ) from error


def _read(config: ScorerConfig, checkpoint: Checkpoint, adapter: Path | None) -> Resolved:
    settings = checkpoint.json("config.json")
    architecture = (settings.get("architectures") or ["unknown"])[0]
    refuse_unsupported(config, settings, architecture)
    code = own_code(config, checkpoint, settings)
    family, causal = _family(config, checkpoint, settings, architecture)
    engine: Engine = "transformers"
    if (
        family is None
        and config.template is None
        and needs_sentence_transformers(checkpoint, architecture)
    ):
        engine = "sentence_transformers"
        refuse_modules(config, checkpoint, adapter)
    answers = engine == "transformers" and architecture.endswith("ForCausalLM")
    if engine == "transformers":
        refuse_unasked(config, family, architecture, causal=causal)
    plain = engine == "transformers" and not answers
    outputs = output_count(checkpoint, settings) if plain else 1
    resolved = Resolved(
        config,
        engine,
        longest_pair(config, checkpoint, settings, family),
        declared_activation(config, checkpoint, settings, answers),
        checkpoint,
        adapter,
        family,
        causal,
        answers,
        outputs,
        positive_label(config, checkpoint, settings, outputs, family is not None),
        code,
    )
    if answers:
        refuse_adapter(adapter, resolved.adapter_settings)
    return resolved


def _find(config: ScorerConfig) -> tuple[Checkpoint, Path | None]:
    model, folder, revision = config.model, config.model_dir, config.revision
    adapter = Path(config.adapter).expanduser() if config.adapter else None
    if adapter is None and folder is not None and _is_adapter(folder):
        adapter = folder
        base = read_json(folder / "adapter_config.json")
        model = str(base.get("base_model_name_or_path"))
        path = Path(model).expanduser()
        folder, revision = path if path.is_dir() else None, base.get("revision")
    try:
        checkpoint = find_checkpoint(model, folder, revision, config.local_files_only)
    except ModelUnavailable as error:
        if adapter is None:
            raise
        raise ModelUnavailable(
            f"adapter {str(adapter)!r} changes the model {model!r}, which cannot be had: {error}."
            " Set `model` to that model's folder and `adapter` to the adapter's"
        ) from error
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        raise ModelUnavailable(
            f"adapter {str(adapter)!r} has no adapter_config.json; give its folder"
        )
    return checkpoint, adapter


def _is_adapter(folder: Path) -> bool:
    """Whether an adapter lies there and no model: trainers leave the base's config.json beside."""
    return not has_weights(folder) and (folder / "adapter_config.json").is_file()


def _family(
    config: ScorerConfig, checkpoint: Checkpoint, settings: Any, architecture: str
) -> tuple[Family | None, bool]:
    """Return how a language model is asked, and whether the model is one."""
    model_type = str(settings.get("model_type", ""))
    causal = architecture.endswith("ForCausalLM") or model_type in _CAUSAL_TYPES
    if config.template is not None:
        try:
            return read_template(config.template), causal
        except ValueError as error:
            raise ModelUnavailable(str(error)) from error
    return (find_family(checkpoint.name, model_type) if causal else None), causal
