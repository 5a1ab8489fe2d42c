"""Everything that decides what `refnet generate` draws: written beside the pictures, read back to draw them again."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from referencenet.inputs import read_json
from referencenet.media.fitting import Fit
from referencenet.media.images import MAX_PIXELS
from referencenet.media.records import file_print, portable
from referencenet.telling import some

LinkChoice = Literal["attention", "adain", "both", "referencenet", "aligned"]
StyleFrom = Literal["inverted", "noised"]
OffloadChoice = Literal["model", "group", "sequential"]
DtypeChoice = Literal["auto", "float32", "float16", "bfloat16"]


SEVERAL = ("reference", "mask", "control", "controlnet", "lora")
"""Options that may be repeated."""

SCALARS = (str, int, float, type(None))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one run, named as on the command line; None means the model's own default.

    Attributes:
        prompt: What the pictures show.
        reference: Paths of the pictures to refer to.
        mask: Paths, one for each of the first references: where it may be read.
        result_mask: Path: where in the result the references may be read.
        negative_prompt: What the pictures should not show.
        model: `builtin`, a folder, a single file, or an identifier on the hub.
        config: For a single file: the folder or identifier of a model with its configuration.
        lora: FILE or FILE:SCALE each.
        scheduler: By any of its names; None: the model's own.
        image: Path of a picture to begin from; None: from noise.
        image_strength: In [0, 1]: how much of it is drawn anew; None: the pipeline's default.
        inpaint_mask: Path: white is drawn anew.
        link: How the references are read.
        style_fidelity: In [0, 1]; None: 0.5, or 0 for the aligned link.
        strength: In [0, 1].
        start: Share of the steps before which references are not read.
        end: Share of the steps after which they are not read.
        control: KIND=PICTURE each, or pose=NAME.
        controlnet: KIND=PATH each.
        count: Pictures.
        seed: Of the first picture; the next ones count up.
        steps: Of the scheduler.
        guidance: Scale; 1 is none.
        size: WIDTHxHEIGHT, or one number for both, in pixels.
        fit: How pictures of other proportions come to the size; None: references keep theirs, skeletons are stretched.
        person: References are cut around this one of several people, counted from the left; None: they stay whole.
        models: Folder of the networks that find people; None: where they were fetched to.
        device: Where the model runs.
        dtype: What it computes in.
        offload: How weights wait in the CPU's memory; None: they do not.
        vae_tiling: Whether pictures are decoded tile by tile.
        compile: Whether the UNet is compiled.
        style_prompt: What the style's picture shows; this and what follows is for the aligned link.
        style_from: How its latents are found.
        style_weight: How many times its tokens count.
        share_attention: Whether they are attended to.
        adain_queries: Whether queries take its mean and deviation.
        adain_keys: Whether keys do.
        group_norm: Whether group norms look at both pictures.
    """

    prompt: str
    reference: tuple[str, ...]
    mask: tuple[str, ...] = ()
    result_mask: str | None = None
    negative_prompt: str = ""
    model: str = "builtin"
    config: str | None = None
    lora: tuple[str, ...] = ()
    scheduler: str | None = None
    image: str | None = None
    image_strength: float | None = None
    inpaint_mask: str | None = None
    link: LinkChoice = "attention"
    style_fidelity: float | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    control: tuple[str, ...] = ()
    controlnet: tuple[str, ...] = ()
    count: int = 1
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    size: str | None = None
    fit: Fit | None = None
    person: int | None = None
    models: str | None = None
    device: str = "auto"
    dtype: DtypeChoice = "auto"
    offload: OffloadChoice | None = None
    vae_tiling: bool = False
    compile: bool = False
    style_prompt: str = ""
    style_from: StyleFrom = "inverted"
    style_weight: float = 1.0
    share_attention: bool = True
    adain_queries: bool = True
    adain_keys: bool = True
    group_norm: bool = False

    @property
    def files(self) -> list[str]:
        """Every picture that the run reads."""
        single = [path for path in (self.result_mask, self.image, self.inpaint_mask) if path is not None]
        drawn = [path for kind, path in pairs(self.control, "--control").items() if not is_named_pose(kind, path)]
        return [*self.reference, *self.mask, *single, *drawn]


def is_named_pose(kind: str, value: str) -> bool:
    """Whether a condition is the name of a pose, not the path of a picture."""
    return kind == "pose" and not Path(value).suffix and not {"/", "\\"} & set(value) and not Path(value).exists()


