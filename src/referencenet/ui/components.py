"""Gradio's components as this page uses them: a file comes as a path, and is opened later, within the page's limits.

Their `preprocess` is replaced on the object: gradio's own opens every picture first, whatever it is.
"""

from __future__ import annotations

from functools import partial
from tempfile import NamedTemporaryFile
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from referencenet.ui.given import INK


def picture(label: str) -> Any:
    """Where a picture is dropped; gives its path."""
    made: Any = gr.Image(label=label, sources=["upload", "clipboard"], type="filepath", height=240, buttons=[])
    made.preprocess = lambda payload: None if payload is None else payload.path
    return made


def painted(label: str) -> Any:
    """Where a picture is dropped and painted on, with one brush on one layer; gives their paths."""
    made: Any = gr.ImageEditor(
        label=label, type="filepath", format="png", sources=["upload", "clipboard"], transforms=(), height=400,
        brush=gr.Brush(colors=[INK], default_color=INK, color_mode="fixed", default_size=24), buttons=[],
        layers=gr.LayerOptions(allow_additional_layers=False), canvas_size=(512, 512),
    )  # fmt: skip
    made.preprocess = partial(_paths, made)
    return made


def pictures(label: str) -> Any:
    """Where several pictures are dropped; gives their paths."""
    made: Any = gr.Gallery(
        label=label, sources=["upload", "clipboard"], type="filepath", file_types=["image"], columns=3, height=240,
        object_fit="contain", interactive=True, buttons=[], elem_classes="given",
    )  # fmt: skip
    made.preprocess = lambda payload: [item.image.path for item in payload.root] if payload is not None else None
    return made


def _paths(editor: Any, payload: Any) -> dict[str, Any] | None:
    """Paths of a picture and of what is painted on it; what the browser sent without a file is written to one."""
    if payload is None:
        return None
    kept = payload if payload.id is None else editor.blob_storage.pop(payload.id, None)
    if kept is None:
        return None
    layers = [_path(editor, layer) for layer in kept.layers or [] if layer is not None]
    return {"background": _path(editor, kept.background), "layers": layers}


def _path(editor: Any, part: Any) -> str | None:
    if part is None or isinstance(part, FileData):
        return None if part is None else part.path
    with NamedTemporaryFile(delete=False, dir=editor.GRADIO_CACHE, suffix=".png") as file:
        file.write(part)
    return file.name
