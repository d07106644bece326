"""Makes the model inside the package, from the base image to the model card.

    python -m tools.embedded_model --squad-dir DIR --work DIR --minutes 200

DIR of --squad-dir holds cmrc_dev.json, cmrc_trial.json and DRCD_dev.json. A step whose result lies
in the work folder already is skipped.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from rerank_core import ScorerConfig, load_scorer
from tools.demo.documents import collect_documents
from tools.demo.questions import read_questions
from tools.embedded_model.base_image import BaseImage, installed_image, read_image
from tools.embedded_model.card import publish
from tools.embedded_model.evaluate import QuickJudge, Trial, check_scores, judge, make_trial
from tools.embedded_model.lists import Source
from tools.embedded_model.matching import add_match_heads
from tools.embedded_model.negatives import BiEncoder, english_encoder, mine
from tools.embedded_model.train import Recipe, Trained, begin, train
from tools.embedded_model.training_text import (
    Pool,
    Question,
    add_chinese,
    bucket,
    debian_pool,
    docstrings,
    python_pool,
    split,
    squad_pool,
    stdlib_pool,
)
from tools.embedded_model.vocabulary import choose_pieces, trimmed_model, trimmed_tokenizer

log = logging.getLogger("tools.embedded_model")
_POOLS = ("cmrc", "drcd", "debian", "python", "stdlib")
# How many questions of each are judged. DRCD, where BM25 is hard to beat, needs all that it has.
_TRIALS = {"cmrc-trial": 300, "drcd": None, "debian": 300, "stdlib": 74}
# Share of Debian's untranslated packages.
_DEBIAN = 0.25
# Their docstrings add the spelling of code to the vocabulary counts; they are not trained on.
_SPELLING = (
    "numpy",
    "scipy.stats",
    "sklearn.metrics",
    "torch",
    "json",
    "os",
    "collections",
    "subprocess",
    "urllib.parse",
)


def main() -> None:
    """Run every step that has not been done yet."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asked = _arguments()
    work: Path = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    # One thread: two workers train beside each other, and OpenMP's threads do not outlive a fork.
    torch.set_num_threads(1)
    base = read_image(installed_image())
    _collect(asked.squad_dir, work, base)
    _start(work, base)
    _train(asked, work)
    _make_trials(asked.squad_dir, work, base)
    figures = _judge(work)
    publish(work / "model", asked.out, figures)
    log.info("wrote %s", asked.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.embedded_model", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--squad-dir", type=Path, required=True, help="folder of the question sets")
    parser.add_argument("--minutes", type=float, default=200, help="time to train (default 200)")
    parser.add_argument(
        "--start", type=Path, help="train an earlier model of this recipe further, not the base"
    )
    parser.add_argument("--out", type=Path, default=Path("rerank_core/embedded"))
    return parser.parse_args()


def _collect(squad: Path, work: Path, base: BaseImage) -> None:
    """Training text and its hard negatives."""
    makers = {
        "drcd": lambda: add_chinese(split(squad_pool(squad / "DRCD_dev.json", "drcd"), "train")),
        "cmrc": lambda: add_chinese(squad_pool(squad / "cmrc_dev.json", "cmrc")),
        "debian": lambda: split(debian_pool(work, _DEBIAN), "train"),
        "python": lambda: python_pool(0.5),
        "stdlib": lambda: split(stdlib_pool(), "train"),
    }
    encoder, english = BiEncoder(base.encoder(), base.tokenizer()), english_encoder()
    for name, make in makers.items():
        if not (work / f"{name}.npz").exists():
            pool = make()
            pool.save(work)
            log.info("mining %s: %d passages", name, len(pool.passages))
            chinese = name in ("cmrc", "drcd")
            mine(pool, encoder, None if chinese else english, work / f"{name}.npz")


