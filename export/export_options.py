"""What can be chosen about an export. Needs neither torch nor onnx."""

from dataclasses import dataclass
from pathlib import Path

from gem_fast.dtypes import dtype_name
from gem_fast.errors import ExportError
from gem_fast.runtime.manifest import size_name

OPSETS = range(18, 25)  # what the graphs are written for and ONNX Runtime runs
FIRST_ATTENTION_OPSET = 23  # the first with the `Attention` operator
# The least opset of each, which is what is written where none is asked for.
ATTENTIONS = {
    "portable": OPSETS[0],
    "onnx": FIRST_ATTENTION_OPSET,
    "ort": OPSETS[0],
    "tensorrt": FIRST_ATTENTION_OPSET,
    "plugin": FIRST_ATTENTION_OPSET,
}


@dataclass(frozen=True)
class ExportOptions:
    """How the graphs are written.

    Attributes:
        sizes: height and width of the image encoder's input, one graph each; empty for the model's own size.
        dynamic_size: one image encoder for every size that is a multiple of the patch.
        opset: the ONNX operator set, 18 to 24; None for 23, or 18 where `attention` needs no newer one.
        attention: `"portable"` (MatMul and Softmax, N×N in memory), `"onnx"` (the `Attention` operator of opset 23),
            `"ort"` (`MultiHeadAttention` of ONNX Runtime, which never holds N×N), `"tensorrt"` (`Attention` in the form
            that TensorRT takes) or `"plugin"` (the same, and GEM's own attention by our TensorRT plugins).
        dtype: `"float32"`, `"bfloat16"` or `"float16"` for the image encoder's weights and products; LayerNorm,
            softmax, normalisation, the residual stream, inputs and outputs stay float32. The text encoder and the head
            are float32 always, as in the engine.
        quantize: None, or `"int8"` for the image encoder's linear layers (weights ahead of time, activations at run
            time; float32 only).
        calibrate: a folder of images like those to come: int8 whose activations are rounded by the ranges they have
            there, not by those of each batch.
        original: a second output of the image encoder with the unchanged path's patch features.
        with_preprocess: the image encoder takes uint8 images of any size, and resizes and normalises them itself.
        check: run the graphs under ONNX Runtime and compare them with torch.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    dynamic_size: bool = False
    opset: int | None = None
    attention: str = "ort"
    dtype: str = "float32"
    quantize: str | None = None
    calibrate: str | Path | None = None
    original: bool = False
    with_preprocess: bool = False
    check: bool = True

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise ExportError(f"attention must be one of {', '.join(ATTENTIONS)}, got {self.attention!r}")
        try:
            object.__setattr__(self, "dtype", dtype_name(self.dtype))
        except ValueError as error:
            raise ExportError(str(error)) from error
        if self.opset is not None and self.opset not in OPSETS:
            raise ExportError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}, got {self.opset}")
        if self.chosen_opset < ATTENTIONS[self.attention]:
            raise ExportError(
                f"attention {self.attention} needs opset {ATTENTIONS[self.attention]} or newer, got {self.opset}; "
                "portable and ort serve every opset"
            )
        if self.quantize not in (None, "int8"):
            raise ExportError(f"quantize must be int8 or left out, got {self.quantize!r}")
        if self.integers and self.dtype != "float32":
            raise ExportError(f"int8 goes with dtype float32, got {self.dtype}")
        if self.dynamic_size and self.sizes:
            raise ExportError("dynamic_size serves every size; leave out sizes, or name sizes alone")
        if self.dynamic_size and self.with_preprocess:
            raise ExportError("with_preprocess resizes to a fixed size; leave out dynamic_size")
        if len(set(self.sizes)) != len(self.sizes):
            raise ExportError(f"each size may come once, got {', '.join(size_name(s) for s in self.sizes)}")

    @property
    def integers(self) -> str | None:
        """The kind of int8, as the manifest has it."""
        return self.quantize if self.calibrate is None else "int8-static"

    @property
    def chosen_opset(self) -> int:
        return self.opset or ATTENTIONS[self.attention]

    def grid_sizes(self, default: int, patch: int) -> tuple[tuple[int, int], ...]:
        """The sizes to write graphs for, each checked against the patch; empty for a dynamic size."""
        if self.dynamic_size:
            return ()
        for height, width in self.sizes:
            if height < patch or width < patch or height % patch or width % patch:
                raise ExportError(f"size {height}x{width}: both sides must be positive multiples of the patch, {patch}")
        side = max(1, round(default / patch)) * patch
        return self.sizes or ((side, side),)


def parse_size(text: str) -> tuple[int, int]:
    """`448` or `448x640` (height × width) to height and width."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ExportError(f"size must be like 448 or 448x640 (height x width), got {text!r}")
    return int(parts[0]), int(parts[-1])
