"""Everything that decides what `refnet generate` draws: written beside the pictures, read back to draw them again."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from referencenet.inputs import read_json, regular_file
from referencenet.media.fitting import Fit
from referencenet.media.images import MAX_PIXELS
from referencenet.telling import some

LinkChoice = Literal["attention", "adain", "both", "referencenet", "aligned"]
StyleFrom = Literal["inverted", "noised"]
OffloadChoice = Literal["model", "group", "sequential"]
DtypeChoice = Literal["auto", "float32", "float16", "bfloat16"]


SEVERAL = ("reference", "mask", "control", "controlnet")
"""Options that may be given again."""

SCALARS = (str, int, float, type(None))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one run, named as on the command line; None means the model's own default.

    Attributes:
        prompt: What the pictures show.
        reference: Paths of the pictures to refer to.
        mask: Paths, one for each of the first references: where it may be read.
        result_mask: Path: where in the result the references may be read.
        negative_prompt: What the pictures shall not show.
        model: `builtin`, a folder, or an identifier on the hub.
        link: How the references are read.
        style_fidelity: In [0, 1]; None: 0.5, or 0 for the aligned link.
        strength: In [0, 1].
        control: KIND=PICTURE each.
        controlnet: KIND=PATH each.
        count: Pictures.
        seed: Of the first picture; the next ones count up.
        steps: Of the scheduler.
        guidance: Scale; 1 is none.
        size: WIDTHxHEIGHT, or one number for both, in pixels.
        fit: How pictures of other proportions come to the size; None: references keep theirs, skeletons are stretched.
        device: Where the model runs.
        dtype: What it computes in.
        offload: How weights wait in the CPU's memory; None: they do not.
        vae_tiling: Whether pictures are decoded tile by tile.
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
    link: LinkChoice = "attention"
    style_fidelity: float | None = None
    strength: float = 1.0
    control: tuple[str, ...] = ()
    controlnet: tuple[str, ...] = ()
    count: int = 1
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    size: str | None = None
    fit: Fit | None = None
    device: str = "auto"
    dtype: DtypeChoice = "auto"
    offload: OffloadChoice | None = None
    vae_tiling: bool = False
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
        pictures = [path for path in pairs(self.control, "--control").values()]
        return [*self.reference, *self.mask, *([self.result_mask] if self.result_mask else []), *pictures]


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
        "sha256": {path: fingerprint(path) for path in settings.files},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


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
        raise ValueError(f"{path} is no settings.json of refnet generate: it lacks its sections; expected {expected}.")
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
    return settings, [name for name, sha in prints.items() if fingerprint(name) != sha]


def fingerprint(path: str) -> str | None:
    """Compute a file's sha256, or None if it is not there."""
    if not Path(path).is_file():
        return None
    with regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
