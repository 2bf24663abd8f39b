# ruff: noqa: INP001 -- scripts are run, not imported as a package
"""Converts a TFLite network of plain convolutions to ONNX: NCHW, float32, batch of any size.

Knows the operators of MediaPipe's face landmark model and no more. Reads the flatbuffer by the field numbers of TFLite's
``schema.fbs``, so that nothing needs to be installed beside onnx and numpy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 9

# BuiltinOperator of schema.fbs
ADD, CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE, LOGISTIC, MAX_POOL_2D, RESHAPE, PAD, PRELU = 0, 3, 4, 6, 14, 17, 22, 34, 54
DTYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.float16, 2: np.int32}  # TensorType
SAME_PADDING, RELU = 0, 1

Array = npt.NDArray[np.generic]


class Table:
    """One table of a flatbuffer; fields by number, defaults where the file leaves them out."""

    def __init__(self, data: bytes, at: int) -> None:
        """Point at the table that starts at an offset."""
        self._data = data
        self._at = at
        self._vtable = at - struct.unpack_from("<i", data, at)[0]

    @classmethod
    def root(cls, data: bytes) -> Table:
        """Return the table that the file begins with."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def scalar(self, field: int, kind: str, default: int = 0) -> int:
        """Read a number of a ``struct`` kind."""
        at = self._field(field)
        return default if at is None else int(struct.unpack_from(f"<{kind}", self._data, at)[0])

    def table(self, field: int) -> Table:
        """Read a table; of a union, its value."""
        at = self._field(field)
        if at is None:
            raise ValueError(f"the file lacks field {field} of a table")
        return Table(self._data, self._target(at))

    def tables(self, field: int) -> list[Table]:
        """Read a vector of tables."""
        start, length = self._vector(field)
        return [Table(self._data, self._target(start + 4 * i)) for i in range(length)]

    def ints(self, field: int) -> list[int]:
        """Read a vector of int32."""
        start, length = self._vector(field)
        return list(struct.unpack_from(f"<{length}i", self._data, start))

    def raw(self, field: int) -> bytes:
        """Read a vector of bytes."""
        start, length = self._vector(field)
        return self._data[start : start + length]

    def _field(self, field: int) -> int | None:
        slot = 4 + 2 * field
        if slot >= struct.unpack_from("<H", self._data, self._vtable)[0]:
            return None
        offset = struct.unpack_from("<H", self._data, self._vtable + slot)[0]
        return self._at + offset if offset else None

    def _target(self, at: int) -> int:
        return at + int(struct.unpack_from("<I", self._data, at)[0])

    def _vector(self, field: int) -> tuple[int, int]:
        at = self._field(field)
        if at is None:
            return 0, 0
        start = self._target(at)
        return start + 4, struct.unpack_from("<I", self._data, start)[0]


