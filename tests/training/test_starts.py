"""What trainings start from: every tensor of the base and of the files goes to its place, and what is new is known."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from referencenet.checkpoints.idm_vton_start import ADAPTER, cross_attentions
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.manifest import KEY_LISTS, read_manifest
from referencenet.checkpoints.start import Graft, graft_onto, read_start
from referencenet.cli.manifests import run_manifests
from referencenet.methods.tiny import filled
from referencenet.networks.layout import picture_config
from referencenet.paperdoll.layouts import write_dataset
from referencenet.training.export import export
from referencenet.training.recipes.index import recipe_of, recipes
from referencenet.training.run import Order, start_pipeline, train
from released import released_states, write
from tiny import tiny_pipeline

STARTS = {system: recipe_of(system).start for system in recipes() if recipe_of(system).start is not None}


@dataclass
class Files:
    """Of a starting point, on the disk and as they were written; and the pipeline that begins with them."""

    folder: Path
    base: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    motion: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    told: list[str] = field(default_factory=list[str])
    pipe: Any = None


def under_animatediffs_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Motion modules as AnimateDiff's files have them: both of a block's tables, which are one here."""
    renames = (
        (r"(\.motion_modules\.\d+)\.", r"\1.temporal_transformer."),
        (r"\.pos_embed\.pe$", ".attention_blocks.0.pos_encoder.pe"),
        (r"\.attn1\.", ".attention_blocks.0."), (r"\.attn2\.", ".attention_blocks.1."),
        (r"\.norm1\.", ".norms.0."), (r"\.norm2\.", ".norms.1."), (r"\.norm3\.", ".ff_norm."),
    )  # fmt: skip
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        found[key] = tensor
        if key.endswith("pe"):
            found[key.replace("blocks.0", "blocks.1")] = tensor
    return found


def moved_back(system: str, key: str) -> str | None:
    """Where AnimateDiff has a module of a tiny view UNet; None: nowhere."""
    if system != "diffportrait3d":
        return key
    if ".upsamplers.0.motion_modules.0." in key:
        return key.replace(".upsamplers.0.motion_modules.0.", ".motion_modules.1.")
    return None if "samplers" in key else key


def motion_of(system: str, unet: nn.Module) -> dict[str, Tensor]:
    """Motion modules of a denoiser at the places that AnimateDiff has."""
    own = {k: v for k, v in unet.state_dict().items() if ".motion_modules." in k and ".audio." not in k}
    return {there: v for k, v in own.items() if (there := moved_back(system, k)) is not None}


def write_start(system: str, folder: Path) -> Files:
    """Files of a starting point as narrow networks of random numbers."""
    start, pipe = STARTS[system], tiny_pipeline(system)
    published, files = start.published, Files(folder)
    sizes = picture_config(published.tiny_config.get("unet", published.tiny_config)) | (
        {"in_channels": 9} if system == "idm_vton" else {}
    )
    base = filled(UNet2DConditionModel(**sizes), 7)
    files.base = {key: tensor.clone() for key, tensor in base.state_dict().items()}
    place = folder / start.base_folder
    base.save_pretrained(place / "unet")
    for name in ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"):
        if name in pipe.components:
            getattr(pipe, name).save_pretrained(place / name)
    for name, part in published.further.items():
        if not part.in_base and part.default is None:
            getattr(pipe, name).save_pretrained(folder / (part.folder or name))
    for path in (file.path for file in published.files if "mm_sd" in file.path):
        files.motion = motion_of(system, pipe.unet)
        write(under_animatediffs_names(files.motion), folder / path)
    if system == "animate_anyone":
        net = ControlNetModel(block_out_channels=(8,), down_block_types=("DownBlock2D",), norm_num_groups=4)
        hints = pipe.pose_guider.state_dict()
        state = {k: v for k, v in net.state_dict().items() if not k.startswith("controlnet_cond_embedding.")}
        state |= {f"controlnet_cond_embedding.{k}": v for k, v in hints.items()}
        write(state, folder / "control_v11p_sd15_openpose" / "diffusion_pytorch_model.bin")
    if system == "idm_vton":
        write_adapter(pipe, folder)
    if system == "magicpose":
        for path, state in released_states(pipe, published).items():
            write(state, folder / path)
    return files


