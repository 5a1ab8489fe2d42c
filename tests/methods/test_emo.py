"""EMO, of which nothing was published: what must hold of it, the numbered invariants of its specification.

Those of whole calls, files and training are in `test_emo_films.py`, 17 to 19 in `networks/test_neighbourhood.py`.

Networks are narrow: widths (32, 64, 96, 96), 4 heads, 2 motion frames before 4, latents of 16 x 16. Letters: b samples,
f frames, n motion frames, t tokens, c channels, (h, w) latents.
"""

from __future__ import annotations

import copy
import functools
import re
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor

from referencenet import ReferenceBank
from referencenet.checkpoints.emo import (
    build_denoiser,
    build_locator,
    build_reference,
)
from referencenet.links.attach import attach, write
from referencenet.links.instead import Instead
from referencenet.links.rows import plan_rows
from referencenet.methods.emo import SPEC
from referencenet.methods.tiny import filled
from referencenet.networks.audio_attention import Held
from referencenet.networks.layout import SD15_UNET, picture_config
from referencenet.networks.motion import FrameGroupNorm
from referencenet.networks.neighbourhood import (
    NeighbourTokens,
    neighbours,
)
from referencenet.networks.portrait_layers import PortraitTold, TemporalLayer, with_positions
from referencenet.pipelines.emo_conditions import FacePlace
from referencenet.pipelines.spec import UNetCall
from referencenet.preprocess.face_boxes import boxes_place, face_place, widened
from referencenet.preprocess.portrait import Portrait
from systems import GIVEN, SQUARE
from tolerances import ROUNDING, relative_error

F, N, AUDIO = 4, 2, 24
CONFIG = dict(SD15_UNET) | {
    "block_out_channels": (32, 64, 96, 96), "attention_head_dim": 4, "norm_num_groups": 8, "sample_size": 16,
    "cross_attention_dim": AUDIO,
}  # fmt: skip
SITE = "down_blocks.0.attentions.0"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def shared() -> tuple[Any, Any]:
    """Denoiser and reference net of random numbers."""
    with torch.random.fork_rng(devices=[]):
        return filled(build_denoiser(CONFIG), 1), filled(build_reference(CONFIG), 2)


def networks() -> tuple[Any, Any]:
    return copy.deepcopy(shared())


def silence(module: Any, *layers: str) -> None:
    """Zero the layers whose names end so."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if any(re.search(rf"{layer}\.(weight|bias)$", name) for layer in layers):
                parameter.zero_()


def written(writer: Any, latents: Tensor, feature: str = "attn1_output") -> ReferenceBank:
    with torch.no_grad():
        link: Any = Instead(feature=feature)  # pyright: ignore[reportArgumentType]
        return write(writer, latents, timestep=0, encoder_hidden_states=None, links=[link])


def sound(seed: int = 0, frames: int = F) -> Held:
    return Held(noise(frames, 5, AUDIO, seed=seed))


def speed(seed: int = 0, frames: int = F) -> Held:
    return Held(with_positions(noise(1, frames, AUDIO, seed=seed), N))


@torch.no_grad()
def run(unet: Any, x: Tensor, bank: ReferenceBank | None, weights: list[float] | None = None, **told: Any) -> Tensor:
    with ExitStack() as stack:
        if bank is not None:
            link = stack.enter_context(attach(unet, [Instead()]))
            plan = plan_rows([row % bank.rows for row in range(len(x))], weights or [1.0] * len(x))
            stack.enter_context(link.reading(bank, plan=plan))
        return unet(x, 500, **told, return_dict=False)[0]


def everything(reference_net: Any, seed: int = 0) -> dict[str, Any]:
    with torch.no_grad():
        motion = reference_net.feature_maps(noise(1, N, 4, 16, 16, seed=seed + 50))
    return {"audio": [sound(seed)], "motion": [motion], "speed": speed(seed)}


@pytest.mark.parametrize("seed", [0, 1])
def test_01_with_zero_outputs_the_denoiser_is_the_base_without_words_frame_by_frame(seed: int) -> None:
    unet, writer = networks()
    silence(unet, r"(attn2|audio_attn|speed_attn)\.to_out\.0", r"motion_modules\.\d\.proj_out")
    x = noise(1, 4, F, 16, 16)
    ours = run(unet, x, written(writer, noise(1, 4, 16, 16, seed=seed)), **everything(writer, seed))
    base = reduced_base(unet)
    with torch.no_grad():
        expected = torch.stack([base(x[:, :, i], 500, noise(1, 3, AUDIO), return_dict=False)[0] for i in range(F)], 2)
    assert relative_error(ours, expected) < ROUNDING


def reduced_base(unet: Any) -> UNet2DConditionModel:
    """Stable Diffusion's UNet of the same weights, whose cross-attention contributes nothing."""
    base = UNet2DConditionModel(**picture_config(CONFIG)).eval()
    state, own = unet.state_dict(), base.state_dict()
    known = {key: x for key, x in state.items() if key in own and x.shape == own[key].shape}
    missing, _ = base.load_state_dict(known, strict=False)
    assert all(".attn2." in key or ".norm2." in key or "conv_norm_out" in key or "conv_out" in key for key in missing)
    silence(base, r"\.attn2\.to_out\.0")
    return base


