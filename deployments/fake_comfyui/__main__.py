"""Run a fake backend as a process, in place of ComfyUI's ``main.py``: flags that only ComfyUI knows are ignored."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from deployments.fake_comfyui.config import FakeConfig, Hazards, PreviewMethod
from deployments.fake_comfyui.process import parse_hazards, serve_fake


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status."""
    options, _ignored = _parser().parse_known_args(arguments)
    try:
        asyncio.run(serve_fake(to_config(options)))
    except (ValidationError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def to_config(options: argparse.Namespace) -> FakeConfig:
    """Return the configuration that the options ask for.

    Raises:
        ValidationError: an unknown hazard or a value out of range.
    """
    return FakeConfig(
        host=options.listen,
        port=options.port,
        base_dir=options.base_directory,
        step_s=options.step_s,
        seed=options.seed,
        preview_method=options.preview_method,
        hazards=parse_hazards(options.hazard),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fake_comfyui", description=__doc__, allow_abbrev=False)
    parser.add_argument("--listen", default="127.0.0.1", nargs="?", const="0.0.0.0", help="address to listen on")  # noqa: S104 -- as ComfyUI
    parser.add_argument("--port", type=int, default=8188, help="port to listen on")
    parser.add_argument("--base-directory", type=Path, help="holds input, output and temp; default: a folder that is deleted at the end")
    parser.add_argument("--step-s", type=float, default=0.05, help="seconds that a sampler takes for one step")
    parser.add_argument("--seed", type=int, default=0, help="of the hazards' chances")
    parser.add_argument("--preview-method", choices=get_args(PreviewMethod), default="none", help="previews of samplers")
    parser.add_argument("--hazard", action="append", default=[], metavar="NAME=VALUE", help=f"one of {', '.join(Hazards.model_fields)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
