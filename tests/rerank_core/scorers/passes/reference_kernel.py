"""What torch's kernel for packed rows computes, told again in plain sums, for a CPU."""

import torch


def varlen(
    query, key, value, queries, keys, most_queries, most_keys,
    *, scale=None, window_size=(-1, -1), enable_gqa=False, num_splits=None,
):  # fmt: skip
    """As torch.nn.attention.varlen.varlen_attn; a segment's queries stand at its last keys."""
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError("Try setting enable_gqa=True for GQA.")
    out = torch.zeros_like(query)
    bounds = zip(*(pair for part in (queries, keys) for pair in (part[:-1], part[1:])), strict=True)
    for first, last, first_key, last_key in (map(int, four) for four in bounds):
        assert last - first <= most_queries
        assert last_key - first_key <= most_keys
        if last == first or last_key == first_key:
            continue
        q = query[first:last].float()
        k, v = (part[first_key:last_key].float() for part in (key, value))
        k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
        logits = torch.einsum("qhd,khd->hqk", q, k) * (scale or q.shape[-1] ** -0.5)
        at = torch.arange(len(k))
        distance = at[len(k) - len(q) :, None] - at
        back, ahead = (len(k) if reach < 0 else reach for reach in window_size)
        hidden = (distance > back) | (distance < -ahead)
        weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
        out[first:last] = torch.einsum("hqk,khd->qhd", weights, v).to(out.dtype)
    return out
