"""Engines that CPU users pick, as a plain user feeds them: sorted rectangles of so many pairs.

python cpu_engine.py FOLDER MODE THREADS

Runs in an environment of its own, with the packages that its mode needs: torch, transformers and

    openvino-float32        openvino
    openvino-dynamic        openvino, nncf: int8 weights (`nncf.compress_weights`, INT8_ASYM),
                            activations quantised as they come in groups of 128
    openvino-static         openvino, nncf: `nncf.quantize`, calibrated on the first pairs that
                            come, 200 at most
    onnxruntime-int8        onnx, onnxruntime: `quantize_dynamic` by channel
    cross-encoder-openvino  sentence-transformers, optimum-intel: `CrossEncoder(backend=...)`

Reads lines {"pairs": [[query, text], ...], "batch_size": n}; answers each with {"scores", "cpu_s",
"memory_mb"}, the latter what the call took above what was there before it. The script imports
nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

# Libraries print; only answers may reach the pipe.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np  # noqa: E402
import torch  # noqa: E402

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Masked(torch.nn.Module):
    """The model with inputs by position and a ready mask: transformers' own is not traceable."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        named = dict(zip(self.names, inputs, strict=True))
        kept = named["attention_mask"][:, None, None, :].to(torch.float32)
        logits: torch.Tensor = self.model(**named | {"attention_mask": (1 - kept) * -1e9}).logits
        return logits


class Rectangles:
    """A model asked in sorted, padded batches; subclasses compile and compute."""

    def __init__(self, folder: str, mode: str, threads: int) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.limit = min(self.tokenizer.model_max_length, 8192)
        self.mode, self.threads = mode, threads
        load = AutoModelForSequenceClassification.from_pretrained
        self.names = [name for name in NAMES if name in self.tokenizer.model_input_names]
        self.torch_model = Masked(load(folder, dtype=torch.float32).eval(), self.names)
        self.example = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in self.names)
        self.compiled: Any = None

    def compile(self, batches: list[dict[str, Any]]) -> Any:
        """Return what computes logits from named arrays; `batches` are there to calibrate on."""
        raise NotImplementedError

    def score(self, pairs: list[list[str]], size: int) -> list[float]:
        """Score, in input order, raw."""
        if self.compiled is None:
            self.compiled = self.compile([inputs for _, inputs in self._batches(pairs[:200], 8)])
            del self.torch_model
        scores = np.empty(len(pairs), dtype=np.float32)
        for places, inputs in self._batches(pairs, size):
            scores[places] = self.compiled(inputs).reshape(-1)
        return [float(score) for score in scores]

    def _batches(self, pairs: list[list[str]], size: int) -> Any:
        cut = {"truncation": "only_second", "max_length": self.limit}
        encoded = [self.tokenizer(*pair, **cut) for pair in pairs]
        order = np.argsort([-len(item["input_ids"]) for item in encoded], kind="stable")
        for start in range(0, len(order), size):
            places = order[start : start + size]
            batch = self.tokenizer.pad([encoded[i] for i in places], return_tensors="np")
            yield places, {name: batch[name] for name in self.names}


class OpenVino(Rectangles):
    """OpenVINO, one stream."""

    def compile(self, batches: list[dict[str, Any]]) -> Any:
        """Convert from the torch module, quantise as the mode says, compile."""
        import openvino as ov

        model = ov.convert_model(self.torch_model, example_input=self.example)
        if self.mode == "openvino-dynamic":
            import nncf

            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
        if self.mode == "openvino-static":
            import nncf

            arrays = [tuple(inputs.values()) for inputs in batches]
            kind = nncf.ModelType.TRANSFORMER
            model = nncf.quantize(model, nncf.Dataset(arrays), model_type=kind, subset_size=200)
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128" if self.mode == "openvino-dynamic" else "0",
        }
        compiled = ov.Core().compile_model(model, "CPU", options)
        return lambda inputs: compiled(list(inputs.values()))[0]


class OnnxRuntime(Rectangles):
    """ONNX Runtime with weights in int8 by channel, activations by tensor as they come."""

    def compile(self, batches: list[dict[str, Any]]) -> Any:
        """Export, quantise, and open a session."""
        import tempfile

        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as work:
            whole, small = f"{work}/whole.onnx", f"{work}/small.onnx"
            axes = {name: {0: "pairs", 1: "tokens"} for name in self.names}
            torch.onnx.export(
                self.torch_model,
                self.example,
                whole,
                input_names=self.names,
                output_names=["logits"],
                dynamic_axes=axes,
                dynamo=False,
            )
            quantize_dynamic(whole, small, per_channel=True, weight_type=QuantType.QInt8)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            session = onnxruntime.InferenceSession(small, options, ["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]


class CrossEncoderOpenVino:
    """sentence-transformers' own way to OpenVINO, with nothing set but the threads and float32.

    Without the hint OpenVINO computes in bfloat16 wherever a CPU can.
    """

    def __init__(self, folder: str, mode: str, threads: int) -> None:
        from sentence_transformers import CrossEncoder

        hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        kwargs = {"export": True, "ov_config": hints}
        self.model = CrossEncoder(folder, backend="openvino", model_kwargs=kwargs)

    def score(self, pairs: list[list[str]], size: int) -> list[float]:
        """Score with predict."""
        found = self.model.predict(
            [tuple(pair) for pair in pairs],
            batch_size=size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return [float(score) for score in found]


ENGINES: dict[str, Any] = {
    "openvino-float32": OpenVino,
    "openvino-dynamic": OpenVino,
    "openvino-static": OpenVino,
    "onnxruntime-int8": OnnxRuntime,
    "cross-encoder-openvino": CrossEncoderOpenVino,
}


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Answer lines until there are none."""
    folder, mode, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    engine = ENGINES[mode](folder, mode, threads)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")
        before_mb, begun_s = _status_mb("VmRSS"), time.process_time()
        scores = engine.score(asked["pairs"], asked["batch_size"])
        answer = {
            "scores": scores,
            "cpu_s": time.process_time() - begun_s,
            "memory_mb": max(0.0, _status_mb("VmHWM") - before_mb),
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
