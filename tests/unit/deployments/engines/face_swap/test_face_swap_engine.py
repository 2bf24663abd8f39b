import hashlib

import av
import numpy as np
import pytest

from deployments.engines.face_swap.config import FaceSwapConfig
from deployments.engines.face_swap.engine import FaceSwapEngine
from deployments.engines.faces.align import landmarks_5_of_mesh
from deployments.engines.faces.embedding import cosine
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture, save_picture
from deployments.jobs.errors import InvalidInput, MediaTooLarge, NoFaceDetected, UnsupportedMedia
from deployments.jobs.model import Progress, Stage
from deployments.jobs.ports import EngineTask, LocalMedia, OutputFile


class MarkingSwapper:
    """Paints the middle of each face green instead of swapping it, and counts."""

    def __init__(self):
        self.prepared = 0
        self.swapped = 0

    def prepare(self, image, landmarks):
        self.prepared += 1
        return "handle"

    def swap(self, frame, landmarks, source):
        assert source == "handle"
        x, y = landmarks[1, :2].astype(int)
        frame[y - 20 : y + 20, x - 20 : x + 20] = (0, 255, 0)
        self.swapped += 1


@pytest.fixture
def swapper():
    return MarkingSwapper()


@pytest.fixture
def engine(analysis, swapper):
    return FaceSwapEngine(FaceSwapConfig(), analysis, swapper)


@pytest.fixture
def as_input(media):
    def make(name):
        path = media / name
        content = path.read_bytes()
        return LocalMedia(path, "unread/unread", hashlib.sha256(content).hexdigest(), len(content))

    return make


@pytest.fixture
def task(as_input, tmp_path):
    def make(source, target, **output):
        inputs = {role: as_input(media) if isinstance(media, str) else media for role, media in (("source", source), ("target", target))}
        return EngineTask({"kind": "faceswap", "output": output}, inputs, tmp_path, "job", 1, "default")

    return make


