"""Names of towers' weights, open_clip's and timm's, to those of our forwards."""

from collections.abc import Iterator, MutableMapping

import torch
from torch import Tensor

from .vision_config import VisionConfig

_BLOCK = {
    "ln_1": "ln_1",
    "attn.in_proj_": "qkv",
    "attn.out_proj": "out",
    "ln_2": "ln_2",
    "mlp.c_fc": "mlp_in",
    "mlp.c_proj": "mlp_out",
}
_TIMM_BLOCK = {"norm1": "ln_1", "attn.proj": "out", "norm2": "ln_2", "mlp.fc2": "mlp_out"}
_KINDS = ("weight", "bias")


class TowerWeights:
    """The tensors of a tower, taken out of their dictionary one by one, so that none is held twice."""

    def __init__(self, state: MutableMapping[str, Tensor], tower: str = "vision") -> None:
        self.left = state
        self.tower = tower

    def take(self, name: str, gamma: Tensor | None = None) -> Tensor:
        """A tensor, with LayerScale's factors folded into its rows; ValueError if it is missing."""
        if name not in self.left:
            raise ValueError(f"the {self.tower} weights lack {name!r}; they are not those of a supported CLIP ViT")
        value = self.left.pop(name).detach()
        return value if gamma is None else value * gamma.to(value.dtype).view(-1, *[1] * (value.ndim - 1))

    def maybe(self, name: str) -> Tensor | None:
        value = self.left.pop(name, None)
        return None if value is None else value.detach()

    def layer(self, name: str, target: str, gamma: Tensor | None = None) -> dict[str, Tensor]:
        """Weight and bias of a layer under its new name."""
        return {f"{target}.{kind}": self.take(f"{name}.{kind}", gamma) for kind in _KINDS}


def from_open_clip(weights: TowerWeights, config: VisionConfig) -> Iterator[tuple[str, Tensor]]:
    """Of open_clip's own `VisionTransformer`, and of what is named like it."""
    take, layer = weights.take, weights.layer
    yield "patch_embedding.weight", take("conv1.weight")
    yield "position_embedding", take("positional_embedding")
    yield from (_coca_pool(weights, config.norm_eps) if config.pool_width else layer("ln_post", "ln_post")).items()
    if config.patch_bias:
        yield "patch_embedding.bias", take("conv1.bias")
    if config.class_token:
        yield "class_embedding", take("class_embedding")
    if config.pre_norm:
        yield from layer("ln_pre", "ln_pre").items()
    if config.pool == "attention" and not config.pool_width:
        yield from _pool(weights, "attn_pool").items()
    if config.projection:
        yield "projection.weight", take("proj").T
    yield from blocks_from_open_clip(weights, config.layers)


def blocks_from_open_clip(weights: TowerWeights, layers: int) -> Iterator[tuple[str, Tensor]]:
    """The blocks of open_clip's transformers, of images and of texts."""
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        scales = {"out": weights.maybe(f"{block}.ls_1.gamma"), "mlp_out": weights.maybe(f"{block}.ls_2.gamma")}
        for source, target in _BLOCK.items():
            for kind in _KINDS:
                name = f"{block}.{source}{kind}" if source.endswith("_") else f"{block}.{source}.{kind}"
                yield f"blocks.{i}.{target}.{kind}", weights.take(name, scales.get(target))


def from_timm(weights: TowerWeights, config: VisionConfig) -> Iterator[tuple[str, Tensor]]:
    """Of timm's `VisionTransformer` and `Eva`, which open_clip calls the trunk."""
    take, layer = weights.take, weights.layer
    yield "patch_embedding.weight", take("trunk.patch_embed.proj.weight")
    yield "position_embedding", take("trunk.pos_embed").flatten(0, -2)
    yield from layer("trunk.norm", "ln_post").items()
    if config.patch_bias:
        yield "patch_embedding.bias", take("trunk.patch_embed.proj.bias")
    if config.class_token:
        yield "class_embedding", take("trunk.cls_token").flatten()
    if config.pre_norm:
        yield from layer("trunk.norm_pre", "ln_pre").items()
    if config.pool == "attention":
        yield from _pool(weights, "trunk.attn_pool").items()
    if config.projection:
        yield from layer("trunk.head", "projection").items()
    for i in range(config.layers):
        yield from ((f"blocks.{i}.{name}", value) for name, value in _timm_block(weights, i, config).items())


