"""Trained systems: one denoising step the published way against ours, on the same weights and inputs, in one run.

    python benchmarks/trained_links.py [--system SYSTEM ...] [--json FILE] [--clock process]
    python benchmarks/trained_links.py --device cuda --dtype bfloat16
    python benchmarks/trained_links.py --count

The published way is our own plain writing of it (`published_SYSTEM.py`), ours the pipelines' own methods. Reported per
system: `time_ratio`, `memory_ratio` and `flop_ratio`, ours over published; `flops_over_ideal`, ours over what is
unavoidable: each reference row and token once, nothing computed and thrown away; `max_difference`,
||ours - published|| / ||published||. Widths are reduced to a fifth and latents to about a fifth of their tokens, so
that a step fits a CPU and attention keeps its share; weights are random, by the golden rule. `--count` only counts, of
the published widths and sizes: shapes go through the networks, no number is computed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import published_animate_anyone
import published_flashface
import published_idm_vton
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from published_parts import ended, features, hooked, stop
from rich.console import Console
from rich.table import Table
from rows_films import aniportrait, diffportrait3d, magic_animate, magicpose
from rows_pictures import catvton, parts2whole, stable_garment
from rows_talking import emo, hallo
from steps import TIMESTEP, Paths, Place, product_flops, projection_flops, written
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from referencenet.checkpoints.flashface import build_denoiser, unet_config
from referencenet.checkpoints.idm_vton import SDXL_UNET
from referencenet.methods import flashface as flashface_method
from referencenet.methods.animate_anyone import PUBLISHED as ANIMATE_ANYONE_FILES
from referencenet.methods.animate_anyone import AnimateAnyonePipeline
from referencenet.methods.idm_vton import IDMVTONPipeline
from referencenet.networks.image_prompt import ImagePromptUNet, with_image_prompt
from referencenet.networks.layout import SD15_UNET
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.portraits import PORTRAIT_SCHEDULE
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas, Shown

GUIDANCE = 3.5  # Animate Anyone's
KEYS = ("time_ratio", "memory_ratio", "flop_ratio", "flops_over_ideal", "max_difference")
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


# --- IDM-VTON ---------------------------------------------------------------------------------------------------------

IDM_VTON: Mapping[str, Any] = SDXL_UNET | {
    "block_out_channels": (64, 128, 256),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 256,
    "norm_num_groups": 16,
}
"""SDXL's UNet at a fifth of its width; heads keep their 64 channels."""


def idm_vton(place: Place) -> Paths:
    """IDM-VTON: SDXL, written at every step, zeros in the unconditional half; a picture of 512 x 384 (1024 x 768)."""
    config, latents = (SDXL_UNET, (128, 96)) if place.full else (IDM_VTON, (64, 48))
    added_width, time_width = (1280, 256) if place.full else (64, 8)
    unet = ImagePromptUNet(
        **config | {"in_channels": 13},
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=added_width + 6 * time_width,
    )
    unet = place.network("idm_vton", "unet", unet)
    garment_unet = place.network("idm_vton", "garment_unet", UNet2DConditionModel(**config))

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("idm_vton", name, *shape)

    width = config["cross_attention_dim"]
    sample, text, picture = draw("sample", 1, 13, *latents), draw("text", 2, 77, width), draw("picture", 2, 16, width)
    sizes = torch.tensor([[512.0, 384, 0, 0, 512, 384]] * 2).to(place.device, place.dtype)
    added = {"text_embeds": draw("pooled", 2, added_width), "time_ids": sizes}
    given = {
        "timestep": TIMESTEP,
        "garment": draw("garment", 1, 4, *latents),
        "garment_context": draw("garment_context", 1, 77, width),
        "sample": sample.repeat(2, 1, 1, 1),
        "context": with_image_prompt(text, picture),
        "added": added,
    }
    pipe = idm_vton_pipeline(garment_unet, unet)
    halves = [{name: value[i : i + 1] for name, value in added.items()} for i in (1, 0)]
    call = Call(
        canvas=Canvas(width=8 * latents[1], height=8 * latents[0]),
        given={
            "prompt": (text[1:], text[:1]),
            "image": (picture[1:], picture[:1]),
            "added": tuple(halves),
            "space": sample[:, 4:],
        },
        guidance=pipe.spec.guidance,
        shown=Shown(latents=given["garment"], context=given["garment_context"]),
    )

    def plain() -> Tensor:
        return unet(given["sample"], TIMESTEP, given["context"], added_cond_kwargs=given["added"], return_dict=False)[0]

    def ours() -> Tensor:
        with torch.no_grad(), predicting(pipe, call) as prediction:
            return prediction.begin(sample[:, :4], TIMESTEP)(None)

    def published() -> Tensor:
        unconditional, conditional = published_idm_vton.step(unet, garment_unet, given).chunk(2)
        return unconditional + pipe.spec.scale * (conditional - unconditional)

    def ideal() -> int:
        """TryonNet plainly, GarmentNet up to its last norm1, and at each site one garment row read by one row."""
        write = written(garment_unet, given["garment"], TIMESTEP, given["garment_context"])
        read = published_idm_vton.write(garment_unet, given["garment"], TIMESTEP, given["garment_context"])
        return measuring.flops(plain) + write + sum(projection_flops(f) + product_flops(f, f) for f in read)

    return Paths(published=published, ours=ours, ideal_flops=ideal)


