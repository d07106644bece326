"""Writes the finished model and its card, with the figures measured, into the package."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from tools.embedded_model.evaluate import CHECKS
from tools.embedded_model.training_text import chinese_questions, written_questions

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_TITLES = {
    "cmrc-trial": "CMRC 2018 trial: Chinese questions, long paragraphs",
    "drcd": "DRCD dev, a quarter of its articles: traditional Chinese, long paragraphs",
    "debian": "Debian packages: short English or Chinese description to the long one",
    "stdlib": "The demo's questions on Python's standard library, English and mixed Chinese",
}
_TEMPLATE = Path(__file__).with_name("card_template.md")
# Each published run: what it made, from which weights ('': the base's), and by which recipe.
_RUNS = Path(__file__).with_name("runs.json")


def sha256_of(path: Path) -> str:
    """Hash of the file at `path`, as it stands in the card."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def publish(model: Path, out: Path, figures: dict[str, Any]) -> None:
    """Copy the model's files from `model` to `out` and write the card beside them."""
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(model / name, out / name)
    weights = out / "model.safetensors"
    written = written_questions()
    values = {
        "SHA256": sha256_of(weights),
        "MEGABYTES": f"{weights.stat().st_size / 1e6:.1f}",
        "HELD_OUT": _held_out(figures["trials"]),
        "VERDICT": _verdict(figures["trials"]),
        "CHECKS": _checks(figures["checks"]),
        "HARDWARE": f"{os.cpu_count()} CPU cores ({platform.machine()})",
        "PYTHON": platform.python_version(),
        "RUNS": _runs(_record(sha256_of(weights), figures["trained"])),
        "WRITTEN": f"{sum(map(len, written.values())):,}",
        "ENTRIES": f"{len(written):,}",
        "CHINESE": f"{len(chinese_questions()):,}",
    }
    text = _TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    (out / "README.md").write_text(text, encoding="utf-8")


def _record(weights: str, trained: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the run that made `weights` to runs.json; return all runs that led there, in order."""
    known = {run["weights"]: run for run in json.loads(_RUNS.read_text())}
    kept = {name: trained[name] for name in ("start", "minutes", "recipe")}
    known.setdefault(weights, {"weights": weights, **kept})
    _RUNS.write_text(json.dumps(list(known.values()), indent=1) + "\n")
    chain: list[dict[str, Any]] = []
    while weights:
        chain.append(known[weights])
        weights = chain[-1]["start"]
    return chain[::-1]


def _runs(chain: list[dict[str, Any]]) -> str:
    rows = [
        "| Run | Minutes | Recipe at commit | Weights (sha256) |",
        "| ---: | ---: | --- | --- |",
    ]
    for number, run in enumerate(chain, 1):
        cells = (number, f"{run['minutes']:.0f}", run["recipe"], f"`{run['weights'][:16]}`")
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def _held_out(trials: dict[str, dict[str, float]]) -> str:
    rows = [
        "| Held-out set | Questions | Passages | BM25 | Base encoder | This model "
        "| over BM25 | over the base |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in trials.items():
        numbers = [f"{row[key]:.3f}" for key in ("bm25", "base", "model")]
        numbers += [
            f"{row['model'] - row[key]:+.3f} ± {row[f'{key}_error']:.3f}"
            for key in ("bm25", "base")
        ]
        cells = [_TITLES[name], str(row["questions"]), str(row["passages"]), *numbers]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _verdict(trials: dict[str, dict[str, float]]) -> str:
    """One plain sentence for each set and peer that is not clearly beaten."""
    said = []
    for name, row in trials.items():
        for key, peer in (("bm25", "BM25"), ("base", "the base encoder")):
            lead, on = row["model"] - row[key], f'On the set "{_TITLES[name].split(":")[0]}"'
            if lead <= 0:
                said.append(f"{on} it does **not** beat {peer}.")
            elif lead < 2 * row[f"{key}_error"]:
                said.append(f"{on} its lead over {peer} is under two standard errors.")
    return " ".join(said) or "It beats both on every set."


def _checks(scores: list[list[float]]) -> str:
    rows = ["| Query | Passage | Right | Score |", "| --- | --- | --- | ---: |"]
    for (query, right, texts), values in zip(CHECKS, scores, strict=True):
        for i, (text, value) in enumerate(zip(texts, values, strict=True)):
            rows.append(f"| {query} | {text} | {'yes' if i < right else 'no'} | {value:.2f} |")
    return "\n".join(rows)
