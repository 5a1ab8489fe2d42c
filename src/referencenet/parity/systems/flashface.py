"""FlashFace's golden cases: its blocks, schedule and mask, one step, whole pictures, and the other two files."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from referencenet.checkpoints.flashface import unet_config
from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.flashface import BLOCK, RESNET, STACK, denoiser_keys, reference_keys, vae_keys
from referencenet.checkpoints.keys.ldm import Renames
from referencenet.links.attach import attach
from referencenet.links.bank import ReferenceBank
from referencenet.links.second import Second
from referencenet.methods.flashface import FaceGuidance, FlashFacePipeline
from referencenet.networks.additive_unet import AdditiveUNet
from referencenet.networks.scrambled_attention import ScrambledAttnProcessor
from referencenet.parity import kinds
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Outputs
from referencenet.parity.record import Runner, each_output, observed
from referencenet.parity.system import Network, System, config_of
from referencenet.preprocess.faces import face_mask
from referencenet.sampling.trailing_ddim import TrailingDDIMScheduler

CONFIG_NAMES = ("dim", "dim_mult", "context_dim", "num_heads", "num_res_blocks", "attn_scales")
FIXED_CONFIG = {"in_dim": 4, "out_dim": 4, "y_dim": None, "head_dim": None, "num_attn_blocks": 1, "dropout": 0.0}
SECOND_LAYER = {r"self_attn\.self_attn_first\..*": "the second attention, which a writing pass leaves out"}
GUIDANCE = ("lambda_feat", "lambda_before", "face_guidance", "step_to_launch")
NOTHING: Mapping[str, str] = {}


def unets(case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """Both UNets' configuration in our words."""
    for name, value in FIXED_CONFIG.items():
        if config.get(name, value) != value:
            raise CaseError(f"{case.id}: {name} is {config[name]!r}; FlashFace's networks have {value!r}")
    return {"unet": unet_config(**{name: config[name] for name in CONFIG_NAMES})}