def idm_vton_pipeline(reference_unet: Any, unet: Any) -> IDMVTONPipeline:
    """The pipeline without what reads and makes pictures."""
    nothing: Any = None
    return IDMVTONPipeline(
        vae=nothing, text_encoder=nothing, text_encoder_2=nothing, tokenizer=nothing, tokenizer_2=nothing, unet=unet,
        image_projection=nothing, scheduler=nothing, reference_unet=reference_unet,
    )  # fmt: skip


# --- Animate Anyone ---------------------------------------------------------------------------------------------------

ANIMATE_ANYONE: Mapping[str, Any] = SD15_UNET | {
    "block_out_channels": (64, 128, 256, 256),
    "cross_attention_dim": 160,
    "attention_head_dim": 2,
}
"""Stable Diffusion 1.5's UNet at a fifth of its width; two heads of 32 to 128 channels for eight of 40 to 160."""


def animate_anyone(place: Place) -> Paths:
    """Animate Anyone: a guided step of a window of 8 frames of 320 x 256 (24 of 784 x 512).

    The reference has been written before, both ways: that happens once per film, and `films.py` measures it.
    """
    config, latents, frames = (SD15_UNET, (98, 64), 24) if place.full else (ANIMATE_ANYONE, (40, 32), 8)
    reference_unet = place.network(
        "animate_anyone", "reference_unet", ANIMATE_ANYONE_FILES.build["reference_unet"](config)
    )
    unet = place.network("animate_anyone", "unet", ANIMATE_ANYONE_FILES.build["unet"](config))

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("animate_anyone", name, *shape)

    reference, token = draw("reference", 1, 4, *latents), draw("token", 1, 1, config["cross_attention_dim"])
    noisy = draw("latents", 1, 4, frames, *latents)
    pose = draw("pose", 1, config["block_out_channels"][0], frames, *latents)
    timestep = torch.tensor(TIMESTEP, device=place.device)
    pipe = animate_anyone_pipeline(reference_unet, unet, Drawn(pose))
    with torch.no_grad():
        bank = pipe.bank_of(Shown(latents=reference, context=token, kept={IMAGE_TOKEN: token}), 0)
    canvas = Canvas(width=8 * latents[1], height=8 * latents[0], frames=frames)
    published_bank = published_animate_anyone.write(reference_unet, reference, token)

    def ours() -> Tensor:
        given = {"poses": lambda start, stop: [pose[0].transpose(0, 1)[start:stop]]}
        call = Call(canvas=canvas, given=given, guidance=pipe.spec.guidance, bank=bank)
        with torch.no_grad(), predicting(pipe, call) as prediction:
            prediction.admit(0, frames)
            return prediction.begin(noisy, timestep)(range(frames))

    def published() -> Tensor:
        halves = published_animate_anyone.predict(unet, published_bank, noisy, timestep, token, pose)
        return published_animate_anyone.guided(halves, GUIDANCE)

    def ideal() -> int:
        """The denoiser plainly, keys and values of one reference row, and their products with one half's frames."""
        rows, contexts, poses = noisy.repeat(2, 1, 1, 1, 1), token.repeat(2, 1, 1), pose.repeat(2, 1, 1, 1, 1)
        count = measuring.flops(lambda: unet(rows, timestep, contexts, condition=poses, return_dict=False))
        for feature in published_bank:
            count += projection_flops(feature[:1]) + frames * product_flops(feature, feature)
        return count

    return Paths(published=published, ours=ours, ideal_flops=ideal)


