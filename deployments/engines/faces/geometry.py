"""The canonical face mesh of MediaPipe: 468 vertices, their texture coordinates, 898 triangles, and the outlines that we cut along.

The landmark model returns 478 points; the first 468 are these vertices in the same order, the last ten are the irises.
Point numbers are drawn in MediaPipe's ``canonical_face_model_uv_visualization.png``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deployments.jobs.errors import EngineFailed

VERTICES = 468
VERTEX_FLOATS = 5  # x, y, z, u, v

# Closed outlines as point numbers, in order around.
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
LIPS_INNER_UPPER = LIPS_INNER[:11]  # from the corner on the picture's left to the other one
LIPS_INNER_LOWER = (LIPS_INNER[0], *LIPS_INNER[:9:-1])  # the same way, below; the corners belong to both
BROWS = (70, 63, 105, 66, 107, 9, 336, 296, 334, 293, 300)  # upper edge of both, left to right in the picture
CHEEKS = ((50, 205, 187, 147, 101, 36), (280, 425, 411, 376, 330, 266))  # bare skin on nearly every face

EYE_CORNERS = ((33, 133), (362, 263))  # outer and inner of the eye on the picture's left, inner and outer of the other
EYE_LIDS = ((159, 145), (386, 374))  # middle of the upper and the lower lid, in the same order
NOSE_TIP = 1
MOUTH_CORNERS = (61, 291)
FOREHEAD_TOP = 10
INNER_LIP_MIDDLES = (13, 14)
INNER_LIP_CORNERS = (78, 308)


@dataclass(frozen=True)
class CanonicalMesh:
    """A face without identity or expression; read-only and shared."""

    vertices: npt.NDArray[np.float32]  # (468, 3), centimetres, y up, z towards the viewer
    uv: npt.NDArray[np.float32]  # (468, 2), 0..1, v down: forehead at 0
    triangles: npt.NDArray[np.int32]  # (898, 3), vertex numbers

    @cached_property
    def mirror(self) -> npt.NDArray[np.intp]:
        """The vertex on the other half of the face, by vertex, shape (468,)."""
        reflected = self.vertices * np.array([-1, 1, 1], np.float32)
        distances = np.linalg.norm(reflected[:, None] - self.vertices[None], axis=2)
        return np.asarray(distances.argmin(axis=1), np.intp)

    @cached_property
    def winding(self) -> float:
        """Sign (1 or -1) of the z of a triangle's normal when it faces the viewer in picture coordinates (y down, z away)."""
        return float(np.sign(np.median(_normals_z(self.vertices * np.array([1, -1, -1], np.float32), self.triangles))))

    def facing(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Tell how squarely each triangle looks at the viewer.

        Args:
            points: (468, 3), picture coordinates: pixels, y down, z away from the viewer.

        Returns:
            float32, shape (898,): cosine of the angle to the viewer; below 0 it is seen from behind.
        """
        return (_normals_z(points, self.triangles) * self.winding).astype(np.float32)


def load_canonical_mesh(path: Path) -> CanonicalMesh:
    """Read the mesh out of MediaPipe's ``geometry_pipeline_metadata_landmarks.binarypb``.

    The file is a protobuf; its largest top-level message is the mesh, with vertex floats in field 3 and triangle indices in field 4
    (``Mesh3d`` of MediaPipe). Reading the wire format takes less than a protobuf dependency.

    Raises:
        EngineFailed: not such a file.
    """
    messages = [value for _, value in _wire_fields(path.read_bytes()) if isinstance(value, bytes)]
    floats: list[float] = []
    indices: list[int] = []
    for number, value in _wire_fields(max(messages, key=len, default=b"")):
        if number == 3 and isinstance(value, bytes):
            floats.extend(struct.unpack(f"<{len(value) // 4}f", value))
        elif number == 4:
            indices.extend([value] if isinstance(value, int) else _packed_varints(value))
    if len(floats) != VERTICES * VERTEX_FLOATS or not indices or len(indices) % 3:
        raise EngineFailed(f"{path.name} holds no canonical face mesh")
    rows = np.array(floats, np.float32).reshape(VERTICES, VERTEX_FLOATS)
    return CanonicalMesh(rows[:, :3].copy(), rows[:, 3:].copy(), np.array(indices, np.int32).reshape(-1, 3))


def _normals_z(points: npt.NDArray[np.floating], triangles: npt.NDArray[np.int32]) -> npt.NDArray[np.floating]:
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1)
    return np.asarray(normals[:, 2] / (length + 1e-9))


def _wire_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a protobuf message: ints for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire == 5:
            length = 4
        else:
            raise EngineFailed(f"unexpected protobuf wire type {wire} in the canonical face mesh")
        yield number, data[at : at + length]
        at += length


def _packed_varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