def test_02_new_layers_begin_without_effect() -> None:
    unet, locator = build_denoiser(CONFIG).eval(), build_locator(CONFIG)
    _, writer = networks()
    x, bank = noise(1, 4, F, 16, 16), written(writer, noise(1, 4, 16, 16))
    first = everything(writer)
    assert torch.equal(run(unet, x, bank, **first), run(unet, x, bank, **first | {"audio": [sound(9)]}))
    assert torch.equal(run(unet, x, bank, **first), run(unet, x, bank, **first | {"speed": speed(9)}))
    assert not locator(torch.ones(1, 1, 128, 128)).any()


def test_03_the_reference_net_has_the_bases_hidden_states() -> None:
    _, writer = networks()
    base, seen = reduced_base(writer), {}
    for name, module in base.named_modules():
        if name.endswith(".norm1") and ".attentions." in name:
            module.register_forward_hook(lambda _m, _a, out, name=name: seen.__setitem__(name, out))
    latents = noise(1, 4, 16, 16)
    with torch.no_grad():
        base(latents, 0, noise(1, 3, AUDIO))
    bank = written(writer, latents, "norm1")
    assert len(bank.hidden) == 16
    for site, hidden in bank.hidden.items():
        assert relative_error(hidden, seen[site.replace("attn1", "norm1")]) < ROUNDING
    residual, output = written(writer, latents, "attn1_residual"), written(writer, latents)
    first = min(bank.hidden)
    before = seen_input(writer, first, latents)
    assert relative_error(residual.hidden[first], before + output.hidden[first]) < ROUNDING


def seen_input(writer: Any, site: str, latents: Tensor) -> Tensor:
    """The residual stream at a block."""
    found: list[Tensor] = []
    block = writer.get_submodule(site.rpartition(".")[0])
    handle = block.register_forward_hook(lambda _m, args, _o: found.append(args[0]))
    written(writer, latents, "norm1")
    with torch.no_grad():
        writer(latents, 0, None)
    handle.remove()
    return found[-1]


def test_04_the_reference_counts_and_motion_frames_do_so_in_temporal_layers_alone() -> None:
    unet, writer = networks()
    x, told = noise(1, 4, F, 16, 16), everything(writer)
    one, other = (written(writer, noise(1, 4, 16, 16, seed=seed)) for seed in (1, 2))
    assert relative_error(run(unet, x, one, **told), run(unet, x, other, **told)) > 1e-3
    moved = told | {"motion": everything(writer, 5)["motion"]}
    assert relative_error(run(unet, x, one, **told), run(unet, x, one, **moved)) > 1e-3
    silence(unet, r"motion_modules\.\d\.proj_out")
    assert torch.equal(run(unet, x, one, **told), run(unet, x, one, **moved))


def test_05_the_order_of_reference_tokens_is_nothing() -> None:
    unet, writer = networks()
    bank = written(writer, noise(1, 4, 16, 16))
    turned = ReferenceBank(hidden={site: x.flip(1) for site, x in bank.hidden.items()})
    x = noise(1, 4, F, 16, 16)
    assert relative_error(run(unet, x, turned), run(unet, x, bank)) < ROUNDING


def test_06_samples_do_not_mix() -> None:
    unet, writer = networks()
    bank = written(writer, noise(2, 4, 16, 16))
    swapped = ReferenceBank(hidden={site: x.flip(0) for site, x in bank.hidden.items()})
    x, weights = noise(2, 4, F, 16, 16).repeat(2, 1, 1, 1, 1), [0.0, 0.0, 1.0, 1.0]
    told = everything(writer)
    told |= {"audio": [None, *told["audio"]], "motion": told["motion"] * 2}
    ours = run(unet, x, bank, weights, **told)
    other = run(unet, x.view(2, 2, *x.shape[1:]).flip(1).flatten(0, 1), swapped, weights, **told)
    assert relative_error(other.view(2, 2, *x.shape[1:]).flip(1).flatten(0, 1), ours) < ROUNDING
    same = ReferenceBank(hidden={site: x[:1].expand(2, -1, -1) for site, x in bank.hidden.items()})
    alike = run(unet, x[:1].expand(2, -1, -1, -1, -1), same)
    assert relative_error(alike[0], alike[1]) < ROUNDING


