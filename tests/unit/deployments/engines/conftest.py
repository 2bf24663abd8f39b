"""The shipped models, opened once, and the sample faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deployments.engines.face_swap.config import FaceSwapConfig
from deployments.engines.faces.align import Points, landmarks_5_of_mesh
from deployments.engines.faces.analysis import FaceAnalysis
from deployments.engines.faces.detector import FaceDetector
from deployments.engines.faces.embedding import Embedding, FaceEmbedder
from deployments.engines.faces.geometry import load_canonical_mesh
from deployments.engines.faces.mesh import FaceMesh
from deployments.engines.images import BgrImage
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture
from deployments.engines.models import load_manifest, verified_file
from deployments.engines.onnx import SessionConfig, open_session

ROOT = Path(__file__).parents[4]
PEOPLE = ("astronaut.png", "grace_hopper.jpg", "synthetic_woman.jpg", "synthetic_man_1.jpg", "synthetic_man_2.jpg")


@dataclass(frozen=True)
class Person:
    image: BgrImage
    landmarks: Points
    embedding: Embedding


@pytest.fixture(scope="session")
def models():
    return load_manifest(ROOT / "configs" / "models.yaml")


@pytest.fixture(scope="session")
def detector(models):
    return FaceDetector(open_session(verified_file(models, "yunet"), SessionConfig()), threshold=0.6, overlap=0.3, max_faces=50)


@pytest.fixture(scope="session")
def face_mesh(models):
    return FaceMesh(open_session(verified_file(models, "face_mesh"), SessionConfig()))


@pytest.fixture(scope="session")
def canonical(models):
    return load_canonical_mesh(verified_file(models, "face_geometry"))


@pytest.fixture(scope="session")
def embedder(models):
    return FaceEmbedder.load(verified_file(models, "sface"), SessionConfig())


@pytest.fixture(scope="session")
def analysis(models):
    return FaceAnalysis.load(models, FaceSwapConfig())


@pytest.fixture(scope="session")
def load(media):
    """Read a sample picture; read-only, since tests share it."""

    def read(name: str) -> BgrImage:
        image = load_picture(media / name, MediaLimits())
        image.flags.writeable = False
        return image

    return read


@pytest.fixture(scope="session")
def people(load, analysis, embedder):
    """The five single-face pictures by name."""

    def describe(name: str) -> Person:
        image = load(name)
        (landmarks,) = analysis.faces(image)
        return Person(image, landmarks, embedder.embed(image, landmarks_5_of_mesh(landmarks)))

    return {name: describe(name) for name in PEOPLE}


@pytest.fixture
def noise():
    return np.random.default_rng(0)
