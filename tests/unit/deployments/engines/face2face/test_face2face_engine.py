import hashlib
import json
from fractions import Fraction
from itertools import chain

import cv2
import numpy as np
import pytest

from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.engine import Face2FaceEngine
from deployments.engines.face2face.mouth_track import build_track
from deployments.engines.face2face.reference_store import ReferenceStore
from deployments.engines.faces.expression import mouth_openness
from deployments.engines.faces.geometry import load_canonical_mesh
from deployments.engines.media.compose import compose_video, fixed_rate
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import save_picture
from deployments.engines.media.probe import probe, probe_video
from deployments.engines.media.video import read_frames
from deployments.engines.models import verified_file
from deployments.jobs.errors import InvalidInput, MediaTooLarge, NoFaceDetected, UnsupportedMedia
from deployments.jobs.model import Progress
from deployments.jobs.ports import EngineTask, LocalMedia, OutputFile

LIMITS = MediaLimits()


@pytest.fixture
def engine(analysis, recogniser, models, tmp_path):
    mesh = load_canonical_mesh(verified_file(models, "face_geometry"))
    return Face2FaceEngine(Face2FaceConfig(root=tmp_path / "references"), analysis, mesh, recogniser)


@pytest.fixture
def run(engine, media, tmp_path):
    """Run a job and return its items, the last of which is the output."""

    def run(audio, video, **options):
        folder = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        inputs = {
            role: local(media / name if isinstance(name, str) else name) for role, name in (("audio", audio), ("video", video)) if name
        }
        return list(engine.run(EngineTask({"options": options}, inputs, folder, "job", 1, "default")))

    return run


def local(path):
    content = path.read_bytes()
    return LocalMedia(path, "unread/unread", hashlib.sha256(content).hexdigest(), len(content))


def frames_of(path):
    return [frame.copy() for frame in read_frames(path, probe_video(path, LIMITS), LIMITS)]


def openings(analysis, frames):
    follower = analysis.follow()
    return np.array([mouth_openness(follower.update(frame).landmarks) for frame in frames])


@pytest.mark.slow
@pytest.mark.parametrize("video", ["woman_face.mp4", "woman_hand_over_face.mp4"])
def test_a_clip_speaks_with_the_sound(run, analysis, speech, recogniser, video):
    output = run("librivox_speech.wav", video)[-1]
    info = probe(output.path, LIMITS)
    assert (info.width, info.height, info.has_audio, output.media_type) == (640, 360, True, "video/mp4")
    assert info.duration_s == pytest.approx(7.1, abs=1 / 23)
    samples, fps = speech(), float(info.fps)
    track = build_track(samples, fps, info.frames, "auto", list(chain.from_iterable(recogniser.recognise(samples))))
    measured = openings(analysis, frames_of(output.path))
    lags = [np.corrcoef(np.roll(measured, -lag)[3:-3], track.opening[3:-3])[0, 1] for lag in range(-3, 4)]
    assert int(np.argmax(lags)) == 3
    assert lags[3] > 0.95
    assert np.corrcoef(measured, track.loudness)[0, 1] > 0.6


@pytest.mark.slow
def test_only_the_mouth_changes(run, media, analysis):
    output = run("librivox_speech.wav", "woman_face.mp4")[-1]
    before, after = frames_of(media / "woman_face.mp4"), frames_of(output.path)[:50]
    for old, new in list(zip(before, after, strict=True))[::10]:
        landmarks = analysis.faces(old)[0]
        outside = np.ones(old.shape[:2], bool)
        width = np.ptp(landmarks[:468, 0])
        x, y = landmarks[1, :2]
        outside[int(y - 0.05 * width) : int(y + 1.2 * width), int(x - 0.8 * width) : int(x + 0.8 * width)] = False
        assert cv2.PSNR(old[outside], new[outside]) > 38


