"""Our scorer against its peers: same pairs, model and machine, in turns; text in, scores out.

python benchmarks/bench_scorer.py                      the embedded model, every mix and request
python benchmarks/bench_scorer.py --small              a smoke run of seconds
python benchmarks/bench_scorer.py --model bge-reranker-v2-m3-shape --device cuda --dtype bfloat16
    the real config of bge-reranker-v2-m3 with weights from a seed: its compute, not its scores
python benchmarks/bench_scorer.py --int8 --engines-python PYTHON --pairs chinese.json
    int8 beside float32, OpenVINO and ONNX Runtime, on the mixes and on pairs of your own

Every round runs every rival once, in turning order, beside a measurement of the machine's matmul
peak; ratios are medians over rounds of ours against the rival in the same round. Memory is what a
call takes above the loaded models. Order: rank correlation (Spearman) with our float32 over each
query's documents, at least 20 of them, and how many of its first ten are the same. Ends in one JSON
line. Nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import CrossEncoder

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.about import commit, cpu
from benchmarks.gpu.scorers import DTYPES
from benchmarks.gpu.session import DRY, FULL, Session
from benchmarks.gpu.shapes import bge_reranker_v2_m3, body_flops
from benchmarks.pair_mixes import MIXES, Mix, Pair, Texts
from benchmarks.scorer_rivals import (
    CpuEngine,
    FlagStyle,
    Infinity,
    Ours,
    Predict,
    Rival,
)
from rerank_core import ScorerConfig

SHAPE = "bge-reranker-v2-m3-shape"
_CLOCK_HELP = "cpu: this process's CPU seconds, for a busy machine; use one thread, no infinity"
BATCH_SIZES = (4, 8, 16, 32, 64, 128)
ENGINES = (
    "openvino-float32",
    "openvino-dynamic",
    "openvino-static",
    "onnxruntime-int8",
    "cross-encoder-openvino",
)


class Machine:
    """The device: its matmul peak now, and the memory of a call."""

    def __init__(self, device: str, dtype: str, small: bool, clock: str) -> None:
        self.cuda = device.startswith("cuda")
        self._now = time.process_time if clock == "cpu" else time.perf_counter
        rows, size = (8192, 8192) if self.cuda else (2048, 256 if small else 1536)
        self._left = torch.randn(rows, size, device=device, dtype=DTYPES[dtype])
        self._right = torch.randn(size, size, device=device, dtype=DTYPES[dtype])
        self._flops = 2 * rows * size * size

    def peak_flops(self) -> float:
        """Return the best rate of several large multiplications, in FLOP/s."""
        best = 0.0
        for _ in range(6):
            started_s = self._now()
            torch.mm(self._left, self._right)
            self._wait()
            best = max(best, self._flops / (self._now() - started_s))
        return best

    @contextlib.contextmanager
    def call(self, record: dict[str, float]) -> Iterator[None]:
        """Record `seconds` and `memory_mb` of what runs inside."""
        before_mb = self._start_memory()
        started_s = self._now()
        yield
        self._wait()
        record["seconds"] = self._now() - started_s
        record["memory_mb"] = max(0.0, self._peak_memory_mb() - before_mb)

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def _start_memory(self) -> float:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated() / 2**20
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")

    def _peak_memory_mb(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if self.cuda else _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    return 0.0


class Bench:
    """One model in one precision: the rivals, the texts, the sums."""

    def __init__(self, options: argparse.Namespace, dtype: str, work: Path) -> None:
        self.options, self.dtype = options, dtype
        folder = _folder(options, work)
        common: dict[str, Any] = {
            "model": str(folder),
            "device": options.device,
            "dtype": dtype,
            "self_check": False,
        }
        self.ours = Ours("ours", ScorerConfig(**common))
        padded = Ours("ours, padded", ScorerConfig(**common, backend="cross_encoder"))
        self.encoder = CrossEncoder(
            str(folder),
            device=options.device,
            max_length=self.ours.scorer.info.max_length,
            model_kwargs={"dtype": DTYPES[dtype]},
        )
        if options.compile:
            self.encoder.compile()
        flag = FlagStyle(self.encoder, options.device)
        self.rivals: list[Rival] = [self.ours, padded, Predict("predict, 32", self.encoder, 32)]
        self.rivals.append(flag)
        self.apart: list[Infinity | CpuEngine] = []
        if options.infinity_python:
            engine = Infinity(options.infinity_python, folder, options.device, dtype, work)
            self.apart.append(engine)
        if options.int8:
            self.rivals[1] = Ours("ours, int8", ScorerConfig(**common | {"dtype": "int8"}))
            self.rivals.remove(flag)
        if options.engines_python:
            self.apart += [CpuEngine(options.engines_python, folder, m) for m in options.engines]
        self.rivals += self.apart
        self.machine = Machine(options.device, dtype, options.small, options.clock)
        info = self.ours.scorer.info
        tokens: Any = self.ours.scorer
        longest = info.max_length - 40
        found = tokens.encoder.frame.texts

        def offsets(text: str) -> Any:
            return found.batch([text], 10**7, offsets=True)[text].encoding.offsets

        self.texts = Texts(offsets, longest)

    def compare(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Time every rival on the same pairs, in turns."""
        sample = pairs[: max(16, len(pairs) // 4)]
        best = self._best_predict(sample)
        for engine in self.apart:
            if isinstance(engine, CpuEngine):
                engine.batch_size = self._best_size(engine, sample)
        rivals = [*self.rivals, best]
        lengths = self.ours.lengths(pairs)
        records: dict[str, list[dict[str, float]]] = {rival.name: [] for rival in rivals}
        scores: dict[str, Any] = {}
        peaks = []
        for turn in range(self.options.rounds):
            peaks.append(self.machine.peak_flops())
            for rival in rivals[turn % len(rivals) :] + rivals[: turn % len(rivals)]:
                record: dict[str, float] = {}
                with self.machine.call(record):
                    scores[rival.name] = rival.score(pairs)
                if isinstance(rival, CpuEngine):
                    record["memory_mb"] = rival.memory_mb
                    if self.options.clock == "cpu":
                        record["seconds"] = rival.cpu_s
                records[rival.name].append(record)
        peak = statistics.median(peaks)
        work = body_flops(self.encoder.transformers_model, lengths)
        found = {
            "pairs": len(pairs),
            "tokens": int(sum(lengths)),
            "peak_gflops": round(peak / 1e9, 1),
            "difference": float(np.abs(scores["ours"] - scores["predict, 32"]).max()),
            "rivals": {},
        }
        for rival in rivals:
            computed = rival.computed_tokens(pairs, lengths)
            found["rivals"][rival.name] = self._row(
                records[rival.name], records["ours"], found, computed, work / peak
            )
            found["rivals"][rival.name] |= order(pairs, scores["ours"], scores[rival.name])
            if isinstance(rival, CpuEngine | Predict):
                found["rivals"][rival.name]["batch_size"] = rival.batch_size
        return found

    def _best_size(self, engine: CpuEngine, pairs: Sequence[Pair]) -> int:
        seconds = {}
        for engine.batch_size in BATCH_SIZES[: 2 if self.options.small else 4]:
            record: dict[str, float] = {}
            with self.machine.call(record):
                engine.score(pairs)
            cpu = self.options.clock == "cpu"
            seconds[engine.batch_size] = engine.cpu_s if cpu else record["seconds"]
        return min(seconds, key=lambda size: seconds[size])

    @property
    def texts_limit(self) -> int:
        """Tokens of a pair that the model reads."""
        return self.ours.scorer.info.max_length

    def _best_predict(self, pairs: Sequence[Pair]) -> Predict:
        seconds = {}
        for size in BATCH_SIZES[: 2 if self.options.small else None]:
            record: dict[str, float] = {}
            with self.machine.call(record):
                Predict("", self.encoder, size).score(pairs)
            seconds[size] = record["seconds"]
        size = min(seconds, key=lambda key: seconds[key])
        return Predict("predict, best", self.encoder, size)

    @staticmethod
    def _row(
        mine: Sequence[dict[str, float]],
        ours: Sequence[dict[str, float]],
        found: dict[str, Any],
        computed: int | None,
        ideal_s: float,
    ) -> dict[str, Any]:
        seconds = _median(mine, "seconds")
        ratios = [m["seconds"] / o["seconds"] for m, o in zip(mine, ours, strict=True)]
        return {
            "seconds": round(seconds, 4),
            "pairs_s": round(found["pairs"] / seconds, 1),
            "tokens_s": round(found["tokens"] / seconds),
            "ours_faster": round(statistics.median(ratios), 3),
            "ours_faster_range": [round(min(ratios), 3), round(max(ratios), 3)],
            "real_tokens": None if computed is None else round(found["tokens"] / computed, 3),
            "memory_mb": round(max(record["memory_mb"] for record in mine)),
            "of_peak": round(ideal_s / seconds, 3),
        }


def order(pairs: Sequence[Pair], ours: Any, theirs: Any) -> dict[str, float | None]:
    """Compare two orders of each query's documents; None where no query has 20."""
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(place)
    many = [found for found in places.values() if len(found) >= 20]
    if not many:
        return {"rank_correlation": None, "first_ten": None}
    ranks = [spearmanr(ours[found], theirs[found]).statistic for found in many]
    tens = [
        len(set(np.argsort(-ours[found])[:10]) & set(np.argsort(-theirs[found])[:10]))
        for found in many
    ]
    return {
        "rank_correlation": round(statistics.mean(ranks), 4),
        "first_ten": round(statistics.mean(tens), 2),
    }


def _median(records: Sequence[dict[str, float]], key: str) -> float:
    return statistics.median(record[key] for record in records)


def _folder(options: argparse.Namespace, work: Path) -> Path:
    if options.model == SHAPE:
        sizes = DRY if options.small else FULL
        file = work / "not written"
        return bge_reranker_v2_m3(Session(file, work, options.device, math.inf, sizes))
    folder = ScorerConfig(model=options.model).model_dir
    if folder is None:
        raise SystemExit("give `embedded`, a folder, or bge-reranker-v2-m3-shape")
    return folder


def measure(options: argparse.Namespace, dtype: str, work: Path) -> dict[str, Any]:
    """Run what was asked for in one precision."""
    bench = Bench(options, dtype, work)
    result: dict[str, Any] = {"dtype": dtype, "max_length": bench.texts_limit}
    try:
        warm = bench.texts.pool(MIXES["chunks"], 600, seed=9)
        for rival in bench.rivals:
            rival.score(warm)
        pools = {
            MIXES[name].title: bench.texts.pool(MIXES[name], options.tokens, seed=3)
            for name in options.mixes
        }
        for count in options.requests:
            pools[f"one request of {count}"] = bench.texts.request(count, MIXES["mixed"], seed=2)
        for count in options.documents:
            exact = Mix("", 100, 0.0, 100)
            pools[f"{count} of 100 tokens"] = bench.texts.request(count, exact, seed=4)
        for path in options.pairs:
            pools[path.stem] = [tuple(p) for p in json.loads(path.read_text(encoding="utf-8"))]
        result["mixes"] = {}
        for title, pairs in pools.items():
            result["mixes"][title] = found = bench.compare(pairs)
            print(_table(title, found), flush=True)
    finally:
        for engine in bench.apart:
            engine.close()
    return result


def _table(title: str, found: dict[str, Any]) -> str:
    lines = [
        f"\n{title}: {found['pairs']} pairs, {found['tokens']} tokens,"
        f" matmul peak {found['peak_gflops']:.0f} GFLOP/s,"
        f" largest difference from predict {found['difference']:.1e}",
        f"{'':<26}{'pairs/s':>9}{'tokens/s':>10}{'ours faster':>13}{'real tokens':>13}"
        f"{'of peak':>9}{'MB':>7}{'order':>8}{'of 10':>7}",
    ]
    for name, row in found["rivals"].items():
        real = "" if row["real_tokens"] is None else f"{row['real_tokens']:.0%}"
        size = f" ({row['batch_size']})" if "batch_size" in row else ""
        lines.append(
            f"{name + size:<26}{row['pairs_s']:>9.1f}{row['tokens_s']:>10,}"
            f"{row['ours_faster']:>12.2f}x{real:>13}{row['of_peak']:>9.0%}{row['memory_mb']:>7}"
            f"{row['rank_correlation'] or '':>8}{row['first_ten'] or '':>7}"
        )
    return "\n".join(lines)


def picture(result: dict[str, Any]) -> str:
    """Return tokens per second of every rival on every mix, as an SVG."""
    # matplotlib is not everywhere that this runs.
    from benchmarks.chart import grouped

    rates = {
        mix: {name: row["tokens_s"] for name, row in found["rivals"].items()}
        for mix, found in result["runs"][0]["mixes"].items()
    }
    where = result["machine"]["cpu"]
    return grouped(f"Tokens per second: the {result['model']} model on an {where}", rates)


def _machine(device: str) -> dict[str, Any]:
    return {
        "cpu": cpu(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "torch": torch.__version__,
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="embedded", help=f"embedded, a folder, or {SHAPE}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, help="bfloat16 float16 on a GPU")
    parser.add_argument("--mixes", nargs="*", choices=MIXES, default=list(MIXES))
    parser.add_argument("--requests", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--tokens", type=int, help="of a mix (60,000; 4,000,000 on a GPU)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=_CLOCK_HELP)
    parser.add_argument("--compile", action="store_true", help="compile predict's model")
    parser.add_argument("--infinity-python", help="an interpreter that has infinity-emb")
    parser.add_argument("--int8", action="store_true", help="ours in int8, too, in place of padded")
    parser.add_argument("--engines-python", help="an interpreter for cpu_engine.py")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--pairs", type=Path, nargs="*", default=[], help="JSON: [[query, text]]")
    parser.add_argument(
        "--documents", type=int, nargs="*", default=[], help="requests of documents of 100 tokens"
    )
    parser.add_argument(
        "--small", action="store_true", help="a smoke run: its figures mean nothing"
    )
    parser.add_argument("--record", type=Path, help="folder for the result, beside earlier ones")
    parser.add_argument("--picture", type=Path, help="draw an SVG here")
    options = parser.parse_args(arguments)
    on_gpu = options.device.startswith("cuda")
    if options.clock == "cpu" and (on_gpu or options.infinity_python):
        parser.error("CPU seconds are for CPUs, and for rivals in this process")
    if on_gpu and (options.int8 or options.engines_python):
        parser.error("int8 and the engines of cpu_engine.py are for CPUs")
    options.dtype = options.dtype or (["bfloat16", "float16"] if on_gpu else ["float32"])
    options.tokens = options.tokens or (4_000_000 if on_gpu else 60_000)
    if options.small:
        options.tokens, options.rounds, options.requests = 500, 1, [3]
    return options


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run, print the JSON line, and return it."""
    options = _options(arguments)
    # A long corpus is tokenised once; that it is longer than the model is meant.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as work:
        runs = [measure(options, dtype, Path(work)) for dtype in options.dtype]
    result = {
        "benchmark": "scorer",
        "model": options.model,
        "device": options.device,
        "rounds": options.rounds,
        "clock": options.clock,
        "int8": options.int8,
        "commit": commit(),
        "machine": _machine(options.device),
        "runs": runs,
    }
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        options.picture.write_text(picture(result), encoding="utf-8")
    if options.record:
        options.record.mkdir(parents=True, exist_ok=True)
        kind = "-int8" if options.int8 else ""
        name = f"scorer{kind}-{Path(options.model).name}-{options.device}.json"
        (options.record / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
