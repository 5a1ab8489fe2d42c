"""Faces in space: poses that were projected are found again, with MediaPipe's canonical face or another, and ours."""

import numpy as np
import pytest

from heads import head, weakly_seen
from referencenet.preprocess.face_geometry import pose_matrices, poses_of, projected
from referencenet.preprocess.metric_face import APPROXIMATE, FaceBasis, flat_turn, metric_face
from referencenet.preprocess.procrustes import similarity

RANDOM = np.random.default_rng(0)
SIZES = ((512, 512), (640, 360), (300, 500))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("turn", [(0, 0, 0), (12, 25, -8), (-20, -35, 15), (5, 60, 3)], ids=str)
def test_a_pose_that_was_projected_is_found_again(size: tuple[int, int], turn: tuple[float, ...]) -> None:
    mesh, pose = head(), np.array([*turn, 2.0, -3.0, -150.0])  # far away, where perspective is nearly weak
    _, matrix = metric_face(weakly_seen(mesh, pose, size), size, APPROXIMATE)
    found = poses_of(matrix)
    assert np.abs(found[:3] - pose[:3]).max() < 1.5  # degrees
    assert np.abs(found[3:] / pose[3:] - 1).max() < 0.03
    assert np.linalg.norm(matrix[:3, 0]) == pytest.approx(1, abs=0.01)  # two rounds: the scale is in the distance


def test_near_faces_are_turned_little_by_perspective() -> None:
    mesh, pose = head(), np.array([5, -10, 3, 1.0, 2.0, -35.0])
    _, matrix = metric_face(weakly_seen(mesh, pose, (512, 512)), (512, 512), APPROXIMATE)
    found = poses_of(matrix)
    assert np.abs(found[:3] - pose[:3]).max() < 6
    assert found[5] == pytest.approx(-35, rel=0.12)


@pytest.mark.parametrize("turn", [(0, 0, 0), (12, 25, -8), (-20, -35, 15), (5, 60, 3)], ids=str)
def test_a_turn_is_found_without_depth(turn: tuple[float, ...]) -> None:
    seen = weakly_seen(head(), np.array([*turn, 2.0, -3.0, -150.0]), (640, 360))
    found = flat_turn(seen[:, :2], APPROXIMATE)
    assert np.allclose(found @ found.T, np.eye(3), atol=0.01)
    matrix = np.eye(4)
    matrix[:3, :3] = found
    assert np.abs(poses_of(matrix)[:3] - turn).max() < 1.5  # degrees


@pytest.mark.parametrize("size", SIZES)
def test_mesh_and_matrix_project_to_the_landmarks(size: tuple[int, int]) -> None:
    points = weakly_seen(head(), np.array([8, -20, 4, 1.0, -2.0, -40.0]), size)
    vertices, matrix = metric_face(points, size, APPROXIMATE)
    back = projected(vertices[None], matrix[None], *size)[0]
    assert np.abs(back - points[:, :2]).max() < 0.05  # pixels: the published projection divides by 1.0001 z
    with_irises = np.concatenate([points, points[:10] + 50])  # which have no part in it
    assert np.array_equal(metric_face(with_irises, size, APPROXIMATE)[1], matrix)


def test_an_expression_outside_of_the_basis_leaves_the_pose_alone() -> None:
    mesh, pose, size = head(), np.array([3, 12, -5, 1.0, 2.0, -60.0]), (512, 512)
    points = weakly_seen(mesh, pose, size)
    spoken = points.copy()
    spoken[[13, 14, 17], 1] += (-6, 9, 12)  # lips, in pixels
    (rest, matrix), (moved, other) = (metric_face(each, size, APPROXIMATE) for each in (points, spoken))
    assert np.allclose(matrix, other)
    unmoved = np.delete(np.arange(468), [13, 14, 17])
    assert np.allclose(rest[unmoved], moved[unmoved])
    assert np.abs(moved[17] - rest[17]).max() > 0.5  # centimetres


def test_similarity_is_found_exactly_by_weight_and_without_reflection() -> None:
    source = RANDOM.normal(size=(6, 3))
    turn = pose_matrices(np.array([20, -130, 77, 3.0, -1.0, 5.0]))
    turn[:3, :3] *= 2.5
    target = source @ turn[:3, :3].T + turn[:3, 3]
    assert np.allclose(similarity(source, target), turn)
    spoiled = target.copy()
    spoiled[0] += 10
    weights = np.array([0, 1, 2, 3, 1, 1.0])
    assert np.allclose(similarity(source, spoiled, weights), turn)
    assert np.linalg.det(similarity(source, source * (-1, 1, 1))[:3, :3]) > 0
    flat = similarity(source[:, :2], target[:, :2])
    assert flat.shape == (3, 3)
    for given, words in (
        ((source, target[:5]), "have shapes"),
        ((source, target, -weights), "negative or all zero"),
        ((source * 0, target), "one place"),
    ):
        with pytest.raises(ValueError, match=words):
            similarity(*given)


def test_ours_is_symmetric_and_looks_at_the_viewer() -> None:
    by_number = dict(zip(APPROXIMATE.landmarks.tolist(), APPROXIMATE.places, strict=True))
    assert np.allclose(by_number[33], by_number[263] * (-1, 1, 1))
    assert by_number[4][2] == max(place[2] for place in by_number.values())  # the nose is in front
    assert by_number[10][1] == max(place[1] for place in by_number.values())  # the forehead on top
    with pytest.raises(ValueError, match="of 3 points at least"):
        FaceBasis(landmarks=np.arange(2), places=np.zeros((2, 3)), weights=np.ones(2))
    with pytest.raises(ValueError, match="beyond 0 to 467"):
        FaceBasis(landmarks=np.array([1, 2, 468]), places=np.zeros((3, 3)), weights=np.ones(3))


def test_landmarks_without_depth_or_extent_have_no_pose() -> None:
    with pytest.raises(ValueError, match="expected a depth as well"):
        metric_face(np.ones((468, 2)), (64, 64), APPROXIMATE)
    with pytest.raises(ValueError, match="of the picture; expected a face that can be seen"):
        metric_face(np.ones((468, 3)), (64, 64), APPROXIMATE)
