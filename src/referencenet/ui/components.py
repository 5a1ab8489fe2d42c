"""Gradio's components as this page uses them: files come as they are, and are read within the page's limits."""

from __future__ import annotations

from tempfile import NamedTemporaryFile
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from referencenet.ui.given import INK


class PictureFile(gr.Image):
    """A picture whose file is not opened before it is read within limits."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        """The path of the file."""
        return None if payload is None else payload.path


class PaintedFile(gr.ImageEditor):
    """A picture on which a part can be painted over."""

    is_template = True

    def preprocess(self, payload: Any) -> dict[str, Any] | None:
        """Paths of the picture and of what is painted on it: `background` and `layers`."""
        if payload is None:
            return None
        kept = payload if payload.id is None else self.blob_storage.pop(payload.id, None)
        if kept is None:
            return None
        layers = [self._path(layer) for layer in kept.layers or [] if layer is not None]
        return {"background": self._path(kept.background), "layers": layers, "composite": None}

    def _path(self, part: Any) -> str | None:
        if part is None or isinstance(part, FileData):
            return None if part is None else part.path
        with NamedTemporaryFile(delete=False, dir=self.GRADIO_CACHE, suffix=".png") as file:
            file.write(part)
        return file.name


class PictureFiles(gr.Gallery):
    """Several pictures, dropped together or one after the other."""

    is_template = True

    def preprocess(self, payload: Any) -> list[str] | None:
        """Their paths."""
        if payload is None or not payload.root:
            return None
        return [item.image.path for item in payload.root]


def picture(label: str) -> PictureFile:
    """Where a picture is dropped."""
    return PictureFile(label=label, sources=["upload", "clipboard"], type="filepath", height=240, buttons=[])


def painted(label: str) -> PaintedFile:
    """Where a picture is dropped and painted on, with one brush on one layer."""
    return PaintedFile(
        label=label, type="filepath", format="png", sources=["upload", "clipboard"], transforms=(), height=400,
        brush=gr.Brush(colors=[INK], default_color=INK, color_mode="fixed", default_size=24), buttons=[],
        layers=gr.LayerOptions(allow_additional_layers=False), canvas_size=(512, 512),
    )  # fmt: skip


def pictures(label: str) -> PictureFiles:
    """Where several pictures are dropped."""
    return PictureFiles(
        label=label, sources=["upload", "clipboard"], type="filepath", file_types=["image"], columns=3, height=240,
        object_fit="contain", interactive=True, buttons=[],
    )  # fmt: skip
