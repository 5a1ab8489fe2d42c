"""Gradio's components as this page uses them: files come as they are, and are read within the page's limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

INK = "#e11d8f"
"""Colour of what is painted on a picture."""

class Picture(gr.Image):
    """A picture whose file is not opened before it is read within limits."""

    is_template = True

    def __init__(self, label: str, **options: Any) -> None:
        options = {"sources": ["upload", "clipboard"], "type": "filepath", "height": 240, "buttons": []} | options
        super().__init__(label=label, **options)

    def preprocess(self, payload: Any) -> str | None:
        """The path of the file."""
        return None if payload is None else payload.path
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Painted(gr.ImageEditor):
    """A picture on which a part can be painted over."""

    is_template = True

    def __init__(self, label: str, **options: Any) -> None:
        brush = gr.Brush(colors=[INK], default_color=INK, color_mode="fixed", default_size=18)
        super().__init__(
            label=label, type="filepath", format="png", sources=["upload", "clipboard"], layers=False, transforms=(),
            brush=brush, canvas_size=(512, 512), height=360, buttons=[], **options,
        )  # fmt: skip

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
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Pictures(gr.Gallery):
    """Several pictures, dropped together or one after the other."""

    is_template = True

    def __init__(self, label: str, **options: Any) -> None:
        options = {"columns": 3, "height": 240, "type": "filepath", "interactive": True, "buttons": []} | options
        super().__init__(label=label, file_types=["image"], sources=["upload", "clipboard"], **options)

    def preprocess(self, payload: Any) -> list[str] | None:
        """Their paths."""
        if payload is None or not payload.root:
            return None
        return [item.image.path for item in payload.root]
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

def painted_value(background: Path, layers: list[Path] | None = None) -> Mapping[str, Any]:
    """What a `Painted` shows of a picture, and of masks that are painted on it."""
    shown = [str(layer) for layer in layers or []]
    return {"background": str(background), "layers": shown, "composite": str(background)}

class PictureFile(gr.Image):
    """A picture whose file is not opened before it is read within limits."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        """The path of the file."""
        return None if payload is None else payload.path
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

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
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class PictureFiles(gr.Gallery):
    """Several pictures, dropped together or one after the other."""

    is_template = True

    def preprocess(self, payload: Any) -> list[str] | None:
        """Their paths."""
        if payload is None or not payload.root:
            return None
        return [item.image.path for item in payload.root]
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component
