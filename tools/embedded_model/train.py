"""Fine-tunes the trimmed encoder as a cross-encoder, for a fixed number of minutes on the CPU.

Loss: listwise cross entropy, a balanced binary term that keeps the sigmoid meaningful, and a
small term that follows the teacher (BM25 and the base encoder's cosine) among the wrong passages.
"""

from __future__ import annotations

import copy
import json
import logging
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from tools.embedded_model.lists import ListMaker, Source, TrainingList

log = logging.getLogger(__name__)
_LATE_FROM = 0.3


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on beside its text."""

    minutes: float
    workers: int = 2
    seed: int = 7
    rate: float = 1.5e-4
    head_rate: float = 5e-4
    layer_decay: float = 0.9
    tokens_per_step: int = 2500
    warm_up: float = 0.03
    binary_weight: float = 0.5
    teacher_weight: float = 0.3
    checkpoint_minutes: float = 10


@dataclass(frozen=True)
class Batch:
    """Padded pairs of several lists; `lists` gives the first and last row of each."""

    inputs: dict[str, Tensor]
    lists: list[tuple[int, int, TrainingList]]


def batches(
    maker: ListMaker, tokenizer: PreTrainedTokenizerFast, late: bool, budget: int, seed: int
) -> list[Batch]:
    """Draw 96 lists and pack lists of like length into batches of about `budget` tokens."""
    drawn = [maker.draw(late) for _ in range(96)]
    flat = [(item.query, text) for item in drawn for text in item.texts]
    encoded = tokenizer(
        [pair[0] for pair in flat],
        [pair[1] for pair in flat],
        truncation="only_second",
        max_length=512,
    )
    rows, at = [], 0
    for item in drawn:
        end = at + len(item.texts)
        widest = max(len(ids) for ids in encoded["input_ids"][at:end])
        rows.append((widest, at, end, item))
        at = end
    rows.sort(key=lambda row: row[0])
    packs: list[list[tuple[int, int, int, TrainingList]]] = [[]]
    for row in rows:
        pairs = sum(r[2] - r[1] for r in packs[-1]) + row[2] - row[1]
        if packs[-1] and row[0] * pairs > budget:
            packs.append([])
        packs[-1].append(row)
    out = [_pad(tokenizer, encoded, pack) for pack in packs]
    random.Random(seed).shuffle(out)
    return out


def _pad(
    tokenizer: PreTrainedTokenizerFast,
    encoded: dict[str, list[list[int]]],
    pack: list[tuple[int, int, int, TrainingList]],
) -> Batch:
    picked = [i for _, start, end, _ in pack for i in range(start, end)]
    inputs = tokenizer.pad(
        {name: [values[i] for i in picked] for name, values in encoded.items()},
        return_tensors="pt",
    )
    lists, at = [], 0
    for _, start, end, item in pack:
        lists.append((at, at + end - start, item))
        at += end - start
    return Batch(dict(inputs), lists)


def list_loss(scores: Tensor, item: TrainingList, recipe: Recipe) -> Tensor:
    """Loss of one list from its raw scores, right passages first."""
    right, wrong = scores[: item.right], scores[item.right :]
    against = torch.logsumexp(wrong, 0)
    loss = (torch.logaddexp(right, against) - right).mean()
    binary = functional.softplus(-right).mean() + functional.softplus(wrong).mean()
    loss = loss + recipe.binary_weight * binary
    if item.teacher is not None:
        count = len(item.teacher)
        target = torch.softmax(torch.tensor(item.teacher), 0)
        follow = functional.kl_div(torch.log_softmax(wrong[:count], 0), target, reduction="sum")
        loss = loss + recipe.teacher_weight * follow
    return loss


def _optimizer(model: BertForSequenceClassification, recipe: Recipe) -> torch.optim.AdamW:
    """Lower layers learn slower; the word rows stay as they are, so that rare pieces stay right."""
    layers = model.config.num_hidden_layers
    groups = []
    for name, value in model.named_parameters():
        if "word_embeddings" in name:
            value.requires_grad_(False)
            continue
        if "encoder.layer." in name:
            depth = layers - 1 - int(name.split("encoder.layer.")[1].split(".")[0])
            rate = recipe.rate * recipe.layer_decay**depth
        elif "embeddings" in name:
            rate = recipe.rate * recipe.layer_decay**layers
        else:
            rate = recipe.head_rate
        decay = 0.0 if value.ndim < 2 else 0.01
        groups.append({"params": [value], "lr": rate, "full": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def _steps(
    maker: ListMaker, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, begun: float
) -> Iterator[tuple[float, Batch]]:
    """Batches with the share of the time that has passed, until the time is over."""
    turn = 0
    while True:
        passed = (time.monotonic() - begun) / 60 / recipe.minutes
        late = passed >= _LATE_FROM
        for batch in batches(maker, tokenizer, late, recipe.tokens_per_step, recipe.seed + turn):
            passed = (time.monotonic() - begun) / 60 / recipe.minutes
            if passed >= 1:
                return
            yield passed, batch
        turn += 1


def train(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    sources: dict[str, Source],
    recipe: Recipe,
    folder: Path,
    judge: Callable[[BertForSequenceClassification], dict[str, float]],
    earlier_minutes: float = 0,
) -> None:
    """Train in place for `recipe.minutes`, saving to `folder` and logging `judge` on the way.

    `earlier_minutes` were spent on this model before, in a run that was interrupted.

    Workers of one thread each step on the same float32 weights without waiting for one another
    (Hogwild): on a busy machine threads that wait for each other lose half of the time. So two
    runs differ a little even with one seed.
    """
    model.share_memory()
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    begun = time.monotonic()
    arguments = (model, tokenizer, sources, recipe, folder, judge, begun, earlier_minutes, counts)
    workers = [
        context.Process(target=_work, args=(rank, *arguments)) for rank in range(recipe.workers)
    ]
    for worker in workers:
        worker.start()
    totals = [counts.get() for _ in workers]
    for worker in workers:
        worker.join()
    save(model, tokenizer, folder)
    _note(folder, earlier_minutes + (time.monotonic() - begun) / 60, done=True)
    log.info("%d steps, %d lists", *(sum(column) for column in zip(*totals, strict=True)))


def minutes_trained(folder: Path) -> tuple[float, bool]:
    """How long the model in `folder` was trained up to its last save, and whether it is done."""
    path = folder / "training.json"
    if not path.exists():
        return 0.0, False
    noted = json.loads(path.read_text())
    return noted["minutes"], noted["done"]


def _note(folder: Path, minutes: float, *, done: bool) -> None:
    noted = json.dumps({"minutes": round(minutes, 1), "done": done})
    (folder / "training.json").write_text(noted)


def _work(
    rank: int,
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    sources: dict[str, Source],
    recipe: Recipe,
    folder: Path,
    judge: Callable[[BertForSequenceClassification], dict[str, float]],
    begun: float,
    earlier_minutes: float,
    counts: Queue[tuple[int, int]],
) -> None:
    """Step on the shared weights until the time is over; the first worker saves and judges."""
    os.setsid()
    torch.set_num_threads(1)
    maker = ListMaker(sources, recipe.seed + 1000 * rank)
    optimizer = _optimizer(model, recipe)
    # The passes run in bfloat16 on a copy; the optimizer keeps the float32 weights.
    runner = copy.deepcopy(model).bfloat16().train()
    saved, recent = 0.0, 0.0
    steps = lists = 0
    for passed, batch in _steps(maker, tokenizer, recipe, begun):
        scale = min(1.0, passed / recipe.warm_up + 0.02) * max(0.02, 1 - passed)
        for group in optimizer.param_groups:
            group["lr"] = group["full"] * scale
        loss = _step(runner, model, batch, recipe, optimizer)
        steps, lists = steps + 1, lists + len(batch.lists)
        recent = 0.98 * recent + 0.02 * loss if steps > 1 else loss
        minutes = (time.monotonic() - begun) / 60
        if steps % 20 == 0:
            log.info(
                "worker %d: %d steps, %d lists, %.1f min, loss %.3f",
                rank,
                steps,
                lists,
                minutes,
                recent,
            )
        if rank == 0 and minutes - saved > recipe.checkpoint_minutes:
            saved = minutes
            save(model, tokenizer, folder)
            _note(folder, earlier_minutes + minutes, done=False)
            log.info("dev %s", json.dumps(judge(model)))
    counts.put((steps, lists))


def _step(
    runner: BertForSequenceClassification,
    model: BertForSequenceClassification,
    batch: Batch,
    recipe: Recipe,
    optimizer: torch.optim.AdamW,
) -> float:
    """One step on `model` with the gradients of its bfloat16 copy `runner`; returns the loss."""
    learned = [value for value in model.parameters() if value.requires_grad]
    copies = [value for value in runner.parameters() if value.requires_grad]
    with torch.no_grad():
        torch._foreach_copy_(copies, learned)
    scores = runner(**batch.inputs).logits[:, 0].float()
    losses = [list_loss(scores[a:b], item, recipe) for a, b, item in batch.lists]
    loss = torch.stack(losses).mean()
    loss.backward()
    for value, ours in zip(learned, copies, strict=True):
        value.grad = ours.grad.float() if ours.grad is not None else None
        ours.grad = None
    torch.nn.utils.clip_grad_norm_(learned, 1.0)
    optimizer.step()
    return loss.item()


def save(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write weights in float16, config and tokenizer; training goes on in float32."""
    half = BertForSequenceClassification(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
