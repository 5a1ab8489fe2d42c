"""MediaPipe's `.task` bundles of the face landmarker: an archive of networks and the metadata of its face geometry."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from referencenet.inputs import regular_file
from referencenet.preprocess.face_mesh import NUM_LANDMARKS
from referencenet.preprocess.metric_face import FaceBasis
from referencenet.preprocess.model_files import LANDMARKER, MAX_NETWORK, model_file

DETECTOR, LANDMARKS = "face_detector.tflite", "face_landmarks_detector.tflite"
BLENDSHAPES, GEOMETRY = "face_blendshapes.tflite", "geometry_pipeline_metadata_landmarks.binarypb"
VERTEX = 5  # numbers of a vertex: place and texture
LEAST = 3  # points that say how a face is turned

FIELDS = {
    "Point": (("landmark", 1, "UINT32", False), ("weight", 2, "FLOAT", False)),
    "Mesh": (("vertices", 3, "FLOAT", True),),
    "Geometry": (("mesh", 1, "Mesh", False), ("basis", 2, "Point", True)),
}
"""Message to its fields that are read, under names of ours: number, type, whether there are several."""


def read_task(folder: str | Path) -> tuple[dict[str, bytes], FaceBasis]:
    """Read a bundle.

    Args:
        folder: Holds `face_landmarker_v2_with_blendshapes.task`; or the file itself.

    Returns:
        The three networks by name, and the basis of the canonical face.

    Raises:
        FileNotFoundError: If it is missing; says where to get it.
        ValueError: If it is no such bundle.
        ImportError: If protobuf is missing.
    """
    file = regular_file(model_file(folder, LANDMARKER), "bundle")
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for name in (DETECTOR, LANDMARKS, BLENDSHAPES, GEOMETRY):
                if (size := archive.getinfo(name).file_size) > MAX_NETWORK:
                    raise ValueError(f"{name} unpacks to {size} bytes, at most {MAX_NETWORK} are read")
                found[name] = archive.read(name)
    except Exception as error:  # a damaged archive fails in every way there is
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} is not a bundle of the face landmarker with blendshapes ({reason}).") from error
    return found, read_geometry(found.pop(GEOMETRY), str(file))


def read_geometry(content: bytes, file: str) -> FaceBasis:
    """The weighted points of the canonical face.

    Args:
        content: A `GeometryPipelineMetadata` message (mediapipe/tasks/cc/vision/face_geometry/proto).
        file: Where it is from, for errors.

    Raises:
        ValueError: If it is something else.
        ImportError: If protobuf is missing.
    """
    try:
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError(f"{file} needs protobuf: pip install 'referencenet[preprocess]'.") from error
    message = _geometry()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(f"{file} has no face geometry ({error}); get the file again.") from error
    vertices = np.array(message.mesh.vertices, dtype=np.float64)
    points = [(point.landmark, point.weight) for point in message.basis]
    if vertices.size != VERTEX * NUM_LANDMARKS or len(points) < LEAST:
        raise ValueError(
            f"{file} has a canonical face of {vertices.size} numbers and {len(points)} weighted points; expected "
            f"{NUM_LANDMARKS} vertices of {VERTEX}, and at least {LEAST} points: it is another bundle."
        )
    landmarks = np.array([landmark for landmark, _ in points])
    values = np.array([*vertices, *(weight for _, weight in points)])
    if landmarks.max() >= NUM_LANDMARKS or not np.isfinite(values).all():
        raise ValueError(
            f"{file} has a canonical face whose points reach to landmark {landmarks.max()} of {NUM_LANDMARKS}, or "
            "whose numbers are not finite; get the file again."
        )
    places = vertices.reshape(NUM_LANDMARKS, VERTEX)[landmarks, :3]
    return FaceBasis(landmarks=landmarks, places=places, weights=np.array([weight for _, weight in points]))


def _geometry() -> Any:
    """An empty message of `FIELDS`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds: Any = descriptor_pb2.FieldDescriptorProto
    described: Any = descriptor_pb2.FileDescriptorProto(name="geometry.proto", package="read", syntax="proto2")
    for message, fields in FIELDS.items():
        added = described.message_type.add(name=message)
        for name, number, kind, several in fields:
            label = kinds.LABEL_REPEATED if several else kinds.LABEL_OPTIONAL
            field = added.field.add(name=name, number=number, label=label)
            if kind in FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".read.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("read.Geometry"))()
