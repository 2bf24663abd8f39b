"""Node classes of sound."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from deployments.fake_comfyui.comfy_node import HIDDEN, Input, NodeClass, NodeContext, Shown, Site
from deployments.fake_comfyui.pictures import LABEL

Samples: TypeAlias = NDArray[np.float32]  # -1 to 1, (channels, samples)


@dataclass(frozen=True, slots=True)
class Audio:
    """The value of type AUDIO."""

    samples: Samples
    sample_rate: int  # Hz

    @property
    def layout(self) -> str:
        """The channels' layout as FFmpeg names it."""
        return "mono" if self.samples.shape[0] == 1 else "stereo"


def make_silence(duration: float, sample_rate: int, channels: int) -> tuple[Audio]:
    """Make silence of ``duration`` seconds."""
    return (Audio(np.zeros((channels, round(duration * sample_rate)), np.float32), sample_rate),)


def load_audio(audio: str, context: NodeContext) -> tuple[Audio]:
    """Load the first sound track of a file."""
    with av.open(context.site.files.locate(audio)) as container:
        if not container.streams.audio:
            raise ValueError("the file holds no sound")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        blocks = [block.to_ndarray() for frame in container.decode(stream) for block in resampler.resample(frame)]
        return (Audio(np.concatenate(blocks, axis=1).astype(np.float32), stream.sample_rate),)


def save_audio(audio: Audio, context: NodeContext, filename_prefix: str = "audio/ComfyUI") -> Shown:
    """Save as FLAC in the output folder."""
    return _save(audio, context, filename_prefix, "output")


def preview_audio(audio: Audio, context: NodeContext) -> Shown:
    """Save as FLAC in the folder of temporary files."""
    return _save(audio, context, f"ComfyUI_temp_{context.site.temp_suffix}", "temp")


def _save(audio: Audio, context: NodeContext, prefix: str, folder: str) -> Shown:
    place = context.site.files.place(prefix, folder)
    name = place.name(0, "flac")
    with av.open(place.folder / name, "w", format="flac") as container:
        container.metadata.update({"comment": LABEL, "prompt": json.dumps(context.graph)})
        stream = container.add_stream("flac", rate=audio.sample_rate, layout=audio.layout)
        frame = to_frame(audio)
        if frame is not None:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Shown({"audio": [{"filename": name, "subfolder": place.subfolder, "type": folder}]})


def to_frame(audio: Audio) -> av.AudioFrame | None:
    """Return the sound as one frame; None where there is none, which encoders do not take."""
    if not audio.samples.shape[1]:
        return None
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.samples.T).reshape(1, -1), format="flt", layout=audio.layout)
    frame.sample_rate = audio.sample_rate
    frame.pts = 0
    return frame


def _check_audio(site: Site, value: str) -> str | None:
    return None if site.files.has_input(value) else f"Invalid audio file: {value}"


NODE_CLASSES = (
    NodeClass(
        "LoadAudio",
        load_audio,
        (Input("audio", lambda site: site.files.input_names("audio", "video"), {"audio_upload": True}),),
        ("AUDIO",),
        category="audio",
        display_name="Load Audio",
        fingerprint=lambda site, audio: site.files.fingerprint(audio),
        check=_check_audio,
        checked_input="audio",
    ),
    NodeClass(
        "EmptyAudio",
        make_silence,
        (
            Input("duration", "FLOAT", {"default": 60.0, "min": 0.0, "max": 3600.0, "step": 0.01}),
            Input("sample_rate", "INT", {"default": 44100, "min": 8000, "max": 192000}),
            Input("channels", "INT", {"default": 2, "min": 1, "max": 2}),
        ),
        ("AUDIO",),
        category="audio",
        display_name="Empty Audio",
    ),
    NodeClass(
        "SaveAudio",
        save_audio,
        (Input("audio", "AUDIO"), Input("filename_prefix", "STRING", {"default": "audio/ComfyUI"})),
        hidden=HIDDEN,
        category="audio",
        display_name="Save Audio (FLAC)",
        is_output=True,
    ),
    NodeClass(
        "PreviewAudio",
        preview_audio,
        (Input("audio", "AUDIO"),),
        hidden=HIDDEN,
        category="audio",
        display_name="Preview Audio",
        is_output=True,
    ),
)
