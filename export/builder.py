"""Writing ONNX graphs: nodes in order, constants once, weights inline or in a file that several graphs share."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor

ORT_DOMAIN = "com.microsoft"
PLUGIN_DOMAIN = "gem_fast"
_ALIGNMENT = 4096  # so that a runtime can map weights into memory
ELEMENT_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int8: TensorProto.INT8,
    torch.int64: TensorProto.INT64,
}


class Weights:
    """Weights of one or several graphs: inside the graphs, or in one file beside them, each stored once."""

    def __init__(self, external: Path | None = None) -> None:
        self.external = external
        self.stored: dict[str, TensorProto] = {}

    def add(self, name: str, value: Tensor) -> TensorProto:
        """The initializer of that name; a second call with the name gives the first one's."""
        if name not in self.stored:
            value = value.detach().cpu().contiguous()
            tensor = TensorProto(name=name, data_type=ELEMENT_TYPES[value.dtype], dims=value.shape)
            content = value.reshape(-1).view(torch.uint8).numpy()
            if self.external is None:
                tensor.raw_data = content.tobytes()
            else:
                self._append(tensor, content)
            self.stored[name] = tensor
        return self.stored[name]

    def _append(self, tensor: TensorProto, content: np.ndarray) -> None:
        assert self.external is not None
        with open(self.external, "ab") as file:
            start = -(-file.seek(0, os.SEEK_END) // _ALIGNMENT) * _ALIGNMENT
            file.truncate(start)
            file.seek(start)
            content.tofile(file)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.external.name), ("offset", start), ("length", content.nbytes)):
            tensor.external_data.add(key=key, value=str(value))


class GraphBuilder:
    """One graph, written from its inputs to its outputs. Values are their names."""

    def __init__(self, opset: int, weights: Weights | None = None, parent: "GraphBuilder | None" = None) -> None:
        self.opset = opset
        self.weights = weights or Weights()
        self.parent = parent
        self.graph = GraphProto()
        self._constants: dict[tuple, str] = {}
        self._count = 0
        self._used: set[str] = set()

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with a single output and return the output's name. Empty inputs are left out ones."""
        return self.ops(kind, inputs, 1, domain=domain, **attributes)[0]

    def ops(self, kind: str, inputs: tuple[str, ...], count: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        name = self._name(kind)
        outputs = [name] if count == 1 else [f"{name}.{i}" for i in range(count)]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.graph.node.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **given))
        return outputs

    def _name(self, kind: str) -> str:
        root = self
        while root.parent:
            root = root.parent
        root._count += 1
        return f"{kind}_{root._count}"

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """A small constant, by default of int64; equal ones are stored once."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._name("constant")
            self.graph.initializer.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def shape(self, *parts: int | str) -> str:
        """An int64 vector out of numbers and vectors: a constant where all are numbers, since some can't fold them."""
        if all(isinstance(part, int) for part in parts):
            return self.constant(parts)
        named = [self.constant([part]) if isinstance(part, int) else part for part in parts]
        return self.op("Concat", *named, axis=0) if len(named) > 1 else named[0]

    def scalar(self, value: float) -> str:
        """A float32 constant."""
        return self.constant(value, np.float32)

    def real(self, x: str) -> str:
        """To float32, or what a tool makes of the graph's float32: converters leave the type in a Cast as it is."""
        return self.op("CastLike", x, self.scalar(1.0))

    def weight(self, name: str, value: Tensor) -> str:
        """A weight of the model, in the type it has."""
        if name not in self._used:
            self._used.add(name)
            self.graph.initializer.append(self.weights.add(name, value))
        return name

    def input(self, name: str, kind: int, shape: list[int | str]) -> str:
        """An input and its name."""
        self.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def named(self, name: str, value: str) -> str:
        """Give a value a name by which others find it."""
        self.graph.node.append(helper.make_node("Identity", [value], [name], name=f"named.{name}"))
        return name

    def output(self, name: str, value: str, kind: int, shape: list[int | str]) -> None:
        """Give a value its name as an output."""
        self.named(name, value)
        self.graph.output.append(helper.make_tensor_value_info(name, kind, shape))

    def body(self) -> "GraphBuilder":
        """A graph inside this one, for Loop and If; it may use the values of this one."""
        return GraphBuilder(self.opset, self.weights, parent=self)

    def finished(self, name: str) -> GraphProto:
        self.graph.name = name
        return self.graph

    def model(self, name: str, metadata: dict[str, str]) -> ModelProto:
        """The model that holds the graph, with the facts about it in `metadata_props`."""
        opsets = [helper.make_opsetid("", self.opset)]
        used = [domain for domain in (ORT_DOMAIN, PLUGIN_DOMAIN) if uses_domain(self.graph, domain)]
        opsets += [helper.make_opsetid(domain, 1) for domain in used]
        model = helper.make_model(
            self.finished(name),
            opset_imports=opsets,
            producer_name="gem_fast",
            ir_version=helper.find_min_ir_version_for(opsets[:1]),
        )
        helper.set_model_props(model, metadata)
        return model


def uses_domain(graph: GraphProto, domain: str) -> bool:
    """Whether a node of the graph, or of a graph inside it, is of that domain."""
    inner = (a.g for node in graph.node for a in node.attribute if a.type == AttributeProto.GRAPH)
    return any(node.domain == domain for node in graph.node) or any(uses_domain(g, domain) for g in inner)


def shape_of(value: ValueInfoProto) -> list[int | str]:
    """Dimensions of an input or output: numbers, and names of those that may vary."""
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
