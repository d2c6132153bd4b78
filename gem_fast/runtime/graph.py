"""One exported graph in ONNX Runtime: what it must look like, and how it is run."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import OrtValue

from ..errors import ExportError, GraphError
from .facts import ModelFacts
from .interface import TensorFacts, Tensors, check_tensors
from .runtime_options import RuntimeOptions
from .typed_json import EntryError, from_json, parse_json


class Graph:
    """A session with its inputs and outputs bound, so that nothing leaves the device without being asked for."""

    def __init__(
        self,
        path: Path,
        options: RuntimeOptions,
        inputs: Tensors,
        outputs: Tensors,
        profile: Mapping[str, tuple[int | None, ...]] | None = None,
        model: ModelFacts | None = None,
        made_with: str | None = None,
    ) -> None:
        """Load a file.

        Args:
            path: the ONNX file.
            options: how to run it.
            inputs, outputs: what it must take and give.
            profile: see `RuntimeOptions.providers`.
            model: what it must be of, by the facts in its metadata; None for any.
            made_with: the version of ONNX Runtime that it ran on at its export.

        Raises:
            ExportError: the file is damaged or is another graph, or the provider can't be used.
        """
        self.path = path
        asked = options.providers(profile)
        if options.on_nvidia:
            onnxruntime.preload_dlls()  # of CUDA and cuDNN, where they were installed as packages
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options.session_options(), providers=asked, enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise ExportError(f"{path} can't be loaded: {first_line(error)}{_older_than(made_with)}") from error
        if asked[0][0] not in self.session.get_providers():
            raise ExportError(
                f"provider {asked[0][0]} could not be started, most often because its libraries or a device are "
                f"missing; this session would run on {', '.join(self.session.get_providers())}"
            )
        try:
            check_tensors(inputs, self._inputs(), "inputs")
            check_tensors(outputs, tensors(self.session.get_outputs()), "outputs")
            if model is not None:
                self._check_model(model)
        except ValueError as error:
            raise ExportError(f"{path} is not the graph that the manifest speaks of: {error}") from error
        # The most images in a run, where the engine is built for a certain number.
        self.limit = options.max_batch if "trt_profile_max_shapes" in asked[0][1] else None
        self.device = "cuda" if options.on_nvidia else "cpu"
        self.device_id = options.device_id if options.on_nvidia else 0

    def _inputs(self) -> Tensors:
        return tensors([*self.session.get_inputs(), *self.session.get_overridable_initializers()])

    def _check_model(self, model: ModelFacts) -> None:
        """ValueError unless the graph's own facts are of the same model."""
        stored = self.session.get_modelmeta().custom_metadata_map.get("gem_fast")
        facts = parse_json(stored) if stored else None
        found = from_json(ModelFacts, facts.get("model") if isinstance(facts, dict) else None, "metadata.model")
        for name, value in vars(model).items():
            if getattr(found, name) != value:
                raise EntryError(f"metadata.model.{name}", "is another than the manifest's")

    def run(self, inputs: Mapping[str, np.ndarray | OrtValue], *outputs: str, stay: bool = False) -> list[OrtValue]:
        """The named outputs, on the host or, with `stay`, where the graph runs.

        Raises:
            GraphError: it can't be computed, for want of memory above all.
        """
        binding = self.session.io_binding()
        try:
            # Kept until the end, since they lend their memory.
            values = {name: as_value(value) for name, value in inputs.items()}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, *((self.device, self.device_id) if stay else ("cpu", 0)))
            self.session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise GraphError(f"{self.path.name}: {first_line(error)}") from error
        return binding.get_outputs()


def as_value(value: np.ndarray | OrtValue) -> OrtValue:
    return value if isinstance(value, OrtValue) else OrtValue.ortvalue_from_numpy(np.asarray(value, order="C"))


def _older_than(made_with: str | None) -> str:
    """What to add to an error where the ONNX Runtime here is older than the one of the export."""
    here = onnxruntime.__version__
    if made_with is None or version_numbers(here) >= version_numbers(made_with):
        return ""
    return f". This is ONNX Runtime {here}, and the manifest asks for {made_with} or newer: update onnxruntime"


def version_numbers(version: str) -> tuple[int, ...]:
    """`1.32.0.dev1` as (1, 32, 0)."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def tensors(values: list[Any]) -> dict[str, TensorFacts]:
    """Inputs or outputs of a session as a manifest has them; of an unknown length where ONNX Runtime names none."""
    return {
        value.name: TensorFacts(
            value.type.removeprefix("tensor(").rstrip(")"), tuple(d or "unknown" for d in value.shape)
        )
        for value in values
    }
