"""Numbers of faces and of what they say: tracks, landmarks, head poses, embeddings, features of sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hostile.case import Table
from hostile.made import Make, array_at, arrays_at, json_at, npy_header, track, with_holes
from referencenet.cli.talk import own_face
from referencenet.pipelines.heard import read_features
from referencenet.preprocess.face_embedding import read_face_embedding
from referencenet.preprocess.face_mesh import read_landmarks
from referencenet.preprocess.face_track import FaceTrack, crop_portrait, read_track
from referencenet.preprocess.talking_face import read_head_poses
from tiny import picture

TABLE = Table("faces")


def archive(name: str, says: str, make: Make, call: Callable[[], Any] = lambda: read_track("a.npz")) -> None:
    """Add an .npz file that is no face track."""
    TABLE.add(f"tracks, {name}", make, call=call, says=says)


archive(
    "a field too few",
    r"a\.npz is not a face track .*it has height alone of width and height",
    arrays_at("a.npz", **{name: value for name, value in track(1).items() if name != "width"}),
)
archive(
    "faces of another mesh",
    r"a\.npz is not a face track .*expected \(frames, 468, 3\)",
    arrays_at("a.npz", **track(1, vertices=np.zeros((1, 400, 3)))),
)
archive(
    "no frame",
    r"a\.npz is not a face track .*one frame at least",
    arrays_at("a.npz", **track(1, vertices=np.zeros((0, 468, 3)), matrices=np.zeros((0, 4, 4)))),
)
archive(
    "NaN",
    r"a\.npz is not a face track .*NaN or infinite",
    arrays_at("a.npz", **track(1, matrices=np.full((1, 4, 4), np.nan))),
)
archive("a film without size", r"a\.npz is not a face track .*0 x 512 pixels", arrays_at("a.npz", **track(1, width=0)))
archive(
    "a film as wide as a street",
    r"a\.npz is not a face track .*1e\+09 x 512 pixels",
    arrays_at("a.npz", **track(1, width=10**9)),
)
archive("a rate of none", r"a\.npz is not a face track .*a rate of 0 frames", arrays_at("a.npz", **track(1, rate=0)))
archive(
    "a rate of NaN", r"a\.npz is not a face track .*a rate of nan frames", arrays_at("a.npz", **track(1, rate=np.nan))
)
archive("a rate for each frame", r"a\.npz is not a face track", arrays_at("a.npz", **track(2, rate=np.array([30, 30]))))
archive(
    "a film where one face is wanted",
    r"a\.npz has the faces of 2 frames",
    arrays_at("a.npz", **track(2)),
    call=lambda: own_face(Path("a.npz"), "aniportrait"),
)
archive(
    "matrices that is singular",
    r"a\.npz is not a face track .*is singular",
    arrays_at("a.npz", **track(2, matrices=np.zeros((2, 4, 4)))),
    call=lambda: read_head_poses("a.npz"),
)
TABLE.add(
    "archives, a field that nobody asked for",
    arrays_at("a.npz", names=np.array(["a"]), **track(1)),
    call=lambda: read_track("a.npz"),
    gives=lambda found: len(found.vertices) == 1 or 1 / 0,
)
TABLE.add(
    "tracks, a list for an object",
    json_at("a.json", [1, 2]),
    call=lambda: read_track("a.json"),
    says=r"a\.json is not a face track: it lacks vertices",
)
TABLE.add(
    "tracks, words for numbers",
    json_at("a.json", {"vertices": "many", "matrices": [], "width": 64, "height": 64}),
    call=lambda: read_track("a.json"),
    says=r"vertices of a\.json is 'many'; expected numbers",
)
TABLE.add(
    "tracks, null for a field",
    json_at("a.json", dict.fromkeys(("vertices", "matrices", "width", "height"))),
    call=lambda: read_track("a.json"),
    says=r"a\.json is not a face track",
)
TABLE.add(
    "landmarks, JSON without them",
    json_at("a.json", {"rate": 30}),
    call=lambda: read_landmarks("a.json"),
    says=r"a\.json is not a film of landmarks: it has no `landmarks`",
)
TABLE.add(
    "landmarks, a rate of a word",
    json_at("a.json", {"landmarks": [[[0.1, 0.1]] * 468], "rate": "fast"}),
    call=lambda: read_landmarks("a.json"),
    says=r"a\.json is not a film of landmarks .*'fast'; expected numbers",
)
TABLE.add(
    "landmarks, of a face as wide as ten pictures",
    call=lambda: crop_portrait(picture(0, (64, 64)), np.random.default_rng(0).uniform(0, 5000, (468, 2))),
    says="reach to 4.*expected x and y as fractions",
)
TABLE.add(
    "head poses, of five numbers",
    array_at("a.npy", np.zeros((3, 5))),
    call=lambda: read_head_poses("a.npy"),
    says=r"a\.npy holds no head poses .*expected \(frames, 6\)",
)
TABLE.add(
    "head poses, of infinity",
    array_at("a.npy", np.full((3, 6), np.inf)),
    call=lambda: read_head_poses("a.npy"),
    says=r"a\.npy holds no head poses .*not all finite",
)
TABLE.add(
    "head poses, an archive of that name",
    arrays_at("b.npz", poses=np.zeros((3, 6))),
    lambda f: (f / "b.npz").rename(f / "a.npy"),
    call=lambda: read_head_poses("a.npy"),
    says=r"a\.npy is an archive of arrays, not one",
)
TABLE.add(
    "embeddings, of a hundred numbers",
    array_at("a.npy", np.zeros(100)),
    call=lambda: read_face_embedding("a.npy"),
    says=r"a\.npy is float64 of shape \(100,\); expected 512 numbers",
)
TABLE.add(
    "embeddings, of NaN",
    array_at("a.npy", np.full(512, np.nan)),
    call=lambda: read_face_embedding("a.npy"),
    says=r"a\.npy holds values that are not finite",
)
TABLE.add(
    "embeddings, of what half precision cannot hold",
    array_at("a.npy", np.full(512, 1e300)),
    call=lambda: read_face_embedding("a.npy"),
    says=r"a\.npy holds values that are not finite",
)
TABLE.add(
    "embeddings, of words",
    array_at("a.npy", np.array(["x"] * 512)),
    call=lambda: read_face_embedding("a.npy"),
    says=r"a\.npy holds no arrays that can be read .*expected the numbers of a face",
)
TABLE.add(
    "features, of another model",
    array_at("a.npy", np.zeros((3, 5, 8), np.float32)),
    call=lambda: read_features("a.npy", 12, 768),
    says=r"\(3, 5, 8\); expected \(frames, 12, 768\)",
)
TABLE.add(
    "features, a terabyte of nothing and the wrong shape",
    with_holes("a.npy", npy_header((2**37 - 1000,)), 2**40),
    call=lambda: read_features("a.npy", 12, 768),
    says=r"expected .*\(frames, 12, 768\)",
)
TABLE.add(
    "features, of Python objects",
    array_at("a.npy", np.array([None, {}], dtype=object), allow_pickle=True),
    call=lambda: read_features("a.npy", 12, 768),
    says=r"a\.npy holds no array that can be read",
)
TABLE.add(
    "a track made by hand of other arrays",
    says=r"expected \(frames, 468, 3\)",
    call=lambda: FaceTrack(vertices=np.zeros((2, 3)), matrices=np.zeros((2, 4, 4))),
)
