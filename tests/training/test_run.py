"""Whole runs of published systems on paperdoll's data sets: trained, resumed in bits, exported, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from referencenet.builtin.load import WEIGHTS
from referencenet.builtin.start import load_system
from referencenet.builtin.starts import STARTS
from referencenet.cli.app import app
from referencenet.methods.animate_anyone import AnimateAnyonePipeline
from referencenet.methods.idm_vton import IDMVTONPipeline
from referencenet.paperdoll.layouts import write_dataset
from referencenet.training.checkpoint import RunFolder, State
from referencenet.training.export import export
from referencenet.training.run import Order, plan, start_pipeline, train
from tiny import tiny_pipeline
from tolerances import relative_error

QUICK = (
    "steps=4", "batch=2", "precision=fp32", "validate_every=0", "log_every=1", "optimizer.muon=[]",
    "optimizer.warmup=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def viton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "viton", 5, "viton-hd", 64, 3)


def order(root: Path, out: Path, *changes: str, **fields: Any) -> Order:
    given = {"system": "idm_vton", "config": "paperdoll", "start": "tiny", "quiet": True, **fields}
    return Order(data=root, out=out, changes=(*QUICK, *changes), **given)


def newest(out: Path, stage: str = "tryon") -> State:
    found = RunFolder(out / stage).load()
    assert found is not None
    return found


def test_a_run_is_trained_resumed_with_workers_in_the_same_bits_and_exported(viton: Path, tmp_path: Path) -> None:
    told: list[str] = []
    again = ("data.augment=0.5", "accumulate=2", "validate_every=4", "optimizer.cooldown=0")
    train(order(viton, tmp_path / "whole", "data.workers=0", *again), tell=told.append)
    assert told == ["tryon: 4 samples"]
    half = order(viton, tmp_path / "broken", "data.workers=1", "save_every=1", *again)
    train(replace_steps(half, 2))
    train(replace(order(viton, tmp_path / "broken", "data.workers=1", *again), resume=True))
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "broken")
    assert one.step == other.step == 4
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    assert one.average is not None
    records = RunFolder(tmp_path / "whole" / "tryon").records()
    assert {"validation", "validation_cut"} <= records[-1].keys()
    assert records[-1]["validation"] != records[-1]["validation_cut"]
    assert [path.name for path in (tmp_path / "whole" / "tryon" / "sheets").iterdir()] == ["000004.png"]
    folder = export(tmp_path / "whole", tmp_path / "pipe")
    pipe = IDMVTONPipeline.from_pretrained(folder)
    assert torch.equal(pipe.unet.conv_in.weight, one.average["unet.conv_in.weight"])
    raw = export(tmp_path / "whole", tmp_path / "raw", raw=True)
    assert torch.equal(IDMVTONPipeline.from_pretrained(raw).unet.conv_in.weight, one.weights["unet.conv_in.weight"])
    released = export(tmp_path / "whole", tmp_path / "released", form="published")
    again = IDMVTONPipeline.from_published(released)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            state = getattr(again, name).state_dict()
            assert all(torch.equal(tensor, state[key]) for key, tensor in part.state_dict().items())
    with pytest.raises(ValueError, match="has not trained low-rank weights alone"):
        export(tmp_path / "whole", tmp_path / "lora", form="lora")
    with pytest.raises(FileExistsError, match="is there already"):
        export(tmp_path / "whole", tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="holds a run already; give --resume"):
        train(order(viton, tmp_path / "whole"))


def test_a_run_knows_where_it_began_wherever_it_is_exported_from(
    viton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_pipeline("idm_vton").save_pretrained(tmp_path / "begin")
    monkeypatch.chdir(tmp_path)
    train(order(viton.resolve(), Path("run"), "steps=1", "data.workers=0", start="begin"))
    monkeypatch.chdir(viton)
    assert (export(tmp_path / "run", tmp_path / "pipe") / "model_index.json").is_file()


@pytest.mark.slow
def test_a_run_from_the_built_in_weights_learns_their_velocity_and_is_exported_with_their_scheduler(
    viton: Path, tmp_path: Path
) -> None:
    begun = order(viton, tmp_path / "run", "steps=1", "data.workers=0", start="builtin", starts=STARTS)
    train(begun)
    pipe = IDMVTONPipeline.from_pretrained(export(tmp_path / "run", tmp_path / "pipe", starts=STARTS))
    shipped = start_pipeline("idm_vton", "builtin", starts=STARTS)
    assert pipe.scheduler.config.prediction_type == shipped.scheduler.config.prediction_type == "v_prediction"
    assert torch.equal(pipe.reference_unet.conv_in.weight, shipped.reference_unet.conv_in.weight)
    assert not torch.equal(pipe.unet.conv_in.weight, shipped.unet.conv_in.weight)
    drawn = pipe(*[Image.new("RGB", (48, 64), "white")] * 4, width=48, height=64, num_inference_steps=1).images
    assert drawn[0].size == (48, 64)
    kept = export(tmp_path / "run", tmp_path / "weights" / "tryon", trained=["tryon"], starts=STARTS)
    assert sorted(path.parent.name for path in kept.glob("*/model.safetensors")) == ["image_projection", "unet"]
    for name in ("base", "referencenet", "image_encoder"):
        (tmp_path / "weights" / name).symlink_to(WEIGHTS / name)
    again = load_system("idm_vton", folder=tmp_path / "weights")
    for name, value in pipe.unet.state_dict().items():
        torch.testing.assert_close(again.unet.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    size = sum(path.stat().st_size for path in kept.rglob("*.safetensors"))
    shutil.rmtree(kept)
    export(tmp_path / "run", kept, trained=["tryon"], eight_bit=True, starts=STARTS)
    assert sum(path.stat().st_size for path in kept.rglob("*.safetensors")) < 0.56 * size
    smaller = load_system("idm_vton", folder=tmp_path / "weights")
    for name, value in pipe.unet.state_dict().items():
        assert (smaller.unet.state_dict()[name] - value).abs().max() <= value.abs().max() / 200
    with pytest.raises(ValueError, match="name the stages, or leave eight bits out"):
        export(tmp_path / "run", tmp_path / "other", eight_bit=True, starts=STARTS)
    with pytest.raises(ValueError, match="has no stage 'tryom'; did you mean 'tryon'"):
        export(tmp_path / "run", tmp_path / "other", trained=["tryom"], starts=STARTS)
    with pytest.raises(
        FileNotFoundError, match="no folder builtin to begin with; give one that holds weights, or tiny"
    ):
        start_pipeline("idm_vton", "builtin")


def replace_steps(given: Order, steps: int) -> Order:
    """The same order, which ends earlier."""
    return replace(given, changes=(*given.changes, f"steps={steps}"), resume=True)


def test_low_rank_weights_learn_alone_and_are_merged(viton: Path, tmp_path: Path) -> None:
    targets = r"lora.targets=['unet\.up_blocks\..*attn1\.to_[qkv]']"
    train(
        order(
            viton,
            tmp_path / "run",
            "lora.rank=2",
            "lora.alpha=3",
            targets,
            "data.workers=0",
            "optimizer.learning_rate=0.1",
        )
    )
    weights = newest(tmp_path / "run").weights
    assert weights
    assert all("lora_" in name and ".up_blocks." in name for name in weights)
    pipe = IDMVTONPipeline.from_pretrained(export(tmp_path / "run", tmp_path / "pipe"))
    before = tiny_pipeline("idm_vton").unet.state_dict()
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(".attn1.to_" in name and name.startswith("up_blocks") for name in changed)
    alone = export(tmp_path / "run", tmp_path / "lora", form="lora")
    (file,) = alone.rglob("*.safetensors")
    assert file.stat().st_size < 200_000
    loaded = tiny_pipeline("idm_vton")
    loaded.load_lora_weights(alone)
    loaded.fuse_lora()
    for name in changed:
        layer = loaded.unet.get_submodule(name.removesuffix(".weight"))
        torch.testing.assert_close(layer.base_layer.weight, after[name])


def test_every_sample_that_is_left_out_is_named_in_the_run(viton: Path, tmp_path: Path) -> None:
    root, told = shutil.copytree(viton, tmp_path / "viton"), list[str]()
    garments = sorted((root / "train" / "cloth").iterdir())
    for path in garments[:2]:
        path.unlink()
    train(order(root, tmp_path / "run", "data.workers=0", "steps=1", "batch=1"), tell=told.append)
    assert told[0].startswith("tryon: 2 samples; 2 left out, as ")
    named = json.loads((tmp_path / "run" / "left_out.json").read_text())
    assert named == {"tryon": {path.name: ["garment (no such file)"] for path in garments[:2]}}


def test_a_handful_of_samples_without_a_test_split_is_learned_from(viton: Path, tmp_path: Path) -> None:
    root, told = shutil.copytree(viton, tmp_path / "viton"), list[str]()
    (root / "test_pairs.txt").unlink()
    quick = ("data.workers=0", "steps=1", "batch=1", "validate_every=1")
    train(order(root, tmp_path / "run", *quick), tell=told.append)
    assert told[0] == "tryon: 4 samples"
    assert re.fullmatch(r"tryon: nothing is held out to validate with \(.* it has no test_pairs.txt\.\)", told[1])
    (record,) = RunFolder(tmp_path / "run" / "tryon").records()
    assert "validation" not in record
    assert not (tmp_path / "run" / "tryon" / "sheets").exists()


@pytest.mark.slow
@pytest.mark.parametrize("is_spread", ["false", "true"])
def test_two_processes_of_the_command_are_one_with_twice_the_batch(is_spread: str, viton: Path, tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [sys.executable, "-W", "ignore", "-m", "referencenet", "train", "idm_vton", "paperdoll", "--from", "tiny"]
    words += ["--data", str(viton), "--device", "cpu"]
    for change in (*QUICK, "data.workers=0", "drops.guidance=0.3"):
        words += ["--set", change]
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_FSDP": is_spread}
    both = [
        subprocess.Popen(
            [*words, "--out", str(tmp_path / "both"), "--set", "batch=1"],
            env=os.environ | told | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=500) for process in both] == [0, 0]
    train(order(viton, tmp_path / "one", "data.workers=0", "drops.guidance=0.3"))
    one, other = newest(tmp_path / "one"), newest(tmp_path / "both")
    for name, value in one.weights.items():
        # as a whole: Adam divides by gradients, of which the smallest are rounding
        assert relative_error(other.weights[name], value) < 1e-3, name
    records = [RunFolder(tmp_path / name / "tryon").records()[0]["loss"] for name in ("one", "both")]
    assert records[0] == pytest.approx(records[1], rel=1e-5)


@pytest.mark.slow
def test_frozen_weights_in_half_precision_are_validated_and_drawn_too(viton: Path, tmp_path: Path) -> None:
    half = ("precision=bf16", "frozen=bf16", r"train=['unet\.up_blocks\..*attn1\.to_.*']", "checkpointing=true")
    train(order(viton, tmp_path / "run", "data.workers=0", "steps=2", "validate_every=2", *half))
    assert (
        newest(tmp_path / "run").weights["unet.up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"].dtype
        == torch.float32
    )
    assert RunFolder(tmp_path / "run" / "tryon").records()[-1]["validation"] > 0


@pytest.mark.slow
def test_stages_follow_each_other_and_one_may_go_on(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "ubc", 5, "ubc", 64, 3)
    film = ("batch=1", "data.workers=0", "steps=2")
    train(order(root, tmp_path / "run", *film, system="animate_anyone"))
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert list(told["stages"]) == ["image", "video"]
    video = newest(tmp_path / "run", "video").weights
    assert any("motion_modules" in name for name in video)
    assert all("motion_modules" in name or ".attn" in name for name in video)  # as paperdoll.toml says
    image = newest(tmp_path / "run", "image")
    longer = order(root, tmp_path / "run", "batch=1", "data.workers=0", system="animate_anyone", stage="video")
    train(replace(longer, resume=True))
    assert newest(tmp_path / "run", "video").step == 4
    pipe = AnimateAnyonePipeline.from_pretrained(export(tmp_path / "run", tmp_path / "pipe", raw=True))
    assert torch.equal(pipe.pose_guider.conv_in.weight, image.weights["pose_guider.conv_in.weight"])


def test_a_plan_says_what_learns_and_what_it_needs(tmp_path: Path) -> None:
    found = plan(Order(system="idm_vton", config="24gb", out=tmp_path, start="tiny", changes=("data.size=[64, 64]",)))
    assert r"trained: unet\.up_blocks\..*attn[12]\.to_.*" in found
    assert "tryon: 4000 steps of 8 x 1 at 64 x 64, bf16, adamw8bit 1e-05" in found
    rows = {line.split()[0]: line.split() for line in found.splitlines() if line}
    assert rows["vae"][1] == "-"
    assert rows["unet"][1] != "-"
    assert float(rows["all"][-1]) < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "idm_vtom"}, "no recipe for 'idm_vtom'; did you mean 'idm_vton'"),
        ({"stage": "tryom"}, "no stage 'tryom'; did you mean 'tryon'"),
        ({"config": "none.toml"}, "there is no configuration none.toml"),
    ],
)
def test_orders_that_cannot_be_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        order(tmp_path, tmp_path / "run", **changes)


def test_runs_need_data_weights_and_a_folder_of_their_own(viton: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --from a folder of weights"):
        start_pipeline("idm_vton", "")
    with pytest.raises(FileNotFoundError, match="no folder .*none to begin with"):
        start_pipeline("idm_vton", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="is not a run of `refnet train`"):
        export(tmp_path, tmp_path / "pipe")
    with pytest.raises(ValueError, match="frozen is bf16 and precision fp32"):
        train(order(viton, tmp_path / "run", "frozen=bf16"))
    (tmp_path / "run.json").write_text(json.dumps({"system": "magicpose", "start": "tiny", "base": None, "stages": {}}))
    with pytest.raises(ValueError, match="is a run of magicpose; give another folder"):
        train(order(viton, tmp_path))
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
        export(tmp_path, tmp_path / "pipe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "idm_vton", "paperdoll", "--out", "run"], "no data set was given"),
        (["train", "idm_vton", "paperdoll", "--data", "."], "no folder for the run was given"),
        (["train", "idm_vton", "paperdol", "--out", "run"], "there is no configuration paperdol"),
        (["train", "idm_vton", "paperdoll", "--out", "run", "--set", "stepz=3"], "did you mean 'steps'"),
        (["export", "none", "--out", "pipe"], "there is no run none"),
    ],
)
def test_commands_say_what_is_wrong_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
