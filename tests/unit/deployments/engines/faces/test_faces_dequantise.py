import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deployments.engines.faces.dequantise import fold_constants


def quantised(values, scale, zero, **attributes):
    """A model that adds dequantised weights to its input."""
    weights = [numpy_helper.from_array(array, name) for name, array in (("q", values), ("s", scale), ("z", zero))]
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(values.shape))
    listed = helper.make_tensor_value_info("q", TensorProto.INT8, list(values.shape))  # OpenCV Zoo lists weights as inputs
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes), helper.make_node("Add", ["x", "w"], ["y"])]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(values.shape))
    return helper.make_model(helper.make_graph(nodes, "g", [shape, listed], [result], weights))


VALUES = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
CASES = {
    "per tensor": (np.float32(0.5), np.int8(2), {}, (VALUES - 2) * 0.5),
    "per channel": (np.array([1, 2, 3, 4], np.float32), np.zeros(4, np.int8), {"axis": 0}, VALUES * np.array([[1], [2], [3], [4]])),
    "per block": (
        np.array([[1, 2]] * 4, np.float32),
        np.array([[0, 1]] * 4, np.int8),
        {"axis": 1, "block_size": 3},
        (VALUES - [0, 0, 0, 1]) * [1, 1, 1, 2],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fold_constants_computes_what_the_node_would(case):
    scale, zero, attributes, expected = CASES[case]
    model = fold_constants(quantised(VALUES, np.asarray(scale), np.asarray(zero), **attributes))
    (weights,) = model.graph.initializer
    assert np.array_equal(numpy_helper.to_array(weights), expected)
    assert [node.op_type for node in model.graph.node] == ["Add"]
    assert [value.name for value in model.graph.input] == ["x"]


def test_fold_constants_leaves_computed_values_alone():
    model = quantised(VALUES, np.float32(1).reshape(()), np.int8(0).reshape(()))
    del model.graph.initializer[0]
    assert [node.op_type for node in fold_constants(model).graph.node] == ["DequantizeLinear", "Add"]


def test_fold_constants_makes_the_shipped_recogniser_valid(models):
    path = next(model.file for model in models if model.name == "sface")
    model = fold_constants(onnx.load(path))
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["data"]
    assert {tensor.data_type for tensor in model.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