class Drawn(nn.Module):
    """Stands for a guider that has run: its pictures are features (f, width, h, w), which it gives as they are."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.device, self.dtype = like.device, like.dtype

    def forward(self, features: Tensor) -> Tensor:
        """(f, width, h, w) to the same."""
        return features


def animate_anyone_pipeline(reference_unet: Any, unet: Any, pose_guider: Any = None) -> AnimateAnyonePipeline:
    """The pipeline without what reads and makes pictures."""
    nothing: Any = None
    pipe = AnimateAnyonePipeline(
        vae=nothing,
        image_encoder=None,
        image_processor=None,
        reference_unet=reference_unet,
        unet=unet,
        pose_guider=pose_guider,
        scheduler=DDIMScheduler(**PORTRAIT_SCHEDULE),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- FlashFace --------------------------------------------------------------------------------------------------------


def flashface(place: Place) -> Paths:
    """FlashFace: written at every step, four faces, three branches; a picture of 320 x 320 (768 x 768)."""
    if place.full:
        config, side, face = unet_config(dim=320, dim_mult=(1, 2, 4, 4), context_dim=768), 96, 28
    else:
        config, side, face = unet_config(dim=64, dim_mult=(1, 2, 4, 4), context_dim=160, num_heads=2), 40, 12
    unet = place.network("flashface", "unet", build_denoiser({"unet": config}))
    reference_unet = place.network("flashface", "reference_unet", UNet2DConditionModel(**config))
    nothing: Any = None
    pipe = flashface_method.FlashFacePipeline(
        vae=nothing, text_encoder=nothing, tokenizer=nothing, unet=unet, reference_unet=reference_unet,
        scheduler=nothing,
    )  # fmt: skip
    width, faces = config["cross_attention_dim"], flashface_method.TRAINED_FACES

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("flashface", name, *shape)

    given: dict[str, Any] = {
        "timestep": TIMESTEP,
        "faces": draw("faces", faces, 4, face, face),
        "latents": draw("latents", 1, 4, side, side),
        "mask": draw("mask", side, side).gt(1).to(place.dtype),
        "prompt": draw("prompt", 1, 77, width),
        "negative": draw("negative", 1, 77, width),
    }
    shown = Shown(latents=given["faces"], context=given["negative"].expand(faces, -1, -1))  # each face counts once
    canvas = Canvas(width=8 * side, height=8 * side)
    told = {"prompt": (given["prompt"], given["negative"]), "place": given["mask"].expand(1, 1, -1, -1)}
    call = Call(canvas=canvas, given=told, guidance=pipe.spec.guidance, shown=shown)

    def ours() -> Tensor:
        with torch.no_grad(), predicting(pipe, call) as prediction:
            return prediction.begin(given["latents"], TIMESTEP)(None)

    def ideal() -> int:
        """Encoder for two texts, the rest for three branches; all faces up to the last norm1, read by one branch."""
        sample = torch.cat([given["latents"], given["mask"].expand(1, 1, -1, -1)], dim=1)

        def plain() -> Any:
            return unet(sample, TIMESTEP, encoder_hidden_states=given["prompt"], return_dict=False)

        whole = measuring.flops(plain)
        with hooked(unet.mid_block.register_forward_pre_hook(stop)):
            encoder = measuring.flops(lambda: ended(plain))
        count = 2 * encoder + 3 * (whole - encoder)
        count += written(reference_unet, given["faces"], TIMESTEP, given["negative"].expand(faces, -1, -1))
        read = published_flashface.write(reference_unet, given["faces"], TIMESTEP, given["negative"])
        for own, feature in zip(features(plain, published_flashface.linked(unet)), read, strict=True):
            count += projection_flops(feature) + product_flops(own, feature)
        return count

    return Paths(
        published=lambda: published_flashface.step(unet, reference_unet, given, pipe.spec), ours=ours, ideal_flops=ideal
    )


# --- counting and measuring -------------------------------------------------------------------------------------------

SYSTEMS: Mapping[str, Callable[[Place], Paths]] = {
    "animate_anyone": animate_anyone,
    "idm_vton": idm_vton,
    "flashface": flashface,
    "aniportrait": aniportrait,
    "magicpose": magicpose,
    "magic_animate": magic_animate,
    "parts2whole_1": partial(parts2whole, parts=1),
    "parts2whole_3": partial(parts2whole, parts=3),
    "parts2whole_6": partial(parts2whole, parts=6),
    "stable_garment": stable_garment,
    "hallo": hallo,
    "hallo_clip": partial(hallo, whole=True),
    "emo": emo,
    "diffportrait3d": diffportrait3d,
    "catvton": catvton,
}


@torch.no_grad()
def count(system: str) -> dict[str, Any]:
    """FLOPs at the published size; nothing is computed."""
    with FakeTensorMode():
        return counts(SYSTEMS[system](Place(torch.device("cpu"), torch.float32, full=True)))[0]


def counts(paths: Paths) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """FLOPs of both ways and the ideal with their ratios, and both ways' results."""
    (ours, our_result), (theirs, their_result) = measuring.counted(paths.ours), measuring.counted(paths.published)
    ideal = paths.ideal_flops()
    found = {
        "flop_ratio": ours / theirs,
        "flops_over_ideal": ours / ideal,
        "details": {"flops": {"ours": ours, "published": theirs, "ideal": ideal}},
    }
    return found, {"ours": our_result, "published": their_result}


