"""Lays tokenised pairs out for a body: end to end in one row, or as a padded rectangle.

In a row, pairs of a causal body share what stands before their documents. It does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rerank_core.scorers.attention import Keys, Segments
from rerank_core.scorers.encoder import TokenizedPair

Types = tuple[tuple[int, int], tuple[int, ...]] | None


@dataclass(frozen=True, slots=True)
class Row:
    """Segments end to end, on the host; the last `pairs` of them are the pairs, in order.

    `lengths` are the segments' tokens. Where some attend to more than themselves, `keys` has the
    places of what each attends to, and `known` how many these are.
    """

    lengths: list[int]
    pairs: int
    ids: Any
    positions: Any
    types: Any = None
    keys: Any = None
    known: Sequence[int] = ()

    def arrays(self) -> list[Any]:
        """Return what the device needs, in the order that `arguments` takes it in."""
        found = [self.ids, self.positions, _bounds(self.lengths)]
        found += [] if self.types is None else [self.types]
        return found + ([] if self.keys is None else [self.keys, _bounds(self.known)])

    def arguments(
        self, parts: Sequence[Tensor], *, kernel: bool, longest: int = 0
    ) -> tuple[dict[str, Any], Tensor]:
        """Return a body's arguments, and the places in the row that bound its pairs.

        `parts` are the arrays on the device; a `longest` segment may be named that is none.
        """
        ids, positions, bounds, *rest = parts
        inputs: dict[str, Any] = {"input_ids": ids[None], "position_ids": positions[None]}
        if self.types is not None:
            inputs["token_type_ids"] = rest.pop(0)[None]
        keys = Keys(rest[0], rest[1], self.known) if rest else None
        inputs["segments"] = Segments.of(
            self.lengths, bounds, kernel=kernel, keys=keys, longest=longest
        )
        return inputs, bounds[len(self.lengths) - self.pairs :]

    def filled(self, tokens: int, segments: int) -> Row:
        """Return the row with so many tokens and segments: what is new is nobody's.

        One segment takes what is left but for a token, the last one that token, those between
        nothing; so each of them starts inside the row. At least two of both must be left.
        """
        rest = tokens - len(self.ids)
        lengths = [*self.lengths, rest - 1, *[0] * (segments - len(self.lengths) - 2), 1]
        return replace(
            self,
            lengths=lengths,
            pairs=segments,
            ids=np.pad(self.ids, (0, rest)),
            positions=np.pad(self.positions, (0, rest), constant_values=self.positions[0]),
            types=None if self.types is None else np.pad(self.types, (0, rest)),
        )


class Rows:
    """How a model expects pairs, with their type and position ids.

    `types` are those of a frame; `offset` is the model's first position.
    """

    def __init__(self, types: Types, offset: int, pad_id: int, *, left: bool = False) -> None:
        self._types, self._offset, self._pad_id, self._left = types, offset, pad_id, left

    def pack(self, batch: Sequence[TokenizedPair], *, share: bool = False) -> Row:
        """Return pairs in a row; with `share` what stands before their documents once."""
        if share and self._types is None and (row := self._shared(batch)) is not None:
            return row
        lengths = [len(pair) for pair in batch]
        types = None if self._types is None else self._type_row(batch, lengths)
        return Row(lengths, len(batch), _ids(batch), self._positions(lengths), types)

    def _shared(self, batch: Sequence[TokenizedPair]) -> Row | None:
        names = [pair.head.tobytes() for pair in batch]
        # A pair needs a token of its own, whose state is read. One alone is cut in two as well: its
        # sums then have one order, whoever shares its pass.
        kept = [len(pair.head) > 0 and len(pair.tail) > 0 for pair in batch]
        heads = {n: p.head for n, p, sharing in zip(names, batch, kept, strict=True) if sharing}
        if not heads:
            return None
        before = [len(heads[n]) if k else 0 for n, k in zip(names, kept, strict=True)]
        whole = [p.tail if k else _ids([p]) for p, k in zip(batch, kept, strict=True)]
        parts = [*heads.values(), *whole]
        lengths = [len(part) for part in parts]
        starts = _bounds(lengths)
        shared = {n: np.arange(start, start + len(head))
                  for (n, head), start in zip(heads.items(), starts, strict=False)}  # fmt: skip
        own = np.split(np.arange(starts[-1]), starts[1:-1])
        keys = own[: len(heads)]
        for name, sharing, places in zip(names, kept, own[len(heads) :], strict=True):
            keys += [shared[name], places] if sharing else [places]
        shifts = [0] * len(heads) + before
        known = [n + shift for n, shift in zip(lengths, shifts, strict=True)]
        positions = self._positions(lengths) + np.repeat(shifts, lengths)
        ids, places = np.concatenate(parts), np.concatenate(keys)
        return Row(lengths, len(batch), ids, positions, None, places, known)

    def _positions(self, lengths: Sequence[int]) -> Any:
        starts = _bounds(lengths)
        return np.arange(starts[-1]) - np.repeat(starts[:-1], lengths) + self._offset

    def _type_row(self, batch: Sequence[TokenizedPair], lengths: Sequence[int]) -> Any:
        both, behind = self._types or ((0, 0), ())
        halves = [half for pair in batch for half in (len(pair.head), len(pair.tail))]
        row = np.repeat(np.array(both * len(batch)), halves)
        ends = np.cumsum(lengths)
        for back, kind in enumerate(reversed(behind), start=1):
            if kind != both[1]:
                row[ends - back] = kind
        return row

    def pad(self, batch: Sequence[TokenizedPair], device: torch.device) -> dict[str, Tensor]:
        """Return the whole model's arguments for the same pairs, as a padded rectangle."""
        lengths = [len(pair) for pair in batch]
        shape = (len(batch), max(lengths))
        columns = np.arange(shape[1])
        filled = np.array(lengths)[:, None]
        mask = columns >= shape[1] - filled if self._left else columns < filled
        ids = np.full(shape, self._pad_id)
        ids[mask] = _ids(batch)
        arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self._types is not None:
            types = np.zeros(shape, dtype=np.int64)
            types[mask] = self._type_row(batch, lengths)
            arrays["token_type_ids"] = types
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _ids(batch: Sequence[TokenizedPair]) -> Any:
    return np.concatenate([part for pair in batch for part in (pair.head, pair.tail)])


def _bounds(lengths: Sequence[int]) -> Any:
    return np.cumsum([0, *lengths])
