"""How many launches a GPU gets for what runs inside: counted by operator, on real tensors or on fake ones."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# Of our operators that launch more than one kernel: attention in tiles, with one iteration.
_OURS = {"gem_fast::self_self_attention_triton": 3}
_FREE = {"aten::empty.memory_format", "aten::empty_like", "aten::new_empty", "aten::_unsafe_view", "prim::device"}


class Launches(TorchDispatchMode):
    """Counts every operator that is no view and no memory to be filled; each of torch's once. Not in inference mode,
    where operators that are made of others come as one.

    Attributes:
        counts: launches by operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = operation.name()
        if not operation.is_view and name not in _FREE:
            self.counts[name] += _OURS.get(name, 1)
        return operation(*arguments, **(options or {}))
