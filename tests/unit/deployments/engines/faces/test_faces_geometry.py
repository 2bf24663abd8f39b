import numpy as np
import pytest

from deployments.engines.faces.geometry import EYE_CORNERS, FACE_OVAL, FOREHEAD_TOP, MOUTH_CORNERS, load_canonical_mesh
from deployments.jobs.errors import EngineFailed


def test_load_canonical_mesh_has_the_published_size(canonical):
    assert (canonical.vertices.shape, canonical.uv.shape, canonical.triangles.shape) == ((468, 3), (468, 2), (898, 3))
    assert (canonical.triangles.min(), canonical.triangles.max()) == (0, 467)
    assert 0 <= canonical.uv.min() < canonical.uv.max() <= 1


def test_texture_coordinates_have_the_forehead_on_top(canonical):
    assert canonical.uv[FOREHEAD_TOP, 1] < canonical.uv[EYE_CORNERS[0][0], 1] < canonical.uv[MOUTH_CORNERS[0], 1]


def test_mirror_swaps_the_halves(canonical):
    assert np.array_equal(canonical.mirror[canonical.mirror], np.arange(468))
    assert (canonical.mirror[MOUTH_CORNERS[0]], canonical.mirror[33]) == (MOUTH_CORNERS[1], 263)


def test_facing_is_positive_on_a_frontal_face_and_negative_from_behind(canonical, people):
    shape = people["astronaut.png"].landmarks[:468]
    assert (canonical.facing(shape) > 0).mean() > 0.9
    assert (canonical.facing(shape * [-1, 1, 1]) < 0).mean() > 0.9


def test_oval_encloses_the_face(canonical):
    assert len(set(FACE_OVAL)) == 36
    assert np.ptp(canonical.vertices[list(FACE_OVAL), 0]) == pytest.approx(np.ptp(canonical.vertices[:, 0]))


@pytest.mark.parametrize("content", [b"", b"\x08\x01", b"\x0a\x03abc"])
def test_load_canonical_mesh_refuses_another_file(tmp_path, content):
    path = tmp_path / "mesh.binarypb"
    path.write_bytes(content)
    with pytest.raises(EngineFailed):
        load_canonical_mesh(path)
