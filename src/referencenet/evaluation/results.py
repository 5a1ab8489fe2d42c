"""Results as files, one for each system, and the page that is made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from referencenet.evaluation.measure import WAYS, Measured
from referencenet.evaluation.systems import TASKS
from referencenet.evaluation.task import Drawing, Measure, Task
from referencenet.inputs import read_json
from referencenet.media.files import written_whole
from referencenet.methods.registry import METHODS, Method

HEADINGS = (
    "system", "task", "first score", "link cut", "wrong reference", "training-free", "linked", "best", "gap closed",
    "aims",
)  # fmt: skip
COLUMNS = ("cut", "wrong", "training_free", "linked", "autoencoder")
"""Ways that the first table shows."""
HEAD = """# Results in the drawn world

<!-- written by `refnet benchmark page`; change the results, not this page -->

Every system that can be trained, with small networks of its published classes, on [drawn](../paperdoll.md) characters
that nothing was trained on, against the truth, which can be drawn too. It shows that a system's link carries over what
it shall; it does not show how well the published weights do on photographs.

**Gap closed** is the share of the way from *the same network with its link cut* (0) to *the truth through the
autoencoder* (1), the best that can be drawn, in the first score of each task. With a wrong reference it should be near
0 or below. With the link cut nothing is read; what else comes of a reference, such as image tokens, stays.
"""
TAIL = """## Measure it

```console
refnet benchmark paperdoll idm_vton --characters 64 --json docs/results/idm_vton.json
refnet benchmark page docs/results
```

`--from` takes a run of `refnet train`, or a saved pipeline, in the place of the built-in weights.
"""


def document(
    task: Task,
    found: Measured,
    *,
    system: str,
    weights: str,
    drawing: Drawing,
    made_with: Mapping[str, Any],
    note: str = "",
) -> dict[str, Any]:
    """A result as it is written.

    Args:
        task: What was measured.
        found: What came out.
        system: Registry name.
        weights: Where they are from, in words.
        drawing: How pictures were drawn.
        made_with: Versions and machine.
        note: What there is to say of it, such as the likely cause of a missed aim.
    """
    told: dict[str, Any] = {
        "system": system, "task": task.name, "weights": weights, "characters": task.number, "seed": task.seed,
        "size": list(task.size), "steps": drawing.steps, "guidance": drawing.guidance,
        "first": task.measures[0].name, "gap_closed": found.gap_closed, "scores": found.scores,
        "minutes": found.minutes, "made_with": dict(made_with),
    }  # fmt: skip
    return told | ({"note": note} if note else {})


def write_result(told: Mapping[str, Any], path: Path) -> None:
    """Write a result."""
    with written_whole(path) as file:
        file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """System to its result, of all files of a folder that are named after one.

    Raises:
        ValueError: If a file holds something else, or another system's result.
    """
    found: dict[str, dict[str, Any]] = {}
    for system in TASKS:
        path = folder / f"{system}.json"
        if not path.is_file():
            continue
        told = read_json(path, "a result of refnet benchmark paperdoll")
        if not isinstance(told, dict) or told.get("system") != system or not isinstance(told.get("scores"), dict):
            raise ValueError(f"{path} is no result of {system}; write one by refnet benchmark paperdoll {system}.")
        found[system] = told
    return found


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of all systems, with a row for those that have no result yet."""
    rows = [row for row in METHODS.values() if not row.beside]
    lines = [
        HEAD,
        f"| {' | '.join(HEADINGS)} |",
        "|---" * len(HEADINGS) + "|",
        *(_row(row, results.get(row.name)) for row in rows),
        "",
        *(line for row in rows if row.name in results for line in _section(row, results[row.name])),
        TAIL,
    ]
    return "\n".join(lines)


def _row(row: Method, told: Mapping[str, Any] | None) -> str:
    """A system in the first table."""
    if row.name not in TASKS:
        return (
            f"| {row.title} | {row.task} | nothing is trained: [the built-in model](../built-in-model.md) |" + " |" * 7
        )
    if told is None:
        return f"| {row.title} | {TASKS[row.name].name} | no result yet |" + " |" * 7
    first, scores = TASKS[row.name].measures[0], told["scores"]
    values = [_shown(scores.get(way, {}).get(first.name), way in scores) for way in COLUMNS]
    values[COLUMNS.index("linked")] = f"**{values[COLUMNS.index('linked')]}**"
    gap = _shown(told["gap_closed"].get("linked"))
    cells = [f"[{row.title}](#{_anchor(row.title)})", told["task"], first.told, *values, gap, _aims(told)]
    return f"| {' | '.join(cells)} |"


def _section(row: Method, told: Mapping[str, Any]) -> Iterator[str]:
    """All scores of a system."""
    ways = [way for way in WAYS if way in told["scores"]]
    width, height = told["size"]
    guidance = "without guidance" if told["guidance"] == 1 else f"guidance {told['guidance']:g}"
    yield f"## {row.title}"
    yield ""
    yield (
        f"{told['characters']} characters, seed {told['seed']}, {width} x {height} pixels, {told['steps']} steps, "
        f"{guidance}; weights: {told['weights']}; drawn in {told['minutes']:g} minutes on "
        f"{told['made_with']['machine']}."
    )
    if told.get("note"):
        yield ""
        yield told["note"]
    yield ""
    yield f"| | {' | '.join(WAYS[way].partition(':')[0] for way in ways)} |"
    yield "|---" * (len(ways) + 1) + "|"
    for measure in TASKS[row.name].measures:
        values = [_shown(told["scores"][way].get(measure.name)) for way in ways]
        yield f"| {measure.told} ({measure.better} is better) | {' | '.join(values)} |"
    yield ""


def _aims(told: Mapping[str, Any]) -> str:
    """Which aims the linked network reaches."""
    found = [f"{name}: {'met' if met else 'missed'}" for name, met in aims_met(told).items()]
    return ", ".join(found)


def aims_met(told: Mapping[str, Any]) -> dict[str, bool]:
    """Aim to whether it is met: half of the gap, the task's own, and fewer errors in time with motion modules."""
    linked, found = told["scores"]["linked"], dict[str, bool]()
    gap = told["gap_closed"].get("linked")
    found["half of the gap"] = gap is not None and gap >= 0.5
    for measure in TASKS[told["system"]].measures:
        if measure.aim is not None:
            found[_aim_told(measure)] = _reaches(linked[measure.name], measure)
    if "no_motion" in told["scores"]:
        found["motion modules help"] = linked["frame_error"] < told["scores"]["no_motion"]["frame_error"]
    return found


def _aim_told(measure: Measure) -> str:
    return f"{measure.name} {'at least' if measure.better == 'more' else 'at most'} {measure.aim:g}"


def _reaches(value: float | None, measure: Measure) -> bool:
    """Whether a value is as good as the aim; an infinite one of decibels is."""
    if value is None or measure.aim is None:
        return value is None
    return value >= measure.aim if measure.better == "more" else value <= measure.aim


def _shown(value: float | None, there: bool = True) -> str:
    """A number in a table; nothing where it was not measured, and where it is infinite a word."""
    if not there:
        return ""
    return "exact" if value is None else f"{value:.4g}"


def _anchor(title: str) -> str:
    """What a heading is called in the page's address."""
    return title.lower().replace(" ", "-")


def write_page(folder: Path) -> Path:
    """Write `index.md` of a folder's results; where."""
    path = folder / "index.md"
    with written_whole(path) as file:
        file.write_text(page(read_results(folder)), encoding="utf-8")
    return path
