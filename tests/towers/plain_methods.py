"""The methods' equations over open_clip's own modules, one function each, with N×N in memory.

They share no code with the engine, and in float64 they are what it is held against.
"""

import torch
import torch.nn.functional as F

from gem_fast.towers.eager import eager_gem, positions


class Plain:
    """A vision tower of open_clip, and patch features `[B, h*w, E]` of each method by its name."""

    def __init__(self, visual, pixels):
        self.visual = visual
        self.pixels = pixels.to(visual.conv1.weight.dtype)
        self.blocks = list(visual.transformer.resblocks)
        self.grid = [side // visual.conv1.kernel_size[0] for side in pixels.shape[2:]]

    def features(self, method):
        if method in ("gem", "clip"):
            return eager_gem(self.visual, self.pixels)[method == "clip"][:, 1:]
        return self.finish(getattr(self, method.replace("-", "_"))())

    def maskclip(self):
        block, x = self.blocks[-1], self.before_the_last()
        g = x + self.out(block, self.projections(block, x)[2])
        return self.mlp(block, g)

    def maskclip_no_mlp(self):
        block, x = self.blocks[-1], self.before_the_last()
        return x + self.out(block, self.projections(block, x)[2])

    def maskclip_bare(self):
        block = self.blocks[-1]
        return self.out(block, self.projections(block, self.before_the_last())[2])

    def clip_surgery(self):
        x = self.tokens()
        for block in self.blocks[:-6]:
            x = self.step(block, x)
        g = x
        for block in self.blocks[-6:]:
            v = self.projections(block, x)[2]
            g = g + self.out(block, self.weights(v, v) @ v)
            x = self.step(block, x)
        return g

    def sclip(self):
        block, x = self.blocks[-1], self.before_the_last()
        q, k, v = self.projections(block, x)
        x = x + self.out(block, (self.weights(q, q) + self.weights(k, k)) @ v)
        return self.mlp(block, x)

    def clearclip(self):
        block = self.blocks[-1]
        q, _, v = self.projections(block, self.before_the_last())
        return self.out(block, self.weights(q, q) @ v)

    def naclip(self):
        block = self.blocks[-1]
        _, k, v = self.projections(block, self.before_the_last())
        return self.out(block, self.weights(k, k, self.omega(like=v)) @ v)

    def omega(self, like):
        """Of each pair of patches, by their places; 0 with the class token."""
        h, w = self.grid
        omega = torch.zeros(1 + h * w, 1 + h * w, dtype=like.dtype)
        places = [(y, x) for y in range(h) for x in range(w)]
        for i, (y, x) in enumerate(places, 1):
            squares = torch.tensor([(y - other) ** 2 + (x - another) ** 2 for other, another in places])
            omega[i, 1:] = torch.exp(-squares.to(like.dtype) / (2 * 5**2))
        return omega

    def weights(self, a, b, bias=0):
        return torch.softmax(a.shape[-1] ** -0.5 * a @ b.transpose(-2, -1) + bias, dim=-1)

    def tokens(self):
        """Before the first block."""
        visual, (h, w) = self.visual, self.grid
        patches = visual.conv1(self.pixels).flatten(2).transpose(1, 2)
        first = visual.class_embedding.expand(len(patches), 1, -1)
        return visual.ln_pre(torch.cat([first, patches], dim=1) + positions(visual, h, w))

    def before_the_last(self):
        x = self.tokens()
        for block in self.blocks[:-1]:
            x = self.step(block, x)
        return x

    def unchanged(self):
        return self.step(self.blocks[-1], self.before_the_last())

    def step(self, block, x):
        """An unchanged block."""
        return block(x)

    def projections(self, block, x):
        """q, k and v, `[B, H, N, D]` each."""
        packed = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        return [p.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for p in packed.chunk(3, dim=-1)]

    def mlp(self, block, x):
        return x + block.ls_2(block.mlp(block.ln_2(x)))

    def out(self, block, heads):
        return block.ls_1(block.attn.out_proj(heads.transpose(1, 2).flatten(2)))

    def finish(self, g):
        return F.normalize(self.visual.ln_post(g)[:, 1:] @ self.visual.proj, dim=-1)