def test_08_09_the_unconditional_pass_reads_nothing_and_hears_silence() -> None:
    unet, writer = networks()
    x, told = noise(1, 4, F, 16, 16), everything(writer)
    both = {"motion": told["motion"] * 2, "speed": told["speed"]}
    halves = [
        run(unet, x.repeat(2, 1, 1, 1, 1), written(writer, noise(1, 4, 16, 16, seed=seed)), [0.0, 1.0],
            audio=[None, sound(seed)], **both)
        for seed in (1, 2)
    ]  # fmt: skip
    assert torch.equal(halves[0][0], halves[1][0])
    assert not torch.equal(halves[0][1], halves[1][1])
    plain = run(unet_without_reference(), x, None, **told | {"audio": [Held(torch.zeros(F, 5, AUDIO))]})
    assert relative_error(halves[0][:1], plain) < ROUNDING
    (alone,) = SPEC.guidance.passes(500.0, 1.0)
    assert (alone.factor, alone.reads) == (1.0, "reference")
    u, c = noise(1, 4, F, 2, 2), noise(1, 4, F, 2, 2, seed=1)
    assert torch.equal(SPEC.guidance.combine(SPEC.guidance.passes(500.0, 3.5), [u, c]), u + 3.5 * (c - u))


def unet_without_reference() -> Any:
    """The denoiser whose reference-attention gives zero, and reads a bank all the same."""
    unet, _ = networks()
    silence(unet, r"attentions\.\d\.transformer_blocks\.0\.attn2\.to_out\.0")
    return unet


def test_10_a_frame_hears_two_neighbours_on_either_side() -> None:
    assert neighbours(0, 1, 5, 9).tolist() == [[0, 0, 0, 1, 2]]
    assert neighbours(8, 9, 5, 9).tolist() == [[6, 7, 8, 8, 8]]
    unet, _ = networks()
    silence(unet, r"motion_modules\.\d\.proj_out")
    tokens = filled(NeighbourTokens(5, 3, 24, AUDIO), 3)
    features, x = noise(9, 3, 24), noise(1, 4, 9, 16, 16)
    changed = features.clone()
    changed[4] += 1
    around = neighbours(0, 9, 5, 9)
    one, other = (run(unet, x, None, audio=[Held(tokens(each, around))]) for each in (features, changed))
    moved = (one != other).flatten(3).any(3)[0].any(0)
    assert moved.tolist() == [2 <= frame <= 6 for frame in range(9)]


def test_11_tokens_of_sound() -> None:
    tokens = NeighbourTokens()(noise(7, 12, 768), neighbours(0, 3, 5, 7))
    assert tokens.shape == (3, 5, 768)
    assert bool(tokens.isfinite().all())
    unet, _ = networks()
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    hidden, added = noise(F, 16, 32), []
    block.norm3.register_forward_hook(lambda _m, args, _o: added.append(args[0]))
    for audio in ((), [Held(torch.zeros(F, 5, AUDIO))], [None]):
        block.told.audio = audio
        block(hidden)
    bias = block.audio_attn.to_out[0].bias
    assert all(relative_error(each - added[0], bias.expand_as(hidden)) < 1e-5 for each in added[1:])


def temporal(**changes: Any) -> Any:
    settings = {"channels": 32, "heads": 4, "positions": 32, "speed_channels": AUDIO}
    with torch.random.fork_rng(devices=[]):
        return filled(TemporalLayer(PortraitTold(**changes), SITE, **settings), 4)


def before(seed: int = 0) -> list[dict[str, Tensor]]:
    return [{SITE: noise(1, N, 16, 32, seed=seed + 70)}]


def test_12_13_temporal_layers_mix_along_time_only() -> None:
    layer, x = temporal(motion=before(), speed=speed()), noise(F, 32, 4, 4)
    norm, layer.norm = layer.norm, torch.nn.Identity()  # it sees a whole frame
    ours, (maps,) = layer(x, num_frames=F), before()
    assert ours.shape == x.shape
    changed = x.clone()
    changed[1, :, 2, 3] += noise(32)
    maps[SITE][:, :, 11] += noise(32)  # row 2, column 3
    for motion, frames in ((before(), changed), ([maps], x)):
        layer.told.motion = motion
        moved = ((layer(frames, num_frames=F) - ours).abs() > 1e-4).any(1)
        assert moved[:, 2, 3].all()
        assert moved.sum() == F
    layer.norm = norm
    theirs = AnimateDiffTransformer3D(
        4, 8, 32, norm_num_groups=32, positional_embeddings="sinusoidal", num_positional_embeddings=32
    )
    theirs.requires_grad_(False).eval()
    theirs.norm = FrameGroupNorm(32, 32, eps=theirs.norm.eps).requires_grad_(False)
    theirs.load_state_dict({key: x for key, x in layer.state_dict().items() if "speed" not in key})
    layer.told.motion, layer.told.speed = [], None
    assert relative_error(layer(x, num_frames=F), theirs(x, num_frames=F)) < ROUNDING


