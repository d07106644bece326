"""Why a checkpoint could not be loaded, said with the fix. It does not load anything."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def no_safetensors(model: str, pickled: bool, others: Sequence[str] = ()) -> str:
    """Say what to do about a checkpoint without safetensors, or with them under `others` only."""
    if others:
        return (
            f"model {model!r} has no model.safetensors; loaders look for no other name, so rename"
            f" {others[0]}, if those are its weights, or fetch the complete checkpoint"
        )
    if pickled:
        return (
            f"model {model!r} has only pickled weights, which can run code and are never loaded;"
            " use a revision with model.safetensors, or convert it with"
            " save_pretrained(..., safe_serialization=True)"
        )
    return f"model {model!r} has no model.safetensors; fetch the complete checkpoint"


def no_head(model: str, absent: Sequence[str]) -> str:
    """Say what to do about weights that the model has and its file has not."""
    shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
    return (
        f"model {model!r}: weights are missing from the checkpoint ({shown}), so scores would be"
        " random. It is probably an embedding or language model without a reranking head; name a"
        " reranker"
    )


def unasked(model: str, file: str, error: BaseException) -> str:
    """Say what to do where no hub and no cache says whether a model has a file."""
    return (
        f"model {model!r}: whether it has a {file}, which may change its scores, is not known:"
        f" {_silence(error)}, fetch the whole model beforehand (hf download), or set"
        " local_files_only if the cache has it"
    )


def explain(model: str, error: BaseException) -> str:
    """Return the message for what transformers, safetensors or the hub's client raised."""
    name, chain = f"model {model!r}", _chain(error)

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    def said(*texts: str) -> bool:
        # transformers raises plain OSError and ValueError; only its own sentences are looked for.
        return any(text in str(link) for link in chain for text in texts)

    if met(GatedRepoError):
        return (
            f"{name} is gated: accept its terms on the hub, then set HF_TOKEN to a token that may"
            " read it"
        )
    if said("trust_remote_code=True"):
        return (
            f"{name} comes with its own Python code, which is refused; set trust_remote_code only"
            " if you have read that code, and pin its revision"
        )
    if said("file named model.safetensors"):
        return (
            f"{name} has no model.safetensors; use a revision that has (pickled weights can run"
            " code and are never loaded), or fetch the complete checkpoint"
        )
    if met(RevisionNotFoundError):
        return f"{name} has no such revision; check `revision`"
    if met(RepositoryNotFoundError, HFValidationError):
        return f"{name} is not on the hub; check its spelling, or set HF_TOKEN if it is private"
    if met(LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError):
        return (
            f"{name} is neither a local folder nor in the local cache, and {_silence(error)}, or"
            " fetch the model beforehand and give its folder"
        )
    return f"{name} cannot be loaded ({type(error).__name__}: {_first_line(error)})"


def _silence(error: BaseException) -> str:
    """Say why the hub gave no answer that counts, and what to look at."""
    if any(isinstance(link, FileMetadataError) for link in _chain(error)):
        return (
            "the hub's answer lacks the headers that its client needs, as those of some mirrors"
            " and proxies do; set HF_ENDPOINT to another hub"
        )
    return "the hub cannot be reached; check the network"


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0][:300]
