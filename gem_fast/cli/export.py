"""`gem-fast export`."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..terminal import console, ended_by_signals, errors, fail, say, short_warnings
from .options import (
    GemBlocks,
    InverseTemperature,
    Iterations,
    MethodName,
    ModelName,
    PoolingName,
    Pretrained,
    Rotated,
    Tokenizer,
    Weights,
    chosen,
    dtype_option,
)

_INT8 = "; int8 is --quantize int8, or --calibrate"


class Format(str, Enum):
    onnx = "onnx"
    tensorrt = "tensorrt"
    triton_server = "triton-server"
    pt2 = "pt2"
    exported_program = "exported-program"


class Attention(str, Enum):
    portable = "portable"
    onnx = "onnx"
    ort = "ort"
    plugin = "plugin"


class Quantize(str, Enum):
    int8 = "int8"


def export(
    out: Annotated[Path, typer.Option(help="Output folder.")],
    model: ModelName = "gem-tiny",
    pretrained: Pretrained = None,
    weights: Weights = None,
    tokenizer: Tokenizer = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="A class of a fixed vocabulary: writes one graph, images to labels; repeat for more."),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="The same: a text file with a class a line, synonyms separated by commas.")
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option(help="With --prompt: what competes, and is labelled 0. Repeatable.")
    ] = None,
    with_scores: Annotated[
        bool, typer.Option("--with-scores", help="With --prompt: give the cosines of patches and classes too.")
    ] = False,
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.onnx,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set, 18 to 24.")] = None,
    attention: Annotated[
        Attention | None,
        typer.Option(
            help="portable (MatMul and Softmax), onnx (the operator of opset 23; tensorrt's default), ort (ONNX "
            "Runtime's own, fastest; the default elsewhere) or plugin (the fused kernels in a TensorRT engine)."
        ),
    ] = None,
    dtype: Annotated[
        str, dtype_option("Type of the image encoder, of which what needs it stays float32", elsewhere=_INT8)
    ] = "float32",
    size: Annotated[
        list[str] | None, typer.Option(help="Input size, as 448 or 448x640 (height x width); repeatable.")
    ] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="One image encoder for all multiples of the patch.")
    ] = False,
    quantize: Annotated[Quantize | None, typer.Option(help="Linear layers of the image encoder in int8.")] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Static int8: a folder of 8 images or more like those to come, by whose ranges it rounds."),
    ] = None,
    original: Annotated[
        bool, typer.Option("--original", help="Also give the unchanged path's patch features.")
    ] = False,
    with_preprocess: Annotated[
        bool, typer.Option("--with-preprocess", help="Take uint8 images; resize and normalise in the graph.")
    ] = False,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Most images in a run of a TensorRT engine or a served model.")
    ] = 8,
    instances: Annotated[int, typer.Option(min=1, help="triton-server: instances of each model on a device.")] = 1,
    queue_delay: Annotated[
        int, typer.Option(min=0, help="triton-server: microseconds to wait for others to share a batch.")
    ] = 1000,
    device: Annotated[
        str, typer.Option(help="pt2, exported-program: cpu, cuda or cuda:1, what the file is for.")
    ] = "cpu",
    check: Annotated[bool, typer.Option(help="Run the graphs under ONNX Runtime and compare them with torch.")] = True,
    method: MethodName = "gem",
    feature_surgery: Annotated[
        bool, typer.Option("--feature-surgery", help="Score as CLIP Surgery does; the image encoder gives more for it.")
    ] = False,
    gem_blocks: GemBlocks = None,
    iterations: Iterations = None,
    inverse_temperature: InverseTemperature = None,
    pooling: PoolingName = None,
    rotated: Rotated = False,
) -> None:
    """Export a model for use without torch: ONNX graphs with a tokenizer and a manifest.

    Exit status: 0 if the export is written (and agrees with torch), 2 if not, 130 if interrupted; then nothing is
    written.
    """
    from gem_fast.export.verdict import DisagreementError

    from .formats import comparison_table, read_vocabulary, write_export

    loading: dict[str, Any] = {
        "name": model,
        "pretrained": pretrained,
        "weights": weights,
        "tokenizer": tokenizer,
        "device": device,
        "method": method,
        "feature_surgery": feature_surgery,
    }
    loading |= chosen(
        gem_blocks=gem_blocks,
        iterations=iterations,
        inverse_temperature=inverse_temperature,
        pooling=pooling,
        rotated=rotated,
    )
    try:
        with ended_by_signals(), short_warnings():
            vocabulary = read_vocabulary(prompt or (), prompts_file, background or (), with_scores)
            lines = write_export(
                out,
                format.value,
                loading,
                sizes=size or (),
                dynamic_size=dynamic_size,
                opset=opset,
                attention=attention and attention.value,
                dtype=dtype,
                quantize=quantize and quantize.value,
                calibrate=calibrate,
                original=original,
                with_preprocess=with_preprocess,
                check=check,
                vocabulary=vocabulary,
                serving={"max_batch": max_batch, "instances": instances, "queue_delay": queue_delay},
            )
    except KeyboardInterrupt:
        say("interrupted; nothing is written", to=errors)
        raise typer.Exit(130) from None
    except DisagreementError as error:
        errors.print(comparison_table(error.comparisons))
        fail(str(error))
    except (ValueError, OSError) as error:
        fail(str(error))
    for line in lines:
        say(line) if isinstance(line, str) else console.print(line)
    say(f"{model} exported into {out}")
