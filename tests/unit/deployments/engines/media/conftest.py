"""Small media of every awkward kind, made on the spot."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from deployments.engines.media.limits import MediaLimits

SAMPLES = Path(__file__).parents[4] / "media"


@pytest.fixture
def limits():
    return MediaLimits()


@pytest.fixture
def samples():
    return SAMPLES


def smooth_picture(width=160, height=120, seed=0):
    """Colourful and without sharp edges, so that 4:2:0 chroma loses next to nothing."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def picture():
    return smooth_picture


@pytest.fixture
def make_video(tmp_path):
    """Write a video whose frame n is ``draw(n)`` and return its path."""

    def make(
        name="video.mp4",
        *,
        draw=lambda n: smooth_picture(seed=n),
        pts=tuple(range(10)),
        fps=25,
        time_base=None,
        codec="libx264",
        pix_fmt="yuv420p",
        rotation=0,
        audio=None,
        audio_rate=48_000,
        audio_s=None,
        options=None,
        color=None,
        pixel_aspect=None,
        container_options=None,
    ):
        path = tmp_path / name
        first = draw(0)
        with av.open(path, "w", options=container_options or {}) as output:
            video = output.add_stream(
                codec, rate=fps, options=options or ({"crf": "4", "preset": "ultrafast"} if codec == "libx264" else {})
            )
            video.width, video.height, video.pix_fmt = first.shape[1], first.shape[0], pix_fmt
            if time_base:
                video.codec_context.time_base = time_base
            if pixel_aspect:
                video.codec_context.sample_aspect_ratio = pixel_aspect
            for tag, value in (color or {}).items():
                setattr(video.codec_context, tag, value)
            if rotation:
                video.set_display_rotation(rotation)
            sound = output.add_stream(audio, rate=audio_rate, layout="mono") if audio else None
            for n, at in enumerate(pts):
                frame = av.VideoFrame.from_ndarray(draw(n), format="bgr24")
                frame.pts, frame.time_base = at, time_base or Fraction(1, fps)
                output.mux(video.encode(frame))
            output.mux(video.encode())
            if sound:
                write_tone(output, sound, audio_s or len(pts) / fps)
        return path

    return make


def write_tone(output, stream, seconds):
    format_name = stream.codec_context.format.name
    planar = format_name.rstrip("p")
    dtype, scale = {"s16": (np.int16, 8000), "s32": (np.int32, 5e8), "flt": (np.float32, 0.3)}[planar]
    rate = stream.rate
    samples = (np.sin(np.arange(int(seconds * rate)) * 0.05) * scale).astype(dtype)
    frame = av.AudioFrame.from_ndarray(samples[None], format=format_name, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    output.mux(stream.encode(frame))
    output.mux(stream.encode())


@pytest.fixture
def make_sound(tmp_path):
    def make(name="sound.m4a", codec="aac", seconds=0.5):
        path = tmp_path / name
        with av.open(path, "w") as output:
            write_tone(output, output.add_stream(codec, rate=48_000, layout="mono"), seconds)
        return path

    return make
