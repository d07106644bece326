"""Fine-tunes the trimmed encoder as a cross-encoder, for a fixed number of minutes on the CPU.

Loss: listwise cross entropy, a balanced binary term that keeps the sigmoid meaningful, and the
squared distance to what the teachers say (BM25, the cosines of the base encoder and of an English
one), both taken around their means over the list. What is kept in the end is the mean of the late
checkpoints and the last weights (Kaddour 2022, arXiv:2209.14981): single ones swing. A run that
goes on from an earlier model ends halfway between the two (Wortsman et al. 2022, arXiv:2109.01903):
it forgets less of what that one knew.
"""

from __future__ import annotations

import copy
import json
import logging
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from tools.embedded_model.card import sha256_of
from tools.embedded_model.lists import ListMaker, Source, TrainingList
from tools.embedded_model.passes import Ids, raw_scores, token_ids

log = logging.getLogger(__name__)
# Padded tokens of a pass: few, so that short pairs are not padded to the length of long ones.
_PASS_TOKENS = 640
# In the work folder: the weights that a run went on from.
_BEFORE = "before.safetensors"
Clock = Callable[[], float]


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on beside its text; `minutes` counts interrupted runs too."""

    minutes: float
    workers: int = 2
    seed: int = 7
    rate: float = 1.5e-4
    head_rate: float = 5e-4
    layer_decay: float = 0.9
    tokens_per_step: int = 2500
    warm_up: float = 0.03
    binary_weight: float = 0.5
    teacher_weight: float = 0.1
    # By how much (in logits) the right passage leads in what the teachers are made to say.
    lead: tuple[float, float] = (1.0, 6.0)
    checkpoint_minutes: float = 8
    # Share of the time after which checkpoints count in the mean.
    mean_from: float = 0.5
    # Share of the time after which passages are long.
    late_from: float = 0.3


@dataclass(frozen=True)
class Trained:
    """From which weights a run began ('': the base's), by which recipe, and how far it has come."""

    start: str
    recipe: str
    minutes: float = 0.0
    done: bool = False

    def save(self, folder: Path) -> None:
        """Write it beside the weights in `folder`."""
        (folder / "training.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> Trained | None:
        """Read what `save` wrote; None where nothing was trained yet."""
        path = folder / "training.json"
        return cls(**json.loads(path.read_text())) if path.exists() else None


def begin(work: Path, start: Path | None, commit: str) -> tuple[Path, Trained]:
    """Return the folder of the model to train and what was spent on it before.

    The weights of `start` are copied into `work`: the run ends halfway to them. FileNotFoundError
    if an interrupted run has lost that copy.
    """
    earlier, before = Trained.load(work / "model"), work / _BEFORE
    if earlier:
        if earlier.start and not earlier.done and not before.exists():
            raise FileNotFoundError(
                f"{before} is missing; put the model.safetensors there whose sha256 begins with "
                f"{earlier.start[:16]}, which this run began with"
            )
        return work / "model", earlier
    if start:
        shutil.copyfile(start / "model.safetensors", before)
    return start or work / "start", Trained(sha256_of(before) if start else "", commit)


@dataclass(frozen=True)
class Encoded:
    """Training lists drawn together and the token ids of their pairs, list by list."""

    lists: list[TrainingList]
    ids: Ids


def draws(
    maker: ListMaker, tokenizer: PreTrainedTokenizerFast, late: bool, budget: int
) -> Iterator[Encoded]:
    """Draw 96 lists and yield them, as they come, in groups of about `budget` tokens."""
    drawn = [maker.draw(late) for _ in range(96)]
    queries = [item.query for item in drawn for _ in item.texts]
    encoded = token_ids(tokenizer, queries, [text for item in drawn for text in item.texts])
    group: list[TrainingList] = []
    first = at = 0
    for item in drawn:
        group.append(item)
        at += len(item.texts)
        ids = {name: values[first:at] for name, values in encoded.items()}
        if sum(map(len, ids["input_ids"])) >= budget or item is drawn[-1]:
            yield Encoded(group, ids)
            group, first = [], at


def list_loss(scores: Tensor, item: TrainingList, recipe: Recipe) -> Tensor:
    """Loss of one list from its raw scores, right passages first."""
    right, wrong = scores[: item.right], scores[item.right :]
    against = torch.logsumexp(wrong, 0)
    loss = (torch.logaddexp(right, against) - right).mean()
    binary = functional.softplus(-right).mean() + functional.softplus(wrong).mean()
    loss = loss + recipe.binary_weight * binary
    if item.teacher is not None:
        target = torch.tensor(item.teacher)
        # Where the teachers are wrong they are put right: the answer leads, but not without bounds.
        best = float(target[item.right :].max())
        target[: item.right].clamp_(best + recipe.lead[0], best + recipe.lead[1])
        gap = (scores - scores.mean()) - (target - target.mean())
        loss = loss + recipe.teacher_weight * gap.square().mean()
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


def _groups(
    maker: ListMaker, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, clock: Clock
) -> Iterator[tuple[float, Encoded]]:
    """Groups of lists with the minutes that have passed, until the time is over."""
    while True:
        late = clock() >= recipe.late_from * recipe.minutes
        for group in draws(maker, tokenizer, late, recipe.tokens_per_step):
            minutes = clock()
            if minutes >= recipe.minutes:
                return
            yield minutes, group


def train(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    sources: dict[str, Source],
    recipe: Recipe,
    folder: Path,
    judge: Callable[[BertForSequenceClassification], dict[str, float]],
    earlier: Trained,
) -> None:
    """Train in place up to `recipe.minutes`, saving to `folder` and logging `judge` on the way.

    Late checkpoints are kept in `late` beside `folder` until they are averaged.

    `earlier` says what was spent on this model before, in a run that was interrupted; its place in
    the schedule is kept. RuntimeError if a worker fails.

    Workers of one thread each step on the same float32 weights without waiting for one another
    (Hogwild): on a busy machine threads that wait for each other lose half of the time. So two
    runs differ a little even with one seed.
    """
    if not earlier.minutes:
        shutil.rmtree(_late(folder), ignore_errors=True)
    _late(folder).mkdir(exist_ok=True)
    model.share_memory()
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    begun = time.monotonic()

    def clock() -> float:
        return earlier.minutes + (time.monotonic() - begun) / 60

    arguments = (model, tokenizer, sources, recipe, folder, judge, clock, earlier, counts)
    workers = [
        context.Process(target=_work, args=(rank, *arguments), daemon=True)
        for rank in range(recipe.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a worker failed, its error is above; the same command goes on")
    totals = [counts.get() for _ in workers]
    keep_means(model, _late(folder), folder.with_name(_BEFORE) if earlier.start else None)
    save(model, tokenizer, replace(earlier, minutes=clock(), done=True), folder)
    log.info("%d steps, %d lists", *(sum(column) for column in zip(*totals, strict=True)))


def _work(
    rank: int,
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    sources: dict[str, Source],
    recipe: Recipe,
    folder: Path,
    judge: Callable[[BertForSequenceClassification], dict[str, float]],
    clock: Clock,
    earlier: Trained,
    counts: Queue[tuple[int, int]],
) -> None:
    """Step on the shared weights until the time is over; the first worker saves and judges."""
    torch.set_num_threads(1)
    # A run that goes on draws other lists than before.
    maker = ListMaker(sources, recipe.seed + 1000 * rank + round(60_000 * earlier.minutes))
    optimizer = _optimizer(model, recipe)
    # The passes run in bfloat16 on a copy; the optimizer keeps the float32 weights.
    runner = copy.deepcopy(model).bfloat16().train()
    saved, recent = earlier.minutes, 0.0
    steps = lists = 0
    for minutes, group in _groups(maker, tokenizer, recipe, clock):
        passed = minutes / recipe.minutes
        scale = min(1.0, passed / recipe.warm_up + 0.02) * max(0.02, 1 - passed)
        for parameters in optimizer.param_groups:
            parameters["lr"] = parameters["full"] * scale
        loss = _step(runner, model, tokenizer, group, recipe, optimizer)
        steps, lists = steps + 1, lists + len(group.lists)
        recent = 0.98 * recent + 0.02 * loss if steps > 1 else loss
        if steps % 20 == 0:
            counted = (rank, steps, lists, minutes, recent)
            log.info("worker %d: %d steps, %d lists, %.1f min, loss %.3f", *counted)
        if rank == 0 and minutes - saved > recipe.checkpoint_minutes:
            saved = minutes
            save(model, tokenizer, replace(earlier, minutes=minutes), folder)
            if passed >= recipe.mean_from:
                # The next save removes its folder, not this second name of the file.
                kept = _late(folder) / f"{minutes:05.1f}.safetensors"
                kept.hardlink_to(folder / "model.safetensors")
            log.info("dev %s", json.dumps(judge(model)))
    counts.put((steps, lists))


def _step(
    runner: BertForSequenceClassification,
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    group: Encoded,
    recipe: Recipe,
    optimizer: torch.optim.AdamW,
) -> float:
    """One step on `model` with the gradients of its bfloat16 copy `runner`; returns the loss."""
    learned = [value for value in model.parameters() if value.requires_grad]
    copies = [value for value in runner.parameters() if value.requires_grad]
    with torch.no_grad():
        torch._foreach_copy_(copies, learned)
    scores = raw_scores(runner, tokenizer, group.ids, _PASS_TOKENS)
    losses, start = [], 0
    for item in group.lists:
        losses.append(list_loss(scores[start : start + len(item.texts)], item, recipe))
        start += len(item.texts)
    loss = torch.stack(losses).mean()
    loss.backward()
    for value, ours in zip(learned, copies, strict=True):
        value.grad = ours.grad.float() if ours.grad is not None else None
        ours.grad = None
    torch.nn.utils.clip_grad_norm_(learned, 1.0)
    optimizer.step()
    return loss.item()


def _late(folder: Path) -> Path:
    return folder.with_name("late")


def keep_means(model: BertForSequenceClassification, late: Path, before: Path | None) -> None:
    """Put the mean of its weights and of those in `late` into `model`, halfway to `before`."""
    _average(model, sorted(late.glob("*.safetensors")))
    if before:
        _average(model, [before])


@torch.no_grad()
def _average(model: BertForSequenceClassification, files: list[Path]) -> None:
    others = [load_file(path) for path in files]
    for name, value in model.state_dict().items():
        value.copy_(torch.stack([value, *(other[name].float() for other in others)]).mean(0))


def save(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    trained: Trained,
    folder: Path,
) -> None:
    """Put weights in float16, config, tokenizer and `trained` in `folder`'s place, all or nothing.

    Training goes on in float32.
    """
    new, old = (folder.with_name(f"{folder.name}.{end}") for end in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    half = BertForSequenceClassification(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(new)
    tokenizer.save_pretrained(new)
    trained.save(new)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
