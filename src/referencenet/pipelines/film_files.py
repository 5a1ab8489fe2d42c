"""A film from a picture and films of poses, on the disk: frames stream in and out, and a failure costs little.

Behind every finished piece the state of the film is kept beside it. A run that was cut short, by an error, a full disk
or its user, goes on from there and gives the same film as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from referencenet.checkpoints.files import read_saved
from referencenet.links.bank import ReferenceBank
from referencenet.media.files import written_whole
from referencenet.media.films import Film, FilmWriter, FrameSource, check_film_path, parts_of
from referencenet.media.fitting import Fit, fitted
from referencenet.media.images import Picture, read_image
from referencenet.pipelines.encoders import check_finite_result, stretched
from referencenet.pipelines.films import FilmPipeline, drawing_tensor
from referencenet.pipelines.fingerprints import fingerprint, fingerprints_of, frame_print
from referencenet.sampling.insertion import Interpolator, insert_frames
from referencenet.sampling.processes import ALONE, Processes
from referencenet.sampling.windows import OVERLAP, Windows

PRINT = 8  # bytes of a frame's fingerprint
FINGERPRINTS = ("reference", "sound", "weights", "scheduler", "interpolator")
"""Among what a film must have been begun with, those that are hashes."""


@dataclass(frozen=True, kw_only=True)
class FilmSettings:
    """What decides a film's frames, beside its pipeline and pictures.

    Attributes:
        width: In pixels; None: that of the poses, rounded down.
        height: Likewise.
        num_frames: None: as many as there are poses.
        rate: Frames per second; None: that of the poses.
        num_inference_steps: Denoising steps; None: the system's.
        guidance_scale: 1 and below: none; None: the system's.
        window: Frames denoised together; None: the system's.
        overlap: Frames that windows share; None: the system's, or ours where its windows wrap around.
        seed: Of the noise.
        side_by_side: Show reference, poses and result beside each other, as the published script does.
        every: Draw only every so many frames, and insert those between: of n poses `num_written` frames come out.
        fit: How pictures of other proportions come to the film's size; None: as the system does.
        told: Further arguments of the system's stream, such as a prompt.
    """

    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    rate: Fraction | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    window: int | None = None
    overlap: int | None = None
    seed: int = 0
    side_by_side: bool = False
    every: int = 1
    fit: Fit | None = None
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def num_drawn(self) -> int:
        """Frames that the denoiser draws, of settings that leave nothing open."""
        return ((self.num_frames or 0) - 1) // self.every + 1

    @property
    def num_written(self) -> int:
        """Frames of the film, of settings that leave nothing open."""
        return (self.num_drawn - 1) * self.every + 1


def animate_film(
    pipe: FilmPipeline,
    reference: Picture | ReferenceBank,
    poses: Sequence[str | Path | FrameSource],
    out: str | Path,
    settings: FilmSettings,
    *,
    resume: bool = False,
    across_processes: bool = False,
    interpolator: Interpolator | None = None,
    sound: str | Path | None = None,
    overwrite: bool = False,
    beside: Mapping[str, Any] | None = None,
    step_done: Callable[[int], None] | None = None,
) -> Path:
    """Write a film of any length in bounded memory.

    Args:
        pipe: Animates.
        reference: A picture of the person, or a saved bank.
        poses: A film per pose net of the pipeline: a path, or drawings such as a `SkeletonFilm`.
        out: .mp4, .webm, .gif, or a folder for PNGs.
        settings: Of the film.
        resume: Go on where the same call left off; without anything to go on from, begin.
        across_processes: Spread the work over the processes of `accelerate launch` or `torchrun`, which all call with
            the same arguments and see the same files. The main one writes; the film is the one that one would make.
        interpolator: Inserts frames where `every` leaves some out.
        sound: A file whose sound becomes the track; only for .mp4 and .webm.
        overwrite: Take the frames of an older film out of the folder; files are replaced anyway.
        beside: What else decided the film, to stand beside it as JSON with the settings; None: nothing does.
        step_done: Called with the number of predictions so far, of `num_predictions`.

    Returns:
        Where the film is.

    Raises:
        ValueError: If films or settings do not fit together, a resumed film was begun with others, with another
            reference, other weights, poses, types or versions, or another process is writing the film.
        OSError: If the film cannot be written; what is finished stays for `resume`.
    """
    out = Path(out)
    check_film_path(out, None if sound is None else Path(sound), resume=resume, overwrite=overwrite)
    if settings.every < 1 or (settings.every > 1) != (interpolator is not None):
        raise ValueError(
            f"every is {settings.every}, with {'no' if interpolator is None else 'an'} interpolator; frames are "
            "inserted by one if, and only if, every is above 1."
        )
    processes = Processes.started() if across_processes else ALONE
    films = open_films(pipe, poses, settings)
    settings = settled(pipe, films, settings)
    width, height = settings.width or 0, settings.height or 0
    fit = pipe.fit if settings.fit is None else partial(fitted, how=settings.fit, ground="black")
    by_itself = settings.fit == "stretch" and pipe.fit is stretched
    reference = _as_read(reference, (width, height), None if by_itself else settings.fit)
    decisive = _decisive(pipe, settings) | fingerprints_of(pipe, reference, interpolator)
    saved = read_state(out, decisive) if resume else None
    processes.wait()  # all have read the state before it changes
    known = [torch.empty(0, 8, dtype=torch.uint8)] * len(films) if saved is None else saved["poses"]
    readers = [ForwardReader(film, settings.every, seen) for film, seen in zip(films, known, strict=True)]
    count = 0 if saved is None else saved["predictions"]

    def counted() -> None:
        nonlocal count
        count += 1
        if step_done is not None:
            step_done(count)

    pieces = pipe.stream(
        reference,
        lambda start, stop: [drawing_tensor(reader(start, stop), width, height, fit=fit) for reader in readers],
        num_frames=settings.num_drawn,
        width=width,
        height=height,
        num_inference_steps=settings.num_inference_steps or pipe.spec.steps,
        guidance_scale=pipe.spec.scale if settings.guidance_scale is None else settings.guidance_scale,
        windows=_windows(settings),
        seed=settings.seed,
        state=None if saved is None else saved["state"],
        across_processes=across_processes,
        step_done=counted,
        **settings.told,
    )
    if not processes.is_main:
        for _ in pieces:
            pass
        processes.wait()
        return out
    keep, rate = 0 if saved is None else saved["frames"], settings.rate or Fraction(25)
    said = None if beside is None else {**beside, **vars_of(settings)}
    with FilmWriter(out, rate, keep_frames=keep, sound=sound, overwrite=overwrite, settings=said) as writer:
        panels = _beside(reference, films[0], settings, fit, skip=writer.num_frames)
        last = None if saved is None else saved["last"]
        for frames, state in pieces:
            shown = frames
            if interpolator is not None:
                shown, last = _filled(last, frames, settings.every - 1, interpolator), frames[-1:].clone()
            writer.add([with_beside(picture, panels) for picture in pictures_of(shown)])
            done = {"frames": writer.num_frames, "predictions": count, "last": last, "state": state()}
            write_state(out, {"settings": decisive, "poses": [reader.prints for reader in readers], **done})
        writer.finish()
    processes.wait()
    return out


def num_predictions(pipe: FilmPipeline, settings: FilmSettings) -> int:
    """How often the denoiser runs for a film whose settings leave nothing open.

    Raises:
        ValueError: If the scheduler has no such steps.
    """
    steps = num_timesteps(pipe, settings.num_inference_steps or pipe.spec.steps)
    return len(_windows(settings).of(settings.num_drawn)) * steps


def num_timesteps(pipe: Any, steps: int) -> int:
    """How many steps a pipeline's scheduler takes, which may be others than were asked for.

    Raises:
        ValueError: If it has no such steps.
    """
    scheduler = deepcopy(pipe.scheduler)
    scheduler.set_timesteps(steps)
    return len(scheduler.timesteps)


def plain_config(pipe: Any) -> dict[str, Any]:
    """Settings of a pipeline itself that are words and numbers."""
    config: Mapping[str, Any] = {k: v for k, v in pipe.config.items() if not k.startswith("_")}
    return {name: value for name, value in config.items() if isinstance(value, str | int | float)}


def open_films(
    pipe: FilmPipeline | type[FilmPipeline], poses: Sequence[str | Path | FrameSource], settings: FilmSettings
) -> list[FrameSource]:
    """Open the pose films and check them against each other and the frames asked for."""
    if len(poses) != pipe.num_driving:
        kind = pipe if isinstance(pipe, type) else type(pipe)
        raise ValueError(f"{len(poses)} pose films were given, but {kind.__name__} takes {pipe.num_driving}.")
    films: list[FrameSource] = [Film(film) if isinstance(film, str | Path) else film for film in poses]
    for film in films:
        if not hasattr(film, "__len__") or not hasattr(film, "rate"):
            raise TypeError(
                f"a pose film is a {type(film).__name__}; give a path, or drawings that have a length and a rate, such "
                "as a SkeletonFilm."
            )
    lengths = {len(film) for film in films}
    if len(lengths) > 1:
        raise ValueError(f"the pose films have {sorted(lengths)} frames; give films of one length.")
    if settings.num_frames is not None and settings.num_frames > min(lengths):
        raise ValueError(
            f"{settings.num_frames} frames were asked for, but the pose film has {min(lengths)}; ask for fewer."
        )
    return films


def settled(pipe: FilmPipeline, films: Sequence[FrameSource], settings: FilmSettings) -> FilmSettings:
    """The settings with what was left open taken from the pose films."""
    first = next(iter(films[0]))
    known = vars_of(settings)
    known["width"], known["height"] = pipe.size_for(first.size, settings.width, settings.height)
    known["num_frames"] = len(films[0]) if settings.num_frames is None else settings.num_frames
    known["rate"] = films[0].rate if settings.rate is None else settings.rate
    spec, windows = pipe.spec, pipe.spec.windows or Windows()
    own = {
        "num_inference_steps": spec.steps,
        "guidance_scale": spec.scale,
        "window": windows.size,
        "overlap": min(OVERLAP, windows.size // 2) if windows.published else windows.num_shared,
    }
    known |= {name: value for name, value in own.items() if known[name] is None}
    return FilmSettings(**known)


def _windows(settings: FilmSettings) -> Windows:
    """The windows of settled settings."""
    return Windows(size=settings.window or Windows().size, overlap=settings.overlap)


def vars_of(settings: FilmSettings) -> dict[str, Any]:
    """The settings by name."""
    return {name: getattr(settings, name) for name in FilmSettings.__dataclass_fields__}


class ForwardReader:
    """Reads runs of a film's frames that follow each other; frames before the first run are passed over.

    Args:
        film: What is read.
        every: Only every so many frames count, from the first.
        known: Fingerprints (frames, 8), uint8, of the first frames, which they must have.
    """

    def __init__(self, film: FrameSource, every: int = 1, known: Tensor | None = None) -> None:
        self.frames: Iterator[Image.Image] = islice(film, 0, None, every)
        self.known = b"" if known is None else known.numpy().tobytes()
        self.position = 0
        self._prints = bytearray()

    def __call__(self, start: int, stop: int) -> list[Image.Image]:
        """Frames [start, stop).

        Raises:
            ValueError: If a frame, also one that is passed over, is not the known one.
        """
        frames = [frame for i in range(self.position, stop) if (frame := self._next(i)) is not None and i >= start]
        self.position = max(self.position, stop)
        return frames

    def _next(self, number: int) -> Image.Image | None:
        """The next frame, looked at; None behind the last."""
        frame = next(self.frames, None)
        if frame is not None:
            self._prints += frame_print(frame)
            here = slice(PRINT * number, PRINT * (number + 1))
            if self._prints[here] != self.known[here] and self.known[here]:
                raise ValueError(
                    f"pose {number} is not the one with which the unfinished film was begun; give the same poses, or "
                    "start again, without resuming."
                )
        return frame

    @property
    def prints(self) -> Tensor:
        """Fingerprints of the frames read so far, (frames, 8), uint8."""
        return torch.frombuffer(bytearray(self._prints), dtype=torch.uint8).view(-1, PRINT).clone()


def _filled(last: Tensor | None, frames: Tensor, count: int, interpolator: Interpolator) -> Tensor:
    """A piece (frames, 3, height, width) with so many frames in each gap, also behind the last frame before it."""
    known = frames if last is None else torch.cat([last, frames])
    return insert_frames(known, count, interpolator)[0 if last is None else 1 :]


def pictures_of(frames: Tensor) -> list[Image.Image]:
    """(frames, 3, height, width) in [0, 1] as pictures."""
    check_finite_result(frames)
    array = (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return [Image.fromarray(np.ascontiguousarray(frame)) for frame in array]


def _beside(
    reference: Any, poses: FrameSource, settings: FilmSettings, fit: Callable[[Picture, tuple[int, int]], Image.Image],
    *, skip: int,
) -> Iterator[list[Image.Image]] | None:  # fmt: skip
    """What stands beside each frame, from frame `skip` on; None if nothing does."""
    if not settings.side_by_side:
        return None
    size = settings.width or 0, settings.height or 0
    first = [] if isinstance(reference, ReferenceBank) else [fitted(reference, size, "stretch")]
    return ([*first, fit(pose, size)] for pose in islice(poses, skip, None))


def with_beside(picture: Image.Image, beside: Iterator[list[Image.Image]] | None) -> Image.Image:
    """A frame, with what stands beside it."""
    if beside is None:
        return picture
    panels = [*next(beside), picture]
    row = Image.new("RGB", (picture.width * len(panels), picture.height))
    for i, panel in enumerate(panels):
        row.paste(panel, (i * picture.width, 0))
    return row


def _as_read(reference: Any, size: tuple[int, int], fit: Fit | None) -> Any:
    """A reference in the form in which it is looked at: a file's name says nothing of its picture."""
    picture = read_image(reference) if isinstance(reference, str | Path) else reference
    return fitted(picture, size, fit) if fit is not None and isinstance(picture, Image.Image) else picture


