"""The graphs of an export as files, each with what the manifest says of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto, TensorProto, ValueInfoProto

from gem_fast.runtime.facts import FileFacts, Size
from gem_fast.runtime.folder import file_sha256
from gem_fast.runtime.interface import TensorFacts

from .builder import GraphBuilder, Weights, shape_of


@dataclass(frozen=True)
class GraphFiles:
    """A folder to write graphs of an opset into, with these facts in their metadata.

    Attributes:
        files: what was written, by the names of the files.
    """

    folder: Path
    opset: int
    metadata: dict[str, str]
    files: dict[str, FileFacts] = field(default_factory=dict)

    def save(
        self, name: str, role: str, weights: Weights, write: Callable[[GraphBuilder], None], size: Size | None = None
    ) -> None:
        """Write a graph, whose nodes `write` adds."""
        graph = GraphBuilder(self.opset, weights)
        write(graph)
        proto = graph.model(Path(name).stem, self.metadata)
        (self.folder / name).write_bytes(proto.SerializeToString())
        self.files[name] = file_facts(proto, role, self.folder / name, size)

    def add(self, name: str, role: str) -> None:
        """Take in a file that is no graph."""
        self.files[name] = FileFacts(role, file_sha256(self.folder / name))


def file_facts(proto: ModelProto, role: str, path: Path, size: Size | None) -> FileFacts:
    """Inputs and outputs of a graph with their types and shapes, and the files of weights beside it."""
    graph = proto.graph
    return FileFacts(
        role=role,
        sha256=file_sha256(path),
        size=size,
        inputs={each.name: _tensor(each) for each in graph.input},
        outputs={each.name: _tensor(each) for each in graph.output},
        external_data=tuple(
            sorted({e.value for i in graph.initializer for e in i.external_data if e.key == "location"})
        ),
    )


def _tensor(value: ValueInfoProto) -> TensorFacts:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return TensorFacts(kind, tuple(shape_of(value)))