def write_adapter(pipe: Any, folder: Path) -> None:
    """IDM-VTON's files: IP-Adapter with numbered layers and its encoder, and SDXL's UNet."""
    numbers = {name: 2 * i + 1 for i, name in enumerate(cross_attentions(pipe.unet.config))}
    state: dict[str, Tensor] = {}
    for key, tensor in pipe.unet.state_dict().items():
        if ".processor.to_" in key:
            name, layer = key.split(".processor.to_")
            state[f"ip_adapter.{numbers[name]}.to_{layer.replace('.0.', '.')}"] = tensor
    released = released_states(pipe, type(pipe).published)["unet/diffusion_pytorch_model.bin"]
    state |= {k.replace("encoder_hid_proj.", "image_proj."): v for k, v in released.items() if "hid_proj" in k}
    write(state, folder / ADAPTER)
    pipe.reference_unet.save_pretrained(folder / "stable-diffusion-xl-base-1.0" / "unet")
    pipe.image_encoder.save_pretrained(folder / "image_encoder")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Files] = {}

    def of(system: str) -> Files:
        if system not in made:
            files = made[system] = write_start(system, tmp_path_factory.mktemp(system))
            files.pipe = start_pipeline(system, str(files.folder), tell=files.told.append)
        return made[system]

    return of


def networks_of(parts: dict[str, Any]) -> dict[str, nn.Module]:
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


@pytest.mark.parametrize("system", STARTS)
def test_a_pipeline_begins_with_what_the_files_hold(system: str, started: Any) -> None:
    files = started(system)
    pipe, told = files.pipe, files.told
    made = {*STARTS[system].grafts, *STARTS[system].published.components}
    assert {line.split(":")[0] for line in told} == made
    assert made | set(STARTS[system].published.further) >= set(networks_of(pipe.components))
    for component, graft in STARTS[system].grafts.items():
        own = getattr(pipe, component).state_dict()
        if graft.base is not None:
            shared = [key for key in own if key in files.base and key != "conv_in.weight"]
            assert len(shared) > 20
            assert all(torch.equal(own[key], files.base[key]) for key in shared)
            width = files.base["conv_in.weight"].shape[1]
            assert torch.equal(own["conv_in.weight"][:, :width], files.base["conv_in.weight"])
            assert not own["conv_in.weight"][:, width:].any()
    if files.motion:
        again = motion_of(system, pipe.unet)
        assert again.keys() == files.motion.keys()
        assert all(torch.equal(tensor, files.motion[key]) for key, tensor in again.items())


@pytest.mark.parametrize(
    "system", [pytest.param(s, marks=[] if s in ("hallo", "diffportrait3d") else [pytest.mark.slow]) for s in STARTS]
)
def test_what_is_new_comes_from_a_seed(system: str, started: Any) -> None:
    start, files = STARTS[system], started(system)
    base = None if start.grows else files.folder / start.base_folder
    other = networks_of(read_start(start, files.folder, base, seed=1))
    same = {} if base else networks_of(start_pipeline(system, str(files.folder)).components)
    for name, network in networks_of(files.pipe.components).items():
        state, otherwise = network.state_dict(), other[name].state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in (same[name].state_dict() if same else {}).items())
        new = {key for key in state if any(re.fullmatch(p, key) for p in start.grafts.get(name, Graft()).new)}
        differing = {key for key in state if not torch.equal(state[key], otherwise[key])}
        assert differing <= new
        assert bool(differing) == any(v.any() for k, v in state.items() if k in new and v.ndim > 1)


def test_added_layers_change_nothing_at_first(started: Any) -> None:
    pipe = started("parts2whole").pipe
    for key, tensor in pipe.unet.state_dict().items():
        if ".processor.to_" in key:
            assert torch.equal(tensor, pipe.unet.state_dict()[re.sub(r"\.processor\.to_(.)_ip\.0", r".to_\1", key)])
    hallo = started("hallo").pipe
    assert not any(v.any() for k, v in hallo.unet.state_dict().items() if ".audio.zero." in k)
    assert not hallo.face_locator.conv_out.weight.any()
    views = started("diffportrait3d").pipe
    behind = {k: v for k, v in views.unet.state_dict().items() if "downsamplers.0.motion_modules" in k}
    assert behind
    assert not any(v.any() for k, v in behind.items() if ".proj_out." in k)
    for control in (
        views.controlnet,
        started("stable_garment").pipe.controlnet,
    ):
        outputs = {k: v for k, v in control.state_dict().items() if k.startswith("controlnet_")}
        assert not any(v.any() for k, v in outputs.items() if "cond_embedding" not in k)


