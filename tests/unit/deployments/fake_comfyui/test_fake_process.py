"""The fake as a process in place of ComfyUI's main.py, and what it says of itself."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
from typer.testing import CliRunner

from deployments.fake_comfyui.__main__ import main
from deployments.fake_comfyui.process import parse_hazards
from serve_app.cli import app


async def test_the_process_ignores_foreign_flags_and_ends_on_sigterm(visit, tmp_path):
    arguments = ["--cpu", "--listen", "127.0.0.1", "--port", "0", "--base-directory", str(tmp_path), "--disable-all-custom-nodes"]
    arguments += ["--preview-method", "latent2rgb", "--step-s", "0.01", "--hazard", "no_jobs_api", "--cache-lru", "10"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deployments.fake_comfyui", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert line.startswith("To see the GUI go to: http://127.0.0.1:")
        comfy = await visit(line.split()[-1])
        stats = (await comfy.get("/system_stats"))[1]
        assert stats["system"]["argv"][1:] == arguments
        assert (await comfy.get("/api/jobs"))[0] == 404
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "output", "temp"]


async def test_it_says_that_it_is_a_fake(comfy):
    assert (await comfy.get("/system_stats"))[1]["system"]["deploy_environment"] == "atelier-fake"
    status, page = await comfy.get("/")
    assert (status, "This is a fake backend" in page) == (200, True)
    info = (await comfy.get("/object_info"))[1]
    assert {entry["python_module"] for entry in info.values()} == {"fake_comfyui"}
    assert info["CLIPLoader"]["input_order"] == {"required": ["clip_name", "type"], "optional": ["device"]}
    assert info["SaveImage"]["input"]["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
    assert info["SaveImage"]["output_node"] is True


async def test_models_are_listed_by_folder(comfy):
    assert "checkpoints" in (await comfy.get("/models"))[1]
    assert (await comfy.get("/models/checkpoints"))[1] == ["fake_sd15.safetensors", "fake_sdxl.safetensors"]
    assert (await comfy.get("/models/none"))[0] == 404


async def test_an_upload_over_the_limit_is_413(start, visit):
    comfy = await visit(await start(max_upload_bytes=1000), socket=False)
    assert (await comfy.get("/features"))[1] == {"supports_preview_metadata": True, "max_upload_size": 1000}
    assert (await comfy.upload("big.bin", b"x" * 2000))[0] == 413


def test_hazards_are_read_from_pairs():
    hazards = parse_hazards(["late_history_s=0.2", "no_jobs_api", "head_of_line_stall=false"])
    assert (hazards.late_history_s, hazards.no_jobs_api, hazards.head_of_line_stall) == (0.2, True, False)


@pytest.mark.parametrize("arguments", [["--hazard", "no_such"], ["--hazard", "drop_websocket=2"], ["--port", "70000"]])
def test_a_wrong_option_ends_the_process_with_a_reason(arguments, capsys):
    assert main(arguments) == 1
    assert capsys.readouterr().err


def test_the_command_says_that_it_is_never_a_default_and_refuses_unknown_hazards():
    assert "never a default" in " ".join(CliRunner().invoke(app, ["fake-comfyui", "--help"]).output.split())
    assert CliRunner().invoke(app, ["fake-comfyui", "--hazard", "no_such"]).exit_code == 1
