"""A line becomes a job, or one sentence; a job's address says what its result depends on, and nothing else."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from referencenet.batch.commands import drawn
from referencenet.batch.contents import Contents
from referencenet.batch.jobs import RESULTS, WrongJobs, read_job, read_jobs
from referencenet.cli.app import COMMANDS
from referencenet.cli.loaded import LastModel
from referencenet.media.records import read_record
from tiny import picture


def address(document, **options):
    return read_job(json.dumps(document), 1, Contents(), **options).address


def test_every_wrong_line_is_told_with_its_number_and_before_anything_is_drawn(job, written):
    lines = {
        1: (job(promt="x"), r"no setting 'promt'\. Did you mean 'prompt'"),
        2: (job(reference=["gone.png"]), r"no picture .*gone\.png"),
        4: ({"command": "generat"}, r"'generat'; expected one of generate, .*Did you mean 'generate'"),
        5: (job(link="atention"), r"not one of .*Did you mean 'attention'"),
        6: ({"command": "generate", "prompt": "x"}, r"Missing option '--reference'"),
        7: ("[1]", "expected an object"),
        8: ("{", "not JSON"),
        9: (job(seed=True), r"seed is true; expected a number or words"),
        10: (job(steps=2.5), "2.5"),
        11: (job(prompt=["a", "b"]), "one value, not a list"),
        12: (job(vae_tiling="yes"), r'vae_tiling is "yes"; expected true or false'),
        13: ({"prompt": "x"}, "has no command"),
        14: ({"command": "compose", "method": "parts2whole", "prompt": "x"}, "0 parts were given"),
        15: ({"command": "tryon", "random_tiny": True, "person": "p0.png", "garment": "p1.png"}, "--densepose"),
        16: (job(guidance=float("nan")), "guidance"),
        17: ({"command": ["generate"]}, "has the command"),
    }
    jobs = [job(), *[""] * 16]
    for number, (document, _) in lines.items():
        jobs[number - 1] = document
    jobs[2] = job()
    with pytest.raises(WrongJobs) as wrong:
        read_jobs(written(*jobs))
    assert len(wrong.value.lines) == len(lines)
    for line, (number, (_, sentence)) in zip(wrong.value.lines, lines.items(), strict=True):
        assert line.startswith(f"line {number}: ")
        assert "\n" not in line
        assert re.search(sentence, line), line


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n\n", "has no jobs"), (b"\xff\xfe{", "not text in UTF-8"), (b"", "is empty")]
)
def test_a_file_without_jobs_is_refused(content, message, tmp_path):
    (tmp_path / "jobs.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_jobs(tmp_path / "jobs.jsonl")


def test_words_that_are_no_names_of_files_are_taken_as_they_are():
    contents = Contents()
    texts = ["~nobody/x", "a\0b", "x" * 5000, "", ":", "a:1"]
    assert len({contents.address("tryon", "p.png", {"description": text}) for text in texts}) == len(texts)


def test_an_address_depends_on_settings_and_contents(job, materials, tmp_path):
    first = address(job())
    assert address(job()) == first
    others = [
        job(seed=2), job(prompt="a knight "), job(reference=["p1.png"]), job(reference=["p0.png", "p1.png"]),
        job(strength=0.5), job(model="builtin"), job(dtype="bfloat16"),
    ]  # fmt: skip
    assert len({first, *map(address, others)}) == 1 + len(others)

    shutil.copytree(materials / "model", tmp_path / "other")
    shutil.copy(materials / "p0.png", tmp_path / "moved.png")
    moved = job(reference=[str(tmp_path / "moved.png")], model=str(tmp_path / "other"))
    assert address(moved) == first, "what lies elsewhere is the same"
    config = tmp_path / "other" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("scaled_linear", "linear"))
    assert address(moved) != first, "a model that was changed is another"
    moved["model"] = "model"
    picture(2).save(tmp_path / "moved.png")
    assert address(moved) != first, "so is a picture"


def test_what_is_only_about_the_machine_or_spelled_otherwise_changes_no_address(job):
    first = address(job())
    assert address(job(device="cpu", out="elsewhere", strength=1, **{"style-fidelity": None})) == first
    assert address(job(reference="p0.png")) == first, "one instead of a list"


def test_jobs_for_other_machines_do_not_ask_this_one(job):
    elsewhere = job(device="cuda:7", offload="model")
    with pytest.raises(ValueError, match="cuda:7"):
        address(elsewhere)
    assert address(elsewhere, elsewhere=True) == address(job())


def test_jobs_that_share_a_model_say_so(job):
    def model(**settings):
        return read_job(json.dumps(job(**settings)), 1, Contents()).model

    assert model() == model(seed=5, link="adain", reference=["p2.png"])
    assert len({model(), model(model="builtin"), model(dtype="bfloat16"), model(vae_tiling=True)}) == 4


def test_written_settings_are_jobs(job, tmp_path):
    models = LastModel()
    task = read_job(json.dumps(job()), 1, Contents())
    drawn(task.command, task.arguments, tmp_path / "generated", models)
    document = json.loads((tmp_path / "generated" / "settings.json").read_text())
    again = read_job(json.dumps(document), 2, Contents())
    assert (again.command, again.model) == (task.command, task.model)
    drawn(again.command, again.arguments, tmp_path / "again", models)
    assert (tmp_path / "again" / "seed-1.png").read_bytes() == (tmp_path / "generated" / "seed-1.png").read_bytes()


def test_what_stands_in_and_beside_a_picture_is_a_job(job, tmp_path):
    job()  # changes to the folder of the pictures
    settings = {"command": "compose", "method": "stable_garment", "garment": "p1.png", "random_tiny": True}
    task = read_job(json.dumps(settings | {"steps": 1, "size": "64x64", "prompt": "a man"}), 1, Contents())
    out = tmp_path / "a" / task.result
    drawn(task.command, task.arguments, out, LastModel())
    beside = json.loads(out.with_name(out.name + ".json").read_text())
    assert "out" not in beside, "the result is moved to its place when it is whole"
    for document in (beside, read_record(out)):
        assert read_job(json.dumps(document), 2, Contents()).address == task.address


def test_a_model_is_loaded_once_and_let_go_before_the_next():
    loaded = []
    models = LastModel()
    for source in "aabba":
        models(source, lambda source=source: loaded.append(source) or source)
    assert loaded == ["a", "b", "a"]


def test_every_command_with_jobs_exists():
    assert RESULTS.keys() <= COMMANDS.keys()
