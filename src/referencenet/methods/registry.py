"""The published systems, one row each, with their true state here.

The command `refnet methods`, the table in README.md and the tests are made from these rows. Licences are those of the
published code and weights, as their own repositories state them; this package holds neither. A state is a fact, not an
intention: "works" means that its golden cases pass through the public API, "works, from the paper" that there is
nothing published to compare with and its properties are tested, "planned" that nothing of it can be run yet. What
"works, beside them" stands beside the thirteen; of it nothing was recorded, and tests hold it to its description.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from referencenet.telling import did_you_mean

SD15 = "Stable Diffusion 1.5"

Task = Literal["generate", "animate", "talk", "turn", "tryon", "face", "compose"]


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
        task: The command that runs it, such as "animate"; None while planned.
        entry: Where it is, "module:name" below `referencenet`; None while planned.
        also: Further commands, each with what of the same module it runs.
        sets: Published sets of its weight files, each with the commands that run it: "animate_anyone.moore" is `moore`.
        parity: File in `parity/systems` with its golden cases' runners; None while there is none.
        beside: Whether it stands beside the thirteen, without golden cases.
        from_paper: Nothing was published, so it is ours from the paper: without weights, and with tests of its
            properties in the place of golden cases.
    """

    name: str
    title: str
    paper: str | None
    source: str
    code_licence: str
    weights_licence: str
    base: str
    link: str
    task: Task | None = None
    entry: str | None = None
    also: Mapping[Task, str] = field(default_factory=dict[Task, str])
    sets: Mapping[str, tuple[Task, ...]] = field(default_factory=dict[str, tuple[Task, ...]])
    parity: str | None = None
    beside: bool = False
    from_paper: bool = False

    @property
    def state(self) -> Literal["works", "works, from the paper", "works, beside them", "planned"]:
        """A fact, not an intention."""
        if self.entry is None:
            return "planned"
        if self.beside:
            return "works, beside them"
        return "works, from the paper" if self.from_paper else "works"

    @property
    def public_name(self) -> str | None:
        """What to import from `referencenet`; None while planned."""
        return None if self.entry is None else self.entry.split(":")[1]

    @property
    def home(self) -> str:
        """The module of the system."""
        return f"referencenet.{(self.entry or '').split(':')[0]}"

    @property
    def has_pipeline(self) -> bool:
        """Whether the system is a pipeline of its own, and not a control of other pipelines."""
        return (self.public_name or "").endswith("Pipeline")


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
            task="generate",
            entry="methods.reference_only:reference",
            parity="reference_only",
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
            task="generate",
            entry="methods.reference_only:reference",
            parity="reference_only",
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
            task="animate",
            entry="methods.animate_anyone:AnimateAnyonePipeline",
            sets={"moore": ("animate",), "reenact": ("animate",)},
            parity="animate_anyone",
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
            task="animate",
            entry="methods.magic_animate:MagicAnimatePipeline",
            sets={"hub": ("animate",)},
            parity="magic_animate",
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
            task="talk",
            entry="methods.emo:EMOPipeline",
            sets={"start": ("talk",)},
            from_paper=True,
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
            task="animate",
            entry="methods.aniportrait:AniPortraitPipeline",
            also={"talk": "AniPortraitPipeline"},
            sets={"hub": ("animate", "talk")},
            parity="aniportrait",
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
            task="animate",
            entry="methods.magicpose:MagicPosePipeline",
            sets={"joint": ("animate",), "stage1": ()},
            parity="magicpose",
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
            task="talk",
            entry="methods.hallo:HalloPipeline",
            sets={"hub": ("talk",)},
            parity="hallo",
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
            task="tryon",
            entry="methods.idm_vton:IDMVTONPipeline",
            sets={"viton_hd": ("tryon",)},
            parity="idm_vton",
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
            task="tryon",
            entry="methods.stable_garment:StableGarmentTryOnPipeline",
            also={"compose": "StableGarmentPipeline"},
            sets={"tryon": ("tryon",), "text2img": ("compose",)},
            parity="stable_garment",
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
            task="compose",
            entry="methods.parts2whole:Parts2WholePipeline",
            sets={"hub": ("compose",)},
            parity="parts2whole",
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
            task="face",
            entry="methods.flashface:FlashFacePipeline",
            sets={"sd15": ("face",)},
            parity="flashface",
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
            task="turn",
            entry="methods.diffportrait3d:DiffPortrait3DPipeline",
            sets={"release": ("turn",)},
            parity="diffportrait3d",
        ),
        Method(
            name="catvton",
            title="CatVTON",
            paper="2407.15886",
            source="Zheng-Chong/CatVTON",
            code_licence="CC BY-NC-SA 4.0",
            weights_licence="CC BY-NC-SA 4.0",
            base=f"{SD15} inpainting, 9 channels",
            link="none: one picture holds both",
            task="tryon",
            entry="methods.catvton:CatVTONPipeline",
            sets={"attention": ("tryon",)},
            beside=True,
        ),
    ]
)


def names_of(task: Task | None = None) -> tuple[str, ...]:
    """Systems and their published sets, as a command's --method takes them, sorted.

    Args:
        task: The command; None: those of every pipeline, as `refnet convert` takes them.
    """
    found: list[str] = []
    for row in METHODS.values():
        if row.has_pipeline and task in (None, row.task, *row.also):
            found.append(row.name)
            found += [f"{row.name}.{each}" for each, tasks in row.sets.items() if task is None or task in tasks]
    return tuple(sorted(found))


def named(typed: str, names: Iterable[str]) -> str | None:
    """The name that somebody has written in another way: Reference-Only is reference_only, IDM-VTON is idm_vton.

    Args:
        typed: Whatever case it has, and whatever stands between its words.
        names: Of systems or their published sets.

    Returns:
        One of the names; None if it is none.
    """
    return {_bare(name): name for name in names}.get(_bare(typed))


def find_method(name: str) -> Method:
    """Look a system up by our name for it, or by what its authors call it.

    Raises:
        ValueError: There is no such row.
    """
    found = named(name, METHODS)
    if found is None:
        known = sorted(METHODS)
        raise ValueError(f"There is no method {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}")
    return METHODS[found]


def _bare(name: str) -> str:
    """Letters and digits only, in lower case."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def markdown_table(rows: Iterable[Method]) -> str:
    """Print rows as the table that README.md shows."""
    lines = ["| system | state | base | link | code | weights |", "|---|---|---|---|---|---|"]
    for row in rows:
        title = f"[{row.title}](https://arxiv.org/abs/{row.paper})" if row.paper else row.title
        state = row.state if row.entry is None else f"**{row.state}**: `{row.public_name}`"
        lines.append(f"| {title} | {state} | {row.base} | {row.link} | {row.code_licence} | {row.weights_licence} |")
    return "\n".join(lines)
