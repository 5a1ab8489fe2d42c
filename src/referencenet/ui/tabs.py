"""What the tabs show: their inputs, by the names that orders know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from referencenet.cli.face_inputs import TRACKS
from referencenet.methods.flashface import FaceGuidance
from referencenet.methods.reference_only import NAMED_LINKS
from referencenet.preprocess.parts import LABELS, PLACES
from referencenet.ui.components import painted, picture, pictures
from referencenet.ui.models import TabName
from referencenet.ui.pictures import CATEGORIES
from referencenet.ui.refer import POSED, STYLED

FILMS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")
"""Endings of films that are dropped where a file may be something else too."""

Inputs = dict[str, Any]
"""Name to component, in the order in which they stand."""

ABOUT: Mapping[TabName, tuple[str, str, str]] = {
    "refer": ("Refer", "Draw", "New pictures that refer to yours. Paint over a part to refer to that part only."),
    "compose": (
        "Compose",
        "Compose",
        "A person from pictures of parts in a pose, or in a garment. Paint over each part.",
    ),
    "dress": ("Dress", "Dress", "The person of a picture in a garment. Paint over what is to be repainted."),
    "face": ("Face", "Draw", "The person of some photographs, drawn from a prompt. Crop them to the face."),
    "animate": (
        "Animate",
        "Animate",
        "The person of a picture moves as a film of drawings does: skeletons, DensePose or faces.",
    ),
    "talk": (
        "Talk",
        "Let it talk",
        "The person of a portrait says what is in a sound. The face should be half to two thirds of the picture.",
    ),
    "turn": ("Turn", "Turn", "The person of a portrait from other cameras."),
}
"""Tab to its title, its button and what it does."""


def refer(controlnets: Sequence[str] = ()) -> Inputs:
    """Pictures that refer to pictures.

    Args:
        controlnets: Kinds of those that are offered.
    """
    found: Inputs = {"reference": painted("Reference")}
    found["prompt"] = _words("Prompt", "what the picture shows")
    links = [(name, name) for name in NAMED_LINKS] + [("in a pose", POSED), ("its style alone", STYLED)]
    found["link"] = gr.Radio(links, value="attention", label="Link: how the reference is read")
    with gr.Group(visible=False) as posed:
        found["pose"] = picture("Skeleton to follow")
    with gr.Group(visible=False) as styled:
        found["style_prompt"] = _words("What the picture of the style shows", "full body, standing, facing front")
        with gr.Row():
            ways = [("its latents are traced back", "inverted"), ("noise is put on it", "noised")]
            found["style_from"] = gr.Dropdown(ways, value="inverted", label="How the style is read")
            found["style_weight"] = gr.Number(1, label="Weight of the style", step=0.5)
    found["link"].change(
        lambda link: [gr.update(visible=link == POSED), gr.update(visible=link == STYLED)],
        found["link"], [posed, styled], api_visibility="private",
    )  # fmt: skip
    if controlnets:
        with gr.Accordion("ControlNet", open=False):
            found["controlnet"] = gr.Dropdown([("none", ""), *controlnets], value="", label="Which follows")
            found["control"] = picture("Picture that it follows")
    with gr.Accordion("More", open=False):
        found["others"] = pictures("Further references")
        found["negative_prompt"] = _words("Negative prompt", "what it should not show")
        found["strength"] = gr.Slider(0, 1, 1, step=0.05, label="Strength")
        found["style_fidelity"] = gr.Slider(0, 1, 0.5, step=0.05, label="Style fidelity")
        found |= _sampling(True)
    return found


def compose() -> Inputs:
    """A person of parts, or in a garment."""
    found: Inputs = {}
    rows: list[Any] = []
    with gr.Group(elem_classes="for-parts") as parts:
        for number in range(1, PLACES + 1):
            with gr.Column(visible=number <= 2) as row:
                first = number - 1
                found[f"part_{number}"] = painted(f"Part {number}")
                found[f"label_{number}"] = gr.Dropdown(
                    [*LABELS], value=LABELS[(4, 0, 1, 5, 3, 2)[first]], label="It is"
                )
            rows.append(row)
        shown = gr.State(2)
        more = gr.Button("Add a part", size="sm")
        more.click(
            lambda count: [min(count + 1, PLACES), *(gr.update(visible=n <= count) for n in range(PLACES))],
            shown, [shown, *rows], api_visibility="private",
        )  # fmt: skip
        found["pose"] = picture("Pose: DensePose on black")
    with gr.Group(visible=False) as worn:
        found["garment"] = picture("Garment")
        found["garment_prompt"] = _words("Garment description", "a striped shirt")
    found["prompt"] = _words("Prompt", "what the picture shows")
    with gr.Accordion("More", open=False):
        found["negative_prompt"] = _words("Negative prompt", "what it should not show")
        found |= _sampling(True)
    found["_for"] = {"parts2whole": [parts], "stable_garment": [worn]}
    return found


def dress() -> Inputs:
    """A person in a garment."""
    found: Inputs = {"person": painted("Person"), "garment": picture("Garment, lying flat")}
    with gr.Group() as shaped:
        found["densepose"] = picture("DensePose, on black")
    with gr.Group() as described:
        found["garment_description"] = _words("Garment description", "short sleeve shirt")
    with gr.Group(visible=False) as worded:
        found["prompt"] = _words("Prompt", "a photo of a woman")
        found["garment_prompt"] = _words("Garment description", "a striped shirt")
    with gr.Accordion("More", open=False):
        found["mask"] = picture("Mask, instead of painting: white is repainted")
        with gr.Accordion("Or make a mask", open=False):
            found["parsing"] = picture("Human parsing: grey, ATR's labels 0 to 18")
            found["keypoints"] = _file("Key points of the body, .json", ".json")
            found["category"] = gr.Dropdown([*CATEGORIES], value=CATEGORIES[0], label="For what")
            found["who"] = _who()
        found["composite"] = gr.Checkbox(label="Outside of the mask the person stays as it is")
        found |= _sampling(True)
    found["_for"] = {"idm_vton": [shaped, described], "stable_garment": [shaped, worded], "catvton": []}
    return found


def face() -> Inputs:
    """The person of photographs."""
    found: Inputs = {"faces": pictures("Photographs of the face")}
    found["prompt"] = gr.Textbox("a portrait photograph", label="Prompt", lines=2, info="Name an age: it helps.")
    with gr.Accordion("More", open=False):
        found["negative_prompt"] = _words("Negative prompt", "what it should not show")
        found["strength"] = gr.Slider(0, 2, FaceGuidance.lambda_feat, step=0.05, label="Strength, usually 0.7 to 1.4")
        found["face_guidance"] = gr.Slider(
            1, 6, FaceGuidance.face_guidance, step=0.1, label="Face guidance, usually 1.8 to 4"
        )
        found |= _sampling(True)
    return found


def animate() -> Inputs:
    """A film of drawings."""
    found: Inputs = {"reference": picture("Person"), "poses": _film("Film of drawings")}
    with gr.Group(visible=False) as second:
        found["poses_2"] = _film("Second film of drawings, of the mouth")
    with gr.Group(visible=False) as seen, gr.Accordion("Moved by something else", open=False):
        found["video"] = _film("An ordinary film; poses, faces or DensePose are found in it")
        with gr.Group(visible=False) as body:
            found["keypoints"] = _file("Key points of the film, OpenPose's .json", ".json")
            found["fit_to"] = _file("The person's own key points, for its build", ".json")
        with gr.Group(visible=False) as faces:
            found["landmarks"] = _file("Landmarks of the film, from refnet preprocess", ".npz", ".json")
            found["driving"] = _file("Film or face track whose face moves the portrait's", *TRACKS, *FILMS)
            found["face"] = _file("Face track of the portrait; else it is found", *TRACKS)
        found["who"] = _who()
    with gr.Accordion("More", open=False):
        found |= _timing("all of the film", "the film's") | _sampling(False)
    bodies = [seen, body]
    found["_for"] = {"animate_anyone": bodies, "magicpose": bodies, "aniportrait": [seen, faces],
                     "magic_animate": [seen],
                     "animate_anyone.reenact": [second]}  # fmt: skip
    return found


def talk() -> Inputs:
    """A talking portrait."""
    found: Inputs = {"reference": picture("Portrait")}
    found["sound"] = gr.Audio(label="Sound", type="filepath", sources=["upload", "microphone"], buttons=[])
    found["face"] = _file("Face of the portrait, from refnet preprocess", ".npz", ".json")
    with gr.Accordion("More", open=False):
        with gr.Group(visible=False) as known:
            found["embedding"] = _file("Face embedding: .npy, or glintr100.onnx", ".npy", ".onnx")
        with gr.Group(visible=False) as looked_for:
            found["who"] = _who()
        found |= _timing("the whole sound", "the system's") | _sampling(False)
    found["_for"] = {"hallo": [known, looked_for], "emo": [looked_for]}
    return found


def turn() -> Inputs:
    """Other cameras."""
    found: Inputs = {"reference": picture("Portrait")}
    with gr.Row():
        found["yaw_from"] = gr.Slider(-90, 90, -40, step=1, label="From °")
        found["yaw_to"] = gr.Slider(-90, 90, 40, step=1, label="To °")
    found["views"] = gr.Slider(1, 32, 16, step=1, label="Views")
    with gr.Accordion("More", open=False):
        found["pitch"] = gr.Slider(-45, 45, 0, step=1, label="Pitch, degrees; above 0 the face looks up")
        found["cameras"] = _film("Film of a portrait of anybody from each camera, instead of a drawn head")
        found["prompt"] = _words("Prompt", "Empty in training")
        found["fps"] = gr.Number(label="Frames per second", placeholder="10")
        found |= _sampling(False)
    return found


CONTENTS: Mapping[TabName, Callable[..., Inputs]] = {
    "refer": refer, "compose": compose, "dress": dress, "face": face, "animate": animate, "talk": talk, "turn": turn,
}  # fmt: skip


def _words(label: str, placeholder: str) -> Any:
    return gr.Textbox(label=label, placeholder=placeholder, lines=2, max_lines=6)


def _film(label: str) -> Any:
    return gr.Video(label=label, sources=["upload"], height=240, buttons=[])


def _file(label: str, *endings: str) -> Any:
    return gr.File(label=label, file_types=[*endings], height=160)


def _who() -> Any:
    return gr.Number(label="Which person, counted from the left", placeholder="the largest", precision=0)


def _timing(frames: str, rate: str) -> Inputs:
    with gr.Row():
        return {
            "frames": gr.Number(label="Frames", placeholder=frames, precision=0, min_width=120),
            "fps": gr.Number(label="Frames per second", placeholder=rate, min_width=120),
        }


def _sampling(counts: bool) -> Inputs:
    """Size, steps, guidance, seed; what is left empty is the model's own, or drawn."""
    own = "the model's own"
    with gr.Row():
        found: Inputs = {"size": gr.Textbox(label="Size", placeholder=f"512x512; {own}", min_width=120)}
        found["steps"] = gr.Number(label="Steps", placeholder=own, precision=0, min_width=120)
        found["guidance"] = gr.Number(label="Guidance", placeholder=own, step=0.5, min_width=120)
        found["seed"] = gr.Number(label="Seed", placeholder="random", precision=0, min_width=120)
        if counts:
            found["count"] = gr.Number(1, label="Pictures", precision=0, min_width=120)
    fits = [("as the system does", ""), ("keep their middle", "crop"), ("give them a border", "pad"),
            ("stretch them", "stretch")]  # fmt: skip
    found["fit"] = gr.Dropdown(fits, value="", label="Pictures of other proportions")
    found["side_by_side"] = gr.Checkbox(label="Show what was given beside the result")
    return found
