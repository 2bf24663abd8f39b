"""Settings of the fake backend: where it listens, which models it claims to have, and which faults it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PreviewMethod = Literal["none", "auto", "latent2rgb", "taesd"]


class Hazards(BaseModel):
    """Faults of real servers, each off by default. Chances are drawn from a generator seeded by ``FakeConfig.seed``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reconnect_loses_events: bool = Field(
        False, description="when an old socket closes, the newer one with the same client id is forgotten too"
    )
    head_of_line_stall: bool = Field(False, description="one loop awaits every send: a client that stops reading blocks all others")
    late_history_s: float = Field(0.0, ge=0, description="longest delay between execution_success and the entry in the history")
    duplicate_id_500: bool = Field(
        False, description="a prompt with the id and number of a waiting one is answered 500, and runs all the same"
    )
    silent_pending_delete: float = Field(0.0, ge=0, le=1, description="chance that a waiting prompt vanishes without any event")
    no_jobs_api: bool = Field(False, description="no /api/jobs, as before its time: 404 to GET, 405 to POST")
    cached_outputs_missing: float = Field(0.0, ge=0, le=1, description="chance that the files of a cached output node are gone")
    drop_websocket: float = Field(0.0, ge=0, le=1, description="chance per message that the socket is dropped without a close frame")
    lose_success_event: float = Field(0.0, ge=0, le=1, description="chance that execution_success and executing null are never sent")
    crash_on_prompt: float = Field(0.0, ge=0, le=1, description="chance that the server dies when it begins to execute a prompt")
    crash_down_s: float | None = Field(0.5, ge=0, description="how long such a crash keeps it down; None: until restart() is called")


class FakeConfig(BaseModel):
    """What a fake backend is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(0, ge=0, le=65535, description="0: any free one, kept over restarts")
    version: str = Field("0.33.0", description="the ComfyUI version that it claims to be")
    base_dir: Path | None = Field(None, description="holds input, output and temp; None: a folder that lives as long as the server")
    checkpoints: tuple[str, ...] = ("fake_sd15.safetensors", "fake_sdxl.safetensors")
    # Beside the fake ones those that qwen_t2i_distill names: its clients send the bare graph, which asks for its own files.
    diffusion_models: tuple[str, ...] = ("fake_unet.safetensors", "qwen_image_distill_full_fp8_e4m3fn.safetensors")
    text_encoders: tuple[str, ...] = ("fake_clip.safetensors", "qwen_2.5_vl_7b_fp8_scaled.safetensors")
    vaes: tuple[str, ...] = ("fake_vae.safetensors", "qwen_image_vae.safetensors")
    loras: tuple[str, ...] = ("fake_lora.safetensors",)
    step_s: float = Field(0.05, ge=0, description="time that a sampler takes for one step")
    seed: int = Field(0, description="of the chances in hazards")
    preview_method: PreviewMethod = Field("none", description="previews of samplers, unless a prompt asks for another method")
    max_upload_bytes: int = Field(100 * 2**20, gt=0, description="a longer upload is answered 413")
    hazards: Hazards = Hazards()
