"""Node classes of moving pictures. A saved video stands under the key ``images``, with ``animated``, as in ComfyUI."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from deployments.fake_comfyui.comfy_node import HIDDEN, Input, NodeClass, NodeContext, Shown
from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.nodes_audio import Audio, to_frame
from deployments.fake_comfyui.pictures import LABEL, Picture, Pictures, stamp


@dataclass(frozen=True, slots=True)
class Video:
    """The value of type VIDEO."""

    pictures: Pictures
    fps: float
    audio: Audio | None


def create_video(images: Pictures, fps: float, audio: Audio | None = None) -> tuple[Video]:
    """Put pictures and sound together."""
    return (Video(images, fps, audio),)


def save_video(video: Video, filename_prefix: str, format: str, codec: str, context: NodeContext) -> Shown:  # noqa: A002, ARG001 -- ComfyUI's names
    """Save as H.264 in MP4, the only choice behind "auto"."""
    height, width = video.pictures.shape[1:3]
    place = context.site.files.place(filename_prefix, "output", width, height)
    name = place.name(0, "mp4")
    metadata = {"prompt": context.graph, **(context.extra_data.get("extra_pnginfo") or {})}
    encode_mp4(video, place.folder / name, metadata)
    return Shown({"images": [{"filename": name, "subfolder": place.subfolder, "type": "output"}], "animated": [True]})


def encode_mp4(video: Video, path: Path, metadata: JsonObject) -> None:
    """Write a video whose frames carry the label; odd sides are padded, because 4:2:0 halves them."""
    with av.open(path, "w", format="mp4", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update({name: json.dumps(value) for name, value in metadata.items()} | {"comment": LABEL})
        stream = container.add_stream("h264", rate=Fraction(video.fps).limit_denominator(1001))
        height, width = video.pictures.shape[1:3]
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        sound = None if video.audio is None else container.add_stream("aac", rate=video.audio.sample_rate, layout=video.audio.layout)
        _encode_pictures(container, stream, video.pictures)
        if sound is not None and video.audio is not None:
            _encode_sound(container, sound, video.audio)


def _encode_pictures(container: OutputContainer, stream: VideoStream, pictures: Pictures) -> None:
    for picture in pictures:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stamp(_to_even(picture)), format="bgr24")))
    container.mux(stream.encode(None))


def _encode_sound(container: OutputContainer, stream: AudioStream, audio: Audio) -> None:
    frame = to_frame(audio)
    if frame is not None:
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _to_even(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


NODE_CLASSES = (
    NodeClass(
        "CreateVideo",
        create_video,
        (
            Input("images", "IMAGE", {}),
            Input("fps", "FLOAT", {"default": 30.0, "min": 1.0, "max": 120.0, "step": 1.0}),
            Input("audio", "AUDIO", {}, optional=True),
        ),
        ("VIDEO",),
        category="image/video",
        display_name="Create Video",
    ),
    NodeClass(
        "SaveVideo",
        save_video,
        (
            Input("video", "VIDEO", {}),
            Input("filename_prefix", "STRING", {"default": "video/ComfyUI", "multiline": False}),
            Input("format", "COMBO", {"default": "auto", "multiselect": False, "options": ["auto", "mp4"]}),
            Input("codec", "COMBO", {"default": "auto", "multiselect": False, "options": ["auto", "h264"]}),
        ),
        hidden=HIDDEN,
        category="image/video",
        display_name="Save Video",
        is_output=True,
    ),
)
