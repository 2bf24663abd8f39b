"""The Wav2Lip contract, tried with networks that are small enough to know what they answer."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import scipy.signal  # type: ignore[import-untyped]  # has no types of its own
from onnx import TensorProto, helper

from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.engine import Face2FaceEngine
from deployments.engines.face2face.mel import mel_spectrogram, window_at
from deployments.engines.face2face.mouth_crop import MouthCropper
from deployments.engines.face2face.wav2lip import Wav2Lip
from deployments.engines.faces.geometry import LIPS_OUTER, NOSE_TIP
from deployments.engines.onnx import SessionConfig
from deployments.jobs.errors import EngineFailed
from deployments.jobs.ports import EngineTask, OutputFile

from .test_face2face_engine import frames_of, local

RNG = np.random.default_rng(5)


@pytest.fixture
def network(tmp_path):
    """Make a network: ``half`` x what it is shown with its lower half black + ``whole`` x the face + ``heard`` x the mean of the mel."""

    def make(half=0.0, whole=1.0, heard=0.0, batch="n", names=("source", "target"), side=96) -> Path:
        source = helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [batch, 1, 80, 16])
        target = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [batch, 6, side, side])
        answer = helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 3, side, side])
        constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in (("a", half), ("b", whole), ("c", heard))]
        nodes = [
            helper.make_node("Split", [names[1]], ["black", "face"], axis=1, num_outputs=2),
            helper.make_node("Mul", ["black", "a"], ["black_part"]),
            helper.make_node("Mul", ["face", "b"], ["face_part"]),
            helper.make_node("GlobalAveragePool", [names[0]], ["mean"]),
            helper.make_node("Mul", ["mean", "c"], ["heard_part"]),
            helper.make_node("Add", ["black_part", "face_part"], ["seen"]),
            helper.make_node("Add", ["seen", "heard_part"], ["output"]),
        ]
        graph = helper.make_graph(nodes, "lips", [source, target], [answer], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        path = tmp_path / f"lips-{len(list(tmp_path.glob('lips-*')))}.onnx"
        onnx.save(model, path)
        return path

    return make


def faces(count):
    return [RNG.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(count)]


def windows(count):
    return [RNG.uniform(-4, 4, (80, 16)).astype(np.float32) for _ in range(count)]


def opened(path, batch=8):
    return Wav2Lip(path, SessionConfig(), batch)


def test_colours_order_and_scale_survive_the_way_through(network):
    given = faces(3)
    np.testing.assert_array_equal(opened(network()).speak(windows(3), given), given)


def test_the_first_three_channels_have_no_lower_half(network):
    given = faces(2)
    for face, answer in zip(given, opened(network(half=1.0, whole=0.0)).speak(windows(2), given), strict=True):
        np.testing.assert_array_equal(answer[:48], face[:48])
        assert not answer[48:].any()


def test_each_face_gets_its_own_sound_and_the_answer_is_cut_at_black_and_white(network):
    heard = [np.full((80, 16), level, np.float32) for level in (-4, 0.4, 4)]
    low, middle, high = opened(network(whole=0.0, heard=0.5)).speak(heard, faces(3))
    assert (low.max(), middle.min(), middle.max(), high.min()) == (0, 51, 51, 255)


def test_a_network_that_takes_one_at_a_time_is_given_one_at_a_time(network):
    assert (opened(network(batch=1), batch=8).batch, opened(network(), batch=5).batch) == (1, 5)


@pytest.mark.parametrize("wrong", [{"names": ("mel", "picture")}, {"side": 128}])
def test_another_network_is_refused_at_the_start(network, wrong):
    with pytest.raises(EngineFailed, match="is no Wav2Lip network"):
        opened(network(**wrong))


def test_a_path_that_leads_nowhere_is_refused_at_the_start(tmp_path):
    with pytest.raises(EngineFailed, match="ATELIER_FACE2FACE__WAV2LIP"):
        opened(tmp_path / "none.onnx")


def reference_mel(samples):
    """The same by SciPy, written down from the numbers of the contract."""
    sharpened = scipy.signal.lfilter([1.0, -0.97], [1.0], samples / np.abs(samples).max())
    amplitude = np.abs(scipy.signal.stft(sharpened, nperseg=800, nfft=800, noverlap=600)[2])
    low, high = (2595 * float(np.log10(1 + hertz / 700)) for hertz in (55.0, 7600.0))
    mels = np.linspace(low, high, 82)
    edges = np.floor(801 * 700 * (10 ** (mels / 2595) - 1) / 16000).astype(int)
    bank = np.zeros((80, 401))
    for band in range(80):
        bank[band, edges[band] : edges[band + 1]] = scipy.signal.windows.triang(edges[band + 1] - edges[band])
    return bank @ amplitude


def test_the_mel_is_what_the_contract_says(speech):
    samples = speech()
    ours, theirs = mel_spectrogram(samples), reference_mel(samples)
    columns = min(ours.shape[1], theirs.shape[1])
    assert columns >= 7.1 * 80
    np.testing.assert_allclose(ours[:, :columns], theirs[:, :columns], rtol=1e-3, atol=1e-6)
    window = window_at(ours, 2.0)
    expected = np.clip(np.log10(np.maximum(theirs[:, 160:176], 1e-5)) * 1.6 + 3.2, -4, 4)
    np.testing.assert_allclose(window, expected, atol=2e-3)
    assert window.max() - window.min() > 3, "speech has loud and quiet bands"


@pytest.mark.parametrize("samples", [0, 1, 300, 16_000])
def test_short_and_silent_sound_is_silence(samples):
    spectrogram = mel_spectrogram(np.zeros(samples, np.float32))
    for time_s in (0.0, 0.9, 60.0):
        np.testing.assert_array_equal(window_at(spectrogram, time_s), np.full((80, 16), -4.0, np.float32))


@pytest.mark.parametrize("name", ["astronaut.png", "synthetic_man_1.jpg"])
def test_a_mouth_that_is_put_back_as_it_was_lies_where_it_was(people, canonical, name):
    person = people[name]
    frame, cropper = person.image.copy(), MouthCropper(canonical)
    crop = cropper.cut(frame, person.landmarks)
    cropper.paste(frame, person.landmarks, crop, crop.face)
    lips = person.landmarks[list(LIPS_OUTER), :2]
    (x0, y0), (x1, y1) = lips.min(0).astype(int), np.ceil(lips.max(0)).astype(int)
    before, after = (cv2.GaussianBlur(image, (0, 0), (x1 - x0) / 12)[y0:y1, x0:x1].astype(float) for image in (person.image, frame))
    assert np.abs(before - after).mean() < 4, "but for the detail that 96 pixels do not hold"
    shift, _ = cv2.phaseCorrelate(before.mean(2), after.mean(2))
    assert np.linalg.norm(shift) < 0.02 * (x1 - x0) + 0.5


def test_the_upper_half_of_the_face_is_not_touched(people, canonical):
    person = people["astronaut.png"]
    frame, cropper = person.image.copy(), MouthCropper(canonical)
    cropper.paste(frame, person.landmarks, cropper.cut(frame, person.landmarks), np.zeros((96, 96, 3), np.uint8))
    changed = (frame != person.image).any(2)
    assert changed.any()
    lids, tip = person.landmarks[[145, 374], 1].max(), person.landmarks[NOSE_TIP, 1]
    assert np.nonzero(changed)[0].min() > (lids + tip) / 2


@pytest.fixture
def run(analysis, recogniser, canonical, media, tmp_path):
    """Have a sample speak by a network; returns the frames."""

    def speak(path, video="woman_face.mp4", batch=8):
        config = Face2FaceConfig(root=tmp_path / "references", wav2lip=path, wav2lip_batch=batch)
        engine = Face2FaceEngine(config, analysis, canonical, recogniser, opened(path, batch))
        work_dir = tmp_path / f"work-{path.stem}-{batch}"
        work_dir.mkdir()
        inputs = {"audio": local(media / "librivox_speech.wav"), "video": local(media / video)}
        task = EngineTask({"engine": "wav2lip", "options": {"fps": 10}}, inputs, work_dir, "job", 1, "default")
        (output,) = (item for item in engine.run(task) if isinstance(item, OutputFile))
        return frames_of(output.path)

    return speak


@pytest.mark.slow
@pytest.mark.parametrize("video", ["woman_face.mp4", "astronaut.png"])
def test_a_video_is_the_same_in_batches_and_frame_by_frame(run, network, video):
    together, alone = run(network(), video), run(network(batch=1), video)
    assert len(together) == 71
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_what_is_heard_is_drawn(run, network):
    still, loud = run(network()), run(network(half=0.6, whole=0.4, heard=0.05))
    change = [np.abs(one.astype(float) - other).max() for one, other in zip(still, loud, strict=True)]
    assert np.median(change) > 20


@pytest.mark.slow
def test_a_network_that_was_unset_says_so(analysis, recogniser, canonical, media, tmp_path):
    engine = Face2FaceEngine(Face2FaceConfig(root=tmp_path), analysis, canonical, recogniser)
    inputs = {"audio": local(media / "librivox_speech.wav"), "video": local(media / "astronaut.png")}
    with pytest.raises(EngineFailed, match="ATELIER_FACE2FACE__WAV2LIP"):
        list(engine.run(EngineTask({"engine": "wav2lip"}, inputs, tmp_path, "job", 1, "default")))
