"""A stand-in for TensorRT's Python module, with the rules that `tensorrt.plugin` holds a plugin to, over known sizes.

The rules are those of TensorRT 11.1's Python layer; shapes are numbers where TensorRT has symbols.
"""

import inspect
import sys
import typing
from dataclasses import dataclass, field
from types import ModuleType

ATTRIBUTE_TYPES = (int, float, bytes, bool, str)
RESERVED_NAMESPACES = ("", "trt", "tensorrt", "std")
RESERVED_ATTRIBUTES = ("outputs", "stream", "tactic")


class ShapeExpr:
    """An extent, or what is computed of extents; integers join in on the right."""

    def __init__(self, value):
        assert isinstance(value, int | ShapeExpr)
        self.value = value.value if isinstance(value, ShapeExpr) else value

    def __mul__(self, other):
        return ShapeExpr(self.value * ShapeExpr(other).value)

    def __add__(self, other):
        return ShapeExpr(self.value + ShapeExpr(other).value)


class SymInt32(ShapeExpr):
    pass


class SymIntExprs:
    def __init__(self, length):
        self.items = [None] * length

    def __setitem__(self, index, value):
        assert isinstance(value, SymInt32)
        self.items[index] = value


class KernelLaunchParams:
    NAMES = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")

    def __init__(self):
        self.__dict__.update(dict.fromkeys(self.NAMES, SymInt32(1)), shared_mem=SymInt32(0))

    def __setattr__(self, name, value):
        assert name in self.NAMES
        self.__dict__[name] = SymInt32(value)


@dataclass(frozen=True)
class TensorDesc:
    shape_expr: tuple
    dtype: str

    def like(self):
        return TensorDesc(self.shape_expr, self.dtype)

    @property
    def sizes(self):
        return tuple(each.value for each in self.shape_expr)


@dataclass(frozen=True)
class AutoTuneCombination:
    types: str
    layouts: str
    tactics: list


@dataclass
class Plugin:
    """What was registered under one name."""

    describe: typing.Callable
    tensors: list
    attributes: dict
    autotune: typing.Callable | None = None
    aot_impl: typing.Callable | None = None
    parameters: list = field(default_factory=list)


def cdiv(first, second):
    assert isinstance(first, ShapeExpr) or isinstance(second, ShapeExpr)
    return ShapeExpr(-(-ShapeExpr(first).value // ShapeExpr(second).value))


def from_shape_expr(shape, dtype):
    assert isinstance(shape, tuple)
    return TensorDesc(tuple(ShapeExpr(each) for each in shape), dtype)


class Registry(dict):
    """The decorators, and what they registered by its id."""

    def register(self, name):
        namespace, short = name.split("::")
        assert "." not in name
        assert namespace not in RESERVED_NAMESPACES
        assert name not in self, f"{short} is registered already"

        def decorate(function):
            signature = inspect.signature(function)
            tensors, attributes = [], {}
            for each in signature.parameters.values():
                assert each.default is each.empty
                if each.annotation is TensorDesc:
                    assert not attributes, "tensors come before attributes"
                    tensors.append(each.name)
                else:
                    assert tensors, "an attribute comes first"
                    assert each.annotation in ATTRIBUTE_TYPES
                    assert each.name not in RESERVED_ATTRIBUTES
                    attributes[each.name] = each.annotation
            assert signature.return_annotation is TensorDesc
            self[name] = Plugin(function, tensors, attributes)
            return function

        return decorate

    def autotune(self, name):
        def decorate(function):
            plugin, signature = self[name], inspect.signature(function)
            self.check_parameters(signature, plugin, ["outputs"])
            assert signature.return_annotation == list[AutoTuneCombination]
            plugin.autotune = function
            return function

        return decorate

    def aot_impl(self, name):
        def decorate(function):
            plugin, signature = self[name], inspect.signature(function)
            self.check_parameters(signature, plugin, ["outputs", "tactic"])
            # All values are passed by position, so a left out attribute would shift the rest.
            assert [p for p in signature.parameters if p in plugin.attributes] == list(plugin.attributes)
            returned = typing.get_args(signature.return_annotation)
            assert typing.get_origin(signature.return_annotation) is tuple
            assert set(returned[:2]) <= {str, bytes}
            assert returned[2:] == (KernelLaunchParams, SymIntExprs)
            plugin.aot_impl = function
            return function

        return decorate

    @staticmethod
    def check_parameters(signature, plugin, last):
        named = signature.parameters
        attributes = [name for name in plugin.attributes if name in named]
        assert list(named) == [*plugin.tensors, *attributes, *last]
        for name, parameter in named.items():
            wanted = {"outputs": tuple[TensorDesc], "tactic": int, **dict.fromkeys(plugin.tensors, TensorDesc)}
            assert parameter.annotation == (plugin.attributes | wanted)[name]


def install(monkeypatch):
    """Make `import tensorrt` and `import tensorrt.plugin` give the stand-in; returns its registry."""
    core, plugin, registry = ModuleType("tensorrt"), ModuleType("tensorrt.plugin"), Registry()
    core.float16, core.bfloat16, core.float32 = "HALF", "BF16", "FLOAT"
    plugin.register, plugin.autotune, plugin.aot_impl = registry.register, registry.autotune, registry.aot_impl
    plugin.cdiv, plugin.from_shape_expr = cdiv, from_shape_expr
    for each in (TensorDesc, AutoTuneCombination, KernelLaunchParams, SymInt32, SymIntExprs):
        setattr(plugin, each.__name__, each)
    core.plugin = plugin
    monkeypatch.setitem(sys.modules, "tensorrt", core)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", plugin)
    return registry
