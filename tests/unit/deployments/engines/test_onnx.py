import onnxruntime
import pytest
from onnx import TensorProto, helper

from deployments.engines import onnx as sessions
from deployments.engines.onnx import SessionConfig, check_one_runtime, open_session
from deployments.jobs.errors import EngineFailed


@pytest.fixture
def identity_model():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_open_session_sets_the_threads(identity_model):
    options = open_session(identity_model, SessionConfig(intra_op_threads=3)).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)


def test_open_session_refuses_cuda_where_it_is_not_built_in(identity_model, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineFailed, match=r"cuda was asked for.*gpu extra"):
        open_session(identity_model, SessionConfig(device="cuda"))


def test_open_session_refuses_a_session_that_fell_back_to_the_cpu(identity_model, monkeypatch):
    class FellBack:
        def __init__(self, *_args, **_options): ...

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FellBack)
    with pytest.raises(EngineFailed, match="offers CPUExecutionProvider"):
        open_session(identity_model, SessionConfig(device="cuda"))


def test_open_session_names_the_file_that_is_no_model(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(EngineFailed, match=r"cannot open broken\.onnx"):
        open_session(path, SessionConfig())


def test_check_one_runtime_refuses_both_builds(monkeypatch):
    monkeypatch.setattr(sessions, "version", lambda _name: "1.31.0")
    with pytest.raises(EngineFailed, match="pip uninstall onnxruntime onnxruntime-gpu"):
        check_one_runtime()