STATE = {"settings": dict, "poses": list, "frames": int, "predictions": int}
"""What a state holds, beside the frames and the noise to go on from."""


def _state_path(out: Path) -> Path:
    return parts_of(out) / "state.pt"


def _decisive(pipe: FilmPipeline, settings: FilmSettings) -> dict[str, str]:
    """What a film must have been begun with to go on with it: settings of the film and of the pipeline itself."""
    plain = str | int | float | bool | None
    told = {name: value if isinstance(value, plain) else fingerprint(value) for name, value in settings.told.items()}
    return {name: str(value) for name, value in (vars_of(settings) | plain_config(pipe) | {"told": told}).items()}


def write_state(out: Path, state: dict[str, Any]) -> None:
    """Keep a film's state beside its finished pieces."""
    with written_whole(_state_path(out)) as file:
        torch.save(state, file)


def read_state(out: Path, decisive: Mapping[str, str]) -> dict[str, Any] | None:
    """The state that an earlier run has left; None if there is none."""
    path = _state_path(out)
    if not path.exists():
        return None
    try:
        saved = read_saved(path)
        if not isinstance(saved, dict) or not all(isinstance(saved.get(name), kind) for name, kind in STATE.items()):
            raise ValueError("it is of another program or version")
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); delete the folder and start again.") from error
    begun = saved["settings"]
    differing = [
        f"other {name}" if name in FINGERPRINTS else f"{name} was {begun.get(name)}, now {value}"
        for name, value in decisive.items()
        if begun.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"the unfinished film {out} was begun with other settings ({'; '.join(differing)}); use those, or begin "
            f"anew."
        )
    return saved
