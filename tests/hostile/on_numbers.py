"""Key points, landmarks, tracks, head poses, embeddings and features: JSON and arrays that are not what they claim."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hostile.case import Table
from hostile.made import (
    LFS,
    PAGE,
    Make,
    array_at,
    arrays_at,
    bytes_at,
    cut,
    json_at,
    npy_header,
    once,
    pipe_at,
    track,
    with_holes,
    zip_of_zeros,
    zipped,
)
from referencenet.cli.talk import own_face
from referencenet.pipelines.heard import read_features
from referencenet.preprocess.body import SkeletonFilm, read_key_points
from referencenet.preprocess.face_embedding import read_face_embedding
from referencenet.preprocess.face_mesh import read_landmarks
from referencenet.preprocess.face_track import FaceTrack, crop_portrait, read_track
from referencenet.preprocess.talking_face import read_head_poses
from tiny import picture

TABLE = Table("numbers")
BODY = [[10.0 + 3 * i, 20.0 + 2 * i, 1.0] for i in range(18)]
PERSON = {"pose_keypoints_2d": [number for point in BODY for number in point]}
FRAME = {"people": [PERSON], "canvas_width": 64, "canvas_height": 64}


def drawn() -> Any:
    """Key points as the command line draws them."""
    frames, size = read_key_points("k.json")
    return list(SkeletonFilm(frames, size or (64, 64)))


# --- key points -------------------------------------------------------------------------------------------------------


def points(name: str, says: str, document: Any) -> None:
    """Add a document that holds no key points."""
    make = bytes_at("k.json", document) if isinstance(document, str | bytes) else json_at("k.json", document)
    TABLE.add(f"key points, {name}", make, call=drawn, says=rf"k\.json.*{says}|{says}.*k\.json")


points("nothing in the file", "is empty", b"")
points("no JSON", r"is not JSON .*expected key points", "{")
points("no UTF-8", r"is not text in UTF-8 \(byte 0\); expected key points", b"\xff\xfe\x00{")
points("a Git LFS pointer", "is a Git LFS pointer", LFS)
points("a web page", "is a web page", PAGE)
points("nested without end", r"is not JSON .*expected key points", "[" * 200_000)
points("a number of five thousand digits", r"is not JSON .*expected key points", "[" + "9" * 5000 + "]")
points("null", "has no list of people", "null")
points("a word", "has no list of people", '"people"')
points("an empty list", r"\(0,\)", [])
points("an empty object", "has no list of people", {})
points("people that are a word", "has no list of people", {"people": "two"})
points("a person that is a number", "has a person without pose_keypoints_2d", FRAME | {"people": [1]})
points("a person that is null", "has a person without pose_keypoints_2d", FRAME | {"people": [None]})
points("two people", "2 people are seen in", FRAME | {"people": [PERSON, PERSON]})
points("a million people", "1000000 people are seen in", FRAME | {"people": [0] * 10**6})
points("a point too few", r"\(17, 3\)", FRAME | {"people": [{"pose_keypoints_2d": PERSON["pose_keypoints_2d"][:51]}]})
points(
    "a number too few", r"shape \(53,\)", FRAME | {"people": [{"pose_keypoints_2d": PERSON["pose_keypoints_2d"][:53]}]}
)
points("words for numbers", "expected numbers", FRAME | {"people": [{"pose_keypoints_2d": ["1.5"] * 54}]})
points("truth values for numbers", "expected numbers", FRAME | {"people": [{"pose_keypoints_2d": [True] * 54}]})
points("null among the numbers", "expected numbers", FRAME | {"people": [{"pose_keypoints_2d": [None] * 54}]})
points("lists among the numbers", "different lengths", FRAME | {"people": [{"pose_keypoints_2d": [1, [2, 3]] * 27}]})
points("NaN", "NaN or infinite", FRAME | {"people": [{"pose_keypoints_2d": [float("nan")] * 54}]})
points(
    "infinity written as 1e999",
    "NaN or infinite",
    json.dumps(FRAME | {"people": [{"pose_keypoints_2d": [7] * 54}]}).replace("7,", "1e999,"),
)
points("points beyond all pictures", "reach to 1e\\+300", FRAME | {"people": [{"pose_keypoints_2d": [1e300] * 54}]})
points(
    "numbers of three hundred digits",
    "expected numbers|reach to",
    json.dumps(FRAME | {"people": [{"pose_keypoints_2d": [10**300] * 54}]}),
)
points(
    "a canvas of 30000",
    r"canvas_width and canvas_height \(30000, 30000\)",
    FRAME | {"canvas_width": 30000, "canvas_height": 30000},
)
points("a canvas of a word", "canvas_width and canvas_height", FRAME | {"canvas_width": "wide"})
points("a canvas below zero", "canvas_width and canvas_height", FRAME | {"canvas_width": -64})
points("a canvas of half pixels", "canvas_width and canvas_height", FRAME | {"canvas_width": 64.5})
points("a canvas of NaN", "canvas_width and canvas_height", FRAME | {"canvas_width": float("nan")})
points("a canvas of lists", "canvas_width and canvas_height", FRAME | {"canvas_width": [64, 64]})
points("a frame of another kind between frames", "has no list of people", [FRAME, 7, FRAME])
points("rows of different lengths", "different lengths", [[1, 2], [3]])
points("the wrong file of the same tool", "has no list of people", {"version": 1.3, "candidates": []})
TABLE.add("key points, no file", call=drawn, says=r"there are no key points at k\.json")
TABLE.add("key points, a named pipe", pipe_at("k.json"), call=drawn, says=r"k\.json is a pipe")
TABLE.add(
    "key points, an empty folder", lambda f: (f / "k.json").mkdir(), call=drawn, says="there are no key points at"
)
TABLE.add(
    "key points, a terabyte of zeros", with_holes("k.json", b"", 2**40), call=drawn, says=r"k\.json has \d+ bytes; JSON"
)
TABLE.add(
    "key points, far outside of the picture",
    json_at("k.json", FRAME | {"people": [{"pose_keypoints_2d": [900_000.0, -900_000.0, 1.0] * 18}]}),
    call=drawn,
)
TABLE.add(
    "key points, all in one place",
    json_at("k.json", FRAME | {"people": [{"pose_keypoints_2d": [32.0, 32.0, 1.0] * 18}]}),
    call=drawn,
)
TRYON = (
    "tryon", "-p", "hero.png", "-g", "hero.png", "--parsing", "hero.png", "--keypoints", "k.json", "--densepose",
    "hero.png", "--random-tiny", "-o", "o.png",
)  # fmt: skip
TABLE.add(
    "key points, of OpenPose for try-on's mask",
    once("hero"),
    json_at("k.json", {"people": [PERSON, PERSON]}),
    typed=TRYON,
    says=r"2 people are seen in k\.json",
)
TABLE.add(
    "key points, of a film for try-on's mask",
    once("hero"),
    json_at("k.json", [FRAME, FRAME]),
    typed=TRYON,
    says=r"k\.json has 2 frames; expected",
)
TABLE.add(
    "key points, a folder whose frames count by tens",
    *(json_at(f"k/{i}.json", {"people": [{"pose_keypoints_2d": [float(i), 1.0, 1.0] * 18}]}) for i in range(1, 12)),
    bytes_at("k/._1.json", b"\0\5\x16\7"),
    call=lambda: read_key_points("k"),
    gives=lambda found: order([frame.body[0, 0] for frame in found[0]]),
)


def order(seen: list[float]) -> None:
    """Frames come as people count."""
    assert seen == sorted(seen), seen


# --- arrays: what every reader of them refuses ------------------------------------------------------------------------

Reader = Callable[[], Any]
MESH: Reader = lambda: read_landmarks("a.npy")  # noqa: E731
EXPECTED = r"a\.npy holds no arrays? that can be read .*expected"


def array(name: str, says: str, *make: Make, call: Reader = MESH) -> None:
    """Add an .npy file that is not read."""
    TABLE.add(f"arrays, {name}", *make, call=call, says=says)


array("nothing in the file", r"a\.npy is empty", bytes_at("a.npy", b""))
array("prose", EXPECTED, bytes_at("a.npy", "no numbers here, only words"))
array("the magic word alone", EXPECTED, bytes_at("a.npy", b"\x93NUMPY"))
array("a later version", EXPECTED, bytes_at("a.npy", b"\x93NUMPY\x09\x00\x10\x00" + bytes(64)))
array("a header of gigabytes", EXPECTED, bytes_at("a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{'descr'"))
array(
    "a header that is no literal",
    EXPECTED,
    bytes_at("a.npy", b"\x93NUMPY\x01\x00\x20\x00__import__('os').getpid()       "),
)
array("a header nested without end", EXPECTED, bytes_at("a.npy", b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000))
array("a header of unbalanced brackets", EXPECTED, bytes_at("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((   "))
array("more than it holds", EXPECTED, bytes_at("a.npy", npy_header((1000, 468, 3)) + bytes(100)))
array("a shape of exabytes", EXPECTED, bytes_at("a.npy", npy_header((2**40, 2**20)) + bytes(100)))
array("a shape that overflows", EXPECTED, bytes_at("a.npy", npy_header((2**62, 8, 3)) + bytes(100)))
array("a negative shape", EXPECTED, bytes_at("a.npy", npy_header((-1, 468, 3)) + bytes(100)))
array("a million empty axes", EXPECTED, bytes_at("a.npy", npy_header((0,) * 70) + bytes(100)))
array("a terabyte of nothing", EXPECTED, with_holes("a.npy", npy_header((2**37 // 1404, 468, 3)), 2**40))
array("Python objects", EXPECTED, array_at("a.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True))
array("words", EXPECTED, array_at("a.npy", np.array(["a", "b"])))
array("truth values", EXPECTED, array_at("a.npy", np.zeros((1, 468, 2), dtype=bool)))
array("complex numbers", EXPECTED, array_at("a.npy", np.zeros((1, 468, 2), dtype=complex)))
array("dates", EXPECTED, array_at("a.npy", np.zeros(3, dtype="datetime64[s]")))
array("records", EXPECTED, array_at("a.npy", np.zeros(3, dtype=[("x", "f4"), ("y", "f4")])))
array("half a file", EXPECTED, array_at("a.npy", np.zeros((9, 468, 3))), cut("a.npy"))
array("no axis", r"have shape \(\)|landmarks.*shape", array_at("a.npy", np.array(1.0)))
array("another shape", r"shape \(2, 467, 3\)", array_at("a.npy", np.zeros((2, 467, 3))))
array("no frame", r"shape \(0, 468, 3\)", array_at("a.npy", np.zeros((0, 468, 3))))
array("NaN", r"NaN or infinite", array_at("a.npy", np.full((1, 468, 2), np.nan)))
array(
    "pixels for fractions",
    r"reach to 300; expected x and y as fractions",
    array_at("a.npy", np.full((1, 468, 2), 300.0)),
)


def archive(name: str, says: str, *make: Make, call: Reader = lambda: read_track("a.npz"), slow: bool = False) -> None:
    """Add an .npz file that is not read."""
    TABLE.add(f"archives, {name}", *make, call=call, says=says, slow=slow)


BROKEN = r"a\.npz holds no arrays that can be read .*expected a face track"
archive("prose", BROKEN, bytes_at("a.npz", "PK, but no archive follows these words"))
archive("half a file", BROKEN, arrays_at("a.npz", **track(2)), cut("a.npz"))
archive(
    "another archive",
    r"a\.npz is not a face track: it lacks vertices, matrices",
    zipped("a.npz", {"letter.txt": b"Dear"}),
)
archive(
    "a packed array of gigabytes",
    BROKEN,
    zip_of_zeros("a.npz", {"vertices.npy": (npy_header((2**31 // 1404 // 2, 468, 3), "<f2"), 2**31)}),
    slow=True,
)
archive(
    "many packed arrays at the bound",
    BROKEN,
    zip_of_zeros(
        "a.npz",
        {
            f"{name}.npy": (npy_header((2**26 - 2**20,), "|u1"), 2**26)
            for name in ("vertices", "matrices", "blendshapes")
        },
    ),
)
archive(
    "a member that claims more than it holds", BROKEN, zipped("a.npz", {"vertices.npy": npy_header((1, 468, 3)) + b"0"})
)
archive(
    "a member of Python objects",
    BROKEN,
    lambda f: np.savez(f / "a.npz", **track(1, vertices=np.array([{}], dtype=object)), allow_pickle=True),
)
archive(
    "a member packed in a way unknown here",
    BROKEN,
    zipped("a.npz", {"vertices.npy": npy_header((1,)) + bytes(8)}),
    lambda f: (f / "a.npz").write_bytes((f / "a.npz").read_bytes().replace(b"\x08\x00", b"\x63\x00")),
)
archive(
    "a damaged member",
    BROKEN,
    zipped("a.npz", {"vertices.npy": npy_header((999,)) + bytes(7992)}, zipfile.ZIP_STORED),
    lambda f: (f / "a.npz").write_bytes((f / "a.npz").read_bytes().replace(bytes(100), b"\1" * 100, 1)),
)
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
