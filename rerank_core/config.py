"""ScorerConfig: everything that decides a score, in one frozen block, and its fingerprint.

The same block, the same text, stands in serve.yaml and rerank_job.yaml. It does not know how a
scorer is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rerank_core.catalog.families import FAMILIES, is_template

EMBEDDED_MODEL_DIR = Path(__file__).parent / "embedded"


class FirstStage(BaseModel):
    """A small model in front of a large one. Per query, it keeps `keep` candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field("embedded", min_length=1, description="As in the scorer itself.")
    revision: str | None = Field(None, description="As in the scorer itself.")
    max_length: int | None = Field(None, ge=8, description="As in the scorer itself.")
    keep: int = Field(50, ge=1, description="Candidates per query that the large model scores.")


class ScorerConfig(BaseModel):
    """How pairs are scored. Frozen; unknown keys are refused, so a typo never goes unnoticed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(
        "embedded",
        min_length=1,
        description="`embedded` (in the package), `lexical` (no weights, instant), a local folder,"
        " or a Hugging Face id such as BAAI/bge-reranker-v2-m3.",
    )
    revision: str | None = Field(
        None, description="Commit of a Hugging Face model; pin it in production."
    )
    code_revision: str | None = Field(
        None,
        description="Commit of the code, where trust_remote_code runs another repository's.",
    )
    adapter: str | None = Field(
        None, description="Folder of a LoRA adapter, merged into the model while loading."
    )
    positive_label: str | None = Field(
        None,
        description="Of a model with two outputs the one that means relevant, by its label or"
        " number; empty: known from the labels.",
    )
    backend: Literal["auto", "packed", "cross_encoder", "lexical"] = Field(
        "auto", description="`auto` takes the fastest that fits the model."
    )
    device: str = Field(
        "auto",
        description="`auto` takes a GPU of CUDA or ROCm if there is one; or `cpu`, `cuda`,"
        " `cuda:1`, `mps`, `xpu`.",
    )
    dtype: Literal["float32", "bfloat16", "float16", "int8", "tf32", "float8"] = Field(
        "float32",
        description="Of the model's body; head and activation are always float32. For"
        " GPUs bfloat16; how much faster it is was not measured. For CPUs int8, which takes"
        " `pip install 'ray-rerank[int8]'`. tf32 and float8, for CUDA: not yet run on a GPU.",
    )
    graphs: bool = Field(
        False,
        description="Replay passes of up to 8,190 tokens as CUDA graphs. For classifiers in half"
        " precision; not yet run on a GPU.",
    )
    compile: bool = Field(
        False,
        description="Have torch compile the body, for the passes that `graphs` does not replay. For"
        " CUDA in half precision; not yet run on a GPU.",
    )
    max_length: int | None = Field(
        None,
        ge=8,
        description="Tokens of a pair that the model reads; empty: the model's own limit. Lower it"
        " for speed.",
    )
    max_query_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens kept of a query; empty: three quarters of max_length. Documents are cut"
        " to what is left.",
    )
    max_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens in one forward pass; empty: 2048 on a CPU, 65536 on a GPU (32768 for"
        " padded models, 16384 for language models). Lower it when memory runs out.",
    )
    template: str | None = Field(
        None,
        description="Prompt of a language model: a family's name (qwen3-reranker,"
        " bge-reranker-v2-gemma, mxbai-rerank-v2), a YAML file with your own, or `pair` for plain"
        " pairs; empty: known from the model's name.",
    )
    instruction: str | None = Field(
        None,
        description="What relevance means, for models that take an instruction; others refuse it.",
    )
    long_documents: Literal["truncate", "split"] = Field(
        "truncate",
        description="A document that is too long is cut, or split into overlapping passages of"
        " which the best counts. Splitting reads everything and costs accordingly.",
    )
    passage_tokens: int | None = Field(
        None,
        ge=16,
        description="Longer documents are split, into passages of this size at most; empty: what"
        " fits the model.",
    )
    passage_overlap: int = Field(
        32, ge=0, description="Tokens that neighbouring passages share, at least."
    )
    passage_score: Literal["max", "mean_of_top"] = Field(
        "max", description="A split document's score: its best passage, or the mean of the best 3."
    )
    max_passages: int = Field(
        64, ge=1, description="Passages scored per document; what lies behind them is not read."
    )
    self_check: bool = Field(
        True,
        description="Refuse a model that ranks obvious pairs wrongly. Off only for models that know"
        " no English, and for tests.",
    )
    cache_pairs: int = Field(
        0,
        ge=0,
        description="Scores remembered, in pairs (about 220 bytes each); 0: none. No effect beside"
        " first_stage.",
    )
    calibration: str | None = Field(
        None, description="File that `python -m rerank_core.calibrate` wrote; adds probabilities."
    )
    first_stage: FirstStage | None = Field(
        None, description="A small model that picks the candidates this one scores."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads for the model; empty: torch decides. Set it to the CPUs that Ray"
        " granted, or several actors on one machine fight for the same cores.",
    )
    activation: Literal["auto", "sigmoid", "identity"] = Field(
        "auto", description="From logit to score; `auto`: what the checkpoint declares."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the checkpoint. Leave it off."
    )
    local_files_only: bool = Field(
        False, description="Never ask a model hub; only folders and the local cache."
    )

    @field_validator("template")
    @classmethod
    def _known_template(cls, name: str | None) -> str | None:
        if name is not None and not is_template(name):
            known = ", ".join(FAMILIES)
            raise ValueError(f"unknown; use one of {known}, a .yaml file, `pair`, or leave it out")
        return name

    def fingerprint(self) -> str:
        """Return 16 hex digits; two configs of one fingerprint give equal scores.

        Not the other way round: of some limits only the loaded model knows that they are never
        reached. It is of what the settings resolve to, read off the checkpoint's small files, and
        of its weights: a folder counts by its content, a hub model by its commit. Raises
        ModelUnavailable where the model cannot be found, or no reranker would come out of it.
        """
        from rerank_core.fingerprint import fingerprint

        return fingerprint(self)

    def first_stage_config(self) -> ScorerConfig | None:
        """Return the first stage's scorer: its own model, on this one's machine."""
        if self.first_stage is None:
            return None
        chosen = self.first_stage.model_dump(exclude={"keep"})
        machine = {"device", "dtype", "threads", "local_files_only", "self_check"}
        return ScorerConfig(**chosen, **self.model_dump(include=machine))

    @property
    def model_dir(self) -> Path | None:
        """The local folder of the model, or None for a hub id or a model without weights."""
        if self.model == "embedded":
            return EMBEDDED_MODEL_DIR
        path = Path(self.model).expanduser()
        return path if path.is_dir() else None