def test_cross_attentions_are_counted_as_the_published_table_counts_them() -> None:
    start = STARTS["idm_vton"].published
    names = read_manifest(KEY_LISTS / "idm_vton-init-ip-adapter.json.gz").keys
    assert run_manifests([KEY_LISTS / "idm_vton-init-ip-adapter.json.gz"]) == 0
    counted = cross_attentions(start.base_config["unet"])
    assert len(counted) == 70
    assert {int(name.split(".")[1]) for name in names if name.startswith("ip_adapter.")} == set(range(1, 140, 2))
    unet = UNet2DConditionModel(**picture_config(start.tiny_config["reference_unet"]))
    processors = [name.removesuffix(".processor") for name in unet.attn_processors]
    assert processors[1::2] == cross_attentions(start.tiny_config["reference_unet"])


def test_nothing_is_silent() -> None:
    base = {"a.weight": torch.zeros(2, 3), "head.weight": torch.zeros(1)}

    def network() -> nn.Module:
        return nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2, bias=False)})

    graft = Graft(left_out={r"head\..*": "unused"}, new={r"b\..*": "new", r"a\.bias": "new"})
    new, told = graft_onto(network(), [("base", base)], graft, "unet")
    assert new == {"b.weight", "a.bias"}
    assert told == "1 tensors of base, 2 new"
    for changed, message in (
        (base | {"c.weight": torch.zeros(1)}, "1 tensors have no place: c.weight"),
        ({"head.weight": torch.zeros(1)}, "1 would be left unset: a.weight"),
        (base | {"a.weight": torch.zeros(2, 4)}, "1 are of another shape: a.weight"),
        (base | {"a.bias": torch.zeros(2), "b.weight": torch.zeros(2, 2)}, "nothing matches"),
    ):
        with pytest.raises(CheckpointError, match=message):
            graft_onto(network(), [("base", changed)], graft, "unet")


def test_folders_that_hold_too_little_say_what_is_missing(started: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing to begin with.*denoising_unet.*mm_sd_v15_v2.ckpt.*--base"):
        start_pipeline("animate_anyone", str(tmp_path))
    start = STARTS["flashface"]
    with pytest.raises(FileNotFoundError, match="grows on a base model, not found in .*stable-diffusion-v1-5"):
        read_start(start, tmp_path)
    base = started("flashface").folder / start.base_folder
    assert start_pipeline("flashface", str(tmp_path), str(base)).unet.config.in_channels == 5
    write({"down_blocks.0.motion_modules.0.what": torch.zeros(1)}, tmp_path / "mm_sd_v15_v2.ckpt")
    with pytest.raises((ValueError, FileNotFoundError), match="sd-vae-ft-mse"):
        start_pipeline("aniportrait", str(tmp_path), str(base))


def test_a_run_from_a_starting_point_is_trained_and_exported(started: Any, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 1, "viton-hd", 64, 3)
    folder, told = started("idm_vton").folder, list[str]()
    quick = ("steps=1", "batch=1", "validate_every=0", "optimizer.muon=[]", "data.workers=0", "data.size=[64, 64]")
    order = Order(system="idm_vton", config="paperdoll", out=tmp_path / "run", data=data, start=str(folder),
                  changes=quick, quiet=True)  # fmt: skip
    train(order, tell=told.append)
    assert any(line.startswith("unet:") and ADAPTER in line for line in told)
    pipe = type(tiny_pipeline("idm_vton")).from_pretrained(export(tmp_path / "run", tmp_path / "pipe"))
    assert pipe.unet.config.in_channels == 13
    assert torch.equal(pipe.reference_unet.conv_in.weight, started("idm_vton").pipe.reference_unet.conv_in.weight)
