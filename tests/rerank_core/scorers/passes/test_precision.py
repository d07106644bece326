"""Half precision on packed rows against the padded float32 reference, for every family."""

import numpy as np
import pytest

from rerank_core import ScorerConfig, load_scorer
from tests.rerank_core.scorers.conftest import cpu_has
from tests.rerank_core.scorers.passes.conftest import BERTS, CAUSAL

# For logits up to 1; twice what these models were measured at.
TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 2e-2}
if cpu_has("amx_bf16"):
    # It multiplies bfloat16 by AMX, and was measured at 0.0203.
    TOLERANCE["bfloat16"] = 3e-2


@pytest.fixture(scope="module")
def reference(gpu_models, unequal_pairs):
    """Return a function from family to its padded float32 logits, computed once on the CPU."""
    known = {}

    def of(family: str):
        if family not in known:
            config = ScorerConfig(
                **gpu_models[family], backend="cross_encoder", device="cpu", self_check=False
            )
            known[family] = load_scorer(config).score(unequal_pairs).raw
        return known[family]

    return of


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", [*BERTS, *CAUSAL])
def test_packed_scores_are_those_of_the_padded_float32_model(
    family, dtype, device, gpu_models, unequal_pairs, reference
):
    config = ScorerConfig(**gpu_models[family], dtype=dtype, device=device, self_check=False)
    scorer = load_scorer(config)
    scores = scorer.score(unequal_pairs)
    exact = reference(family)
    assert (scorer.info.backend, scores.errors) == ("packed", {})
    scale = max(1.0, float(np.abs(exact).max()))
    np.testing.assert_allclose(scores.raw, exact, rtol=0, atol=TOLERANCE[dtype] * scale)
    # The tolerance would pass a constant: pairs that are clearly apart must also stay in order.
    clear = np.abs(exact[:, None] - exact[None, :]) > 2 * TOLERANCE[dtype] * scale
    order = np.sign(exact[:, None] - exact[None, :])
    assert clear.any()
    assert (np.sign(scores.raw[:, None] - scores.raw[None, :]) == order)[clear].all()
