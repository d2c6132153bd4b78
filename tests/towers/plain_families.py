"""The methods' equations over timm's and transformers' own modules, for the families that are not open_clip's ViT."""

import torch
import torch.nn.functional as F

from tests.towers.plain_methods import Plain


class PlainFamily(Plain):
    """What the image towers of timm and of BLIP have in common; in float64 the engine is held against it."""

    first = 1  # the place of the first patch
    norms = ("norm1", "norm2")

    def features(self, method):
        if method == "gem":
            return self.finish(self.gem())
        if method == "clip":
            return self.finish(self.unchanged())
        return super().features(method)

    def gem(self, blocks=6):
        x = self.tokens()
        for block in self.blocks[:-blocks]:
            x = self.step(block, x)
        g = x
        for block in self.blocks[-blocks:]:
            q, k, v = self.projections(block, x)
            c = self.norm(block, 0)(x).norm(dim=-1).mean(-1).view(-1, 1, 1, 1) / v.shape[-1] ** 0.5
            heads = [self.assigned(self.assigned(p, c, None), c, v) for p in (q, k, v)]
            g = g + self.out(block, sum(heads) / 3)
            x = self.step(block, x)
        return g

    def assigned(self, p, c, values):
        p = F.normalize(p, dim=-1)
        return torch.softmax(c * p @ p.transpose(-2, -1), dim=-1) @ (p if values is None else values)

    def norm(self, block, which):
        return getattr(block, self.norms[which])

    def mlp(self, block, x):
        return x + block.mlp(self.norm(block, 1)(x))

    def omega(self, like):
        whole = super().omega(like)
        return whole if self.first else whole[1:, 1:]


class PlainTrunk(PlainFamily):
    """A tower of timm, at the size of the pixels by timm's own resampling."""

    def __init__(self, trunk, pixels, pooling="head", rotated=False):
        trunk.set_input_size(img_size=tuple(pixels.shape[2:]))
        self.trunk, self.pooling, self.rotated = trunk, pooling, rotated
        self.pixels = pixels.to(trunk.pos_embed.dtype)
        self.blocks, self.first = list(trunk.blocks), trunk.num_prefix_tokens
        self.grid = trunk.patch_embed.grid_size
        self.rope = getattr(trunk, "rope", None)
        if self.rope is not None:
            self.rope = self.rope.get_embed().double()

    def tokens(self):
        x = self.trunk._pos_embed(self.trunk.patch_embed(self.pixels))
        return self.trunk.norm_pre(x[0] if isinstance(x, tuple) else x)

    def step(self, block, x):
        return block(x) if self.rope is None else block(x, rope=self.rope)

    def projections(self, block, x):
        attn, y = block.attn, block.norm1(x)
        if getattr(attn, "q_proj", None) is not None:
            parts = [layer(y) for layer in (attn.q_proj, attn.k_proj, attn.v_proj)]
        else:
            parts = list(attn.qkv(y).chunk(3, dim=-1))
            if getattr(attn, "q_bias", None) is not None:
                parts = [parts[0] + attn.q_bias, parts[1], parts[2] + attn.v_bias]
        q, k, v = (p.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for p in parts)
        return (self.turned(q), self.turned(k), v) if self.rotated else (q, k, v)

    def turned(self, p):
        """Pairs of channels as complex numbers, turned by the angles of their place."""
        sine, cosine = (table[:, ::2] for table in self.rope.chunk(2, dim=-1))
        patches = torch.view_as_complex(p[:, :, self.first :].unflatten(-1, (-1, 2)).contiguous())
        turned = torch.view_as_real(patches * torch.complex(cosine, sine)).flatten(-2)
        return torch.cat([p[:, :, : self.first], turned], dim=2)

    def out(self, block, heads):
        return block.attn.proj(getattr(block.attn, "norm", torch.nn.Identity())(heads.transpose(1, 2).flatten(2)))

    def finish(self, g):
        x, pool = self.trunk.norm(g)[:, self.first :], self.trunk.attn_pool
        if pool is not None and self.pooling == "value":
            x = pool.proj(pool.kv(x).chunk(2, dim=-1)[1])
        elif pool is not None:
            x = pool(x.flatten(0, 1)[:, None]).unflatten(0, x.shape[:2])
        return F.normalize(self.trunk.head(x), dim=-1)


