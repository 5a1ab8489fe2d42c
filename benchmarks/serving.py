"""Load on examples/serving.py: clients that all ask at once, by the number of pipelines in the pool.

Requests go through FastAPI in one process (httpx's ASGI transport, no sockets); the built-in model draws. Answers are
compared with those of a pool of one, to the bit. Where a machine has other work, its load average stands beside the
seconds, and processor seconds tell more.
"""

import argparse
import asyncio
import importlib.util
import io
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from measuring import circumstances
from PIL import Image

from referencenet import replica
from referencenet.builtin import load

EXAMPLE = Path(__file__).parent.parent / "examples" / "serving.py"
SETTINGS = {"num_inference_steps": 5, "guidance_scale": 3.0}


def example() -> Any:
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("serving", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def request(i: int) -> dict[str, Any]:
    """What client i asks for."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (40 + 10 * i % 200, 90, 200 - 9 * i % 200)).save(file, "PNG")
    headers = {"Content-Type": "image/png"}
    return {"params": {"prompt": "full body, waving", "seed": i}, "content": file.getvalue(), "headers": headers}


async def asked(app: Any, count: int) -> list[tuple[bytes, float]]:
    """Every client's picture, and how long it waited in seconds; all ask at once."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://serving", timeout=600) as client:

        async def ask(i: int) -> tuple[bytes, float]:
            start = time.perf_counter()
            answer = await client.post("/draw", **request(i))
            answer.raise_for_status()
            return answer.content, time.perf_counter() - start

        return await asyncio.gather(*(ask(i) for i in range(count)))


def main() -> None:
    """Measure, and write a table of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads of one picture would compete with those of another
    serving, process = example(), psutil.Process()
    pipe: Any = load("base")
    weights = sum(p.nbytes for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters())
    asyncio.run(asked(serving.make_app(pipe, workers=1, patience=600, **SETTINGS), 1))  # warm-up
    before = process.memory_info().rss
    kept = [replica(pipe) for _ in range(10)]
    per_replica = (process.memory_info().rss - before) / len(kept)
    del kept
    rows: list[dict[str, Any]] = []
    alone: list[bytes] | None = None
    for workers in given.workers:
        app = serving.make_app(pipe, workers=workers, patience=600, **SETTINGS)
        start, worked = time.perf_counter(), time.process_time()
        answers = asyncio.run(asked(app, given.clients))
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        pictures = [content for content, _ in answers]
        alone = alone or pictures
        rows.append({
            "workers": workers,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(worked, 2),
            "load_average": round(os.getloadavg()[0], 1),
            "median_wait": round(statistics.median(wait for _, wait in answers), 2),
            "longest_wait": round(max(wait for _, wait in answers), 2),
            "equal_to_one_worker": pictures == alone,
        })  # fmt: skip
        print(rows[-1])
    results = {
        **circumstances(torch.device("cpu")), "clients": given.clients, **SETTINGS,
        "weight_bytes": weights, "bytes_per_replica": round(per_replica), "rows": rows,
    }  # fmt: skip
    print(json.dumps(results, indent=1))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
