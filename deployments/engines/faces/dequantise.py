"""Folds block-quantised ONNX weights to float32.

OpenCV Zoo stores its small files as int8 with ``DequantizeLinear`` in blocks. ONNX Runtime 1.31 refuses YuNet in that form
("block_size must be 0 for per-tensor quantization") and asks for SFace's weights as inputs, since its graph lists them there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace constant ``DequantizeLinear`` and ``Reshape`` nodes by float32 initialisers.

    Args:
        model: changed in place.

    Returns:
        The same model, with initialisers that nothing uses and graph inputs that are initialisers removed.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [node for node in graph.node if not _fold_dequantise(node, constants)]
    nodes = [node for node in nodes if not _fold_reshape(node, constants)]
    used = {name for node in nodes for name in node.input}
    inputs = [value for value in graph.input if value.name not in constants and value.name in used]
    _replace(graph.node, nodes)
    _replace(graph.initializer, [tensor for name, tensor in constants.items() if name in used])
    _replace(graph.input, inputs)
    del graph.value_info[:]  # they still describe the removed tensors
    return model


def _replace(field: object, items: list[object]) -> None:
    del field[:]  # type: ignore[attr-defined]  # a repeated protobuf field, which has no public type
    field.extend(items)  # type: ignore[attr-defined]


def _fold_dequantise(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
        return False
    values, scale, zero = _operands(node, constants)
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    scale, zero = (_spread(part, values.shape, attributes.get("axis", 1), attributes.get("block_size", 0)) for part in (scale, zero))
    constants[node.output[0]] = numpy_helper.from_array(((values - zero) * scale).astype(np.float32), node.output[0])
    return True


def _operands(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[npt.NDArray[np.float32]]:
    values, scale, *zero = (numpy_helper.to_array(constants[name]).astype(np.float32) for name in node.input if name)
    return [values, scale, zero[0] if zero else np.zeros_like(scale)]


def _spread(part: npt.NDArray[np.float32], shape: tuple[int, ...], axis: int, block: int) -> npt.NDArray[np.float32]:
    """Bring a scale or zero point to a shape that broadcasts over the values: per block, per channel, or one for all."""
    if block:
        return np.repeat(part, block, axis).take(np.arange(shape[axis]), axis)
    if part.size > 1:
        return part.reshape([-1 if dimension == axis else 1 for dimension in range(len(shape))])
    return part.reshape(())


def _fold_reshape(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type != "Reshape" or not all(name in constants for name in node.input):
        return False
    values, shape = (numpy_helper.to_array(constants[name]) for name in node.input)
    constants[node.output[0]] = numpy_helper.from_array(values.reshape(shape), node.output[0])
    return True