def _timm_block(weights: TowerWeights, index: int, config: VisionConfig) -> dict[str, Tensor]:
    place = f"trunk.blocks.{index}"
    scales = {
        target: next(filter(lambda x: x is not None, map(weights.maybe, (f"{place}.{a}", f"{place}.{b}"))), None)
        for target, a, b in (("out", "ls1.gamma", "gamma_1"), ("mlp_out", "ls2.gamma", "gamma_2"))
    }
    packed = _qkv(weights, f"{place}.attn")
    for source, target in _TIMM_BLOCK.items():
        packed |= weights.layer(f"{place}.{source}", target, scales.get(target))
    if config.attention_norm:
        packed |= weights.layer(f"{place}.attn.norm", "attention_norm")
    if config.gated:
        for source, target in (("fc1_g", "mlp_gate"), ("fc1_x", "mlp_in"), ("norm", "mlp_norm")):
            packed |= weights.layer(f"{place}.mlp.{source}", target)
        return packed
    return packed | weights.layer(f"{place}.mlp.fc1", "mlp_in")


def _qkv(weights: TowerWeights, place: str) -> dict[str, Tensor]:
    """q, k and v together, as they are or apart; a bias that is missing is zero."""
    packed = weights.maybe(f"{place}.qkv.weight")
    if packed is None:
        packed = torch.cat([weights.take(f"{place}.{letter}_proj.weight") for letter in "qkv"])
        names = [f"{place}.{letter}_proj.bias" for letter in "qkv"]
    else:
        names = [f"{place}.{letter}_bias" for letter in "qkv"]
    bias = weights.maybe(f"{place}.qkv.bias")
    if bias is None:
        parts = [weights.maybe(name) for name in names]
        bias = torch.cat([packed.new_zeros(len(packed) // 3) if part is None else part for part in parts])
    return {"qkv.weight": packed, "qkv.bias": bias}


def _pool(weights: TowerWeights, place: str) -> dict[str, Tensor]:
    latent, query = weights.take(f"{place}.latent"), weights.layer(f"{place}.q", "q")
    both = weights.layer(f"{place}.kv", "kv")
    packed = {"pool.query": torch.nn.functional.linear(latent.flatten(), query["q.weight"], query["q.bias"])}
    for kind in _KINDS:
        packed[f"pool.key.{kind}"], packed[f"pool.value.{kind}"] = both[f"kv.{kind}"].chunk(2)
    for source, target in (("proj", "out"), ("norm", "norm"), ("mlp.fc1", "mlp_in"), ("mlp.fc2", "mlp_out")):
        packed |= weights.layer(f"{place}.{source}", f"pool.{target}")
    return packed


def _coca_pool(weights: TowerWeights, eps: float) -> dict[str, Tensor]:
    """CoCa's: its LayerNorm of the tokens is our last one, and the last one of open_clip is what follows the pool."""
    place, packed = "attn_pool", weights.layer("attn_pool.ln_k", "ln_post")
    packed |= weights.layer("ln_post", "pool.norm") | weights.layer(f"{place}.attn.out_proj", "pool.out")
    whole = weights.maybe(f"{place}.attn.in_proj_weight")
    parts = whole.chunk(3) if whole is not None else [weights.take(f"{place}.attn.{x}_proj_weight") for x in "qkv"]
    biases = weights.take(f"{place}.attn.in_proj_bias").chunk(3)
    for name, weight, bias in zip(("key", "value"), parts[1:], biases[1:], strict=True):
        packed[f"pool.{name}.weight"], packed[f"pool.{name}.bias"] = weight, bias
    query, norm = weights.take(f"{place}.query")[0], weights.layer(f"{place}.ln_q", "norm")
    normed = torch.nn.functional.layer_norm(query, query.shape, norm["norm.weight"], norm["norm.bias"], eps)
    return packed | {"pool.query": torch.nn.functional.linear(normed, parts[0], biases[0])}
