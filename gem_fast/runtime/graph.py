"""One exported graph in ONNX Runtime: what it must look like, and how it is run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime import OrtValue

from ..errors import ExportError
from .runtime_options import RuntimeOptions


class Graph:
    """A session with its inputs and outputs bound, so that nothing leaves the device without being asked for."""

    def __init__(
        self,
        path: Path,
        options: RuntimeOptions,
        inputs: Mapping[str, tuple[str, int]],
        outputs: Sequence[str],
        profile: Mapping[str, tuple[int | None, ...]] | None = None,
    ) -> None:
        """Load a file.

        Args:
            path: the ONNX file.
            options: how to run it.
            inputs: type and number of dimensions of each input, as ONNX Runtime names types.
            outputs: those that it must have.
            profile: see `RuntimeOptions.providers`.

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
            raise ExportError(f"{path} can't be loaded: {first_line(error)}") from error
        if asked[0][0] not in self.session.get_providers():
            raise ExportError(
                f"provider {asked[0][0]} could not be started, most often because its libraries or a device are "
                f"missing; this session would run on {', '.join(self.session.get_providers())}"
            )
        given = [*self.session.get_inputs(), *self.session.get_overridable_initializers()]
        found = {value.name: (value.type.removeprefix("tensor(").rstrip(")"), len(value.shape)) for value in given}
        if found != dict(inputs) or not set(outputs) <= {value.name for value in self.session.get_outputs()}:
            raise ExportError(
                f"{path} is not the graph that the manifest speaks of: it takes {describe(found)} and gives "
                f"{', '.join(value.name for value in self.session.get_outputs())}; expected were {describe(inputs)} "
                f"and {', '.join(outputs)}"
            )
        # The most images in a run, where the engine is built for a certain number.
        self.limit = options.max_batch if "trt_profile_max_shapes" in asked[0][1] else None
        self.device = "cuda" if options.on_nvidia else "cpu"
        self.device_id = options.device_id if options.on_nvidia else 0

    def run(self, inputs: Mapping[str, np.ndarray | OrtValue], *outputs: str, stay: bool = False) -> list[OrtValue]:
        """The named outputs, on the host or, with `stay`, where the graph runs.

        Raises:
            RuntimeError: it can't be computed, for want of memory above all.
        """
        binding = self.session.io_binding()
        try:
            # As values, since inputs with a default can't be bound as arrays; kept, since they lend their memory.
            values = {name: as_value(value) for name, value in inputs.items()}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, *((self.device, self.device_id) if stay else ("cpu", 0)))
            self.session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise RuntimeError(f"{self.path.name}: {first_line(error)}") from error
        return binding.get_outputs()


def as_value(value: np.ndarray | OrtValue) -> OrtValue:
    return value if isinstance(value, OrtValue) else OrtValue.ortvalue_from_numpy(np.asarray(value, order="C"))


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(inputs: Mapping[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({kind}, {rank} dimensions)" for name, (kind, rank) in inputs.items()) or "nothing"
