"""A linear layer of the towers, and its weight in the CPU's own layout."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gem_fast.kernels import linear, prepacked

Tower = TypeVar("Tower", bound=nn.Module)


class Linear(nn.Linear):
    """A linear layer and the activation after it, if any.

    After `prepack` its weight lies as the CPU's product reads it, and nowhere else. Whoever asks for `weight` gets a
    plain one, which the layer then holds for good; so it is after moving, casting, sharing and `load_state_dict`. State
    dicts, copies and pickles have plain ones and leave the layer as it is. `parameters()` shows what is held.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, activation: str | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        self.activation = activation

    def forward(self, x: Tensor, backend: str | None = None) -> Tensor:
        return linear(x, self.held, self.bias, self.activation, backend)

    @property
    def held(self) -> Tensor:
        """The weight `[O, I]` as it lies in memory, for `linear`."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    def prepack(self) -> None:
        """Hold the weight as oneDNN's product reads it, where that serves."""
        self._hold(prepacked(self.held))

    def unpack(self) -> None:
        """Hold the weight plainly."""
        self._hold(self.held.to_dense())

    def _hold(self, weight: Tensor) -> None:
        if weight is not self.held:
            self._parameters["weight"] = nn.Parameter(weight, requires_grad=False)

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if name == "weight" and found.is_mkldnn:
            with torch.inference_mode(False):  # it may be written to
                self.unpack()
            return self.held
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Linear":
        self.unpack()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*args)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """With `keep_vars` what is held."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not keep_vars:
            destination[f"{prefix}weight"] = destination[f"{prefix}weight"].to_dense()

    def __getstate__(self) -> dict[str, Any]:
        weight = self.held
        if weight.is_mkldnn:
            weight = nn.Parameter(weight.to_dense(), requires_grad=False)
        return self.__dict__ | {"_parameters": self._parameters | {"weight": weight}}


def hash_weights(digest: "hashlib._Hash", tower: nn.Module) -> None:
    """Take names and values of a tower's weights into a digest, in the order of their names; none is held twice."""
    for name, value in sorted(tower.state_dict(keep_vars=True).items()):
        digest.update(name.encode())
        digest.update(value.detach().to_dense().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def prepack(tower: Tower) -> Tower:
    """The tower, each of whose linear layers has its weight as the CPU reads it from now on."""
    for layer in tower.modules():
        if isinstance(layer, Linear):
            layer.prepack()
    return tower