class PlainCoca(PlainFamily):
    """The image tower of open_clip's CoCa, whose own pooler is given each token alone."""

    norms = ("ln_1", "ln_2")

    def finish(self, g):
        visual = self.visual
        alone = visual.attn_pool(g.flatten(0, 1)[:, None])[:, 0].unflatten(0, g.shape[:2])
        return F.normalize(visual.ln_post(alone)[:, 1:] @ visual.proj, dim=-1)


class PlainBlip(PlainFamily):
    """The image tower of transformers' BLIP."""

    norms = ("layer_norm1", "layer_norm2")

    def __init__(self, model, pixels):
        self.model, self.pixels = model, pixels.to(model.vision_proj.weight.dtype)
        self.blocks = list(model.vision_model.encoder.layers)
        self.grid = [side // model.config.vision_config.patch_size for side in pixels.shape[2:]]

    def tokens(self):
        return self.model.vision_model.embeddings(self.pixels, interpolate_pos_encoding=True)

    def step(self, block, x):
        result = block(x)
        return result[0] if isinstance(result, tuple) else result

    def projections(self, block, x):
        packed = block.self_attn.qkv(block.layer_norm1(x)).chunk(3, dim=-1)
        return [p.unflatten(-1, (block.self_attn.num_heads, -1)).transpose(1, 2) for p in packed]

    def out(self, block, heads):
        return block.self_attn.projection(heads.transpose(1, 2).flatten(2))

    def finish(self, g):
        return F.normalize(self.model.vision_proj(self.model.vision_model.post_layernorm(g))[:, 1:], dim=-1)


class PlainSiglip(PlainFamily):
    """The image tower of transformers' SigLIP, or of its NaFlex SigLIP 2."""

    first = 0
    norms = ("layer_norm1", "layer_norm2")

    def __init__(self, model, pixels):
        self.tower, self.pixels = model.vision_model, pixels.to(model.logit_scale.dtype)
        self.patch = model.config.vision_config.patch_size
        self.blocks = list(self.tower.encoder.layers)
        self.grid = [side // self.patch for side in pixels.shape[2:]]

    def tokens(self):
        place = self.tower.embeddings
        positions = place.position_embedding.weight
        side = round(len(positions) ** 0.5)
        image = positions.T.view(1, -1, side, side)
        kind = "bilinear" if isinstance(place.patch_embedding, torch.nn.Linear) else "bicubic"
        # An axis at a time: torch resamples rows wrongly where an output is one column wide.
        for size in ((self.grid[0], side), self.grid):
            image = F.interpolate(image, size, mode=kind, antialias=True)
        resampled = image.flatten(2).transpose(1, 2)
        if kind == "bilinear":
            return place.patch_embedding(cut(self.pixels, self.patch)) + resampled
        return place.patch_embedding(self.pixels).flatten(2).transpose(1, 2) + resampled

    def step(self, block, x):
        result = block(x, attention_mask=None)
        return result[0] if isinstance(result, tuple) else result

    def projections(self, block, x):
        attn, y = block.self_attn, block.layer_norm1(x)
        parts = [layer(y) for layer in (attn.q_proj, attn.k_proj, attn.v_proj)]
        return [p.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for p in parts]

    def out(self, block, heads):
        return block.self_attn.out_proj(heads.transpose(1, 2).flatten(2))

    def finish(self, g):
        x = self.tower.post_layernorm(g)
        return F.normalize(self.tower.head(x.flatten(0, 1)[:, None]).unflatten(0, x.shape[:2]), dim=-1)


def cut(pixels, patch):
    """Pixels [B, 3, H, W] as NaFlex takes them: a row of patch·patch·3 numbers a patch."""
    B, _, H, W = pixels.shape
    rows = pixels.view(B, 3, H // patch, patch, W // patch, patch).permute(0, 2, 4, 3, 5, 1)
    return rows.reshape(B, -1, patch * patch * 3)