def _start(work: Path, base: BaseImage) -> None:
    """The trimmed model with its match heads, not trained yet."""
    if (work / "start" / "tokenizer.json").exists():
        return
    pools = [Pool.load(work / f"{name}.json") for name in ("cmrc", "drcd", "debian")]
    texts = [text for pool in pools for text in pool.passages]
    texts += [question.text for pool in pools for question in pool.questions]
    texts += docstrings(_SPELLING).values()
    kept = choose_pieces(base, texts)
    model = trimmed_model(base, kept, Recipe.seed)
    add_match_heads(model, Recipe.seed)
    model.save_pretrained(work / "start")
    trimmed_tokenizer(base, kept).save_pretrained(work / "start")


def _train(asked: argparse.Namespace, work: Path) -> None:
    """Train what is left of the minutes; an interrupted run goes on from its last save."""
    folder, earlier = begin(work, asked.start, _commit())
    if earlier.done:
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # In bfloat16 the plain attention is the fastest one to train on a CPU.
    model = BertForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    )
    sources = {n: Source.load(work / f"{n}.json", work / f"{n}.npz") for n in _POOLS}
    drcd = squad_pool(asked.squad_dir / "DRCD_dev.json", "drcd")
    dev = (
        (split(drcd, "dev", whole=True), 20),
        (split(debian_pool(work, _DEBIAN), "dev"), 30),
        (split(stdlib_pool(), "dev", whole=True), 50),
    )
    recipe = Recipe(asked.minutes, late_from=0 if earlier.start else 0.3)
    train(model, tokenizer, sources, recipe, work / "model", QuickJudge(tokenizer, dev), earlier)


def _commit() -> str:
    """The commit of this recipe, marked when files have changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return found.stdout.strip() or "unknown"


def _make_trials(squad: Path, work: Path, base: BaseImage) -> None:
    """The held-out sets with the candidates of BM25 and of the base encoder."""
    makers = {
        "cmrc-trial": lambda: squad_pool(squad / "cmrc_trial.json", "cmrc-trial"),
        "drcd": lambda: split(squad_pool(squad / "DRCD_dev.json", "drcd"), "trial", whole=True),
        "debian": lambda: split(debian_pool(work, _DEBIAN), "trial"),
    }
    encoder = BiEncoder(base.encoder(), base.tokenizer())
    for name, limit in _TRIALS.items():
        if (work / f"trial-{name}.json").exists():
            continue
        pool, answers = _demo_pool() if name == "stdlib" else (makers[name](), None)
        make_trial(pool, encoder, limit, answers).save(work)


def _demo_pool() -> tuple[Pool, list[list[int]]]:
    """The demo's questions over their answers and a third of the other documents."""
    questions = read_questions()
    answers = {name for question in questions for name in question["answers"]}
    documents = {
        name: text
        for name, text in collect_documents().items()
        if name in answers or bucket(name) < 0.33
    }
    place = {name: i for i, name in enumerate(documents)}
    right = [[place[name] for name in q["answers"] if name in place] for q in questions]
    pool = Pool("stdlib", list(documents.values()), list(documents))
    pool.questions = [
        Question(question["question"], places[0])
        for question, places in zip(questions, right, strict=True)
    ]
    return pool, right


def _judge(work: Path) -> dict[str, object]:
    """Figures of every trial, of the checks and of the training; judged once, then kept."""
    path = work / "figures.json"
    if not path.exists():
        torch.set_num_threads(os.cpu_count() or 1)
        scorer = load_scorer(ScorerConfig(model=str(work / "model"), self_check=False))
        trained = Trained.load(work / "model")
        assert trained is not None
        trials = {}
        for name in _TRIALS:
            trials[name] = judge(Trial.load(work / f"trial-{name}.json"), scorer)
            log.info("%s %s", name, trials[name])
        figures = {
            "trials": trials,
            "checks": check_scores(scorer),
            "trained": asdict(trained),
        }
        path.write_text(json.dumps(figures, indent=1))
    figures = json.loads(path.read_text())
    assert isinstance(figures, dict)
    return figures


if __name__ == "__main__":
    main()
