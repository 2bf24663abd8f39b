"""A filter made of one averaging layer: bright pictures are what it refuses."""

from __future__ import annotations

import av
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydantic import ValidationError

from deployments.engines.content_filter.classifier import ContentClassifier, build_filter
from deployments.engines.content_filter.config import FilterConfig
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import ContentRefused, EngineFailed, UnsupportedMedia

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def model(path, shape=(1, 3, 32, 32)):
    """Scores (1 - brightness, brightness), from RGB in 0..1."""
    axes = numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes")
    weights = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("one", [[1.0]]), ("shape", [[0.0]]))]
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("Add", ["m", "shape"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "brightness", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])], [axes, *weights],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path


def build(path, **changes):
    return ContentClassifier(FilterConfig(model=path, **(PLAIN | {"scores": "probabilities", "threshold": 0.7} | changes)), MediaLimits())


def picture(path, shade, size=(50, 40)):
    Image.new("RGB", size, (shade,) * 3).save(path)
    return path


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 32, 32, 3), ("n", 3, "h", "w")])
def test_what_scores_too_high_is_refused(tmp_path, shape):
    judge = build(model(tmp_path / "m.onnx", shape), size=64)
    judge.check(picture(tmp_path / "dark.png", 100), "image/png", "source")
    with pytest.raises(ContentRefused, match="refuses source"):
        judge.check(picture(tmp_path / "bright.png", 240), "image/png", "source")


def test_numbers_become_scores_as_the_settings_say(tmp_path):
    path, grey = model(tmp_path / "m.onnx"), np.full((9, 9, 3), 255, np.uint8)
    assert build(path).scores(grey) == pytest.approx([0, 1], abs=1e-5)
    assert build(path, scores="softmax").scores(grey) == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)], abs=1e-4)
    assert build(path, scores="sigmoid").scores(grey) == pytest.approx([0.5, 1 / (1 + np.exp(-1))], abs=1e-4)
    assert build(path, class_index=(0, 1)).scores(grey).shape == (2,)
    red = np.zeros((9, 9, 3), np.uint8)
    red[..., 2] = 255
    only_red = build(path, mean=(0.0, 0.0, 0.0), std=(1.0, 1e9, 1e9))
    assert only_red.scores(red)[1] == pytest.approx(1 / 3, abs=1e-4), "RGB, and not BGR"


@pytest.mark.parametrize(("bright_from", "refused"), [(0, True), (40, True), (200, False)])
def test_a_video_is_looked_at_here_and_there(tmp_path, bright_from, refused):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 64, "yuv420p", 5
        for n in range(60):
            shade = 250 if n >= bright_from else 10
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    judge = build(model(tmp_path / "m.onnx"), frames=6)
    if refused:
        with pytest.raises(ContentRefused):
            judge.check(path, "video/mp4", "target")
    else:
        judge.check(path, "video/mp4", "target")


def test_other_media_pass_and_broken_ones_are_told(tmp_path):
    judge = build(model(tmp_path / "m.onnx"))
    sound = tmp_path / "a.wav"
    sound.write_bytes(b"RIFF")
    judge.check(sound, "audio/wav", "audio")
    broken = tmp_path / "a.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(UnsupportedMedia):
        judge.check(broken, "image/png", "source")


def test_a_model_that_cannot_judge_stops_the_start(tmp_path):
    with pytest.raises(EngineFailed, match="takes one RGB picture"):
        build(model(tmp_path / "grey.onnx", (1, 1, 32, 32)))
    with pytest.raises(EngineFailed, match="has 2 classes"):
        build(model(tmp_path / "m.onnx"), class_index=(2,))
    (tmp_path / "none.onnx").write_bytes(b"nonsense")
    with pytest.raises(EngineFailed, match="cannot open"):
        build(tmp_path / "none.onnx")
    with pytest.raises(ValidationError, match="there is no file"):
        FilterConfig(model=tmp_path / "missing.onnx")
    with pytest.raises(ValidationError, match="cannot be 0"):
        FilterConfig(std=(1, 0, 1))


def test_without_a_model_nothing_is_loaded():
    assert build_filter(FilterConfig(), MediaLimits()) is None
