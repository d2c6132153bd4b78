"""The launches of one call of the attention kernels, which are imported with Triton at their first launch."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from gem_fast.kernels.triton_kernel import Launch, TritonKernel, remembered
from torch import Tensor

from .tile_choice import ChosenTiles, tiles_of
from .tiles import Tile, device_of, precision, split_width, steepest

_ROOM = "attention.triton"
_NORMALIZE = TritonKernel(f"{_ROOM}.refine", "normalize_kernel")
_REFINE = TritonKernel(f"{_ROOM}.refine", "refine_kernel")
_ROUND = TritonKernel(f"{_ROOM}.round", "round_kernel")
_ASSIGN = TritonKernel(f"{_ROOM}.assign", "assign_kernel")
_RESIDENT = TritonKernel(f"{_ROOM}.resident", "resident_kernel")
_ATTEND = TritonKernel(f"{_ROOM}.attend", "attend_kernel")


class Call:
    """The launches of one call: tensors, tile widths and precision that all of them share."""

    def __init__(
        self, qkv: Tensor, inverse_temperature: Tensor, projections: list[int], tiles: Mapping[str, Tile | None]
    ) -> None:
        self.qkv = self.chosen = qkv
        if len(projections) < 3:  # any choice out of q, k and v is evenly spaced, so it is a view
            step = projections[-1] - projections[0] or 1
            self.chosen = qkv[:, :, projections[0] : projections[-1] + 1 : step]  # [B, N, P, H, D]
        self.B, self.N, self.P, self.H, self.D = self.chosen.shape
        self.temperatures = inverse_temperature.to(torch.float32).contiguous()  # [B], or [B, N] of the tokens
        device = device_of(qkv.device)
        self.width = sum(split_width(self.D))
        self.precision = precision(device, qkv.dtype)
        found = tiles_of(device, self.B * self.H, self.N, self.width, qkv.dtype)
        self.tiles = ChosenTiles({**found, **tiles}) if tiles else found
        self.launches = _launches(
            qkv.device, qkv.dtype, self.precision, self.tiles, qkv.shape, qkv.stride(), tuple(projections)
        )

    @property
    def parts(self) -> dict[str, int]:
        main, rest = split_width(self.D)
        return {"MAIN": main, "REST": rest}

    @property
    def softmax(self) -> dict[str, Any]:
        return {"STEEPEST": steepest(self.qkv.dtype, self.precision), "PRECISION": self.precision}

    def launch(self, name: Hashable, make: Callable[[], Launch]) -> Launch:
        """A launch that all calls like this one have in common."""
        found = self.launches.get(name)
        if found is None:
            found = self.launches[name] = make()
        return found

    def tile(self, operation: str) -> Tile:
        tile = self.tiles[operation]
        assert tile is not None
        return tile

    def temperature(self) -> Tensor:
        """The inverse temperature of each image, [B]."""
        if self.temperatures.ndim == 2:
            self.temperatures = self.temperatures.mean(-1)
        return self.temperatures

    def value(self) -> Tensor:
        """The values as they are multiplied, [B, N, H, D]."""
        if self.precision == "tf32":
            return self.rounded(self.qkv[:, :, 2:])[:, :, 0]
        return self.qkv.select(2, 2)

    def is_resident(self) -> bool:
        return self.tiles["resident"] is not None

    def in_place(self, iterations: int) -> bool:
        """Whether the assignment can normalise the projections as it reads them, with no launch before it."""
        return not iterations and self.tiles["assign_in_place"] is not None

    def grid(self, rows: int, tile: Tile, heads: int) -> tuple[int, int, int]:
        return -(-rows // tile.rows), heads, self.B

    def refined(self, iterations: int) -> Tensor:
        """Eq. 5: unit rows after all iterations, packed as [B, P, H, padded, width]; the first kernel takes the mean of
        the tokens' temperatures too."""
        padded = _padded(self.tiles, self.N)
        units = torch.empty((self.B, self.P, self.H, padded, self.width), dtype=self.qkv.dtype, device=self.qkv.device)
        of_tokens = self.temperatures if self.temperatures.ndim == 2 else None
        if of_tokens is not None:
            self.temperatures = torch.empty(self.B, dtype=torch.float32, device=self.qkv.device)
        normalize = self.launch(
            ("normalize", of_tokens is None), lambda: self.normalizing(padded, of_tokens is not None)
        )
        normalize(self.chosen, units, of_tokens, self.temperatures)
        if not iterations:
            return units
        spare, refine = torch.empty_like(units), self.launch("refine", lambda: self.refining(padded))
        for _ in range(iterations):
            refine(units, spare, self.temperatures)
            units, spare = spare, units
        return units

    def normalizing(self, padded: int, mean: bool) -> Launch:
        """Unit rows of the projections; with `mean`, the mean of the tokens' temperatures too."""
        tile = self.tile("refine")
        return Launch(
            _NORMALIZE, self.grid(padded, tile, self.P * self.H), *self.chosen.stride()[:4], self.N, padded, self.H,
            D=self.D, ROWS=tile.rows, MEAN=mean, PRECISION=self.precision, **self.parts, num_warps=4,
        )  # fmt: skip

    def refining(self, padded: int) -> Launch:
        """An iteration of Eq. 5."""
        tile = self.tile("refine")
        return Launch(
            _REFINE, self.grid(padded, tile, self.P * self.H), self.N, padded, ROWS=tile.rows, KEYS=tile.keys,
            **self.parts, **self.softmax, **tile.options,
        )  # fmt: skip

    def rounded(self, rows: Tensor) -> Tensor:
        """Rows [B, N, P, H, D] as tensor cores multiply them, made once for all programs: for TF32 a rounded copy."""
        if self.precision != "tf32":
            return rows
        out, strides, P = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device), rows.stride(), rows.shape[2]
        launch = self.launch(("round", P, strides), lambda: Launch(
            _ROUND, (-(-self.N // 64), P * self.H, self.B), *strides[:4], self.N, self.H, D=self.D, ROWS=64,
            **self.parts, num_warps=4,
        ))  # fmt: skip
        launch(rows, out)
        return out

    def assign(self, units: Tensor | None, out: Tensor) -> None:
        """Eq. 6 and 7, from packed unit rows or, with none, from the projections in place."""
        in_place, value = units is None, self.value()

        def make() -> Launch:
            tile = self.tile("assign_in_place" if in_place else "assign")
            b, n, p, h = self.chosen.stride()[:4]
            if units is not None:
                b, p, h, n = units.stride()[:4]
            return Launch(
                _ASSIGN, self.grid(self.N, tile, self.H), b, n, p, h, *value.stride()[:3], self.N, P=self.P, D=self.D,
                IN_PLACE=in_place, ROWS=tile.rows, KEYS=tile.keys, **self.parts, **self.softmax, **tile.options,
            )  # fmt: skip

        source = self.chosen if units is None else units
        self.launch(("assign", in_place), make)(source, value, out, self.temperature())

    def resident(self, iterations: int, out: Tensor) -> None:
        """Everything in one launch, a head to a program."""
        value = self.value()

        def make() -> Launch:
            tile = self.tile("resident")
            rows = tile.rows if self.N > 64 else max(16, 1 << (self.N - 1).bit_length())
            options = tile.options if rows >= 64 else {"num_warps": 4, "num_stages": 1}
            return Launch(
                _RESIDENT, (self.H, self.B, 1), *self.chosen.stride()[:4], *value.stride()[:3], self.N, iterations,
                P=self.P, D=self.D, ROWS=rows, **self.parts, **self.softmax, **options,
            )  # fmt: skip

        self.launch(("resident", iterations), make)(self.chosen, value, out, self.temperature())

    def attend(self, iterations: int, out: Tensor) -> None:
        """Rows of any norm: each projection's iterations by themselves, then the ensemble."""
        source = self.rounded(self.chosen)
        for _ in range(iterations):
            refined = torch.empty(source.shape, dtype=source.dtype, device=source.device)
            for i in range(self.P):
                self.pairs(source, source[:, :, i], refined[:, :, i], ((i, i),))
            source = self.rounded(refined)
        own = [(i, i) for i in range(self.P)]
        self.pairs(source, self.value(), out.view(self.B, self.N, self.H, self.D), own)

    def pairs(
        self,
        projections: Tensor,
        value: Tensor,
        out: Tensor,
        pairs: Sequence[tuple[int, int]],
        average: bool = True,
        factors: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """The attention of pairs of projections, with the bias of two tables if any; rows have any norm."""
        down, across = factors or (None, None)
        strides = (*projections.stride()[:4], *value.stride()[:3], *out.stride()[:3])
        columns = 0 if across is None else len(across)

        def make() -> Launch:
            tile = self.tile("attend" if factors is None else "attend_near")
            return Launch(
                _ATTEND, self.grid(self.N, tile, self.H), *strides, self.N, columns=columns, P=len(pairs),
                pairs=sum((3 * a + b) * 9**i for i, (a, b) in enumerate(pairs)),
                share=1.0 / len(pairs) if average else 1.0, D=self.D, ROWS=tile.rows, KEYS=tile.keys,
                WHOLE=self.N % tile.keys == 0, NEAR=factors is not None, PRECISION=self.precision, **self.parts,
                **tile.options,
            )  # fmt: skip

        launch = self.launch(("attend", strides, columns, tuple(pairs), average), make)
        launch(projections, value, out, self.temperature(), down, across)


@remembered
def _padded(tiles: ChosenTiles, N: int) -> int:
    """The rows that unit rows of N tokens are packed into: a multiple of what the kernels that read them take."""
    multiple = max(max(tile.rows, tile.keys) for name in ("refine", "assign") if (tile := tiles[name]))
    return -(-N // multiple) * multiple


@remembered
def _launches(
    device: torch.device,
    dtype: torch.dtype,
    precision: str,
    tiles: ChosenTiles,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    projections: tuple[int, ...],
) -> dict[Hashable, Launch]:
    """What calls of these projections have in common, by what tells their launches apart; filled as they are made."""
    return {}
