"""ONNX graphs to TensorRT engines by its Python API (10.14 or newer), or the `trtexec` line that does it."""

import importlib.util
import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gem_fast.errors import ExportError
from gem_fast.runtime.folder import file_sha256
from gem_fast.writing import write_whole

from ..builder import PLUGIN_DOMAIN
from .plugin import register
from .ptx import ARCHITECTURES

if TYPE_CHECKING:
    from onnx import ModelProto

INSTALL = "pip install tensorrt (10.14 or newer, on a machine with an NVIDIA GPU)"
OLDEST = (10, 14)  # the first whose parser takes the Attention operator
TIMING_CACHE = "timing.cache"
_LARGEST_CACHE = 1 << 30  # bytes


@dataclass(frozen=True, slots=True)
class Extent:
    """The smallest, usual and largest value of a dimension that may vary."""

    least: int
    usual: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.usual <= self.most:
            raise ValueError(f"an extent must rise from 1 or more, got {self.least}, {self.usual}, {self.most}")


# The dimensions of a graph by name: what one optimisation profile says.
Profile = dict[str, Extent]
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


def stored_timings(folder: Path) -> bytes:
    """What an earlier build measured, or nothing; ExportError if it is too large to have come of one."""
    path = folder / TIMING_CACHE
    if not path.exists():
        return b""
    if path.stat().st_size > _LARGEST_CACHE:
        raise ExportError(f"{path} has more than {_LARGEST_CACHE:,} bytes, which no timing cache has: delete it")
    return path.read_bytes()


def input_shapes(model: "ModelProto", profile: Profile) -> Shapes:
    """Smallest, usual and largest shape of each input that varies."""
    shapes: Shapes = {}
    for each in model.graph.input:
        dims = each.type.tensor_type.shape.dim
        if not any(dim.dim_param for dim in dims):
            continue
        missing = [dim.dim_param for dim in dims if dim.dim_param and dim.dim_param not in profile]
        if missing:
            raise ValueError(f"the profile says nothing of {', '.join(missing)}, dimensions of {each.name}")
        extents = [profile[dim.dim_param] if dim.dim_param else Extent(*[dim.dim_value] * 3) for dim in dims]
        shapes[each.name] = (
            tuple(e.least for e in extents), tuple(e.usual for e in extents), tuple(e.most for e in extents),
        )  # fmt: skip
    return shapes


def trtexec_line(onnx: str, engine: str, profiles: list[Shapes]) -> str:
    """The command that builds the same engine, for graphs without plugins; the names are files."""
    parts = ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}", f"--timingCacheFile={TIMING_CACHE}"]
    parts += ["--stronglyTyped", "--skipInference"]
    for index, shapes in enumerate(profiles):
        parts += [f"--profile={index}"] if len(profiles) > 1 else []
        for place, option in enumerate(("minShapes", "optShapes", "maxShapes")):
            spec = ",".join(f"{name}:{'x'.join(map(str, shape[place]))}" for name, shape in shapes.items())
            parts.append(f"--{option}={spec}")
    return shlex.join(parts)


def why_not_here() -> str | None:
    """Why no engine can be built on this machine, and what to do about it; or None."""
    if importlib.util.find_spec("tensorrt") is None:
        return f"TensorRT is not installed: {INSTALL}"
    import tensorrt as trt

    if tuple(map(int, trt.__version__.split(".")[:2])) < OLDEST:
        return f"TensorRT is {trt.__version__}, which is too old: {INSTALL}"
    import torch

    return None if torch.cuda.is_available() else "there is no NVIDIA GPU that torch can use"


def build_engine(onnx: Path, engine: Path, profiles: list[Profile]) -> dict[str, Any]:
    """Build an engine for the GPU at hand, and write it with a sidecar `ENGINE.json`, each whole or not at all.

    A timing cache beside the engine is read and written. Kernels of our plugins are compiled into the engine.

    Args:
        onnx: the graph.
        engine: the file to write.
        profiles: at least one optimisation profile, each naming the dimensions that may vary.

    Returns:
        What the sidecar says.

    Raises:
        ExportError: TensorRT is missing, or it refuses the graph; the message gives its reasons.
    """
    reason = why_not_here()
    if reason:
        raise ExportError(reason)
    import onnx as onnx_package
    import tensorrt as trt

    model = onnx_package.load(onnx, load_external_data=False)
    with_plugins = any(node.domain == PLUGIN_DOMAIN for node in model.graph.node)
    if with_plugins:
        register_here()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(with_plugins))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"TensorRT does not take {onnx}: {errors}")
    config = builder.create_builder_config()
    shapes = [input_shapes(model, profile) for profile in profiles]
    for each in shapes:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in each.items():
            profile.set_shape(name, *(trt.Dims(list(dims)) for dims in (least, usual, most)))
        config.add_optimization_profile(profile)
    stored = engine.parent / TIMING_CACHE
    cache = config.create_timing_cache(stored_timings(engine.parent))
    if not config.set_timing_cache(cache, ignore_mismatch=False):  # it is of another GPU or version
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT could not build an engine from {onnx}; its log above says why")
    facts = {
        "tensorrt": trt.__version__,
        "onnx": onnx.name,
        "onnx_sha256": file_sha256(onnx),
        "plugins": with_plugins,
        "profiles": [{name: asdict(extent) for name, extent in profile.items()} for profile in profiles],
        **gpu_facts(),
        **{each.key: each.value for each in model.metadata_props},
    }
    write_whole(stored, bytes(config.get_timing_cache().serialize()))
    write_whole(engine, bytes(plan))
    write_whole(engine.with_name(f"{engine.name}.json"), json.dumps(facts, indent=1).encode())
    return facts


def network_flags(with_plugins: bool) -> int:
    """Strongly typed, which TensorRT 11 always is; plugins by the kernels that were compiled for them."""
    import tensorrt as trt

    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    if with_plugins:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS)
    return flags


def register_here() -> None:
    """Register the plugins for the GPU at hand, unless that is done."""
    import tensorrt.plugin as trtp
    import torch

    major, minor = torch.cuda.get_device_capability()
    arch = f"sm_{major}{minor}"
    if arch not in ARCHITECTURES:
        raise ExportError(f"the plugins are made for {', '.join(ARCHITECTURES)}, and this GPU is {arch}")
    if not hasattr(trtp.op, PLUGIN_DOMAIN):
        register(arch)


def gpu_facts() -> dict[str, str]:
    """The GPU that an engine is bound to."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return {"gpu": torch.cuda.get_device_name(), "arch": f"sm_{major}{minor}"}
