"""One run that judges a GPU: eight parts, most valuable first, each figure on disk at once.

python benchmarks/bench_gpu.py --out DIR                every part, within eight minutes
python benchmarks/bench_gpu.py --parts chunks requests  some of them
python benchmarks/bench_gpu.py --dry-run                every line, on a CPU: figures mean nothing

tests      the tests with the mark gpu      peak      products and copies of the device
chunks     a large pool against predict     requests  single requests, and what a launch costs
table      the family's reference table     causal    Qwen3-Reranker-0.6B's shape
precision  every dtype, tf32, float8        profile   kernels and gaps of small and large passes

Needs torch, transformers, sentence-transformers, pydantic and pytest; no network and no Ray. What a
machine lacks comes along as wheels: --wheels DIR. Weights are made there, from seeds.
A part runs in a process of its own: after one CUDA error a process gives no more figures.
"""

from __future__ import annotations

import argparse
import datetime
import math
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.about import commit  # noqa: E402
from benchmarks.gpu.session import DRY, FULL, Session, read, write  # noqa: E402

# Parts in their order, and the seconds that each may take at most.
PARTS = {
    "tests": 170,
    "peak": 30,
    "chunks": 140,
    "requests": 70,
    "table": 50,
    "causal": 60,
    "precision": 80,
    "profile": 50,
}


# Less is not worth starting a process for.
LEAST_S = 5


def run_part(name: str, session: Session) -> None:
    """Measure one part in this process."""
    import torch
    from transformers.utils import logging as transformers_logging

    from benchmarks.gpu.machine import describe

    transformers_logging.disable_progress_bar()
    if session.dry:
        # Tiny shapes gain nothing from threads, and on a busy machine threads wait for threads.
        torch.set_num_threads(1)
    result = read(session.file)
    if "machine" not in result:
        write(session.file, result | {"machine": describe(session.device)})
    _part(name)(session)


def _part(name: str) -> Callable[[Session], None]:
    # Imported one by one: torch and its users take seconds, and the parent needs none of them.
    if name == "tests":
        from benchmarks.gpu.gpu_tests import gpu_tests as part
    elif name == "peak":
        from benchmarks.gpu.ceilings import ceilings as part
    elif name == "causal":
        from benchmarks.gpu.causal import causal as part
    elif name == "precision":
        from benchmarks.gpu.precision import precision as part
    elif name == "profile":
        from benchmarks.gpu.profiles import profiles as part
    else:
        from benchmarks.gpu import encoders

        part = getattr(encoders, name)
    return part


def run(options: argparse.Namespace, work: Path) -> dict[str, object]:
    """Run every part that was asked for, and return the record."""
    file = options.out / "gpu.json"
    options.out.mkdir(parents=True, exist_ok=True)
    write(file, {"benchmark": "gpu", "commit": commit(), "settings": _settings(options)})
    ends_s = time.time() + options.seconds
    for name in options.parts:
        left_s = min(PARTS[name], ends_s - time.time())
        started_s = time.time()
        state = "skipped: no time was left"
        if left_s > LEAST_S:
            state = _run_one(name, options, work, left_s)
        result = read(file)
        result.setdefault("runs", {})[name] = {
            "state": state,
            "seconds": round(time.time() - started_s, 1),
        }
        write(file, result)
        print(f"{name}: {state}", flush=True)
    return read(file)


def _run_one(name: str, options: argparse.Namespace, work: Path, left_s: float) -> str:
    until_s = time.time() + left_s
    file = options.out / "gpu.json"
    if options.dry_run:
        run_part(name, Session(file, work, options.device, math.inf, DRY))
        return "done"
    command = [
        *(sys.executable, __file__, "--only", name, "--work", str(work)),
        *("--until", str(until_s - 2), "--out", str(options.out), "--device", options.device),
        *(["--wheels", str(options.wheels)] if options.wheels else []),
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=left_s, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {left_s:.0f} s; what it had measured stays"
    return "done" if done.returncode == 0 else f"failed (exit {done.returncode}); see its output"


def unpack(wheels: Path, target: Path) -> None:
    """Put a folder of wheels on the path: a wheel is a zip, and these need no scripts."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    sys.path.insert(0, str(target))


def _settings(options: argparse.Namespace) -> dict[str, object]:
    return {
        "parts": list(options.parts),
        "seconds": options.seconds,
        "device": options.device,
        "dry_run": options.dry_run,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=470, help="for all parts together")
    parser.add_argument("--out", type=Path, default=Path("gpu-out"), help="folder for the figures")
    parser.add_argument("--device", default=None, help="cuda, cuda:1; a dry run takes the CPU")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to import from")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes, in seconds, on a CPU")
    for name in ("--only", "--work", "--until"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.device = options.device or ("cpu" if options.dry_run else "cuda")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, draw, and print where the figures lie."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as scratch:
        work = Path(options.work or scratch)
        if options.wheels:
            unpack(options.wheels, work / "wheels")
        if options.only:
            file = options.out / "gpu.json"
            run_part(options.only, Session(file, work, options.device, float(options.until), FULL))
            return
        result = run(options, work)
    try:
        from benchmarks.gpu.pictures import draw

        pictures = [str(path) for path in draw(result, options.out)]
    except ImportError:
        pictures = ["none: matplotlib is not installed"]
    print(f"figures: {options.out / 'gpu.json'}; pictures: {', '.join(pictures)}")


if __name__ == "__main__":
    main()
