"""Jobs: a line of JSON each, a command's name and its settings, under the names that stand beside every result.

    {"command": "generate", "prompt": "a knight, waving", "reference": ["hero.png"], "seed": 3}

What stands in and beside every result is a job, too. A job is checked by its own command, which runs up to the point
where it needs its model: files are read, options compared, and nothing is drawn.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from referencenet.batch.commands import JobError, checked
from referencenet.batch.contents import Contents
from referencenet.cli.app import command_of
from referencenet.cli.arguments import arguments_of
from referencenet.cli.console import error_line
from referencenet.cli.options import OF_THE_PLACE
from referencenet.inputs import read_text
from referencenet.telling import did_you_mean

RESULTS = {
    "generate": "",
    "animate": "film.mp4",
    "talk": "film.mp4",
    "tryon": "picture.png",
    "face": "picture.png",
    "compose": "picture.png",
    "turn": "film.mp4",
}
"""Commands that draw, and the name of their result; "" for a folder of pictures."""

OF_THE_MACHINE = ("device", "offload")
"""Options that do not decide what is drawn."""


class WrongJobs(ValueError):
    """Jobs that cannot be drawn as they stand.

    Attributes:
        lines: What is wrong with each, after the number of its line.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command and what was set for it.

    Attributes:
        line: Its number in the file of jobs, from 1.
        command: Of `refnet`.
        settings: By name, as the line says them.
        arguments: The same as they would be typed, without `--out`.
        result: Name of the result, in a folder of the job's own; "" where the command writes a folder.
        address: Of the result: a hash of the settings, of the contents of all files that they name, and of the version.
        model: What it loads: jobs that say the same share a model.
    """

    line: int
    command: str
    settings: Mapping[str, Any]
    arguments: tuple[str, ...]
    result: str
    address: str
    model: str


def read_jobs(path: str | Path, *, elsewhere: bool = False) -> list[Job]:
    """Read a file of jobs and check each.

    Args:
        path: A JSON object on every line; empty lines are skipped.
        elsewhere: They are drawn on other machines: what this one computes on is not looked at.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no job in it.
        WrongJobs: If lines are no jobs, or their commands refuse them.
    """
    text = read_text(path, "a job on each line")
    jobs: list[Job] = []
    wrong: list[str] = []
    contents = Contents()
    for number, line in enumerate(text.split("\n"), 1):  # other ends of lines may stand in a prompt
        if not line.strip():
            continue
        try:
            jobs.append(read_job(line, number, contents, elsewhere=elsewhere))
        except JobError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise WrongJobs(wrong)
    if not jobs:
        raise ValueError(f"{path} has no jobs; write one on each line, as in {EXAMPLE}.")
    return jobs


EXAMPLE = '{"command": "generate", "prompt": "a knight", "reference": ["hero.png"], "seed": 1}'


def read_job(line: str, number: int, contents: Contents, *, elsewhere: bool = False) -> Job:
    """A job of a line.

    Args:
        line: A JSON object.
        number: Of the line.
        contents: Hashes the files that it names.
        elsewhere: It is drawn on another machine.

    Raises:
        JobError: If it is none, or its command refuses it.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise JobError(f"this is not JSON ({error}); expected an object on one line, as in {EXAMPLE}.") from error
    if not isinstance(document, dict):
        raise JobError(f"this is {str(document)[:60]!r}; expected an object, as in {EXAMPLE}.")
    name, settings = _parted(document)
    command = command_of(name)
    out = Path(str(settings.pop("out", None) or RESULTS[name]))
    result = out.name if RESULTS[name] else ""
    for option in ("overwrite", "resume"):  # the result has a folder of its own
        settings.pop(option, None)
    alone = {"overwrite": True} if any(each.name == "overwrite" for each in command.params) else {}
    try:
        arguments = arguments_of(command, name, settings | alone)
    except ValueError as error:
        raise JobError(str(error)) from error
    here = {key: value for key, value in settings.items() if not (elsewhere and key in OF_THE_MACHINE)} | alone
    nowhere = Path(tempfile.gettempdir()) / uuid.uuid4().hex
    values, model = checked(name, arguments_of(command, name, here), nowhere / result)
    decides = {key: value for key, value in values.items() if key not in (*OF_THE_MACHINE, *OF_THE_PLACE)}
    try:
        address = contents.address(name, result, decides)
    except (OSError, ValueError) as error:  # a file of a folder that may not be read
        raise JobError(error_line(error)) from error
    return Job(
        line=number, command=name, settings=settings, arguments=tuple(arguments), result=result, model=model,
        address=address,
    )  # fmt: skip


def _parted(document: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The command of a job, and its settings: as a line says them, or as they were written beside a result."""
    said, settings = document.get("again"), document.get("settings")
    if isinstance(said, dict):  # what every result carries
        name, options = said.get("command"), said.get("options")
    elif isinstance(settings, dict):  # the settings.json of generate
        name, options = "generate", settings
    else:
        name, options = document.get("command"), {key: value for key, value in document.items() if key != "command"}
    if not isinstance(name, str) or name not in RESULTS or not isinstance(options, dict):
        given = "has no command" if name is None else f"has the command {str(name)[:40]!r}"
        raise JobError(f"the job {given}; expected one of {', '.join(RESULTS)}.{did_you_mean(str(name), RESULTS)}")
    return name, {key: value for key, value in options.items() if value is not None}


def check_ray() -> None:
    """Make sure that Ray is there.

    Raises:
        ModuleNotFoundError: If it is not installed; says how to get it.
    """
    if find_spec("ray") is None:
        raise ModuleNotFoundError('--ray needs Ray, which is not installed: pip install "referencenet[ray]".')
