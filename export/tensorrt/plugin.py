"""Self-self attention as TensorRT plugins whose kernels are compiled ahead of time: GemNormalize, GemRefine, GemAssign.

An engine built with them holds the PTX and needs neither Python nor Triton. A block's attention is one GemNormalize, a
GemRefine for each iteration and one GemAssign, which hand on unit rows [B, P, H, padded, width].

Source: the Python API reference of `tensorrt.plugin` (quickly deployable plugins).
"""

from dataclasses import dataclass
from typing import Any

import torch

from ..builder import PLUGIN_DOMAIN
from .ptx import Compiled, Problem, compile_tactic, tactics

NODES = ("GemNormalize", "GemRefine", "GemAssign")
PADDING = 128  # of the rows: a multiple of every tile


def register(arch: str) -> None:
    """Tell TensorRT of the plugins, compiled for one architecture such as `sm_90`; once a process."""
    launcher = Launcher(arch)
    _register_normalize(launcher)
    _register_refine(launcher)
    _register_assign(launcher)


def padded(N: Any) -> Any:
    """Rows with their padding, as TensorRT computes it."""
    import tensorrt.plugin as trtp

    return trtp.cdiv(N, PADDING) * PADDING


@dataclass(frozen=True)
class Launcher:
    """Launches of the kernels for an architecture. `attributes` are heads, width and projections."""

    arch: str

    def choices(self, operation: str, *tensors: Any) -> list[Any]:
        """The types as they are in the graph, and a number for each tile."""
        import tensorrt as trt
        import tensorrt.plugin as trtp

        names = {trt.float16: "FP16", trt.bfloat16: "BF16", trt.float32: "FP32"}
        numbers = [1 + i for i in range(len(tactics(Problem(self.arch, torch.float16, 1, 64, 1), operation)))]
        return [trtp.AutoTuneCombination(", ".join(names[tensor.dtype] for tensor in tensors), "LINEAR", numbers)]

    def compiled(self, operation: str, qkv: Any, attributes: tuple[int, int, int], tactic: int) -> Compiled:
        import tensorrt as trt

        dtypes = {trt.float16: torch.float16, trt.bfloat16: torch.bfloat16, trt.float32: torch.float32}
        problem = Problem(self.arch, dtypes[qkv.dtype], *attributes)
        return compile_tactic(problem, operation, tactics(problem, operation)[max(tactic, 1) - 1])

    def launch(self, compiled: Compiled, N: Any, grid: tuple[Any, Any, Any]) -> tuple[str, str, Any, Any]:
        """Grid, block and the sizes that every kernel takes between its inputs and its output."""
        import tensorrt.plugin as trtp

        params = trtp.KernelLaunchParams()
        params.grid_x, params.grid_y, params.grid_z = grid
        params.block_x, params.shared_mem = compiled.threads, compiled.shared
        sizes = trtp.SymIntExprs(2)
        sizes[0], sizes[1] = trtp.SymInt32(N), trtp.SymInt32(padded(N))
        return compiled.name, compiled.ptx, params, sizes

    def launch_padded(
        self, operation: str, qkv: Any, attributes: tuple[int, int, int], tactic: int
    ) -> tuple[str, str, Any, Any]:
        """The launch of a kernel that writes the padded rows of every projection and head."""
        import tensorrt.plugin as trtp

        compiled = self.compiled(operation, qkv, attributes, tactic)
        (heads, _, projections), (B, N) = attributes, (qkv.shape_expr[0], qkv.shape_expr[1])
        return self.launch(compiled, N, (trtp.cdiv(padded(N), compiled.tile.rows), heads * projections.bit_count(), B))


# TensorRT reads names and annotations of the functions inside, and these exist only where it is installed.


def _register_normalize(launcher: Launcher) -> None:
    import tensorrt.plugin as trtp

    @trtp.register(f"{PLUGIN_DOMAIN}::GemNormalize")
    def normalize(qkv: trtp.TensorDesc, heads: int, width: int, projections: int) -> trtp.TensorDesc:
        problem = Problem(launcher.arch, torch.float16, heads, width, projections)
        B, N = qkv.shape_expr[0], qkv.shape_expr[1]
        return trtp.from_shape_expr((B, len(problem.chosen), heads, padded(N), sum(problem.parts)), qkv.dtype)

    @trtp.autotune(f"{PLUGIN_DOMAIN}::GemNormalize")
    def normalize_tactics(qkv: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]) -> list[trtp.AutoTuneCombination]:
        return launcher.choices("normalize", qkv, *outputs)

    @trtp.aot_impl(f"{PLUGIN_DOMAIN}::GemNormalize")
    def normalize_kernel(
        qkv: trtp.TensorDesc, heads: int, width: int, projections: int, outputs: tuple[trtp.TensorDesc], tactic: int
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        return launcher.launch_padded("normalize", qkv, (heads, width, projections), tactic)


def _register_refine(launcher: Launcher) -> None:
    import tensorrt.plugin as trtp

    @trtp.register(f"{PLUGIN_DOMAIN}::GemRefine")
    def refine(
        units: trtp.TensorDesc,
        inverse_temperature: trtp.TensorDesc,
        qkv: trtp.TensorDesc,
        heads: int,
        width: int,
        projections: int,
    ) -> trtp.TensorDesc:
        return units.like()

    @trtp.autotune(f"{PLUGIN_DOMAIN}::GemRefine")
    def refine_tactics(
        units: trtp.TensorDesc,
        inverse_temperature: trtp.TensorDesc,
        qkv: trtp.TensorDesc,
        outputs: tuple[trtp.TensorDesc],
    ) -> list[trtp.AutoTuneCombination]:
        return launcher.choices("refine", units, inverse_temperature, qkv, *outputs)

    @trtp.aot_impl(f"{PLUGIN_DOMAIN}::GemRefine")
    def refine_kernel(
        units: trtp.TensorDesc,
        inverse_temperature: trtp.TensorDesc,
        qkv: trtp.TensorDesc,
        heads: int,
        width: int,
        projections: int,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        return launcher.launch_padded("refine", qkv, (heads, width, projections), tactic)


def _register_assign(launcher: Launcher) -> None:
    import tensorrt.plugin as trtp

    @trtp.register(f"{PLUGIN_DOMAIN}::GemAssign")
    def assign(
        units: trtp.TensorDesc,
        qkv: trtp.TensorDesc,
        inverse_temperature: trtp.TensorDesc,
        heads: int,
        width: int,
        projections: int,
    ) -> trtp.TensorDesc:
        return trtp.from_shape_expr((qkv.shape_expr[0], qkv.shape_expr[1], heads * width), qkv.dtype)

    @trtp.autotune(f"{PLUGIN_DOMAIN}::GemAssign")
    def assign_tactics(
        units: trtp.TensorDesc,
        qkv: trtp.TensorDesc,
        inverse_temperature: trtp.TensorDesc,
        outputs: tuple[trtp.TensorDesc],
    ) -> list[trtp.AutoTuneCombination]:
        return launcher.choices("assign", units, qkv, inverse_temperature, *outputs)

    @trtp.aot_impl(f"{PLUGIN_DOMAIN}::GemAssign")
    def assign_kernel(
        units: trtp.TensorDesc,
        qkv: trtp.TensorDesc,
        inverse_temperature: trtp.TensorDesc,
        heads: int,
        width: int,
        projections: int,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        compiled = launcher.compiled("assign", qkv, (heads, width, projections), tactic)
        B, N = qkv.shape_expr[0], qkv.shape_expr[1]
        return launcher.launch(compiled, N, (trtp.cdiv(N, compiled.tile.rows), heads, B))
