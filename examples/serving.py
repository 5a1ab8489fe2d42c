"""Pictures of a person over HTTP: a pool of pipelines on the same weights, lent to one request at a time.

    uvicorn --app-dir examples serving:app
    curl --data-binary @hero.png -H "Content-Type: image/png" -o drawn.png \
        "http://127.0.0.1:8000/draw?prompt=full+body,+waving&seed=3"

FastAPI runs a plain function in one of its threads; the pool says how many of them draw at the same moment. Needs
`pip install fastapi uvicorn`.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from fastapi import Body, FastAPI, HTTPException, Response
from PIL import Image

from referencenet import reference, replica
from referencenet.builtin import load
from referencenet.media import read_image

FORMATS = ("PNG", "JPEG", "WEBP")
"""That a request's picture may have."""


class Pool:
    """Pipelines that share weights, for as many threads as there are of them."""

    def __init__(self, pipe: Any, size: int) -> None:
        self.free: queue.Queue[Any] = queue.Queue()
        for worker in [pipe, *(replica(pipe) for _ in range(size - 1))]:
            self.free.put(worker)

    @contextmanager
    def lend(self, patience: float) -> Generator[Any]:
        """A pipeline that nobody else has; `queue.Empty` if none is free within so many seconds."""
        worker = self.free.get(timeout=patience)
        try:
            yield worker
        finally:
            self.free.put(worker)


def make_app(pipe: Any, *, workers: int = 2, patience: float = 60.0, **settings: Any) -> FastAPI:
    """An application that draws the person of the picture in a request's body.

    Args:
        pipe: A pipeline where it shall compute; its replicas share the weights.
        workers: How many requests draw at once.
        patience: Seconds that a request waits for a pipeline before it is told to come again.
        settings: Further arguments of every call.
    """
    pipe.set_progress_bar_config(disable=True)
    pool, app = Pool(pipe, workers), FastAPI()

    @app.post("/draw", response_class=Response)
    def draw(prompt: str, picture: Annotated[bytes, Body(media_type="image/png")], seed: int = 0) -> Response:
        try:
            with Image.open(io.BytesIO(picture), formats=FORMATS) as sent:
                hero = read_image(sent)
        except Exception as error:  # whatever the parser of foreign data raises
            raise HTTPException(422, f"this is no picture that can be read ({error})") from error
        try:
            with pool.lend(patience) as worker, reference(worker, hero):
                image = worker(prompt, generator=torch.Generator().manual_seed(seed), **settings).images[0]
        except queue.Empty as error:
            raise HTTPException(503, "all pipelines are at work; come again.", {"Retry-After": "5"}) from error
        file = io.BytesIO()
        image.save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png")

    return app


def __getattr__(name: str) -> Any:
    """`serving:app` for uvicorn, with the built-in model."""
    if name != "app":
        raise AttributeError(name)
    return make_app(load("base"), num_inference_steps=20, guidance_scale=3.0)
