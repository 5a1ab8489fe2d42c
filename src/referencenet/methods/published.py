"""Every published set of weight files that this package reads, by name and by the key lists that prove it."""

from collections.abc import Mapping
from types import MappingProxyType

from referencenet.checkpoints import idm_vton as idm_vton_files
from referencenet.checkpoints.published import PublishedFile, PublishedSet
from referencenet.methods import animate_anyone, flashface, idm_vton


def _by_name(*sets: PublishedSet) -> Mapping[str, PublishedSet]:
    names = [published.name for published in sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the published sets {', '.join(twice)} are registered twice; give one of them another name.")
    return MappingProxyType(dict(zip(names, sets, strict=True)))


PUBLISHED = _by_name(
    animate_anyone.PUBLISHED,
    animate_anyone.PUBLISHED_REENACT,
    flashface.PUBLISHED,
    flashface.PUBLISHED_BASE,
    idm_vton_files.PUBLISHED,
)

PIPELINES = MappingProxyType({
    "animate_anyone": animate_anyone.AnimateAnyonePipeline,
    "animate_anyone.moore": animate_anyone.AnimateAnyonePipeline,
    "animate_anyone.reenact": animate_anyone.FaceReenactmentPipeline,
    "flashface": flashface.FlashFacePipeline,
    "idm_vton": idm_vton.IDMVTONPipeline,
})  # fmt: skip
"""System, or set of a system, to the pipeline that reads it."""


def find_by_manifest(name: str) -> list[tuple[PublishedSet, PublishedFile]]:
    """The rows whose key list is called so: one per component that the file fills."""
    rows = ((published, file) for published in PUBLISHED.values() for file in published.files)
    return [(published, file) for published, file in rows if file.manifest == name]
