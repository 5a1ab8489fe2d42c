"""Would preparing the next clip of a talking portrait while one is denoised be faster? Operations, and time.

    python benchmarks/talk_ahead.py [--rounds 9] [--json FILE]

What can be prepared is the sound: the portrait's masks are made once a film. `operations`: those of the speech model
for a clip of Hallo over those of its 40 denoising steps, at published sizes, by shapes only: the most that could be
hidden. `ahead_ratio`: wall time of a film whose next clip's features are made by a thread meanwhile, over that of one
that makes them when it needs them, on a small network whose speech model has a thousand times that share; median and
range over rounds that take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import Wav2Vec2Config, Wav2Vec2Model

from referencenet.checkpoints.hallo import PUBLISHED, build_audio_projection, build_denoiser
from referencenet.methods.tiny import filled, tiny_pipeline
from referencenet.networks.audio_attention import Heard, Held
from referencenet.networks.layout import SD15_UNET
from referencenet.preprocess import FaceRegions, Portrait, SpeechFeatures, speech

CLIP, STEPS, RATE = 16, 40, 25
SECONDS = CLIP / RATE


def operations() -> dict[str, float]:
    """Floating-point operations of a clip at published sizes: what it hears, and how it is denoised."""
    with torch.device("meta"), torch.no_grad():
        unet = build_denoiser(SD15_UNET).eval()
        speech_model = Wav2Vec2Model(Wav2Vec2Config()).eval()
        face = [Held(torch.empty(1, 4, 768)) for _ in range(2)]
        masks = {(64 >> level) ** 2: torch.empty(3, 1, (64 >> level) ** 2) for level in range(4)}
        heard = Heard(tokens=[None, Held(torch.empty(CLIP, 32, 768))], masks=masks, weights=(1.0, 1.0, 1.0))
        with FlopCounterMode(display=False) as denoising:
            unet(torch.empty(2, 4, CLIP, 64, 64), torch.empty(1), face, heard=heard)
        with FlopCounterMode(display=False) as hearing:
            speech_model(torch.empty(1, round(SECONDS * speech.SAMPLE_RATE)))
    found = {"clip": float(denoising.get_total_flops() * STEPS), "speech": float(hearing.get_total_flops())}
    return found | {"share": found["speech"] / found["clip"]}


class Ahead:
    """Features whose next frames are made by a thread while those before are used."""

    def __init__(self, features: SpeechFeatures, worker: ThreadPoolExecutor) -> None:
        self.features, self.worker = features, worker
        self.num_frames, self.num_sounding = features.num_frames, features.num_sounding
        self.coming: tuple[range, Future[Tensor]] | None = None

    def of(self, frames: Sequence[int]) -> Tensor:
        """(frames, layers, channels); those of the next clip are begun."""
        wanted = range(frames[0], frames[-1] + 1)
        if self.coming is not None and self.coming[0] == wanted:
            found = self.coming[1].result()
        else:
            found = self.features.of(wanted)[:, 1:]
        following = range(min(wanted.stop - 4, self.num_frames - 1), min(wanted.stop + CLIP, self.num_frames))
        self.coming = following, self.worker.submit(lambda: self.features.of(following)[:, 1:])
        return found


def film_seconds(pipe: Any, portrait: Portrait, model: Wav2Vec2Model, samples: np.ndarray, ahead: bool) -> float:
    """Wall time of a film."""
    features = SpeechFeatures(model, samples, multiple=CLIP)
    options = {"width": 64, "height": 64, "num_inference_steps": 4}
    start = time.perf_counter()
    with ThreadPoolExecutor(1) as worker, torch.no_grad():
        settings = pipe.settle({"generator": torch.Generator().manual_seed(0), "output_type": "pt", **options})
        given = pipe._given(features, (1.0, 1.0, 1.0))
        heard: Any = Ahead(features, worker) if ahead else given["audio"][0]
        for _ in pipe.clip_stream(portrait, {"audio": (heard, (1.0, 1.0, 1.0))}, heard, settings):
            pass
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, Any]:
    """Films in turns, with and without a thread that prepares."""
    speech.WHOLE, speech.PIECE, speech.CONTEXT = 0, SECONDS, SECONDS / 2  # a piece a clip
    config = Wav2Vec2Config(hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192,
                            conv_dim=(64,) * 7, num_conv_pos_embedding_groups=4)  # fmt: skip
    model = filled(Wav2Vec2Model(config), 0)
    projection = build_audio_projection(PUBLISHED.tiny_config)
    own = {**projection.config, "layers": 2, "channels": 96}
    own = {
        name: own[name] for name in ("window", "layers", "channels", "hidden_dim", "cross_attention_dim", "num_tokens")
    }
    pipe = tiny_pipeline("hallo")
    pipe = type(pipe)(**pipe.components | {"audio_projection": filled(type(projection)(**own), 1)})
    pipe.set_progress_bar_config(disable=True)
    regions = FaceRegions.of_boxes((8, 56, 8, 56), (24, 40, 40, 50), (64, 64))
    portrait = Portrait(picture=np.full((64, 64, 3), 0.5), regions=regions)
    samples = np.random.default_rng(0).normal(size=round(6 * SECONDS * speech.SAMPLE_RATE)).astype(np.float32) * 0.1
    seconds: dict[bool, list[float]] = {True: [], False: []}
    film_seconds(pipe, portrait, model, samples, ahead=False)
    for number in range(rounds):
        for ahead in (True, False) if number % 2 else (False, True):
            seconds[ahead].append(film_seconds(pipe, portrait, model, samples, ahead))
    start = time.perf_counter()
    for _ in SpeechFeatures(model, samples, multiple=CLIP):
        pass
    hearing = time.perf_counter() - start
    ratios = [one / other for one, other in zip(seconds[True], seconds[False], strict=True)]
    return {
        "ahead_ratio": statistics.median(ratios),
        "ahead_range": [min(ratios), max(ratios)],
        "speech_share": hearing / statistics.median(seconds[False]),
        "film_seconds": statistics.median(seconds[False]),
        "rounds": rounds,
    }


def main() -> None:
    """Print both, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measuring.circumstances(torch.device("cpu")) | {"operations": operations()} | measure(options.rounds)
    print(json.dumps(found, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
