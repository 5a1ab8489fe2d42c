"""The published systems, one row each, with their true state here.

The command `refnet methods`, the table in README.md and the tests are made from these rows. Licences are those of the
published code and weights, as their own repositories state them; this package holds neither. A state is a fact, not an
intention: "works" means that its golden cases pass through the public API, "planned" that nothing of it can be run yet.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

SD15 = "Stable Diffusion 1.5"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One published system.

    Attributes:
        name: Ours, as golden cases and commands call it.
        title: The authors'.
        paper: Its arXiv number, or None if there is no paper.
        source: Where the official code is, or why there is none.
        code_licence: Of the official code.
        weights_licence: Of the published weights.
        base: The model that it starts from.
        link: How the denoiser uses the reference.
        state: "works" or "planned".
        entry: What to import from `referencenet` to use it; None while planned.
        cases: Names of golden cases that prove it; empty while planned.
    """

    name: str
    title: str
    paper: str | None
    source: str
    code_licence: str
    weights_licence: str
    base: str
    link: str
    state: Literal["works", "planned"] = "planned"
    entry: str | None = None
    cases: tuple[str, ...] = ()


def by_name(rows: Iterable[Method]) -> Mapping[str, Method]:
    """Index rows by their names.

    Raises:
        ValueError: Two rows share a name.
    """
    index: dict[str, Method] = {}
    for row in rows:
        if row.name in index:
            raise ValueError(
                f"The method {row.name!r} is registered twice, as {index[row.name].title!r} and {row.title!r}; "
                "give one of them another name."
            )
        index[row.name] = row
    return MappingProxyType(index)


METHODS = by_name(
    [
        Method(
            name="reference_only",
            title="Reference-Only",
            paper=None,
            source="Mikubill/sd-webui-controlnet",
            code_licence="GPL-3.0; in diffusers Apache-2.0",
            weights_licence="no weights",
            base="any Stable Diffusion",
            link="keys and values joined",
            state="works",
            entry="reference",
            cases=(
                "reference_only-attn",
                "reference_only-attn-prompt-important",
                "reference_only-attn-reference-important",
                "reference_only-no-guidance",
                "reference_only-partial-weight",
                "reference_only-sdxl",
            ),
        ),
        Method(
            name="reference_adain",
            title="Reference-AdaIN",
            paper=None,
            source="Mikubill/sd-webui-controlnet",
            code_licence="GPL-3.0; in diffusers Apache-2.0",
            weights_licence="no weights",
            base="any Stable Diffusion",
            link="AdaIN on block outputs",
            state="works",
            entry="reference",
            cases=("reference_adain-adain", "reference_adain-attn-and-adain", "reference_adain-partial-weight"),
        ),
        Method(
            name="animate_anyone",
            title="Animate Anyone",
            paper="2311.17117",
            source="MooreThreads/Moore-AnimateAnyone (a reproduction)",
            code_licence="Apache-2.0",
            weights_licence="Apache-2.0 (tag, unverified)",
            base=SD15,
            link="keys and values joined",
            state="works",
            entry="AnimateAnyonePipeline",
            cases=(
                "animate_anyone-context",
                "animate_anyone-loop",
                "animate_anyone-motion",
                "animate_anyone-pose",
                "animate_anyone-reenact",
                "animate_anyone-step",
                "animate_anyone-train",
            ),
        ),
        Method(
            name="magic_animate",
            title="MagicAnimate",
            paper="2311.16498",
            source="magic-research/magic-animate",
            code_licence="BSD-3-Clause; some files stricter",
            weights_licence="unverified",
            base=SD15,
            link="keys and values joined",
        ),
        Method(
            name="emo",
            title="EMO",
            paper="2402.17485",
            source="never published",
            code_licence="no code",
            weights_licence="no weights",
            base=SD15,
            link="in place of the text attention",
        ),
        Method(
            name="aniportrait",
            title="AniPortrait",
            paper="2403.17694",
            source="Zejun-Yang/AniPortrait",
            code_licence="Apache-2.0",
            weights_licence="Apache-2.0 (tag)",
            base=SD15,
            link="keys and values joined",
        ),
        Method(
            name="magicpose",
            title="MagicPose",
            paper="2311.12052",
            source="Boese0601/MagicDance",
            code_licence="USC research licence",
            weights_licence="none stated",
            base=SD15,
            link="keys and values joined",
        ),
        Method(
            name="hallo",
            title="Hallo",
            paper="2406.08801",
            source="fudan-generative-vision/hallo",
            code_licence="MIT",
            weights_licence="unverified",
            base=SD15,
            link="keys and values joined, and motion frames",
        ),
        Method(
            name="idm_vton",
            title="IDM-VTON",
            paper="2403.05139",
            source="yisol/IDM-VTON",
            code_licence="CC BY-NC-SA 4.0",
            weights_licence="CC BY-NC-SA 4.0",
            base="SDXL inpainting, 13 channels",
            link="keys and values joined",
            state="works",
            entry="IDMVTONPipeline",
            cases=(
                "idm_vton-garmentnet",
                "idm_vton-mask",
                "idm_vton-resampler",
                "idm_vton-sample",
                "idm_vton-sample-noguidance",
                "idm_vton-train",
                "idm_vton-tryonnet",
            ),
        ),
        Method(
            name="stable_garment",
            title="StableGarment",
            paper="2403.10783",
            source="logn-2024/StableGarment",
            code_licence="CC BY-NC-SA 4.0",
            weights_licence="CC BY-NC-SA 4.0 (readme)",
            base=SD15,
            link="a second attention, added",
        ),
        Method(
            name="parts2whole",
            title="Parts2Whole",
            paper="2404.15267",
            source="huanngzh/Parts2Whole",
            code_licence="MIT",
            weights_licence="Apache-2.0",
            base=SD15,
            link="keys and values of several parts joined",
        ),
        Method(
            name="flashface",
            title="FlashFace",
            paper="2403.17008",
            source="ali-vilab/FlashFace",
            code_licence="MIT",
            weights_licence="MIT (tag)",
            base=SD15,
            link="an attention of its own, mixed in",
            state="works",
            entry="FlashFacePipeline",
            cases=(
                "flashface-attention-block",
                "flashface-clip-text",
                "flashface-end-to-end",
                "flashface-face-mask",
                "flashface-norm-epsilon",
                "flashface-schedule",
                "flashface-step-three-way",
                "flashface-step-two-way",
                "flashface-vae",
            ),
        ),
        Method(
            name="diffportrait3d",
            title="DiffPortrait3D",
            paper="2312.13016",
            source="FreedomGu/DiffPortrait3D",
            code_licence="MIT",
            weights_licence="none stated",
            base=SD15,
            link="keys and values joined",
        ),
    ]
)


def find_method(name: str) -> Method:
    """Look a system up by our name for it.

    Raises:
        ValueError: There is no such row.
    """
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}; there are {', '.join(sorted(METHODS))}.")
    return METHODS[name]


def markdown_table(rows: Iterable[Method]) -> str:
    """Print rows as the table that README.md shows."""
    lines = ["| system | state | base | link | code | weights |", "|---|---|---|---|---|---|"]
    for row in rows:
        title = f"[{row.title}](https://arxiv.org/abs/{row.paper})" if row.paper else row.title
        state = f"**works**: `{row.entry}`" if row.state == "works" else row.state
        lines.append(f"| {title} | {state} | {row.base} | {row.link} | {row.code_licence} | {row.weights_licence} |")
    return "\n".join(lines)
