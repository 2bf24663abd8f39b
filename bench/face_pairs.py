"""Swaps every ordered pair of the single-face sample pictures and prints what a face recogniser thinks of the results.

    python -m bench.face_pairs [OUT_FOLDER]

Prints one line a pair (SFace cosine of the result to the source and to the target; 0.363 and more means one person). With a folder it
writes ``face_pairs.png`` there: sources down, targets across, the originals on the border. The recogniser is independent of the
swap, which uses landmarks and texture only.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deployments.engines.face_swap.config import FaceSwapConfig  # noqa: E402 -- the path above comes first
from deployments.engines.face_swap.render import MeshSwapper  # noqa: E402
from deployments.engines.faces.align import Points, landmarks_5_of_mesh  # noqa: E402
from deployments.engines.faces.analysis import FaceAnalysis  # noqa: E402
from deployments.engines.faces.embedding import Embedding, FaceEmbedder, cosine  # noqa: E402
from deployments.engines.faces.geometry import load_canonical_mesh  # noqa: E402
from deployments.engines.images import BgrImage  # noqa: E402
from deployments.engines.media.limits import MediaLimits  # noqa: E402
from deployments.engines.media.picture import load_picture  # noqa: E402
from deployments.engines.models import load_manifest, verified_file  # noqa: E402

PICTURES = ("astronaut.png", "grace_hopper.jpg", "synthetic_woman.jpg", "synthetic_man_1.jpg", "synthetic_man_2.jpg")
TILE_PX = 260


@dataclass(frozen=True)
class Person:
    """A sample picture and what is known about its face."""

    name: str
    image: BgrImage
    landmarks: Points
    embedding: Embedding


@dataclass(frozen=True)
class Outcome:
    """One swapped pair."""

    source: str
    target: str
    to_source: float
    to_target: float
    swap_ms: float
    image: BgrImage


def main() -> int:
    """Run all pairs; status 1 when fewer than 17 are closer to the source, or the mean cosine to it is below 0.55."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where face_pairs.png is written")
    arguments = parser.parse_args()
    config = FaceSwapConfig()
    models = load_manifest(ROOT / "configs" / "models.yaml")
    analysis = FaceAnalysis.load(models, config)
    embedder = FaceEmbedder.load(verified_file(models, "sface"), config.session)
    swapper = MeshSwapper(load_canonical_mesh(verified_file(models, "face_geometry")), shape=config.shape)
    people = [read_person(name, analysis, embedder) for name in PICTURES]
    outcomes = [swap_pair(source, target, analysis, embedder, swapper) for source, target in itertools.permutations(people, 2)]
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(arguments.folder / "face_pairs.png"), contact_sheet(people, outcomes))
    return report(outcomes)


def read_person(name: str, analysis: FaceAnalysis, embedder: FaceEmbedder) -> Person:
    """Load one sample and describe its largest face."""
    image = load_picture(ROOT / "tests" / "media" / name, MediaLimits())
    landmarks = analysis.faces(image)[0]
    return Person(name.partition(".")[0], image, landmarks, embedder.embed(image, landmarks_5_of_mesh(landmarks)))


def swap_pair(source: Person, target: Person, analysis: FaceAnalysis, embedder: FaceEmbedder, swapper: MeshSwapper) -> Outcome:
    """Swap and measure on freshly found landmarks: those of the result, not those it was drawn by."""
    handle = swapper.prepare(source.image, source.landmarks)
    image = target.image.copy()
    start = time.perf_counter()
    swapper.swap(image, target.landmarks, handle)
    swap_ms = (time.perf_counter() - start) * 1e3
    embedding = embedder.embed(image, landmarks_5_of_mesh(analysis.faces(image)[0]))
    return Outcome(source.name, target.name, cosine(embedding, source.embedding), cosine(embedding, target.embedding), swap_ms, image)


def contact_sheet(people: list[Person], outcomes: list[Outcome]) -> BgrImage:
    """Lay the faces out as a table."""
    swapped = {(outcome.source, outcome.target): outcome.image for outcome in outcomes}
    blank = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    rows = [np.hstack([blank, *(tile(person.image, person.landmarks) for person in people)])]
    for source in people:
        tiles = [tile(swapped.get((source.name, target.name), target.image), target.landmarks) for target in people]
        rows.append(np.hstack([tile(source.image, source.landmarks), *tiles]))
    return np.vstack(rows)


def tile(image: BgrImage, landmarks: Points) -> BgrImage:
    """Cut out a face with its hair and neck."""
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    scale = TILE_PX / (1.7 * float((high - low).max()))
    centre = (low + high) / 2 - [0, 0.1 * (high - low)[1]]
    affine = np.array([[scale, 0, TILE_PX / 2 - scale * centre[0]], [0, scale, TILE_PX / 2 - scale * centre[1]]])
    return np.asarray(cv2.warpAffine(image, affine, (TILE_PX, TILE_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def report(outcomes: list[Outcome]) -> int:
    """Print the table."""
    for outcome in outcomes:
        verdict = "source" if outcome.to_source > outcome.to_target else "TARGET"
        print(
            f"{outcome.source:16} -> {outcome.target:16} source {outcome.to_source:5.2f}  target {outcome.to_target:5.2f}"
            f"  {verdict}  {outcome.swap_ms:5.1f} ms"
        )
    closer = sum(outcome.to_source > outcome.to_target for outcome in outcomes)
    mean_source, mean_target = (float(np.mean([getattr(outcome, name) for outcome in outcomes])) for name in ("to_source", "to_target"))
    print(f"{closer} of {len(outcomes)} closer to the source; mean cosine to the source {mean_source:.3f}, to the target {mean_target:.3f}")
    return 0 if closer >= 17 and mean_source >= 0.55 else 1


if __name__ == "__main__":
    sys.exit(main())