def pairs(given: Sequence[str], option: str, example: str = "pose=skeleton.png") -> dict[str, str]:
    """Read KIND=PATH options.

    Args:
        given: As typed.
        option: What they are called, for errors.
        example: One that is right.

    Raises:
        ValueError: One has another form, or a kind comes twice.
    """
    found: dict[str, str] = {}
    for text in given:
        kind, sign, value = text.partition("=")
        if not (kind and sign and value):
            raise ValueError(f"{option} was {text!r}; it has the form KIND=PATH, as in {example}.")
        if kind in found:
            raise ValueError(f"{option} names the kind {kind!r} twice; give each once.")
        found[kind] = value
    return found


def parse_size(text: str, multiple: int = 1) -> tuple[int, int]:
    """Read 512 or 512x768.

    Args:
        text: As typed.
        multiple: Of what both must be multiples, in pixels.

    Returns:
        Width and height in pixels.

    Raises:
        ValueError: The text is neither, or a side is no such multiple.
    """
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(re.fullmatch(r"0*[1-9][0-9]{0,6}", part) for part in parts):
        raise ValueError(f"--size was {text!r}; it is one number or WIDTHxHEIGHT in pixels, as in 512x768.")
    width, height = int(parts[0]), int(parts[-1])
    if width * height > MAX_PIXELS:
        raise ValueError(f"--size is {width}x{height}; at most {MAX_PIXELS // 10**6} million pixels are drawn.")
    if width % multiple or height % multiple:
        raise ValueError(f"--size is {width}x{height}; width and height must be multiples of {multiple}.")
    return width, height


def to_document(settings: Settings, made_with: Mapping[str, str], pictures: Sequence[Mapping[str, Any]]) -> str:
    """Make the text of settings.json."""
    document = {
        "again": "refnet generate --settings settings.json --out FOLDER",
        "settings": asdict(settings),
        "pictures": list(pictures),
        "made_with": dict(made_with),
        "sha256": {path: file_print(path) for path in settings.files},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def to_record(settings: Settings, made_with: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    """What stands in a picture of a run.

    Args:
        settings: Of the run, without open questions.
        made_with: Versions and classes.
        changes: What is different for this picture, such as its seed.
    """
    usual = {each.name: each.default for each in fields(Settings)}
    chosen = {name: value for name, value in (asdict(settings) | changes).items() if value != usual[name]}
    for name in ("reference", "mask", "result_mask", "image", "inpaint_mask"):
        value = chosen.get(name)
        if value is not None:
            chosen[name] = portable(value) if isinstance(value, str) else [portable(path) for path in value]
    for name in ("model", "config", "lora", "models"):
        value = chosen.get(name)
        if value is not None:
            chosen[name] = _moved(value) if isinstance(value, str) else [_moved(place) for place in value]
    if "controlnet" in chosen:
        nets = pairs(chosen["controlnet"], "--controlnet").items()
        chosen["controlnet"] = [f"{kind}={_moved(net)}" for kind, net in nets]
    if "control" in chosen:
        drawn = pairs(chosen["control"], "--control").items()
        chosen["control"] = [f"{kind}={path if is_named_pose(kind, path) else portable(path)}" for kind, path in drawn]
    return {
        "again": {
            "command": "generate",
            "options": chosen,
            "files": {portable(path): file_print(path) for path in settings.files},
        },
        "made_with": dict(made_with),
    }


def _moved(name: str) -> str:
    """A model's name as records have it: paths are whole already, and names of the hub are none."""
    return portable(name) if Path(name).is_absolute() else name


def read_document(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read settings.json back.

    Returns:
        The options by name, and the pictures that are not what they were when the file was written.

    Raises:
        ValueError: It is not a file that `refnet generate` wrote.
    """
    expected = "the settings.json of an earlier run of refnet generate"
    document = read_json(path, expected)
    sections = [document.get(name) if isinstance(document, dict) else None for name in ("settings", "sha256")]
    if not all(isinstance(section, dict) for section in sections):
        raise ValueError(
            f"{path} is not a settings.json of refnet generate: it lacks its sections; expected {expected}."
        )
    settings, prints = sections[0] or {}, sections[1] or {}
    unknown = settings.keys() - Settings.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(f"{path} holds unknown settings {some(unknown)}; it is of another version.")
    for name, value in settings.items():
        several = name in SEVERAL
        if not all(isinstance(one, SCALARS) for one in (value if several and isinstance(value, list) else [value])):
            raise ValueError(
                f"{path} has {name} = {str(value)[:80]!r}; expected {'a list' if several else 'one value'}."
            )
        if several and not isinstance(value, list):
            raise ValueError(f"{path} has {name} = {str(value)[:80]!r}; expected a list.")
    return settings, [name for name, sha in prints.items() if file_print(name) != sha]