def decode(path):
    with av.open(path) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def small_clip(path, images):
    """An H.264 clip of given pictures at 10 fps."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12", "preset": "ultrafast"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")))
        container.mux(stream.encode())
    return LocalMedia(path, "video/mp4", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def is_green(frame):
    return bool(((frame[..., 1] > 200) & (frame[..., 0] < 60) & (frame[..., 2] < 60)).any())


def test_run_swaps_a_picture(models, people, task, analysis, embedder):
    engine = FaceSwapEngine.load(FaceSwapConfig(), models)
    *progress, output = engine.run(task("astronaut.png", "grace_hopper.jpg", format="png"))
    assert output == OutputFile(output.path, "faceswap.png", "image/png", 512, 600)
    fractions = [step.fraction for step in progress]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    result = load_picture(output.path, MediaLimits())
    embedding = embedder.embed(result, landmarks_5_of_mesh(analysis.faces(result)[0]))
    assert cosine(embedding, people["astronaut.png"].embedding) > 0.6
    assert cosine(embedding, people["grace_hopper.jpg"].embedding) < 0.45


def test_run_swaps_every_face_of_a_picture(engine, swapper, task):
    *progress, _ = engine.run(task("astronaut.png", "solvay_1927.jpg"))
    assert 26 <= swapper.swapped <= 32
    assert progress[-1].message == f"face {swapper.swapped} of {swapper.swapped}"


def test_run_keeps_the_targets_format(engine, task):
    *_, output = engine.run(task("astronaut.png", "grace_hopper.jpg"))
    assert (output.name, output.media_type) == ("faceswap.jpeg", "image/jpeg")


def test_run_fits_a_picture_into_the_box(engine, task):
    *_, output = engine.run(task("astronaut.png", "grace_hopper.jpg", resolution="1000x300"))
    assert (output.width, output.height) == (256, 300)
    assert load_picture(output.path, MediaLimits()).shape == (300, 256, 3)


@pytest.mark.slow
def test_run_swaps_a_video(models, task, media, people, embedder, analysis):
    engine = FaceSwapEngine.load(FaceSwapConfig(), models)
    *progress, output = engine.run(task("synthetic_man_2.jpg", "woman_face.mp4"))
    assert output == OutputFile(output.path, "faceswap.mp4", "video/mp4", 640, 360, pytest.approx(50 / 23.976, abs=0.05))
    assert [step.frame for step in progress[1:]] == list(range(1, 51))
    assert progress[-1] == Progress(Stage.COMPUTING, 1.0, 50, 50, 0.0)
    assert progress[10].eta_s
    before, after = decode(media / "woman_face.mp4"), decode(output.path)
    assert len(after) == len(before)
    (landmarks,) = analysis.faces(after[5])
    embedding = embedder.embed(after[5], landmarks_5_of_mesh(landmarks))
    assert cosine(embedding, people["synthetic_man_2.jpg"].embedding) > cosine(
        embedding, embedder.embed(before[5], landmarks_5_of_mesh(analysis.faces(before[5])[0]))
    )


def test_run_passes_frames_without_a_face_untouched(engine, task, load, tmp_path):
    face, nobody = load("astronaut.png")[:400, :500], load("coffee_no_face.png")[:400, :500]
    *_, output = engine.run(task("grace_hopper.jpg", small_clip(tmp_path / "clip.mp4", [nobody] * 3 + [face] * 3 + [nobody] * 3)))
    assert [is_green(frame) for frame in decode(output.path)] == [False] * 3 + [True] * 3 + [False] * 3


def test_run_fits_a_video_into_the_box(engine, task, load, tmp_path):
    clip = small_clip(tmp_path / "clip.mp4", [load("astronaut.png")] * 2)
    *_, output = engine.run(task("grace_hopper.jpg", clip, resolution="301x201"))
    assert (output.width, output.height) == (200, 200)
    assert decode(output.path)[0].shape == (200, 200, 3)


def test_run_prepares_a_source_once(engine, swapper, task):
    for _ in range(2):
        list(engine.run(task("astronaut.png", "grace_hopper.jpg")))
    assert (swapper.prepared, swapper.swapped) == (1, 2)


@pytest.mark.parametrize(
    ("source", "target", "role"),
    [("coffee_no_face.png", "astronaut.png", "source"), ("astronaut.png", "rocket_no_face.jpg", "target")],
)
def test_run_says_where_no_face_is(engine, task, source, target, role):
    with pytest.raises(NoFaceDetected) as caught:
        list(engine.run(task(source, target)))
    assert caught.value.role == role


def test_run_fails_when_no_frame_has_a_face(engine, task, load, tmp_path):
    clip = small_clip(tmp_path / "clip.mp4", [load("coffee_no_face.png")] * 3)
    with pytest.raises(NoFaceDetected) as caught:
        list(engine.run(task("astronaut.png", clip)))
    assert caught.value.role == "target"


@pytest.mark.parametrize(
    ("source", "target", "output", "error"),
    [
        ("astronaut.png", "grace_hopper.jpg", {"format": "mp4"}, InvalidInput),
        ("astronaut.png", "woman_face.mp4", {"format": "png"}, InvalidInput),
        ("astronaut.png", "librivox_speech.wav", {}, InvalidInput),
        ("woman_face.mp4", "astronaut.png", {}, UnsupportedMedia),
    ],
)
def test_run_refuses(engine, task, source, target, output, error):
    with pytest.raises(error):
        list(engine.run(task(source, target, **output)))


def test_run_refuses_what_is_over_the_limits(analysis, swapper, task):
    engine = FaceSwapEngine(FaceSwapConfig(limits=MediaLimits(max_pixels=1000)), analysis, swapper)
    with pytest.raises(MediaTooLarge):
        list(engine.run(task("astronaut.png", "grace_hopper.jpg")))


def test_run_cleans_up_when_closed(engine, task, tmp_path):
    run = engine.run(task("astronaut.png", "woman_face.mp4"))
    while not (isinstance(step := next(run), Progress) and step.frame == 3):
        pass
    run.close()
    assert list(tmp_path.iterdir()) == []


def test_run_swaps_a_grey_picture(engine, task, tmp_path, load):
    path = tmp_path / "grey.png"
    save_picture(np.repeat(load("astronaut.png")[..., 1:2], 3, axis=2), path, "image/png")
    *_, output = engine.run(task("grace_hopper.jpg", LocalMedia(path, "image/png", "0" * 64, path.stat().st_size)))
    assert is_green(load_picture(output.path, MediaLimits()))
