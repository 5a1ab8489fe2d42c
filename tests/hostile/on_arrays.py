"""Arrays and archives of them: what every reader refuses, whatever the numbers stand for."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from hostile.case import Table
from hostile.made import Make, array_at, arrays_at, bytes_at, cut, npy_header, track, with_holes, zip_of_zeros, zipped
from referencenet.preprocess.face_mesh import read_landmarks
from referencenet.preprocess.face_track import read_track

TABLE = Table("numbers")

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
