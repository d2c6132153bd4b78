"""What vendors publish about GPUs, and what a compiled inner loop asks of one. Nothing here is measured."""

from dataclasses import dataclass

from gem_fast.kernels.attention.triton.tiles import Tile

from .ahead import Static

# Operations a clock of a multiprocessor: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions".
_EXP = 16  # exp2 and the like, on every architecture here: 4 a clock of a quarter
_SCHEDULERS = 4  # each issues one instruction of a warp a clock
_SHARED = 128  # bytes of shared memory a clock: the same guide, "Shared Memory"
_LDSM = 512  # bytes that one LDSM of a warp reads at the most (.x4)


@dataclass(frozen=True)
class GPU:
    """Published peaks: dense products of bf16 with float32 sums, DRAM bandwidth, and the clock that products assume."""

    name: str
    arch: str
    multiprocessors: int
    clock_ghz: float
    tensor_tflops: float
    bandwidth_gbs: float
    fma_lanes: int  # float32 FMA a clock of a multiprocessor
    source: str

    @property
    def tensor_per_clock(self) -> float:
        """FLOP a clock of a multiprocessor."""
        return self.tensor_tflops * 1e12 / (self.multiprocessors * self.clock_ghz * 1e9)

    @property
    def exp_per_second(self) -> float:
        return _EXP * self.multiprocessors * self.clock_ghz * 1e9

    @property
    def fma_per_second(self) -> float:
        return self.fma_lanes * self.multiprocessors * self.clock_ghz * 1e9


A6000 = GPU("RTX A6000", "sm_86", 84, 1.80, 154.8, 768, 128, "RTX A6000 data sheet; GA102 architecture white paper")
A100 = GPU("A100 SXM 80GB", "sm_80", 108, 1.41, 312.0, 2039, 64, "A100 data sheet; A100 architecture white paper")
H100 = GPU("H100 SXM", "sm_90", 132, 1.83, 989.4, 3350, 128, "H100 data sheet; H100 architecture white paper")
H200 = GPU("H200 SXM", "sm_90", 132, 1.83, 989.4, 4800, 128, "H200 data sheet; H100 architecture white paper")
# A Blackwell card for the question of exponentials alone; its SMs and clock give the published peak.
B200 = GPU("B200", "sm_100", 148, 1.85, 2250.0, 8000, 128, "Blackwell architecture brief, dense")
GPUS = (A6000, A100, H100, H200)


@dataclass(frozen=True)
class Cycles:
    """Clocks of a multiprocessor for one program's step of rows × keys, by what has to do them."""

    tensor: float
    exp: float
    fma: float
    shared: float
    issue: float

    @property
    def overlapped(self) -> float:
        """If other programs fill every gap: the busiest of them."""
        return max(self.tensor, self.exp, self.fma, self.shared, self.issue)

    @property
    def alternating(self) -> float:
        """If products never run beside the rest."""
        return self.tensor + max(self.exp, self.fma, self.shared, self.issue)


def cycles(compiled: Static, gpu: GPU, tile: Tile, width: int, steps: int = 1) -> Cycles:
    """What one step of an attention loop costs: two products of rows × keys × width, and the loop's instructions.

    `steps` are those that the compiler put into a turn of its loop.
    """
    loop = compiled.loop
    threads = tile.warps * 32
    fma = sum(loop.get(name, 0) for name in ("FADD", "FMUL", "FFMA"))
    return Cycles(
        tensor=4 * tile.rows * tile.keys * width / gpu.tensor_per_clock,
        exp=loop.get("MUFU", 0) * threads / _EXP / steps,
        fma=fma * threads / gpu.fma_lanes / steps,
        shared=loop.get("LDSM", 0) * tile.warps * _LDSM / _SHARED / steps,
        issue=compiled.loop_length * tile.warps / _SCHEDULERS / steps,
    )


def steps_of(compiled: Static, tile: Tile) -> int:
    """Steps in a turn of an attention loop: each logit takes one MUFU."""
    return max(1, round(compiled.loop.get("MUFU", 0) * tile.warps * 32 / (tile.rows * tile.keys)))