def autoencoder(_case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """The autoencoder's."""
    levels = len(config["dim_mult"])
    own: dict[str, Any] = {
        "block_out_channels": tuple(config["dim"] * factor for factor in config["dim_mult"]),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": config["num_res_blocks"],
        "latent_channels": config["z_dim"],
    }
    return {"vae": own}


def text_model(_case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """The text model's."""
    own = {
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": config["text_len"],
        "hidden_size": config["dim"],
        "intermediate_size": config["dim"] * config["mlp_ratio"],
        "num_attention_heads": config["num_heads"],
        "num_hidden_layers": config["num_layers"],
        "hidden_act": config["activation"],
        "bos_token_id": 0,
        "eos_token_id": config["vocab_size"] - 1,
    }
    return {"text_encoder": own}


def sized(component: str, keys: Callable[[int, int], KeyMap]) -> Callable[[Case], KeyMap]:
    """A key map that depends on a component's number of levels, and of blocks in each."""

    def keymap(case: Case) -> KeyMap:
        config = config_of(case, component)
        return keys(len(config["dim_mult"]), config["num_res_blocks"])

    return keymap


SYSTEM = System(
    FlashFacePipeline,
    {
        "unet": Network("unet", unets, keymap=sized("unet", denoiser_keys)),
        "reference_unet": Network("unet", unets, keymap=sized("unet", reference_keys)),
        "vae": Network("vae", autoencoder, keymap=sized("vae", vae_keys)),
        "text_encoder": Network("textual", text_model),
    },
)
UNETS = ("unet", "reference_unet")


def told_faces(case: Case) -> dict[str, Any]:
    """The faces, each counting once, and the negative prompt that they are written with."""
    faces = case.input("ref_latents")
    return {
        "face_latents": faces,
        "face_weights": [1.0] * len(faces),
        "negative_prompt_embeds": case.input("negative_text"),
    }


def face_box(case: Case, latents: Tensor) -> tuple[float, float, float, float]:
    """The mask of a case as the box that makes it."""
    (top, bottom), (left, right) = case.scalar("mask_rows"), case.scalar("mask_cols")
    if bottom - top != right - left:
        raise CaseError(f"{case.id}: the mask is {right - left} x {bottom - top}; FlashFace's are squares")
    height, width = latents.shape[2:]
    return left / width, top / height, right / width, bottom / height


def expect(case: Case, **fixed: Any) -> None:
    """Refuse a case that asks for something else than what there is."""
    for name, value in fixed.items():
        if case.scalars.get(name, value) != value:
            raise CaseError(f"{case.id}: {name} is {case.scalars[name]!r}; FlashFace has {value!r} only")


def attention_block(case: Case) -> Outputs:
    """One transformer block: writing without its second attention, reading with it."""
    config = config_of(case, "block")
    settings = levels(config, config["dim"]) | {"norm_num_groups": 1}  # of layers that a block does not have
    writer, reader = UNet2DConditionModel(**settings).eval(), AdditiveUNet(**settings).eval()
    writing, block = (unet.mid_block.attentions[0].transformer_blocks[0] for unet in (writer, reader))
    case.load(writing, "block", inside("blocks.0.", BLOCK, ignored=SECOND_LAYER))
    case.load(block, "block", inside("blocks.0.", BLOCK))
    told = case.input("x_ref"), None, case.input("context_ref")
    written, kept = observed(writing, {"norm1": "write.cached"}, *told)
    with attach(reader, [Second()]) as link:
        bank = ReferenceBank(hidden={link.sites[0].name: case.input("cached_refs")}).joined()

        def read(inputs: str, *strengths: float) -> Tensor:
            hidden, context = case.input(f"x_{inputs}"), case.input(f"context_{inputs}")
            weights = [s for s in strengths for _ in range(len(hidden) // len(strengths))]
            with link.reading(bank, weights=weights):
                return block(hidden, encoder_hidden_states=context)

        return {
            **kept,
            "write.output": written,
            "read2.output": read("two", case.scalar("lambda_read2")),
            "read3.output": read("three", case.scalar("lambda_read3"), 0.0, 0.0),
            "read2_lambda0.output": read("two", 0.0),
        }


def norm_epsilon(case: Case) -> Outputs:
    """A residual block and an attention stack on small numbers, where the norms' epsilon shows."""
    scale, config = case.scalar("input_scale"), config_of(case, "resblock")
    unet = UNet2DConditionModel(
        **levels({}, config["in_dim"], config["out_dim"]), time_embedding_dim=config["embed_dim"]
    )
    resnet = unet.down_blocks[1].resnets[0].eval()
    case.load(resnet, "resblock", inside("resnets.0.", RESNET))
    norms, inputs = {"norm1": "resblock.first_norm"}, (scale * case.input("x_res"), case.input("time_embedding"))
    result, outputs = observed(resnet, norms, *inputs)
    config = config_of(case, "stack")
    unet = UNet2DConditionModel(**levels(config, config["dim"]), transformer_layers_per_block=config["num_blocks"])
    stack = unet.mid_block.attentions[0].eval()
    case.load(stack, "stack", inside("attentions.0.", STACK))
    attended = stack(scale * case.input("x_stack"), case.input("context"), return_dict=False)[0]
    return outputs | {"resblock": result, "stack": attended}


def inside(place: str, renames: Renames, *, ignored: Mapping[str, str] = NOTHING) -> KeyMap:
    """A key map of a part by itself: the renames want to see where it stands."""
    return KeyMap(renames=[("^", place), *renames, (rf"^{place}".replace(".", r"\."), "")], ignored=ignored)


def levels(config: Mapping[str, Any], *widths: int) -> dict[str, Any]:
    """Configuration of a UNet of one residual block per level and attention in the middle, with FlashFace's epsilon."""
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownBlock2D",) * len(widths),
        "up_block_types": ("UpBlock2D",) * len(widths),
        "layers_per_block": 1,
        "norm_eps": 1e-6,
        "cross_attention_dim": config.get("context_dim", 8),
        "attention_head_dim": config.get("num_heads", 8),
    }


def schedule(case: Case) -> dict[str, Tensor]:
    """Steps and noise levels for several numbers of steps, and the sampler on a network that is a formula."""
    expect(case, schedule="scaled_linear", discretization="trailing", solver="ddim", eta=0.0)
    scheduler = TrailingDDIMScheduler(
        num_train_timesteps=case.scalar("num_timesteps"),
        beta_start=case.scalar("beta_min"),
        beta_end=case.scalar("beta_max"),
    )
    kept = {"train_sigmas": scheduler.train_sigmas}
    for name in {name.split(".")[0] for name in case.expected if name.startswith("steps")}:
        scheduler.set_timesteps(int(name.removeprefix("steps")))
        kept[f"{name}.float_timesteps"] = scheduler.times
        kept[f"{name}.solver_sigmas"] = scheduler.sigmas
        kept[f"{name}.network_timesteps"] = scheduler.timesteps
        latents = case.input("noise")
        for t in scheduler.timesteps:
            latents = scheduler.step(0.25 * latents + 0.05 * torch.cos(t / 200), t, latents).prev_sample
        kept[f"{name}.toy_sample"] = latents
    return kept


def face_masks(case: Case) -> dict[str, Any]:
    """Where the ones of the masks of several boxes begin and end, and how many there are."""
    size, extents, ones = case.scalar("size"), [], []
    for box in case.scalar("boxes_x1y1x2y2"):
        mask = face_mask(box, width=size, height=size)
        found, ends = mask.nonzero(), [0, 0, 0, 0]
        if len(found):
            (top, left), (bottom, right) = found.amin(0).tolist(), (found.amax(0) + 1).tolist()
            ends = [top, bottom, left, right]
        extents.append(ends)
        ones.append(float(mask.sum()))
    return {"extents": extents, "ones": ones}


def step(case: Case) -> Outputs:
    """One step: the faces are written, read by the denoiser, guided and rescaled."""
    pipe, t, latents, faces = SYSTEM.pipe(case, *UNETS), case.scalar("timestep"), case.input("xt"), told_faces(case)
    canvas = kinds.canvas_of(latents)
    shown = pipe.faces(None, **faces)(canvas)
    place = face_mask(face_box(case, latents), width=canvas.width, height=canvas.height)[None, None]
    given = {"prompt": (case.input("prompt_text"), faces["negative_prompt_embeds"]), "place": place}
    guidance = FaceGuidance(**{name: case.scalar(name) for name in (*GUIDANCE, "guide_rescale")})
    names = {"raw": "raw_out", "guided": "eps_guided", "watched": {"up_blocks.2.attentions.0": "denoiser.decoder_6.1"}}
    outputs = kinds.banked(pipe, shown, t, published_place)
    with each_output(pipe.reference_unet, {"mid_block.attentions.0": "reference.middle_attention_out"}, outputs):
        scale = case.scalar("text_guidance")
        outputs |= kinds.predict(pipe, latents, t, shown, given, guidance=guidance, scale=scale, **names)
    return outputs | {"x0": pipe.scheduler.original_sample(outputs["eps_guided"], t, latents)}


def published_place(site: str) -> str:
    """The output of a site, such as `cached.decoder_3.1.blocks.0`."""
    stage, number, _, attention, *_ = site.split(".")
    place = "middle_1" if stage == "mid_block" else f"decoder_{3 * int(number) + int(attention)}.1"
    return f"cached.{place}.blocks.0"


def sample(case: Case) -> Outputs:
    """A whole call, from noise to latents."""
    expect(case, discretization="trailing")
    pipe, noise, prompt = SYSTEM.pipe(case, *UNETS), case.input("noise"), case.input("prompt_text")
    if len(noise) % len(prompt):
        raise CaseError(f"{case.id}: {len(prompt)} prompts cannot serve {len(noise)} samples; correct the inputs")
    told = {name: case.scalar(name) for name in GUIDANCE} | told_faces(case)
    told |= {"face_box": face_box(case, noise), "num_images_per_prompt": len(noise) // len(prompt)}
    names = {"guidance_scale": "text_guidance", "guidance_rescale": "guide_rescale", "steps": "steps"}
    numbers = {ours: case.scalar(theirs) for ours, theirs in names.items()}
    call, options = partial(pipe, prompt_embeds=prompt, **told), {"first": 1, "steps": "steps", "latents": noise}
    return kinds.sample(case, pipe, call, "latents_step{}", numbers=numbers, **options)


def vae(case: Case) -> Outputs:
    """The autoencoder as Stable Diffusion has it, and with the released program's attention."""
    network, outputs = SYSTEM.network(case, "vae"), Outputs()
    for ending in ("", "_as_released"):
        if ending:
            network.set_attn_processor(ScrambledAttnProcessor())
        found = network.encode(case.input("image")).latent_dist
        outputs |= {f"encode_mean{ending}": found.mean, f"encode_logvar{ending}": found.logvar}
        outputs[f"decode{ending}"] = network.decode(case.input("latents")).sample
    return outputs


def text_states(case: Case) -> dict[str, Tensor]:
    """The text encoder's last hidden states."""
    model = SYSTEM.network(case, "text_encoder")
    return {"context": model(torch.tensor(case.scalar("token_ids"))).last_hidden_state}


STEP = kinds.runner(step)

RUNNERS: Mapping[str, Runner] = {
    "attention-block": kinds.runner(attention_block),
    "norm-epsilon": kinds.runner(norm_epsilon),
    "schedule": kinds.runner(schedule),
    "face-mask": kinds.runner(face_masks),
    "step-two-way": STEP,
    "step-three-way": STEP,
    "sample": kinds.runner(sample),
    "vae": kinds.runner(vae),
    "clip-text": kinds.runner(text_states),
}
