"""Key points of bodies: JSON that is not what it claims, frames and people that are not those that are meant."""

from __future__ import annotations

import json
from typing import Any

from hostile.case import Table
from hostile.made import LFS, PAGE, bytes_at, json_at, once, pipe_at, with_holes
from referencenet.preprocess.body import SkeletonFilm, read_key_points

TABLE = Table("bodies")
BODY = [[10.0 + 3 * i, 20.0 + 2 * i, 1.0] for i in range(18)]
PERSON = {"pose_keypoints_2d": [number for point in BODY for number in point]}
FRAME = {"people": [PERSON], "canvas_width": 64, "canvas_height": 64}


def drawn() -> Any:
    """Key points as the command line draws them."""
    frames, size = read_key_points("k.json")
    return list(SkeletonFilm(frames, size or (64, 64)))


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
    "key points, a terabyte of zeros",
    with_holes("k.json", b"", 2**40),
    call=drawn,
    says=r"k\.json has \d+ bytes; text",
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