@torch.no_grad()
def measure(
    paths: Paths, device: torch.device, *, warm_up: int, repeats: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Everything that is reported of a system."""
    actions = {"ours": paths.ours, "published": paths.published}
    result, results = counts(paths)
    ours, theirs = (results[name].double() for name in actions)
    memory = {name: measuring.peak_bytes(action, device) for name, action in actions.items()}
    seconds = measuring.interleaved_seconds(actions, warm_up=warm_up, repeats=repeats, device=device, clock=clock)
    return {
        **result,
        "time_ratio": measuring.median_ratio(seconds["ours"], seconds["published"]),
        "memory_ratio": memory["ours"] / memory["published"],
        "max_difference": float((ours - theirs).norm() / theirs.norm()),
        "details": {**result["details"], "seconds": seconds, "peak_bytes": memory},
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """What was found, a row per system."""
    shown = Table("system", *KEYS)
    for name, result in results.items():
        cells = [
            "" if key not in result else f"{result[key]:.3g}" if key == "max_difference" else f"{result[key]:.3f}"
            for key in KEYS
        ]
        shown.add_row(name, *cells)
    return shown


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=SYSTEMS, nargs="+", help="only these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--count", action="store_true", help="only count FLOPs, at the published widths and sizes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the CPU time, on a busy machine")
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    place = Place(torch.device(options.device), getattr(torch, options.dtype))
    results: dict[str, dict[str, Any]] = {}
    for name in options.system or SYSTEMS:
        results[name] = count(name) if options.count else measure(
            SYSTEMS[name](place), place.device, warm_up=options.warm_up, repeats=options.repeats,
            clock=CLOCKS[options.clock],
        )  # fmt: skip
    Console().print(table(results))
    if options.json is not None:
        document = measuring.circumstances(place.device) | {
            key: getattr(options, key) for key in ("count", "dtype", "clock", "warm_up", "repeats")
        }
        options.json.write_text(json.dumps({**document, "systems": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
