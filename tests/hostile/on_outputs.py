"""Places that cannot be written to, numbers that are none, and words that are not known: told before weights are read.

The weights given are pointers of Git LFS: whatever is told of a place or a number is told before they are looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from films import poses
from hostile.case import Table
from hostile.made import LFS, Make, array_at, bytes_at, json_at, once
from referencenet.media.films import write_film

TABLE = Table("outputs")
WEIGHTS = tuple(
    bytes_at(f"w/{name}.pth", LFS) for name in ("pose_guider", "denoising_unet", "reference_unet", "motion_module")
)
ANIMATE = ("animate", "-r", "hero.png", "-p", "poses", "--checkpoint", "w")
TURN = ("turn", "-r", "hero.png", "--checkpoint", "unknown")  # a folder that is no system's by its names
FACE = ("face", "a woman", "-f", "hero.png", "--checkpoint", "unknown")
TRYON = (
    "tryon",
    "-p",
    "hero.png",
    "-g",
    "hero.png",
    "--mask",
    "mask.png",
    "--densepose",
    "hero.png",
    "--checkpoint",
    "unknown",
)
TALK = ("talk", "-r", "hero.png", "--face", "face.npz", "-a", "said.wav", "--checkpoint", "unknown")
GENERATE = ("generate", "-r", "hero.png", "-p", "a knight", "--model", "w")


QUICK = (
    "the film of poses itself",
    "a folder that holds pictures",
    "a size of 65",
    "a system misspelt",
    "the weights, when all else is right",
)
"""Those that are not left to the slow run."""


def told(name: str, says: str, *typed: str, make: tuple[Make, ...] = ()) -> None:
    """Add something typed that is told before weights are read."""
    files = (once("hero"), once("poses"), once("said"), *WEIGHTS, lambda f: (f / "unknown").mkdir(), *make)
    TABLE.add(name, *files, typed=typed, says=says, slow=name not in QUICK)


# --- places -----------------------------------------------------------------------------------------------------------

told("a film of an unknown ending", r"o\.mkv ends with '\.mkv'; use \.mp4", *ANIMATE, "-o", "o.mkv")
told("a film of a picture's ending", r"o\.png ends with '\.png'; use \.mp4", *ANIMATE, "-o", "o.png")
told("a picture of a film's ending", r"o\.mp4 ends with '\.mp4'.*use \.png", *FACE, "-o", "o.mp4")
told("a picture of an unknown ending", r"o\.xyz ends with '\.xyz'.*use \.png", *TRYON, "-o", "o.xyz")
told("a picture without an ending", r"o ends with ''.*use \.png", *TRYON, "-o", "o")
told(
    "a folder in place of a picture",
    r"o\.png is a folder",
    *FACE,
    "-o",
    "o.png",
    make=(lambda f: (f / "o.png").mkdir(),),
)
told(
    "a folder in place of a film",
    r"o\.mp4 is a folder",
    *ANIMATE,
    "-o",
    "o.mp4",
    make=(lambda f: (f / "o.mp4").mkdir(),),
)
told("a file in place of a folder", r"o is a file", *ANIMATE, "-o", "o", make=(bytes_at("o", "mine"),))
told("a folder below a file", r"hero\.png is a file, not a folder", *ANIMATE, "-o", "hero.png/o.mp4")
told(
    "a folder that holds pictures",
    r"o holds 3 pictures already",
    *ANIMATE,
    "-o",
    "o",
    make=(lambda f: write_film(poses(3), f / "o"),),
)
told("a name too long for any disk", r"the name o+\.\.\. is too long", *ANIMATE, "-o", "o" * 300 + ".mp4")
told("a named pipe", r"o\.mp4 is a pipe or a device", *ANIMATE, "-o", "o.mp4", make=(lambda f: os.mkfifo(f / "o.mp4"),))
told("a device", r"/dev/full is a pipe or a device|/dev/full is a file", *ANIMATE, "-o", "/dev/full")
told("a place where nothing can be made", r"/proc/1/o\.mp4 cannot be written|/proc", *ANIMATE, "-o", "/proc/1/x/o.mp4")
told("nothing for a name", r".", *ANIMATE, "-o", "")
told(
    "the film of poses itself",
    r"poses\.mp4",
    "animate",
    "-r",
    "hero.png",
    "-p",
    "poses.mp4",
    "--checkpoint",
    "w",
    "-o",
    "poses.mp4",
    make=(lambda f: write_film(poses(3), f / "poses.mp4"),),
)
told(
    "the reference itself",
    r"hero\.png",
    *TRYON,
    "-o",
    "hero.png",
    make=(lambda f: (f / "mask.png").write_bytes((f / "hero.png").read_bytes()),),
)
told("the folder of poses itself", r"poses", *ANIMATE, "-o", "poses")
told(
    "somebody's file where settings go",
    r"o\.mp4\.json",
    *ANIMATE,
    "-o",
    "o.mp4",
    make=(bytes_at("o.mp4.json", '{"mine": 1}'),),
)


HELD: list[FileLock] = []
"""As long as this is there, so are the locks."""


def held(folder: Path) -> None:
    """Another process, as far as locks go, writes the film."""
    HELD.append(FileLock(folder / ".o.mp4.lock"))
    HELD[-1].acquire()


told(
    "a film that another process writes",
    r"another process is writing o\.mp4",
    "animate",
    "-r",
    "hero.png",
    "-p",
    "poses",
    "--random-tiny",
    "--steps",
    "1",
    "-o",
    "o.mp4",
    make=(held,),
)
told(
    "a converted folder over something",
    r"o is there already and not empty",
    "convert",
    "animate_anyone",
    "w",
    "-o",
    "o",
    make=(bytes_at("o/mine.txt", "mine"),),
)
told(
    "a converted folder over a file",
    r"o is there already and not empty",
    "convert",
    "animate_anyone",
    "w",
    "-o",
    "o",
    make=(bytes_at("o", "mine"),),
)
told(
    "a converted folder below a file",
    r"hero\.png is a file|hero\.png",
    "convert",
    "animate_anyone",
    "w",
    "-o",
    "hero.png/o",
)
told(
    "landmarks with a picture's frames",
    r"--to landmarks does not write \.json|\.npz",
    "preprocess",
    "hero.png",
    "--to",
    "landmarks",
    "-o",
    "o.json",
)
told("data of an enormous number", r"--count|count", "paperdoll", "--out", "o", "--count", "0")

# --- numbers ----------------------------------------------------------------------------------------------------------

for text, why in (
    ("0", "--size was '0'"),
    ("-64", "--size was '-64'"),
    ("64x", "--size was '64x'"),
    ("wide", "--size was 'wide'"),
    ("64x64x64", "--size was '64x64x64'"),
    ("65", "multiples of 8"),
    ("64.5", "--size was '64.5'"),
    ("1000000x1000000", "pixels"),
    ("9" * 400, "--size"),
):
    told(f"a size of {text[:20]}", why, *ANIMATE, "-o", "o.mp4", "--size", text)
for option, number, why in (
    ("--steps", "0", "greater than or equal to 1"),
    ("--steps", "-3", "greater than or equal to 1"),
    ("--steps", "many", "integer"),
    ("--steps", "100001", "1000|steps"),
    ("--frames", "0", "greater than or equal to 1"),
    ("--frames", "99999", "has 3"),
    ("--fps", "nan", "(rate|fps|nan|greater)"),
    ("--fps", "inf", "(rate|fps|inf)"),
    ("--fps", "1e9", "(rate|fps)"),
    ("--fps", "0", "greater"),
    ("--guidance", "nan", "guidance"),
    ("--guidance", "inf", "guidance"),
    ("--guidance", "-1", "greater than or equal to 0"),
    ("--seed", "-1", "greater than or equal to 0"),
    ("--seed", str(2**70), "seed"),
    ("--seed", "x", "integer"),
):
    told(f"{option} {number[:12]}", why, *ANIMATE, "-o", "o.mp4", option, number)
told("--every without a network", r"--every above 1 and --interpolator|together", *TALK, "-o", "o.mp4", "--every", "2")
for option, number, why in (
    ("--strength", "nan", "(nan|less|strength)"),
    ("--strength", "2", "less than or equal to 1"),
    ("--count", "0", "greater"),
    ("--guidance", "nan", "guidance"),
    ("--seed", str(2**70), "seed"),
):
    told(f"generate {option} {number[:12]}", why, *GENERATE, "-o", "o", option, number)
told("a box of two numbers", r"--box was '1,2'; it is left,top,right,bottom", *FACE, "-o", "o.png", "--box", "1,2")
told("a box of words", r"--box was 'a,b,c,d'", *FACE, "-o", "o.png", "--box", "a,b,c,d")
told("a box of NaN", r"(box|nan)", *FACE, "-o", "o.png", "--box", "nan,nan,nan,nan")
told("a box beyond the picture", r"box", *FACE, "-o", "o.png", "--box", "1000,1000,2000,2000")
told(
    "two boxes for one face",
    r"2 boxes were given for 1 photographs",
    *FACE,
    "-o",
    "o.png",
    "--box",
    "1,1,9,9",
    "--box",
    "1,1,9,9",
)
told("a place outside of the picture", r"(place|face_box|fractions)", *FACE, "-o", "o.png", "--place", "5,5,9,9")
told("a place of NaN", r"(place|face_box|nan|fractions)", *FACE, "-o", "o.png", "--place", "nan,0,1,1")
told("a turn of words", r"--yaw was 'left'", *TURN, "-o", "o.mp4", "--yaw", "left")
told("a turn of NaN", r"yaw is nan", *TURN, "-o", "o.mp4", "--yaw", "nan")
told(
    "half an embedding",
    r"a\.npy",
    *TALK,
    "-o",
    "o.mp4",
    "--head-poses",
    "a.npy",
    make=(array_at("a.npy", [[1.0, 2.0]]),),
)
told(
    "head poses and an identity",
    r"--head-poses and --identity",
    *TALK,
    "-o",
    "o.mp4",
    "--head-poses",
    "a.npy",
    "--identity",
    "1",
    make=(array_at("a.npy", [[1.0] * 6]),),
)
told(
    "sound into pictures",
    r"hero\.png is not a sound|hero\.png has no sound",
    *TALK[:-4],
    "-a",
    "hero.png",
    "--checkpoint",
    "w",
    "-o",
    "o.mp4",
)

# --- words ------------------------------------------------------------------------------------------------------------

told("a system misspelt", r"[Dd]id you mean.*magic_animate", *ANIMATE, "-o", "o.mp4", "--method", "magic_anmate")
told("a system misspelt for conversion", r"[Dd]id you mean.*animate_anyone", "convert", "animate_anyon", "w", "-o", "o")
told("a command misspelt", r"[Dd]id you mean.*animate", "anmate")
told("an option misspelt", r"[Dd]id you mean.*--poses", "animate", "-r", "hero.png", "--pose", "poses", "-o", "o.mp4")
told("an option before its command", r"--nonsense", "--nonsense", "methods")
told(
    "a device that is not there",
    r"--device gpu9 cannot be used",
    "animate",
    "-r",
    "hero.png",
    "-p",
    "poses",
    "--random-tiny",
    "-o",
    "o.mp4",
    "--device",
    "gpu9",
)
told("a method misspelt", r"[Dd]id you mean.*reference_only", "methods", "reference_onl")
told("a control without its picture", r"--control was 'pose'", *GENERATE, "-o", "o", "--control", "pose")
told(
    "a control that nothing follows",
    r"Nothing follows --control pose",
    *GENERATE,
    "-o",
    "o",
    "--control",
    "pose=hero.png",
)
told(
    "a model that is a file",
    r"--model /\S+/hero\.png is not a weight file",
    "generate",
    "-r",
    "hero.png",
    "-p",
    "x",
    "--model",
    "hero.png",
    "-o",
    "o",
)
told("a model folder of nothing", r"--model /\S+/w is a folder without model_index\.json", *GENERATE, "-o", "o")
told("an option of another system", r"--prompt is for", *ANIMATE, "-o", "o.mp4", "--prompt", "a dancer")
told("weights that are not there", r"there is no --checkpoint gone", *ANIMATE[:-1], "gone", "-o", "o.mp4")
told("weights twice", r"leave out either it", *ANIMATE, "--random-tiny", "-o", "o.mp4")
told(
    "no film of poses",
    r"no film was given|give one of --poses",
    "animate",
    "-r",
    "hero.png",
    "--checkpoint",
    "w",
    "-o",
    "o.mp4",
)
told("two films of poses for one", r"2 pose films", *ANIMATE, "-p", "poses", "-o", "o.mp4")
told(
    "two kinds of poses",
    r"--poses and --keypoints",
    *ANIMATE,
    "-k",
    "k.json",
    "-o",
    "o.mp4",
    make=(json_at("k.json", []),),
)
told("the weights, when all else is right", r"is a Git LFS pointer", *ANIMATE, "-o", "o.mp4")
