"""OpenVINO as a plain user feeds it: one stream, sorted rectangles of a fixed number of pairs.

python openvino_engine.py FOLDER float32|dynamic|static THREADS

Runs in an environment with openvino, nncf, torch and transformers. Reads lines
{"pairs": [[query, text], ...], "batch_size": n}; answers each with {"scores", "cpu_s"}. `dynamic`:
int8 weights (`nncf.compress_weights`, INT8_ASYM), activations quantised as they come in groups of
128. `static`: `nncf.quantize`, calibrated on the first pairs that come, 200 at most. The script
imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

# Libraries print; only answers may reach the pipe.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import nncf  # noqa: E402
import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Engine:
    """One model in one mode."""

    def __init__(self, folder: str, mode: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.limit = min(self.tokenizer.model_max_length, 8192)
        self.mode, self.threads = mode, threads
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        names = [name for name in NAMES if name in self.tokenizer.model_input_names]
        example = {name: torch.ones(2, 16, dtype=torch.int64) for name in names}
        self.names = names
        self.model: Any = ov.convert_model(model.eval(), example_input=example)
        if mode == "dynamic":
            kind = nncf.CompressWeightsMode.INT8_ASYM
            self.model = nncf.compress_weights(self.model, mode=kind)
        self.compiled: Any = None

    def batches(self, pairs: list[list[str]], size: int) -> Any:
        """Yield the places and the inputs of each rectangle."""
        cut = {"truncation": "only_second", "max_length": self.limit}
        encoded = [self.tokenizer(*pair, **cut) for pair in pairs]
        order = np.argsort([-len(item["input_ids"]) for item in encoded], kind="stable")
        for start in range(0, len(order), size):
            places = order[start : start + size]
            batch = self.tokenizer.pad([encoded[i] for i in places], return_tensors="np")
            yield places, {name: batch[name] for name in self.names}

    def prepare(self, pairs: list[list[str]]) -> None:
        """Compile, having calibrated where that is the mode."""
        if self.mode == "static":
            data = nncf.Dataset([inputs for _, inputs in self.batches(pairs[:200], 8)])
            kind = nncf.ModelType.TRANSFORMER
            self.model = nncf.quantize(self.model, data, model_type=kind, subset_size=200)
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128" if self.mode == "dynamic" else "0",
        }
        self.compiled = ov.Core().compile_model(self.model, "CPU", options)

    def score(self, pairs: list[list[str]], size: int) -> list[float]:
        """Score, in input order, raw."""
        if self.compiled is None:
            self.prepare(pairs)
        scores = np.empty(len(pairs), dtype=np.float32)
        for places, inputs in self.batches(pairs, size):
            scores[places] = self.compiled(inputs)[0].reshape(-1)
        return [float(score) for score in scores]


def main() -> None:
    """Answer lines until there are none."""
    engine = Engine(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begun = time.process_time()
        scores = engine.score(asked["pairs"], asked["batch_size"])
        answer = {"scores": scores, "cpu_s": time.process_time() - begun}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
