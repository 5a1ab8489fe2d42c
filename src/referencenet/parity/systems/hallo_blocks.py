"""Runs the golden case of Hallo's blocks, and holds what the case of a step needs as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_motion_model import CrossAttnDownBlockMotion, DownBlockMotion
from torch import Tensor, nn

from referencenet.checkpoints.hallo import DENOISER_KEYS
from referencenet.checkpoints.keymap import KeyMap
from referencenet.links.attach import attach
from referencenet.links.bank import ReferenceBank
from referencenet.methods.hallo import SPEC
from referencenet.networks.audio_attention import AudioTransformer, Heard, Held
from referencenet.networks.audio_unet import ClipLayer, Told, give_layers
from referencenet.parity.cases import Case
from referencenet.parity.record import (
    Produced,
    fold,
    unfold,
)
from referencenet.parity.system import config_of
from referencenet.pipelines.passes import Pass, reading_plan

REGIONS = ("full", "face", "lip")
"""Pose, face and lip, as the cases call them."""


@torch.no_grad()
def run_blocks(case: Case) -> Produced:
    """The audio transformer, the motion module, and down blocks with and without attention."""
    return Produced({**audio_layer(case), **motion_layer(case), **attention_block(case), **plain_block(case)}, {})


def audio_layer(case: Case) -> dict[str, Tensor]:
    """The audio transformer alone, with and without weights of its masks."""
    config = config_of(case, "audio")
    heads = config["num_attention_heads"]
    audio = AudioTransformer(
        config["in_channels"], heads * config["attention_head_dim"], heads=heads,
        audio_channels=config["cross_attention_dim"], groups=config["norm_num_groups"],
    ).eval()  # fmt: skip
    case.load(layers_of(nn.ModuleDict({"audio": audio})), "audio", within("down_blocks.0.audio_modules.0."))
    hidden, tokens = case.input("audio.hidden"), case.input("audio.tokens")
    outputs: dict[str, Tensor] = {}
    for name, weights, rows in (("out", (1.0,) * 3, 2), ("out_scaled", case.scalar("motion_scale"), 1)):
        heard = Heard(tokens=[Held(tokens[:rows].flatten(0, 1))], masks=masks_of(case), weights=weights)
        outputs[f"audio.{name}"] = unfold(audio(fold(hidden[:rows]), heard), hidden.shape[2])
    return outputs


def motion_layer(case: Case) -> dict[str, Tensor]:
    """The motion module alone."""
    hidden = case.input("motion.hidden")
    layer = ClipLayer(nn.Identity(), Told(), "", channels=hidden.shape[1]).eval()  # pyright: ignore[reportArgumentType]
    case.load(layers_of(layer), "motion", within("down_blocks.0.motion_modules.0."))
    return {"motion.out": unfold(layer(fold(hidden), num_frames=hidden.shape[2]), hidden.shape[2])}


def attention_block(case: Case) -> dict[str, Tensor]:
    """A down block of two layers under guidance, with portrait, audio and motion frames."""
    config, told = config_of(case, "block"), Told()
    heads = config["attn_num_head_channels"]
    block: Any = CrossAttnDownBlockMotion(
        config["in_channels"], config["out_channels"], config["temb_channels"], num_layers=config["num_layers"],
        resnet_eps=config["resnet_eps"], resnet_act_fn=config["resnet_act_fn"], resnet_groups=config["resnet_groups"],
        num_attention_heads=heads, cross_attention_dim=config["cross_attention_dim"], temporal_num_attention_heads=8,
    )  # fmt: skip
    inner = [config["in_channels"], config["out_channels"]]
    give_layers(
        block, "down_blocks.0", inner, told, heads=heads, groups=config["resnet_groups"],
        audio_channels=config["audio_attention_dim"], motion_heads=8, positions=32,
    )  # fmt: skip
    case.load(block, "block", within("down_blocks.0."))
    network = nn.Module()
    network.down_blocks = nn.ModuleList([block])
    network.eval()
    sites = [layer.site for layer in block.motion_modules]
    banked = ReferenceBank(hidden={site: case.input(f"block.bank_{i}") for i, site in enumerate(sites)})
    hidden, audio = case.input("block.hidden"), case.input("block.audio")
    passes, frames = SPEC.guidance.passes(0, 3.5), hidden.shape[2]
    told.motion = motion_by_pass(banked, len(passes))
    told.heard = Heard(
        tokens=[Held(each) for each in audio], masks=masks_of(case), weights=case.scalar("block_motion_scale")
    )
    with attach(network, [SPEC.link]) as link, link.reading(portraits(banked, len(passes)), plan=plan_of(passes)):
        given = (case.input(f"block.{name}").repeat_interleave(frames, dim=0) for name in ("temb", "context"))
        out, skips = block(fold(hidden), *given, num_frames=frames)
    return {"block.out": unfold(out, frames), "block.res_0": unfold(skips[0], frames)[:, :, :1]}


def plain_block(case: Case) -> dict[str, Tensor]:
    """A down block without attention, whose motion module is not run."""
    config = config_of(case, "plain")
    block: Any = DownBlockMotion(
        config["in_channels"], config["out_channels"], config["temb_channels"], num_layers=config["num_layers"],
        resnet_eps=config["resnet_eps"], resnet_act_fn=config["resnet_act_fn"], resnet_groups=config["resnet_groups"],
        add_downsample=config["add_downsample"],
    )  # fmt: skip
    give_layers(block, "down_blocks.3", [], Told(), heads=1, groups=1, audio_channels=1, motion_heads=1, positions=1)
    case.load(block.eval(), "plain", within("down_blocks.3."))
    hidden = case.input("plain.hidden")
    temb = case.input("block.temb").repeat_interleave(hidden.shape[2], dim=0)
    return {"plain.out": unfold(block(fold(hidden), temb, hidden.shape[2])[0], hidden.shape[2])}


def within(prefix: str) -> KeyMap:
    """The denoiser's key map for a part of it: names go on without the block's."""
    block = prefix.split(".motion_modules")[0].split(".audio_modules")[0].rstrip(".").replace(".", r"\.")
    return KeyMap(
        renames=((r"^", prefix), *DENOISER_KEYS.renames, (rf"^{block}\.", "")),
        squeezed=DENOISER_KEYS.squeezed,
        ignored={r"motion_modules\..*": "never run", **DENOISER_KEYS.ignored}
        if block.endswith("3")
        else DENOISER_KEYS.ignored,
    )


def layers_of(layer: nn.Module) -> nn.Module:
    """A layer where a block has it."""
    return nn.ModuleDict({"motion_modules": nn.ModuleList([layer])})


def masks_of(case: Case) -> dict[int, Tensor]:
    """Number of tokens to the masks of pose, face and lip, (3, frames, n)."""
    levels = [torch.stack([case.input(f"{name}_mask_{i}") for name in REGIONS]) for i in range(4)]
    return {level.shape[-1]: level for level in levels}


def portraits(bank: ReferenceBank, passes: int) -> ReferenceBank:
    """The portrait of each pass, of a bank of its portrait and motion frames."""
    return bank.map(lambda hidden: hidden[:: len(hidden) // passes])


def motion_by_pass(bank: ReferenceBank, passes: int) -> list[dict[str, Tensor]]:
    """The motion frames of each pass, of the same."""
    return [
        {site: hidden.chunk(passes)[k][1:].unsqueeze(0) for site, hidden in bank.hidden.items()} for k in range(passes)
    ]


def plan_of(passes: Sequence[Pass]) -> Any:
    """Who reads the portraits."""
    return reading_plan(passes, 1, len(passes), has_blank=True)