def test_a_still_speaks_and_blinks_and_shows_its_own_teeth(run, analysis):
    items = run("librivox_speech.wav", "astronaut.png", fps=20)
    output = items[-1]
    info = probe(output.path, LIMITS)
    assert (info.width, info.height, info.frames, float(info.fps)) == (512, 512, 142, 20)
    frames = frames_of(output.path)
    assert np.ptp(openings(analysis, frames)) > 0.2
    corner = np.stack([frame[:60, :60] for frame in frames]).astype(int)
    assert np.abs(corner - corner[0]).max() < 24  # the background stays, but for what the encoder does
    fractions = [item.fraction for item in items[:-1]]
    assert fractions == sorted(fractions)
    assert all(isinstance(item, Progress) for item in items[:-1])


def test_a_loop_and_a_box_are_as_asked(run):
    output = run("espeak_mandarin.wav", "woman_face.mp4", loop="loop", resolution="320x320", fps=12.5)[-1]
    info = probe(output.path, LIMITS)
    assert (info.width, info.height, float(info.fps)) == (320, 180, 12.5)


@pytest.mark.slow
def test_the_same_job_again_draws_the_same(run):
    first, second = (frames_of(run("espeak_mandarin.wav", "astronaut.png", fps=5)[-1].path) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_a_reference_is_looked_at_once(run, engine, monkeypatch):
    summary = json.loads(run(None, "woman_hand_over_face.mp4")[-1].path.read_text())
    assert (summary["frames_seen"], summary["loop_first_frame"], summary["own_teeth"]) == (144, 0, False)
    assert 50 <= summary["loop_frames"] <= 57
    monkeypatch.setattr(engine, "_look", lambda *_: pytest.fail("it was looked at again"))
    assert isinstance(run("espeak_mandarin.wav", "woman_hand_over_face.mp4")[-1], OutputFile)


def test_short_audio_needs_no_look_at_a_whole_clip(run, engine, media, tmp_path):
    audio = tmp_path / "short.wav"
    audio.write_bytes((media / "librivox_speech.wav").read_bytes()[: 44 + 2 * 16_000])
    run(audio, "woman_hand_over_face.mp4")
    kept = ReferenceStore(tmp_path / "references", 2**30).load(local(media / "woman_hand_over_face.mp4").sha256, None)
    assert (kept.whole, kept.seen, kept.serves(24), kept.serves(60)) == (False, 50, True, False)


def test_references_unused_for_longest_are_forgotten(run, engine, media, tmp_path):
    run(None, "astronaut.png")
    run(None, "synthetic_woman.jpg")
    small = ReferenceStore(tmp_path / "references", 10)
    known = engine._references.load(local(media / "synthetic_woman.jpg").sha256, None)
    small.save("00", None, known)
    assert not list((tmp_path / "references").glob("*.npz"))
    assert small.load("00", None) is None


def test_a_broken_entry_is_made_again(run, media, tmp_path):
    run(None, "astronaut.png")
    (entry,) = (tmp_path / "references").glob("*.npz")
    entry.write_bytes(entry.read_bytes()[:500])
    assert json.loads(run(None, "astronaut.png")[-1].path.read_text())["loop_frames"] == 1


def moves(path, half):
    frames = np.stack([frame[:, half].astype(int) for frame in frames_of(path)])
    return np.abs(np.diff(frames, axis=0)).mean()


LEFT, RIGHT = slice(0, 512), slice(512, 1024)


@pytest.fixture
def pair(media):
    """Two people side by side, the one on the left with the larger face."""
    people = [cv2.resize(cv2.imread(str(media / name)), (512, 512)) for name in ("synthetic_woman.jpg", "astronaut.png")]
    return np.hstack(people)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "speaks", "listens"), [({}, LEFT, RIGHT), ({"face": {"x": 0.75, "y": 0.3}}, RIGHT, LEFT)])
@pytest.mark.parametrize("kind", ["still", "clip"])
def test_the_largest_face_speaks_or_the_one_pointed_at(run, media, tmp_path, pair, kind, options, speaks, listens):
    video = tmp_path / "pair.png"
    save_picture(pair, video, "image/png")
    if kind == "clip":
        video = tmp_path / "pair.mp4"
        traits = fixed_rate((1024, 512), Fraction(5))
        sound = media / "espeak_mandarin.wav"
        list(compose_video(lambda _: pair.copy(), 12, sound, video, traits=traits, size=(1024, 512), limits=LIMITS))
    result = run("espeak_mandarin.wav", video, fps=5, **options)[-1].path
    assert moves(result, speaks) > 4 * moves(result, listens)


