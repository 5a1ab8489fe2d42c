"""Rows of `trained_links` for Hallo and EMO: a step of a clip; for Hallo also what stands before a clip, with a step.

Letters: f frames, n motion frames, (h, w) latents, (H, W) pixels, c channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import measuring
import published_emo
import published_hallo
import torch
from diffusers import DDIMScheduler
from rows_films import NARROW, NOTHING, canvas_of
from steps import TIMESTEP, Paths, Place, Standing, product_flops, projection_flops, written
from torch import Tensor

from referencenet.checkpoints.emo import PUBLISHED as EMO_FILES
from referencenet.checkpoints.hallo import PUBLISHED as HALLO_FILES
from referencenet.methods.emo import EMOPipeline
from referencenet.methods.hallo import MOTION_FRAMES, HalloPipeline
from referencenet.networks.audio_attention import Heard, Held
from referencenet.networks.audio_unet import AudioUNet, Motion
from referencenet.networks.layout import SD15_UNET, film_config
from referencenet.networks.portrait_layers import with_positions
from referencenet.networks.portrait_unet import PortraitUNet
from referencenet.pipelines.prediction import Call
from referencenet.pipelines.spec import Shown
from referencenet.pipelines.talking import FACE, LOCATED, MASKS, NO_FACE, contexts_of, level_sizes, of_frames


def hallo(place: Place, *, whole: bool = False) -> Paths:
    """Hallo: a guided step of a clip of 6 frames of 256 x 256 (16 of 512 x 512) behind a film's first clip.

    Args:
        place: Where.
        whole: With what is done once for a clip: its motion frames are written, and in the published way the portrait
            as well; its face is located.
    """
    config, side, frames, heads = (SD15_UNET, 64, 16, 8) if place.full else (NARROW, 32, 6, 2)

    def network(name: str, module: torch.nn.Module) -> Any:
        return place.network("hallo", name, module)

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("hallo", name, *shape)

    width = config["cross_attention_dim"]
    settings = film_config(config, motion_heads=heads)
    ours, unet = (network("unet", AudioUNet(audio_cross_attention_dim=width, **settings)) for _ in range(2))
    reference_unet = network("reference_unet", HALLO_FILES.build["reference_unet"](config))
    locator = network("face_locator", HALLO_FILES.build["face_locator"](config))
    pipe = HalloPipeline(NOTHING, reference_unet, ours, locator, NOTHING, NOTHING, DDIMScheduler())
    portrait, moved = draw("portrait", 1, 4, side, side), draw("motion", 1, MOTION_FRAMES, 4, side, side)
    faces, audio = draw("faces", 2, 4, width), draw("audio", frames, 32, width)
    latents = draw("latents", 1, 4, frames, side, side)
    box = draw("box", 1, 3, 8 * side, 8 * side).gt(0).to(place.dtype)
    sizes = [h * w for h, w in level_sizes((side, side), len(config["block_out_channels"]))]
    masks = draw("masks", 3, sum(sizes)).sigmoid()
    by_pass = contexts_of(MOTION_FRAMES, guided=True, tiled=True)
    with torch.no_grad():
        kept = {FACE: faces[1:], NO_FACE: faces[:1], LOCATED: locator(box), MASKS: masks}
        bank = pipe.bank_of(Shown(latents=portrait, context=faces[1:], kept=kept), 0)

    def motion() -> list[Mapping[str, Tensor]]:
        written = pipe._written  # pyright: ignore[reportPrivateUsage]
        return of_frames(written, moved, list(faces.split(1)), [contexts[1:] for contexts in by_pass])

    def standing(before: list[Mapping[str, Tensor]]) -> Standing:
        given = {"audio": (audio, (1.0, 1.0, 1.0)), "motion": (before[1], before[0])}
        return Standing(pipe, Call(canvas=canvas_of(latents), given=given, guidance=pipe.spec.guidance, bank=bank))

    @torch.no_grad()
    def clip() -> Tensor:
        begun = standing(motion())
        with begun.stack:
            return begun.begun(latents, TIMESTEP)

    with torch.no_grad():
        before = motion()
        images = torch.cat([portrait, moved[0]])
        published_bank = published_hallo.write(reference_unet, images, faces)
        located = published_hallo.locate(locator, box, frames)
    by_level = {count: mask.unsqueeze(1) for count, mask in zip(sizes, masks.split(sizes, dim=1), strict=True)}
    told = {"latents": latents, "timestep": TIMESTEP, "faces": faces, "audio": audio, "masks": by_level}

    def published_clip() -> Tensor:
        again = published_hallo.write(reference_unet, images, faces)
        return published_hallo.step(unet, again, published_hallo.locate(locator, box, frames), told, pipe.spec.scale)

    def ideal() -> int:
        step = hallo_step_flops(unet, told, by_pass=before, portraits=list(bank.hidden.values()), whole=whole)
        if not whole:
            return step
        return step + written(reference_unet, moved[0].repeat(2, 1, 1, 1), 0, faces.repeat(MOTION_FRAMES, 1, 1))

    if whole:
        return Paths(published=published_clip, ours=clip, ideal_flops=ideal)
    later = standing(before)
    later.step(latents, TIMESTEP)
    return Paths(
        published=lambda: published_hallo.step(unet, published_bank, located, told, pipe.spec.scale),
        ours=lambda: later.step(latents, TIMESTEP),
        ideal_flops=ideal,
    )


def hallo_step_flops(
    unet: Any, told: Mapping[str, Any], *, by_pass: Motion, portraits: Sequence[Tensor], whole: bool
) -> int:
    """What no way can avoid: the denoiser, whose unconditional half hears nothing, and one half's reading.

    Of a whole clip also keys and values of face, audio and both portraits; its motion frames are written elsewhere.

    Args:
        unet: The denoiser.
        told: As `published_hallo.step` is told.
        by_pass: Features of the motion frames.
        portraits: Features of the portrait beside both contexts, (2, t, c) each.
        whole: Whether it is a whole clip's.
    """
    held = [Held(face) for face in told["faces"].split(1)]
    heard = Heard(tokens=[None, Held(told["audio"])], masks=told["masks"])
    rows, frames = told["latents"].repeat(2, 1, 1, 1, 1), told["latents"].shape[2]

    def plain() -> Any:
        return unet(rows, TIMESTEP, held, heard=heard, motion=by_pass, return_dict=False)

    first, later = measuring.flops(plain), measuring.flops(plain)  # the first makes keys and values of face and audio
    reading = sum(frames * product_flops(f[:1], f[:1]) for f in portraits)
    return first + reading + sum(map(projection_flops, portraits)) if whole else later + reading


def emo(place: Place) -> Paths:
    """EMO: a guided step of a clip of 6 frames of 256 x 256 (12 of 512 x 512) behind a film's first clip."""
    config, side, frames, before = (SD15_UNET, 64, 12, 4) if place.full else (NARROW, 32, 6, 2)

    def network(name: str, module: torch.nn.Module) -> Any:
        return place.network("emo", name, module)

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("emo", name, *shape)

    width = config["cross_attention_dim"]
    settings = film_config(config, motion_heads=8 if place.full else 2)
    ours, unet = (network("unet", PortraitUNet(width, width, **settings)) for _ in range(2))
    reference_unet = network("reference_unet", EMO_FILES.build["reference_unet"](config))
    locator = network("face_locator", EMO_FILES.build["face_locator"](config))
    pipe = EMOPipeline(
        NOTHING, reference_unet, ours, locator, NOTHING, NOTHING, DDIMScheduler(), motion_frames=before,
        clip_frames=frames,
    )  # fmt: skip
    latents, portrait = draw("latents", 1, 4, frames, side, side), draw("portrait", 1, 4, side, side)
    audio, speed = draw("audio", frames, 5, width), draw("speed", frames, width)
    with torch.no_grad():
        located = locator(draw("place", 1, 1, 8 * side, 8 * side).gt(0).to(place.dtype))
        shown = Shown(latents=portrait, context=portrait.new_zeros(1, 0, 0), kept={LOCATED: located})
        bank = pipe.bank_of(shown, 0)
        motion = reference_unet.feature_maps(draw("motion", 1, before, 4, side, side))
    given = {"audio": audio, "speed": speed, "motion": motion}
    call = Call(canvas=canvas_of(latents), given=given, guidance=pipe.spec.guidance, bank=bank)
    standing = Standing(pipe, call)
    standing.step(latents, TIMESTEP)
    placed = with_positions(speed.unsqueeze(0), before)
    told = {
        "latents": latents, "timestep": TIMESTEP, "place": located, "audio": audio, "speed": placed, "motion": motion,
    }  # fmt: skip

    def ideal() -> int:
        """The denoiser without a reference, whose unconditional half hears nothing, and what the other half reads."""
        rows = (latents + located.unsqueeze(2)).repeat(2, 1, 1, 1, 1)
        sound, held = [None, Held(audio)], Held(placed)

        def plain() -> Any:
            return unet(rows, TIMESTEP, audio=sound, motion=[motion] * 2, speed=held, return_dict=False)

        plain()  # keys and values of sound and speed are there
        queries = sum(projection_flops(feature) for feature in bank.hidden.values())  # and the layers behind
        return measuring.flops(plain) + frames * (queries + sum(product_flops(f, f) for f in bank.hidden.values()))

    return Paths(
        published=lambda: published_emo.step(unet, bank.hidden, told, pipe.spec.scale),
        ours=lambda: standing.step(latents, TIMESTEP),
        ideal_flops=ideal,
    )
