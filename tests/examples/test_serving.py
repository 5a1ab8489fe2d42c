"""The service of examples/: twenty clients at once, each of whom gets its own picture."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from referencenet import reference
from scripts import example
from threads import in_thread
from tiny import picture, tiny

SETTINGS = {"num_inference_steps": 1, "guidance_scale": 3.0}

serving = example("serving")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def asked(app: Any, requests: list[dict[str, Any]]) -> list[httpx.Response]:
    """The answers to requests that are all sent at once."""

    async def all_at_once() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://serving", timeout=120) as client:
            return await asyncio.gather(*(client.post("/draw", **request) for request in requests))

    return asyncio.run(all_at_once())


def request(i: int) -> dict[str, Any]:
    headers = {"Content-Type": "image/png"}
    return {"params": {"prompt": f"a knight {i}", "seed": i}, "content": png(picture(i)), "headers": headers}


def test_twenty_clients_at_once_get_their_own_pictures():
    pipe = tiny("sd").pipe
    alone: list[bytes] = []
    for i in range(20):
        with reference(pipe, picture(i)):
            drawn = pipe(f"a knight {i}", generator=torch.Generator().manual_seed(i), **SETTINGS).images[0]
        alone.append(png(drawn))
    answers = asked(serving.make_app(pipe, workers=3, **SETTINGS), [request(i) for i in range(20)])
    assert [answer.status_code for answer in answers] == [200] * 20
    assert [answer.content for answer in answers] == alone
    assert len(set(alone)) == 20


def test_who_waits_too_long_or_sends_no_picture_is_told():
    app = serving.make_app(tiny("sd").pipe, workers=1, patience=0.01, **SETTINGS)
    wrong = request(0) | {"content": b"no picture"}
    assert [(answer.status_code, "cannot identify" in answer.text) for answer in asked(app, [wrong])] == [(422, True)]
    pool = serving.Pool(tiny("sd").pipe, 1)
    with pool.lend(1.0), pytest.raises(serving.queue.Empty):
        in_thread(lambda: pool.lend(0.01).__enter__()).result()
    codes = {answer.status_code for answer in asked(app, [request(i) for i in range(8)])}
    assert codes == {200, 503}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_picture_that_is_enormous_or_damaged_is_told_and_the_service_goes_on():
    app = serving.make_app(tiny("sd").pipe, workers=1, **SETTINGS)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"  # of another program's
    wrong = [request(0) | {"content": content} for content in (bomb, png(picture(0))[:300], drawing)]
    answers = asked(app, [*wrong, request(0)])
    assert [answer.status_code for answer in answers] == [422, 422, 422, 200]
    assert all("no picture that can be read" in answer.text for answer in answers[:3])
