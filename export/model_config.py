"""Configurations of models for NVIDIA Triton Inference Server, from what the graphs take and give.

Source: `model_config.proto` of triton-inference-server/common, and the ONNX Runtime backend's rule for scalars (dims
of 1).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

TYPES = {1: "FP32", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FP16", 11: "FP64", 16: "BF16"}
_LARGEST = 2**31 - 1  # an int32, as model_config.proto has batches and instances


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output; dims are those of the whole tensor, with -1 where they may vary."""

    name: str
    kind: str
    dims: tuple[int, ...]

    def text(self, batched: bool = False) -> str:
        # A scalar is declared as a vector of length one, and the batch is left out.
        dims = ", ".join(map(str, self.dims[batched:] or (1,)))
        return f'  {{ name: "{self.name}" data_type: TYPE_{self.kind} dims: [ {dims} ] }}'


@dataclass(frozen=True, slots=True)
class Serving:
    """How the server runs the models.

    Attributes:
        max_batch_size: most images in one run.
        max_texts: most texts in one run, and so most words in a request.
        queue_delay: microseconds that a request may wait for others to share its batch.
        instances: of each model, on each device.
        device: `"auto"` (GPUs where there are any), `"cpu"` or `"gpu"`.
    """

    max_batch_size: int = 8
    max_texts: int = 256
    queue_delay: int = 1000
    instances: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_texts", "instances"):
            if not 1 <= getattr(self, name) <= _LARGEST:
                raise ValueError(f"{name} must be from 1 to {_LARGEST:,}, got {getattr(self, name)}")
        if not 0 <= self.queue_delay <= _LARGEST:
            raise ValueError(f"queue_delay must be from 0 to {_LARGEST:,} microseconds, got {self.queue_delay}")
        if self.device not in ("auto", "cpu", "gpu"):
            raise ValueError(f"device must be auto, cpu or gpu, got {self.device!r}")


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs of a graph, and whether their first dimension is a batch that requests can share."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool


def interface(model: "ModelProto") -> Interface:
    """What a graph takes and gives."""
    inputs = tuple(_tensor(each) for each in model.graph.input)
    outputs = tuple(_tensor(each) for each in model.graph.output)
    first = {_batch_name(each) for each in (*model.graph.input, *model.graph.output)}
    return Interface(inputs, outputs, batched=len(first) == 1 and "" not in first)


def _tensor(value: "ValueInfoProto") -> Tensor:
    kind = value.type.tensor_type
    dims = tuple(each.dim_value if each.HasField("dim_value") else -1 for each in kind.shape.dim)
    return Tensor(value.name, TYPES[kind.elem_type], dims)


def _batch_name(value: "ValueInfoProto") -> str:
    """The symbol of the first dimension; empty if it is fixed or there is none."""
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_param if dims else ""


def model_config(name: str, graph: Interface, serving: Serving, most: int, free: Sequence[int] = ()) -> str:
    """`config.pbtxt` of a graph that ONNX Runtime serves.

    Args:
        name: of the model.
        graph: what it takes and gives.
        serving: how it is run.
        most: the largest batch, if the graph has a batch; it then runs once before the server is ready.
        free: lengths of that run for the dimensions that may vary, in their order.
    """
    batching = f"dynamic_batching {{ max_queue_delay_microseconds: {serving.queue_delay} }}"
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {most if graph.batched else 0}",
        *_listed("input", (each.text(graph.batched) for each in graph.inputs)),
        *_listed("output", (each.text(graph.batched) for each in graph.outputs)),
        *([batching, *_warmup(graph, free)] if graph.batched else []),
        f"instance_group [ {{ count: {serving.instances} kind: KIND_{serving.device.upper()} }} ]",
    ]
    return "\n".join(lines) + "\n"


def _warmup(graph: Interface, free: Sequence[int]) -> Iterator[str]:
    """A run with zeros, which costs what any run does."""
    lengths = iter(free)
    for each in graph.inputs:
        dims = ", ".join(str(next(lengths) if dim < 0 else dim) for dim in each.dims[1:])
        value = f"data_type: TYPE_{each.kind} dims: [ {dims} ] zero_data: true"
        inputs = f'inputs {{ key: "{each.name}" value {{ {value} }} }}'
        yield f'model_warmup [ {{ name: "once" batch_size: 1 {inputs} }} ]'


def ensemble_config(name: str, steps: dict[str, Interface]) -> str:
    """`config.pbtxt` that runs graphs one after another; tensors of the same name are the same.

    Every input that no step gives is the ensemble's, and the last step's outputs are its outputs. The batch of one
    step is no batch of another (images, texts), so the ensemble has none: its tensors are whole.
    """
    given = {output.name for graph in steps.values() for output in graph.outputs}
    inputs = {each.name: each for graph in steps.values() for each in graph.inputs if each.name not in given}
    *_, last = steps.values()
    wanted = {each.name for graph in steps.values() for each in graph.inputs} | {each.name for each in last.outputs}
    lines = [
        f'name: "{name}"',
        'platform: "ensemble"',
        "max_batch_size: 0",
        *_listed("input", (each.text() for each in inputs.values())),
        *_listed("output", (each.text() for each in last.outputs)),
        "ensemble_scheduling {",
        *_listed("step", (_step(model, graph, wanted) for model, graph in steps.items())),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _step(model: str, graph: Interface, wanted: set[str]) -> str:
    maps = [f'    input_map {{ key: "{each.name}" value: "{each.name}" }}' for each in graph.inputs]
    maps += [f'    output_map {{ key: "{e.name}" value: "{e.name}" }}' for e in graph.outputs if e.name in wanted]
    return "\n".join([f'  {{ model_name: "{model}" model_version: -1', *maps, "  }"])


def _listed(field: str, items: Iterable[str]) -> Iterator[str]:
    yield f"{field} ["
    yield ",\n".join(items)
    yield "]"
