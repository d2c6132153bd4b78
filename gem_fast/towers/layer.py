"""A linear layer of the towers, and its weight in the CPU's own layout."""

import hashlib
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gem_fast.kernels import linear, prepacked
from gem_fast.kernels.linear import Panels, in_panels, mlp

Tower = TypeVar("Tower", bound=nn.Module)


class Linear(nn.Linear):
    """A linear layer and the activation after it, if any.

    After `prepack` its weight lies as the CPU's product reads it, and nowhere else: as an opaque `weight`, or as a
    parameter `panels` in its place. Whoever asks for `weight` gets a plain one, which the layer then holds for good; so
    it is after moving, casting, sharing and `load_state_dict`. State dicts, copies and pickles have plain ones and
    leave the layer as it is. `parameters()` shows what is held.
    """

    panels: nn.Parameter | None

    def __init__(self, inputs: int, outputs: int, bias: bool = True, activation: str | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        self.register_parameter("panels", None)
        self.activation = activation

    def forward(self, x: Tensor, backend: str | None = None) -> Tensor:
        return linear(x, self.held, self.bias, self.activation, backend)

    @property
    def held(self) -> Tensor | Panels:
        """The weight `[O, I]` as it lies in memory, for `linear`."""
        while True:  # once, but where another thread lays it out meanwhile
            weight, panels = self._parameters["weight"], self._parameters["panels"]
            if weight is not None:
                return weight
            if panels is not None:
                return Panels(panels)

    @property
    def is_packed(self) -> bool:
        """Whether the weight lies as the CPU's product reads it."""
        return isinstance(self.held, Panels) or self.held.is_mkldnn

    def prepack(self, native: bool = True) -> None:
        """Hold the weight as the fastest product here reads it, where there is one; our own only if `native`."""
        plain = self.held
        if isinstance(plain, Tensor):
            self._hold((in_panels(plain) if native else None) or prepacked(plain))

    def unpack(self) -> None:
        """Hold the weight plainly."""
        self._hold(self.held.to_dense())

    def _hold(self, weight: Tensor | Panels) -> None:
        if isinstance(weight, Panels):
            self._parameters["panels"] = nn.Parameter(weight.values, requires_grad=False)
            self._parameters["weight"] = None
        elif weight is not self._parameters["weight"]:
            self._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
            self._parameters["panels"] = None

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if name == "weight" and (found is None or found.is_mkldnn):
            with torch.inference_mode(False):  # it may be written to
                self.unpack()
            return self._parameters["weight"]
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Linear":
        self.unpack()
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*args)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """With `keep_vars` what is held."""
        name = f"{prefix}weight"
        if not keep_vars:
            destination[name] = self.held.to_dense().detach()  # first, as in a plain layer
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not keep_vars:
            destination[name] = destination[name].to_dense()
            destination.pop(f"{prefix}panels", None)

    def __getstate__(self) -> dict[str, Any]:
        plain = {"weight": self._parameters["weight"], "panels": None}
        if self.is_packed:
            plain["weight"] = _kept_for_child(nn.Parameter(self.held.to_dense(), requires_grad=False))
        return self.__dict__ | {"_parameters": self._parameters | plain}


def _kept_for_child(weight: nn.Parameter) -> nn.Parameter:
    """The weight, kept for as long as the process that is being started, if any: it opens the memory only later."""
    if child := get_spawning_popen():
        vars(child).setdefault("gem_fast_weights", []).append(weight)
    return weight


def in_turn(first: Linear, second: Linear, x: Tensor, backend: str | None = None) -> Tensor:
    """`second(first(x))`, in one pass where both lie in panels and nobody listens to what goes in or comes out."""
    layers = (first, second)
    if any(type(each) is not Linear or each._forward_hooks or each._forward_pre_hooks for each in layers):
        return second(first(x, backend))
    return mlp(x, (first.held, first.bias), (second.held, second.bias), first.activation, backend)


def hash_weights(digest: "hashlib._Hash", tower: nn.Module) -> None:
    """Take names and values of a tower's weights into a digest, in the order of their names; none is held twice."""
    layers = {f"{path}.".lstrip("."): each for path, each in tower.named_modules() if isinstance(each, Linear)}
    held = tower.state_dict(keep_vars=True)
    packed = {f"{prefix}weight": each for prefix, each in layers.items() if f"{prefix}panels" in held}
    for name in sorted(({*held} | {*packed}) - {f"{prefix}panels" for prefix in layers}):
        value = packed[name].held if name in packed else held[name]
        digest.update(name.encode())
        plain: Tensor = value.to_dense()
        digest.update(plain.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def prepack(tower: Tower) -> Tower:
    """The tower, each of whose linear layers has its weight as the CPU reads it from now on."""
    native = getattr(tower, "backend", None) in (None, "cpu")
    for layer in tower.modules():
        if isinstance(layer, Linear):
            layer.prepack(native)
    return tower
