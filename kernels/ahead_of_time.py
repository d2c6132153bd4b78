"""Triton kernels compiled for GPUs that are not there. Needs triton only: no driver, no GPU."""

from typing import Any

from .triton_kernel import OPTIONS

# Arguments by name: tensors in the type that is compiled for, those of a fixed type, and scalars. The rest are sizes
# and strides, of which strides (`stride_n`, `value_b`, ...) are multiples of 16.
DATA = (
    "qkv", "projections", "units", "refined", "value", "out", "x", "front", "branch", "weight", "bias", "total", "y",
    "aside", "aside_branch", "aside_total", "scores", "heatmaps",
)  # fmt: skip
WIDE = (
    "inverse_temperature", "temperatures", "down", "across", "norms", "embedding", "logits", "confidence", "extremes",
)  # fmt: skip
TYPES = dict.fromkeys(WIDE, "*fp32") | {"labels": "*i32"}
TYPES |= dict.fromkeys(("eps", "threshold", "share", "norm_scale"), "fp32")


def compile_ahead(arch: str, kernel: Any, constants: dict[str, Any], dtype: str, options: dict[str, int]) -> Any:
    """Compile a kernel with pointers and strides aligned to 16, as for any packed qkv.

    Args:
        arch: as compilers name it, such as `sm_90` or `gfx942`.
        kernel: a function of `triton.jit`, whose arguments have the names above.
        constants: its constant arguments.
        dtype: of its data, Triton's name, such as `bf16`.
        options: of the compiler, such as `num_warps`.

    Returns:
        Triton's compiled kernel.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, aligned = {}, {}
    for index, name in enumerate(kernel.arg_names):
        kind = TYPES.get(name, "*{}" if name in DATA else "i32").format(dtype)
        signature[name] = "constexpr" if name in constants else kind
        if signature[name].startswith("*") or name == "padded" or ("_" in name and signature[name] == "i32"):
            aligned[(index,)] = [["tt.divisibility", 16]]
    cuda = arch.startswith("sm_")
    target = GPUTarget("cuda", int(arch[3:]), 32) if cuda else GPUTarget("hip", arch, 64)
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=target, options=options | OPTIONS)
