"""The machine and the software that figures hold for."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gem_fast.cores import cores

_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "sve")
_PACKAGES = ("gem_fast", "torch", "triton", "open_clip_torch", "numpy", "pillow", "onnxruntime", "openvino")


def machine(threads: int | None = None) -> dict[str, Any]:
    """CPU, cores, instruction sets, memory, GPU with its driver, and versions."""
    import torch

    cpu = _cpuinfo()
    facts: dict[str, Any] = {
        "cpu": _cpu_name(cpu),
        "cores": cores(),
        "threads": threads or torch.get_num_threads(),
        "instruction_sets": [f for f in _FLAGS if f in (cpu.get("flags") or cpu.get("Features") or "").split()],
        "memory_gb": _memory_gb(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }
    if facts["gpus"]:
        facts["driver"] = _driver()
    return facts


def machine_line(facts: dict[str, Any] | None = None) -> str:
    """The machine in one line."""
    facts = facts or machine()
    parts = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads",
        "+".join(facts["instruction_sets"]),
        f"{facts['memory_gb']} GB" if facts["memory_gb"] else "",
        *(f"{gpu} (driver {facts.get('driver') or 'unknown'})" for gpu in facts["gpus"]),
        f"Python {facts['python']}",
        *(f"{name} {facts['versions'][name]}" for name in ("torch", "gem_fast") if name in facts["versions"]),
    ]
    return ", ".join(part for part in parts if part)


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)  # the first core's win
    return {name.strip(): value.strip() for name, value in pairs}


def _cpu_name(cpu: dict[str, str]) -> str:
    """The name, with x86's family and model: a virtual machine may hide of which generation an "AMD EPYC" is."""
    name = cpu.get("model name") or platform.processor() or platform.machine()
    generation = [f"{part} {cpu[key]}" for part, key in (("family", "cpu family"), ("model", "model")) if key in cpu]
    return f"{name} ({' '.join(generation)})" if generation else name


def _memory_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError, AttributeError):
        return None


def _driver() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return lines[0] if lines else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
