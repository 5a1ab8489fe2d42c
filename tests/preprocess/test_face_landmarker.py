"""The face landmarker of a `.task` bundle, run on tiny networks of its interface; and what stands in its place."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fetched import MODELS, needs_models
from referencenet.preprocess.face_geometry import poses_of, projected
from referencenet.preprocess.face_landmarker import SCORED, FaceLandmarker, expression
from referencenet.preprocess.face_track import FaceTrack, read_track
from referencenet.preprocess.metric_face import metric_face
from referencenet.preprocess.model_files import LANDMARKER
from referencenet.preprocess.task_file import BLENDSHAPES, DETECTOR, GEOMETRY, read_task

task_files = pytest.importorskip("task_files", reason="LiteRT and its schema write the bundle")
RANDOM = np.random.default_rng(1)
MESH = RANDOM.normal(size=(468, 3)) * (5, 6, 3)
POINTS = np.concatenate([MESH * (10, -10, -10) + 128, np.full((10, 3), 100.0)])  # (478, 3), a scaled canonical face
WEIGHTS = RANDOM.normal(size=(52, 2 * len(SCORED))) / 1000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return task_files.write_task(tmp_path_factory.mktemp("task") / LANDMARKER, POINTS, WEIGHTS, MESH)


def test_the_canonical_face_and_its_weights_are_read(bundle: Path) -> None:
    networks, basis = read_task(bundle)
    assert basis.landmarks.tolist() == list(range(0, 468, 20))
    assert np.allclose(basis.places, MESH[::20], atol=1e-6)
    assert np.allclose(basis.weights, 1 / (1 + np.arange(0, 468, 20)))
    assert set(networks) == {DETECTOR, "face_landmarks_detector.tflite", BLENDSHAPES}


@pytest.mark.parametrize("size", [(300, 300), (400, 240)])
def test_landmarks_mesh_matrix_and_scores_are_those_of_the_networks(bundle: Path, size: tuple[int, int]) -> None:
    landmarker = FaceLandmarker(bundle.parent)
    assert landmarker.is_exact
    image = Image.new("RGB", size, "grey")
    (region,) = landmarker.regions(image)
    longer = max(size)  # what the detector saw is a square around the picture
    assert region.angle == 0
    assert region.side == pytest.approx(1.5 * longer / 2)
    reading = landmarker.read(image, region)
    assert reading is not None
    corner = np.array([region.x, region.y]) - region.side / 2
    expected = POINTS / 256 * region.side + (*corner, 0)
    assert reading.landmarks.shape == (478, 3)
    assert np.allclose(reading.landmarks, expected, atol=1e-3)
    assert np.allclose(reading.scores, (WEIGHTS @ expected[list(SCORED), :2].ravel())[1:], rtol=1e-3, atol=1e-4)
    vertices, matrix = metric_face(expected, size, landmarker.mesh.basis)
    assert np.allclose(reading.vertices, vertices, atol=1e-3)
    assert np.allclose(reading.matrix, matrix, atol=1e-3)
    assert np.abs(projected(reading.vertices[None], matrix[None], *size)[0] - expected[:468, :2]).max() < 0.1
    assert np.linalg.norm(matrix[:3, 0]) == pytest.approx(1, abs=0.02)
    assert matrix[2, 3] < 0  # in front of the camera


def test_other_bundles_are_told(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*none.task; get face_landmarker_v2"):
        FaceLandmarker(tmp_path / "none.task")
    (tmp_path / "a.task").write_text("no archive")
    with pytest.raises(ValueError, match="is not a bundle of the face landmarker"):
        FaceLandmarker(tmp_path / "a.task")
    for changes, words in (
        ({BLENDSHAPES: b""}, "not a bundle of the face landmarker with blendshapes"),
        ({GEOMETRY: b"\x0a\xff"}, "has no face geometry"),
        ({GEOMETRY: task_files.geometry(MESH[:100])}, "expected 468 vertices of 5"),
        ({DETECTOR: read_task(bundle)[0][BLENDSHAPES]}, "answers with .* it is another network"),
    ):
        path = task_files.write_task(tmp_path / "b.task", POINTS, WEIGHTS, MESH, **changes)
        with pytest.raises(ValueError, match=words):
            FaceLandmarker(path)


def test_a_bundle_is_read_within_bounds(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that members claim, bytes that are damaged, points of landmarks that no face has."""
    content = bundle.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("referencenet.preprocess.task_file.MAX_NETWORK", 100)
        with pytest.raises(ValueError, match="unpacks to .* bytes, at most 100 are read"):
            read_task(bundle)
    path = tmp_path / "a.task"
    for place in (200, len(content) // 2):  # a member's sum tells
        path.write_bytes(content[:place] + b"damaged!" + content[place + 8 :])
        with pytest.raises(ValueError, match=r"a\.task"):
            read_task(path)
    message = task_files.geometry(MESH)
    assert message.count(b"\x08\xcc\x03") == 1  # landmark 460
    other = message.replace(b"\x08\xcc\x03", b"\x08\xcc\x7f")
    path = task_files.write_task(path, POINTS, WEIGHTS, MESH, **{GEOMETRY: other})
    with pytest.raises(ValueError, match="reach to landmark 16332 of 468"):
        read_task(path)


def test_expression_is_little_at_rest_and_grows_with_mouth_lids_and_brows() -> None:
    face = np.zeros((468, 3))
    face[[33, 263, 61, 291, 13, 14]] = [
        (-4.5, 2.7, 3),
        (4.5, 2.7, 3),
        (-2.45, -4, 4),
        (2.45, -4, 4),
        (0, -4, 5),
        (0, -4.1, 5),
    ]
    for upper, lower, brow, side in ((159, 145, 105, -3), (386, 374, 334, 3)):
        face[[upper, lower, brow]] = [(side, 3.1, 4), (side, 2.0, 4), (side, 5.0, 4)]
    rest = expression(face)
    assert rest.max() < 0.1
    changes = {0: ((14,), (0, -3, 0)), 1: ((145,), (0, 1.0, 0)), 2: ((374,), (0, 1.0, 0)), 4: ((61, 291), (0.9, 0, 0))}
    changes |= {3: ((105, 334), (0, 0.8, 0))}
    for score, (points, shift) in changes.items():
        moved = face.copy()
        moved[list(points)] += np.array(shift) * np.sign(moved[list(points)][:, :1] + 1e-9 if score == 4 else 1)
        grown = expression(np.stack([face, moved]))[1] - rest
        assert grown.argmax() == score
        assert grown[score] > 0.3
    with pytest.raises(ValueError, match=r"expected \(..., 468, 3\)"):
        expression(face[:10])


def test_published_names_and_pictures_without_frames_are_read(tmp_path: Path) -> None:
    vertices, matrix, scores = RANDOM.normal(size=(468, 3)), np.eye(4), RANDOM.random(51)
    np.savez(tmp_path / "one.npz", lmks3d=vertices, trans_mat=matrix, scores=scores)
    track = read_track(tmp_path / "one.npz")
    assert np.array_equal(track.vertices[0], vertices)
    assert (track.matrices.shape, track.width, track.height) == ((1, 4, 4), 512, 512)
    assert np.array_equal(track.blendshapes, scores[None])
    film = FaceTrack(
        vertices=vertices[None].repeat(3, 0), matrices=matrix[None].repeat(3, 0), width=64, height=48, rate=25
    )
    np.savez(tmp_path / "film.npz", **film.document())
    again = read_track(tmp_path / "film.npz")
    assert all(np.array_equal(value, vars(again)[name]) for name, value in vars(film).items())
    np.savez(tmp_path / "half.npz", lmks3d=vertices)
    with pytest.raises(ValueError, match="it lacks matrices"):
        read_track(tmp_path / "half.npz")
    np.savez(tmp_path / "wide.npz", **(film.document() | {"height": None}))
    with pytest.raises(ValueError, match="an array of object, not of numbers"):
        read_track(tmp_path / "wide.npz")


@cache
def astronaut() -> Image.Image:
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photograph")
    return Image.fromarray(data.astronaut())


@needs_models
def test_without_a_bundle_a_head_that_is_turned_in_the_picture_turns_as_far() -> None:
    landmarker = FaceLandmarker(MODELS)
    assert not landmarker.is_exact
    poses = []
    for angle in (0, 20):
        image = astronaut().rotate(angle, center=(225, 128))
        (region,) = landmarker.regions(image)
        reading = landmarker.read(image, region)
        assert reading is not None
        poses.append(poses_of(reading.matrix))
        assert reading.scores[4] > 0.4  # she smiles
    assert poses[1][2] - poses[0][2] == pytest.approx(20, abs=3)
    assert -75 < poses[0][5] < -50  # centimetres, for a head of 95 pixels among 512
