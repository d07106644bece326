"""Counts what a launch asks of the device, on torch's `meta` device, where nothing can be fetched.

`meta` raises on `item`, `nonzero`, boolean indexing and every copy back, so whatever runs there
never waits for the device. Copies to it do not raise; they are counted.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

# Operators that give the same memory another shape, or nothing to do: the host pays for them, the
# device does not.
_VIEWS = (
    *("view", "reshape", "transpose", "permute", "select", "slice", "unsqueeze", "squeeze"),
    *("expand", "split_with_sizes", "split", "unbind", "chunk", "as_strided", "detach", "alias"),
    *("t", "unflatten", "flatten", "resolve_conj", "resolve_neg", "dropout", "empty", "lift_fresh"),
)


class Operations(TorchDispatchMode):
    """What was dispatched inside, and which of it crossed from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.crossings: list[str] = []
        self._factories = _Factories(self.crossings)

    def __enter__(self) -> Operations:
        self._factories.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._factories.__exit__(*error)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **kwargs or {})
        name = operator.overloadpacket.__name__
        self.names[name] += 1
        leaves = _pytree.tree_leaves((args, kwargs, out))
        # A number in a tensor without dimensions travels as the kernel's argument, not as a copy.
        devices = {t.device.type for t in leaves if isinstance(t, torch.Tensor) and t.ndim}
        if devices == {"cpu", "meta"}:
            self.crossings.append(name)
        return out

    @property
    def dispatches(self) -> int:
        """How many operators the host asked torch for."""
        return self.names.total()

    @property
    def kernels(self) -> int:
        """How many of them compute or copy."""
        return sum(count for name, count in self.names.items() if name not in _VIEWS)


class _Factories(TorchFunctionMode):
    """Notes tensors that are made on the device from the host's numbers: these dispatch nothing."""

    def __init__(self, crossings: list[str]) -> None:
        super().__init__()
        self._crossings = crossings

    def __torch_function__(self, function, types, args=(), kwargs=None):
        device = torch.device((kwargs or {}).get("device") or "cpu")
        if function in (torch.tensor, torch.as_tensor) and device.type == "meta":
            self._crossings.append(function.__name__)
        return function(*args, **kwargs or {})
