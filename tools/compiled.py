"""What a Triton kernel takes of a GPU that is not there, read from the machine code.

Needs triton only: no driver, no GPU.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gem_fast.kernels.ahead_of_time import compile_ahead

# Bytes of shared memory that one program may use: CUDA programming guide, "Technical Specifications per Compute
# Capability"; CDNA ISA documents for LDS.
SHARED_LIMIT = {
    "sm_75": 65_536,
    "sm_80": 166_912,
    "sm_86": 101_376,
    "sm_89": 101_376,
    "sm_90": 232_448,
    "sm_100": 232_448,
    "sm_120": 101_376,
    "gfx90a": 65_536,
    "gfx942": 65_536,
}
# Warps that a multiprocessor holds at most: the same table.
WARP_LIMIT = {"sm_80": 64, "sm_86": 48, "sm_89": 48, "sm_90": 64, "sm_100": 64, "sm_120": 48}
TENSOR_CORE = re.compile(r"^(HMMA|HGMMA|UTCHMMA|QGMMA|v_mfma)")


@dataclass(frozen=True)
class Static:
    """What the compiler made of a kernel.

    Attributes:
        registers: of a thread.
        spills: bytes of stack or scratch of a thread.
        shared: bytes of shared memory of a program.
        tensor_core: tensor-core instructions in the whole kernel.
    """

    registers: int
    spills: int
    shared: int
    tensor_core: int

    def programs(self, arch: str, warps: int) -> int | None:
        """Programs that an NVIDIA multiprocessor holds at once, by registers, shared memory and warps."""
        if arch not in WARP_LIMIT:
            return None
        by_registers = 65_536 // (-(-self.registers // 8) * 8 * 32 * warps)
        by_shared = (SHARED_LIMIT[arch] + 1024) // (self.shared + 1024)  # the driver keeps 1 KiB of each program
        return min(by_registers, by_shared, WARP_LIMIT[arch] // warps)


def compile_for(arch: str, kernel: Any, constants: dict[str, Any], dtype: str, warps: int, stages: int) -> Static:
    """`compile_ahead`, and what it says; `dtype` is Triton's, such as `bf16`."""
    binary = compile_ahead(arch, kernel, constants, dtype, {"num_warps": warps, "num_stages": stages})
    return _read_cuda(binary) if arch.startswith("sm_") else _read_hip(binary)


def _read_cuda(binary: Any) -> Static:
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [str(tool), "-res-usage", "-sass", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    code = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", text)
    names = [re.sub(r"^@!?U?P\w+\s+", "", line).split()[0].split(".")[0] for line in code]
    return Static(
        registers=usage["REG"],
        spills=usage["STACK"] + usage["LOCAL"],
        shared=binary.metadata.shared,
        tensor_core=_tensor_core(names),
    )


def _read_hip(binary: Any) -> Static:
    text = binary.asm["amdgcn"]
    usage = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)", text)}
    names = re.findall(r"^\s+((?:v|s|ds|buffer|global|scratch)_\w+)", text, re.MULTILINE)
    return Static(
        registers=usage["vgpr_count"],
        spills=usage["private_segment_fixed_size"],
        shared=binary.metadata.shared,
        tensor_core=_tensor_core(names),
    )


def _tensor_core(names: list[str]) -> int:
    return sum(bool(TENSOR_CORE.match(name)) for name in names)
