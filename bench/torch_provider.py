"""Providers that compute with torch: the engine, eager code, the same compiled, the authors' package."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gem_fast.dtypes import INT8

from . import memory
from .providers import Loaded, Provider, Subject

Forward: TypeAlias = Callable[[Tensor], Tensor]  # pixels [B, 3, H, W] to L2-normalised patch features [B, h*w, E]


class TorchForward(Loaded):
    """A forward on a device; on a GPU its memory is what torch allocated there."""

    def __init__(self, make: Callable[[], Forward], device: str, threads: int | None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self.device, self.on_gpu = device, device.startswith("cuda")
        with torch.inference_mode():
            self.forward = make()
        self.pixels: Tensor | None = None
        self.result: Tensor | None = None

    def take(self, pixels: np.ndarray) -> None:
        self.pixels, self.result = torch.from_numpy(pixels).to(self.device), None  # to copy them is no forward
        memory.release_unused()

    @torch.inference_mode()
    def run(self) -> None:
        assert self.pixels is not None
        self.result = None  # or two results would lie side by side
        self.result = self.forward(self.pixels)
        if self.on_gpu:
            torch.cuda.synchronize()

    def features(self) -> np.ndarray:
        assert self.result is not None
        found: np.ndarray = self.result.float().cpu().numpy()
        return found

    def memory_now(self) -> float | None:
        return torch.cuda.memory_allocated() / 2**20 if self.on_gpu else super().memory_now()

    def start_peak(self) -> None:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            super().start_peak()

    def peak(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**20 if self.on_gpu else super().peak()


def build(provider: Provider, subject: Subject, device: str = "cpu") -> Forward:
    """Load the weights and return the forward, which takes float32 pixels on the CPU."""
    forward = _BUILDERS[provider.kind](provider, subject, device)
    return lambda pixels: forward(pixels.to(device))


def load_weights(subject: Subject) -> dict[str, Tensor]:
    """The weights in memory of their own: those of a mapped file would become resident only during a forward."""
    from safetensors.torch import load_file

    return {name: value.clone() for name, value in load_file(subject.weights).items()}


def dtype_of(provider: Provider) -> torch.dtype:
    found: torch.dtype = getattr(torch, provider.dtype)
    return found


def _vision(provider: Provider, subject: Subject, device: str) -> Any:
    from gem_fast.loading import require_int8
    from gem_fast.method import find_method
    from gem_fast.options import GemOptions
    from gem_fast.towers.int8 import quantize_blocks
    from gem_fast.towers.layer import prepack
    from gem_fast.towers.packing import pack_vision
    from gem_fast.towers.served import vision_config

    method = find_method(provider.method, GemOptions(**subject.options), {})
    packed = pack_vision(load_weights(subject), vision_config(subject.model_cfg), method, provider.backend)
    if provider.dtype == INT8:
        require_int8(torch.device(device), provider.backend)
        return prepack(quantize_blocks(packed))
    return prepack(packed.to(device, dtype_of(provider)))


def _engine(provider: Provider, subject: Subject, device: str) -> Forward:
    vision = _vision(provider, subject, device)
    return lambda pixels: vision(pixels, original=provider.finish_original).patches.flatten(1, 2)


def _graph(provider: Provider, subject: Subject, device: str) -> Forward:
    from gem_fast.graphs import GraphedForward

    vision, graphs = _vision(provider, subject, device), GraphedForward()
    return lambda pixels: graphs(vision, pixels).patches.flatten(1, 2)


def _eager(provider: Provider, subject: Subject, device: str) -> Forward:
    return eager_forward(subject, device, dtype_of(provider))


def _clip(subject: Subject) -> Any:
    """open_clip's model with the weights of its vision tower."""
    import open_clip

    with torch.device("meta"):  # random weights that nobody reads take seconds
        clip = open_clip.CLIP(**subject.model_cfg)
    clip.visual.load_state_dict(load_weights(subject), assign=True)
    return clip


def eager_forward(subject: Subject, device: str, dtype: torch.dtype) -> Forward:
    """The eager way in any floating type; features are float32 or wider."""
    from gem_fast.towers.eager import eager_gem

    visual = _clip(subject).visual.eval().requires_grad_(False).to(device, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    return lambda pixels: eager_gem(visual, pixels, **subject.options)[0][:, 1:].to(wide)


def _compiled(provider: Provider, subject: Subject, device: str) -> Forward:
    compiled: Forward = torch.compile(_eager(provider, subject, device), dynamic=False)
    return compiled


def _authors(provider: Provider, subject: Subject, device: str) -> Forward:
    """Their wrapper over our weights; runs only in a process whose path starts with `authors.folder()`."""
    from gem.gem_wrapper import GEMWrapper

    options, dtype = dict(subject.options), dtype_of(provider)
    settings = {
        "depth": options.pop("gem_blocks", 6) + 1,  # theirs changes the blocks of range(1, depth)
        "ss_attn_iter": options.pop("iterations", 1),
        "ss_attn_temp": options.pop("inverse_temperature", None),
    }
    if options:
        raise ValueError(f"the authors' package has no such options: {', '.join(options)}")
    visual = GEMWrapper(_clip(subject), tokenizer=None, **settings).model.visual
    visual = visual.eval().requires_grad_(False).to(device, dtype)
    return lambda pixels: F.normalize(visual(pixels.to(dtype))[0][:, 1:].float(), dim=-1)


_BUILDERS = {"engine": _engine, "graph": _graph, "eager": _eager, "compiled": _compiled, "authors": _authors}
