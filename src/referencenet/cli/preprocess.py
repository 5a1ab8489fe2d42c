"""`refnet preprocess`: poses, landmarks and masks of an ordinary film or picture, in one command."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from referencenet.cli.checks import check_apart, check_film, check_given
from referencenet.cli.console import note, progress_bar, say
from referencenet.cli.model_files import MODELS_HELP
from referencenet.cli.options import Overwrite, settings_of
from referencenet.media.encoding import CODECS
from referencenet.media.files import check_place, check_settings_place, forget_settings, write_settings
from referencenet.media.films import Film, FilmWriter
from referencenet.media.folders import PICTURES, pictures_in
from referencenet.media.images import read_image
from referencenet.media.sheets import beside, check_picture_path, write_image
from referencenet.preprocess.conditions import CONDITIONS, Condition
from referencenet.preprocess.following import Followed
from referencenet.preprocess.model_files import default_folder

ConditionChoice = StrEnum("ConditionChoice", {name: name for name in CONDITIONS})

app = typer.Typer(add_completion=False)


@app.command()
def preprocess(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FILM|PICTURE|FOLDER", help="A folder holds frames.")],
    to: Annotated[
        ConditionChoice,  # pyright: ignore[reportInvalidTypeForm] - the choices come from the table of conditions
        typer.Option("--to", help="What is made of it: skeletons, face meshes, faces in space, outlines of face and "
                     "lips, the face's rectangle, the person's mask, or DensePose (by a file of your own)."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="film.mp4, .webm, .gif or a folder for PNGs; of a picture a picture; "
                     ".json for openpose and face-box, .npz for landmarks, face-track and face-masks."),
    ],
    models: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", show_default="REFNET_MODELS, or the user's cache", help=MODELS_HELP),
    ] = None,
    person: Annotated[
        int | None, typer.Option(min=1, show_default="the largest", help="Which person, counted from the left.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, show_default="all", help="Only the first frames.")] = None,
    overwrite: Overwrite = False,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILM|PICTURE", help="Writes what was given and what came out side by side.")
    ] = None,
) -> None:  # fmt: skip
    """Make poses, landmarks and masks of an ordinary film or picture.

    Needs networks that `refnet models fetch` gets. Try: `refnet preprocess dance.mp4 --to openpose -o poses.mp4`
    """
    check_given(ctx)
    kind = CONDITIONS[to]
    film = Frames(source, frames)
    check_outputs(kind, to, film.is_picture, out, preview, overwrite)
    paths = [out.with_stem(f"{out.stem}{name}") for name in kind.pictured] if out.suffix != kind.ending else []
    check_apart(ctx, *paths, *(frame for path in paths if overwrite and path.is_dir() for frame in pictures_in(path)))
    condition = kind(models or default_folder())
    said = settings_of(ctx, "preprocess")
    with followed_through(film, condition, person) as values:
        kept = write_drawings(film, values, condition, paths, preview, overwrite, said)
        if not paths:
            condition.write(kept, out, film.size, film.rate)
    say("\n".join(map(str, paths or [out])))


def write_drawings(
    film: "Frames", values: Iterable[Any], condition: Condition, paths: Sequence[Path], preview: Path | None,
    overwrite: bool = False, settings: Mapping[str, Any] | None = None,
) -> list[Any]:  # fmt: skip
    """Draw what was estimated, frame by frame.

    Args:
        film: What was given.
        values: Of each frame.
        condition: What they are.
        paths: Of its films or pictures; none: the values are kept.
        preview: Where what was given and what is drawn go, side by side.
        overwrite: Take older films' frames out of folders.
        settings: What decides them, to stand in them and beside them.

    Returns:
        The values if there are no paths, else nothing.
    """
    kept: list[Any] = []
    with ExitStack() as opened:
        writers = [opened.enter_context(_Output(path, film, overwrite, settings)) for path in paths]
        shown = [opened.enter_context(_Output(preview, film, overwrite, settings))] if preview is not None else []
        for frame, value in zip(film, values, strict=True):
            drawn = condition.draw(value, frame.size) if writers or shown else []
            for writer, picture in zip(writers, drawn, strict=False):  # without writers all are for the preview
                writer.add(picture)
            for writer in shown:
                writer.add(beside([frame, *drawn]))
            if not paths:
                kept.append(value)
        for writer in (*writers, *shown):
            writer.finish()
    return kept


def check_outputs(
    kind: type[Condition], name: str, is_picture: bool, out: Path, preview: Path | None, overwrite: bool = False
) -> None:
    """Make sure that what is made can be written, before anything is read.

    Raises:
        ValueError: If an ending does not fit what is given.
    """
    if out.suffix.lower() in (".json", ".npz") and out.suffix != kind.ending:
        raise ValueError(f"--to {name} does not write {out.suffix}; give " +
                         (f"{kind.ending}, " if kind.ending else "") + "a picture, a film or a folder.")  # fmt: skip
    check = _check_picture if is_picture else partial(check_film, overwrite=overwrite)
    if out.suffix != kind.ending:
        for drawn in kind.pictured:
            check(out.with_stem(f"{out.stem}{drawn}"))
    else:
        check_place(out)
    if preview is not None:
        check(preview)


def _check_picture(path: Path) -> None:
    check_picture_path(path)
    check_settings_place(path)


@contextmanager
def followed_through(film: "Frames", condition: Condition, person: int | None) -> Generator[Iterable[Any]]:
    """Read one person through a film and show how far it is; behind the block say what is doubtful.

    Args:
        film: Its frames.
        condition: What is read.
        person: Which one of several, from the left; None: the largest.

    Yields:
        What is read of each frame, once.
    """
    followed = Followed(film, condition.regions, condition.read, person, condition.doubt)
    with progress_bar("estimating", len(film)) as (bar, task):
        yield bar.track(followed, task_id=task, total=len(film))
    tell_of(followed, person)
    if condition.note is not None:
        note(condition.note)


def tell_of(followed: Followed[Any], person: int | None) -> None:
    """Say in which frames no person was found, or something doubtful, and whether somebody was chosen of several."""
    if followed.held:
        note(
            f"{len(followed.held)} of {followed.num_frames} frames do not show the person (from 0: "
            f"{listed(followed.held)}); they hold what was last found, or first."
        )
    for why, frames in followed.doubted.items():
        where = "" if followed.num_frames == 1 else (
            f" in {len(frames)} of {followed.num_frames} frames (from 0: {listed(frames)})"
        )  # fmt: skip
        note(f"the face is {why}{where}; what was found may be wrong there.")
    if person is None and followed.most > 1:
        note(
            f"up to {followed.most} were found in a frame; the largest is followed. --person N takes another, from the "
            "left."
        )


def listed(numbers: Sequence[int]) -> str:
    """The first numbers of frames."""
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


class Frames:
    """The frames of a film, or the one of a picture, as often as they are asked for.

    Args:
        source: Its path.
        limit: Only so many frames.
        every: Only every so many frames, which are counted by `limit`.
    """

    def __init__(self, source: Path, limit: int | None, every: int = 1) -> None:
        self.is_picture = source.suffix.lower() in PICTURES and not source.is_dir()
        self.film: Film | Sequence[Image.Image] = [read_image(source)] if self.is_picture else Film(source)
        self.rate: Fraction = getattr(self.film, "rate", Fraction(1)) / every
        self.limit, self.every = limit, every
        self.has_sound: bool = getattr(self.film, "has_sound", False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame."""
        return next(iter(self)).size

    def __len__(self) -> int:
        count = (len(self.film) - 1) // self.every + 1
        return min(count, self.limit or count)

    def __iter__(self) -> Generator[Image.Image]:
        yield from islice(islice(self.film, None, None, self.every), self.limit)


class _Output:
    """A picture or a film that is written frame by frame.

    Args:
        path: Of the result.
        film: What was given.
        overwrite: Take an older film's frames out of a folder.
        settings: What decides it, to stand in it and beside it.
    """

    def __init__(self, path: Path, film: Frames, overwrite: bool, settings: Mapping[str, Any] | None = None) -> None:
        self.path, self.settings = path, settings
        self.writer = None if film.is_picture else FilmWriter(path, film.rate, overwrite=overwrite, settings=settings)
        self.is_coded = path.suffix.lower() in (*CODECS, ".gif")

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.__exit__(*error)

    def add(self, frame: Image.Image) -> None:
        """Write a frame; a coded film's last odd column or row is cut off."""
        if self.writer is None:
            forget_settings(self.path)
            write_image(frame, self.path, self.settings)
            if self.settings is not None:
                write_settings(self.path, self.settings)
            return
        even = (frame.width // 2 * 2, frame.height // 2 * 2)
        self.writer.write(frame.crop((0, 0, *even)) if self.is_coded and frame.size != even else frame)

    def finish(self) -> None:
        """Close the film."""
        if self.writer is not None:
            self.writer.finish()