def test_14_zeros_before_the_first_clip_are_attended_to() -> None:
    unet, _ = networks()
    still = unet.still(N, noise(1, 4, 16, 16))
    x = noise(1, 4, F, 16, 16)
    assert list(still) == list(unet.places)
    assert not any(features.any() for features in still.values())
    assert relative_error(run(unet, x, None, motion=[still]), run(unet, x, None)) > 1e-3


def test_15_only_position_tables_know_the_order_of_frames() -> None:
    layer, x, order = temporal(motion=before()), noise(F, 32, 4, 4), [2, 0, 3, 1]
    features = noise(1, F, AUDIO)
    layer.transformer_blocks[0].pos_embed.pe.zero_()
    layer.told.speed = Held(features)
    ours = layer(x, num_frames=F)
    layer.told.speed = Held(features[:, order])
    assert relative_error(layer(x[order], num_frames=F), ours[order]) < ROUNDING


def test_16_each_frame_is_normalised_by_itself() -> None:
    layer, x, seen = temporal(motion=before()), noise(F, 32, 4, 4), []
    layer.proj_in.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    layer(x, num_frames=F)
    x[1] *= 10
    layer(x, num_frames=F)
    others = [i for i in range(N + F) if i != N + 1]
    assert torch.equal(seen[0][:, others], seen[1][:, others])


def test_20_speed_moves_the_frames_along_time_and_no_motion_frame() -> None:
    layer = temporal(speed=speed())
    block, tokens = layer.transformer_blocks[0], noise(16, N + F, 32)
    ours = block(tokens)
    layer.told.speed = None
    plain = block(tokens)
    assert torch.equal(ours[:, :N], plain[:, :N])
    assert (ours[:, N:] != plain[:, N:]).any()
    layer.told.speed = speed()
    changed = tokens.clone()
    changed[3] += 1
    assert (block(changed) != ours).flatten(1).any(1).tolist() == [pixel == 3 for pixel in range(16)]
    silence(block, r"speed_attn\.to_out\.0")
    assert torch.equal(block(tokens), plain)


def test_21_the_speed_moves_the_film() -> None:
    unet, writer = networks()
    x, told = noise(1, 4, F, 16, 16), everything(writer)
    bank = written(writer, noise(1, 4, 16, 16))
    assert relative_error(run(unet, x, bank, **told), run(unet, x, bank, **told | {"speed": speed(8)})) > 1e-4


def test_22_the_faces_place_is_added_to_the_latents() -> None:
    features, sample = noise(1, 4, 16, 16), noise(2, 4, F, 16, 16)
    condition = FacePlace("locator")
    entered = condition.enter(UNetCall(sample=sample), condition.joined([(features, True)] * 2, 1))
    assert torch.equal(entered.sample, sample + features.unsqueeze(2))
    wide = noise(1, 32, 16, 16)
    behind = condition.enter(UNetCall(sample=sample), condition.joined([(wide, False)] * 2, 1))
    assert torch.equal(behind.sample, sample)
    assert behind.arguments["condition"].shape == (2, 32, F, 16, 16)


def test_23_the_union_of_boxes() -> None:
    boxes = [(2, 5, 3, 8), (4, 9, 1, 4)]
    union = boxes_place(boxes, (16, 12))
    assert union.shape == (1, 1, 12, 16)
    assert all(bool((union >= boxes_place([box], (16, 12))).all()) for box in boxes)
    assert torch.equal(union, boxes_place(boxes[::-1] * 2, (16, 12)))
    assert widened((10, 20, 10, 30), (24, 64), 0.3) == (7, 23, 4, 36)
    regions = Portrait(picture=GIVEN["portrait"].picture, regions=None)
    with pytest.raises(ValueError, match="neither was given"):
        face_place(regions, SQUARE)


def test_28_held_keys_and_values_change_nothing() -> None:
    unet, writer = networks()
    x, told = noise(1, 4, F, 16, 16), everything(writer)
    bank = written(writer, noise(1, 4, 16, 16))
    first, second = run(unet, x, bank, **told), run(unet, x, bank, **told)
    assert all(len(held.pairs) == count for held, count in ((told["audio"][0], 16), (told["speed"], 21)))
    assert relative_error(second, first) <= 1e-6
    with torch.autocast("cpu", torch.float16):
        half = run(unet, x, bank, **everything(writer))
    assert relative_error(half, first) < 1e-2