class Converter:
    """One conversion. Tensors of four dimensions live as NCHW, all others as TFLite has them."""

    def __init__(self, data: bytes) -> None:
        """Read the first graph of a TFLite file."""
        model = Table.root(data)
        graph = model.tables(2)[0]
        self._codes = [max(code.scalar(0, "b"), code.scalar(3, "i")) for code in model.tables(1)]
        self._operators = graph.tables(3)
        self._inputs, self._outputs = graph.ints(1), graph.ints(2)
        self._shapes = [tensor.ints(0) for tensor in graph.tables(0)]
        buffers = model.tables(4)
        self._constants: dict[int, Array] = {}
        for number, tensor in enumerate(graph.tables(0)):
            content = buffers[tensor.scalar(2, "I")].raw(0)
            if content:
                self._constants[number] = np.frombuffer(content, DTYPES[tensor.scalar(1, "b")]).reshape(self._shapes[number])
        self._nodes: list[onnx.NodeProto] = []
        self._initialisers: list[onnx.TensorProto] = []
        self._names: dict[tuple[int, str], str] = {}  # (tensor, layout) -> name; layout C is NCHW, L as in TFLite
        self._count = 0
        self._rules: dict[int, Callable[[Table, list[int], int], None]] = {
            ADD: self._add,
            CONV_2D: self._conv,
            DEPTHWISE_CONV_2D: self._depthwise,
            DEQUANTIZE: self._dequantise,
            LOGISTIC: self._logistic,
            MAX_POOL_2D: self._max_pool,
            PAD: self._pad,
            PRELU: self._prelu,
            RESHAPE: self._reshape,
        }

    def convert(self) -> onnx.ModelProto:
        """Return the ONNX model; its input is ``input``, its outputs ``out0``, ``out1`` and so on."""
        (source,) = self._inputs
        _, height, width, channels = self._shapes[source]
        self._names[source, "C"] = "input"
        for operator in self._operators:
            code = self._codes[operator.scalar(0, "I")]
            if code not in self._rules:
                raise ValueError(f"no rule for TFLite operator {code}")
            self._rules[code](operator, operator.ints(1), operator.ints(2)[0])
        values = [self._output(number, tensor) for number, tensor in enumerate(self._outputs)]
        graph_input = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", channels, height, width])
        graph = helper.make_graph(self._nodes, "tfl", [graph_input], values, self._initialisers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _output(self, number: int, tensor: int) -> onnx.ValueInfoProto:
        name, shape = self._get(tensor, "L"), self._shapes[tensor]
        if len(shape) == 4:
            name, shape = self._node("Reshape", [name, self._initialiser(np.array([-1, shape[3]], np.int64))]), [1, shape[3]]
        self._nodes.append(helper.make_node("Identity", [name], [f"out{number}"]))
        return helper.make_tensor_value_info(f"out{number}", TensorProto.FLOAT, ["N", *shape[1:]])

    def _unique(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _initialiser(self, values: Array, prefix: str = "c") -> str:
        name = self._unique(prefix)
        self._initialisers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:  # noqa: ANN401 -- onnx takes ints, lists and floats
        name = self._unique(kind.lower())
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _get(self, tensor: int, layout: str) -> str:
        if len(self._shapes[tensor]) != 4:
            layout = "L"
        if (tensor, layout) not in self._names:
            other = self._names[tensor, "L" if layout == "C" else "C"]
            self._names[tensor, layout] = self._node("Transpose", [other], perm=[0, 3, 1, 2] if layout == "C" else [0, 2, 3, 1])
        return self._names[tensor, layout]

    def _put(self, tensor: int, name: str) -> None:
        self._names[tensor, "C" if len(self._shapes[tensor]) == 4 else "L"] = name

    def _constant(self, tensor: int) -> Array:
        values = self._constants[tensor]
        return values.astype(np.float32) if values.dtype == np.float16 else values

    def _activated(self, name: str, activation: int) -> str:
        if activation not in {0, RELU}:
            raise ValueError(f"no rule for activation {activation}")
        return self._node("Relu", [name]) if activation == RELU else name

    def _dequantise(self, _operator: Table, inputs: list[int], output: int) -> None:
        self._constants[output] = self._constant(inputs[0])

    def _conv(self, operator: Table, inputs: list[int], output: int) -> None:
        options = operator.table(4)
        weights = self._constant(inputs[1]).transpose(0, 3, 1, 2)
        self._convolve(inputs, output, weights, 1, options, activation=options.scalar(3, "b"), dilations=(5, 4))

    def _depthwise(self, operator: Table, inputs: list[int], output: int) -> None:
        options = operator.table(4)
        weights = self._constant(inputs[1]).transpose(3, 0, 1, 2)
        groups = self._shapes[inputs[0]][3]
        self._convolve(inputs, output, weights, groups, options, activation=options.scalar(4, "b"), dilations=(6, 5))

    def _convolve(
        self, inputs: list[int], output: int, weights: Array, group: int, options: Table, *, activation: int, dilations: tuple[int, int]
    ) -> None:
        kernel = list(weights.shape[2:])
        strides = [options.scalar(2, "i"), options.scalar(1, "i")]
        steps = [options.scalar(field, "i", 1) for field in dilations]
        sides = self._shapes[inputs[0]][1:3]
        pads = _pads(options, sides, kernel, strides, steps)
        operands = [self._get(inputs[0], "C"), self._initialiser(weights, "w")]
        if len(inputs) > 2 and inputs[2] >= 0:
            operands.append(self._initialiser(self._constant(inputs[2]), "b"))
        name = self._node("Conv", operands, kernel_shape=kernel, strides=strides, dilations=steps, pads=pads, group=group)
        self._put(output, self._activated(name, activation))

    def _max_pool(self, operator: Table, inputs: list[int], output: int) -> None:
        options = operator.table(4)
        kernel = [options.scalar(4, "i"), options.scalar(3, "i")]
        strides = [options.scalar(2, "i"), options.scalar(1, "i")]
        pads = _pads(options, self._shapes[inputs[0]][1:3], kernel, strides, [1, 1])
        self._put(output, self._node("MaxPool", [self._get(inputs[0], "C")], kernel_shape=kernel, strides=strides, pads=pads))

    def _prelu(self, _operator: Table, inputs: list[int], output: int) -> None:
        slopes = self._constant(inputs[1]).reshape(-1, 1, 1)
        self._put(output, self._node("PRelu", [self._get(inputs[0], "C"), self._initialiser(slopes)]))

    def _pad(self, _operator: Table, inputs: list[int], output: int) -> None:
        pads = self._constant(inputs[1]).astype(np.int64)[[0, 3, 1, 2]]
        widths = self._initialiser(np.concatenate([pads[:, 0], pads[:, 1]]))
        self._put(output, self._node("Pad", [self._get(inputs[0], "C"), widths]))

    def _add(self, operator: Table, inputs: list[int], output: int) -> None:
        name = self._node("Add", [self._get(tensor, "C") for tensor in inputs])
        self._put(output, self._activated(name, operator.table(4).scalar(0, "b")))

    def _logistic(self, _operator: Table, inputs: list[int], output: int) -> None:
        self._put(output, self._node("Sigmoid", [self._get(inputs[0], "C")]))

    def _reshape(self, _operator: Table, inputs: list[int], output: int) -> None:
        name = self._get(inputs[0], "L")
        shape = self._initialiser(np.array([-1, *self._shapes[output][1:]], np.int64))
        self._names[output, "L"] = self._node("Reshape", [name, shape])


def convert(data: bytes) -> onnx.ModelProto:
    """Convert the bytes of a TFLite file."""
    return Converter(data).convert()


def _pads(options: Table, sides: list[int], kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """Return ONNX pads (tops and lefts, then bottoms and rights); TFLite pads after rather than before when it cannot do both alike."""
    if options.scalar(0, "b") != SAME_PADDING:
        return [0, 0, 0, 0]
    totals = [
        max((-(-side // stride) - 1) * stride + (size - 1) * step + 1 - side, 0)
        for side, size, stride, step in zip(sides, kernel, strides, dilations, strict=True)
    ]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]