@pytest.mark.parametrize(
    ("audio", "video", "error", "message"),
    [
        ("librivox_speech.wav", "coffee_no_face.png", NoFaceDetected, "no face found in the video"),
        ("librivox_speech.wav", "librivox_speech.wav", InvalidInput, "sound alone"),
        ("astronaut.png", "woman_face.mp4", UnsupportedMedia, "holds no sound"),
    ],
)
def test_what_cannot_be_done_says_why(run, audio, video, error, message):
    with pytest.raises(error, match=message):
        run(audio, video)


def test_broken_files_say_so(run, media, tmp_path):
    corrupt, empty = tmp_path / "corrupt.wav", tmp_path / "empty.mp4"
    corrupt.write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + b"\xff" * 40)
    empty.write_bytes(b"")
    for audio, video in ((corrupt, "woman_face.mp4"), ("librivox_speech.wav", empty)):
        with pytest.raises(UnsupportedMedia):
            run(audio, video)


def test_silence_is_a_video_with_the_mouth_shut(run, analysis, tmp_path):
    audio = tmp_path / "silence.wav"
    size = 2 * 16_000
    audio.write_bytes(
        b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"
        + (16_000).to_bytes(4, "little") + (32_000).to_bytes(4, "little") + b"\x02\x00\x10\x00data" + size.to_bytes(4, "little") + bytes(size)
    )  # fmt: skip
    output = run(audio, "woman_face.mp4")[-1]
    assert openings(analysis, frames_of(output.path)).max() < 0.05


def test_inputs_over_the_limits_are_refused(analysis, recogniser, models, media, tmp_path):
    mesh = load_canonical_mesh(verified_file(models, "face_geometry"))
    config = Face2FaceConfig(root=tmp_path / "references", limits=MediaLimits(max_duration_s=5))
    inputs = {"audio": local(media / "librivox_speech.wav"), "video": local(media / "woman_face.mp4")}
    with pytest.raises(MediaTooLarge, match="longer than 5 seconds"):
        list(Face2FaceEngine(config, analysis, mesh, recogniser).run(EngineTask({}, inputs, tmp_path, "job", 1, "default")))


def test_a_large_still_is_drawn_at_a_size_that_a_video_has(run, media, tmp_path):
    save_picture(cv2.resize(cv2.imread(str(media / "astronaut.png")), (2400, 2400)), tmp_path / "large.jpg", "image/jpeg")
    info = probe(run("espeak_mandarin.wav", tmp_path / "large.jpg", fps=1)[-1].path, LIMITS)
    assert (info.width, info.height) == (1440, 1440)  # 1920 x 1080 pixels


def test_a_reference_of_another_size_is_looked_at_again(run, engine, media, tmp_path):
    run(None, "astronaut.png")
    engine._config = engine._config.model_copy(update={"still_pixels": 256 * 256})
    assert json.loads(run(None, "astronaut.png")[-1].path.read_text())["width"] == 256


def test_listening_to_long_audio_is_told_and_can_be_given_up(engine, media, tmp_path):
    audio = tmp_path / "long.wav"
    speech = (media / "librivox_speech.wav").read_bytes()
    samples = speech[44:] * 10  # 71 s: three blocks
    header = speech[:4] + (36 + len(samples)).to_bytes(4, "little") + speech[8:40] + len(samples).to_bytes(4, "little")
    audio.write_bytes(header + samples)
    inputs = {"audio": local(audio), "video": local(media / "astronaut.png")}
    steps = engine.run(EngineTask({}, inputs, tmp_path, "job", 1, "default"))
    heard = [next(steps) for _ in range(4)]
    assert [step.message for step in heard] == ["listening to the audio"] * 4
    assert heard[0].fraction < heard[1].fraction < heard[2].fraction < heard[3].fraction <= 0.05
    steps.close()
    assert not list(tmp_path.glob("*.mp4"))
