"""Configurations from TOML: what is read, changed and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from referencenet.training.config import RunConfig, read_config

TEXT = """
[video]
steps = 10
drops = {reference = 0.1}
[video.optimizer]
learning_rate = 1e-5
betas = [0.9, 0.95]
[video.data]
size = [512, 768]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(TEXT)
    return file


def test_a_stage_is_read_with_its_parts_and_defaults(path: Path) -> None:
    config = read_config(path, "video")
    assert (config.steps, config.batch, config.drops) == (10, 1, {"reference": 0.1})
    assert config.optimizer.betas == (0.9, 0.95)
    assert config.data.size == (512, 768)
    assert config.optimizer.weight_decay == RunConfig(steps=1).optimizer.weight_decay


def test_changes_are_toml_values_and_bare_words(path: Path) -> None:
    changes = ["optimizer.learning_rate=2e-4", "precision=bf16", 'trackers=["tensorboard"]', "lora.rank=4", "steps=3"]
    config = read_config(path, "video", changes)
    assert config.optimizer.learning_rate == 2e-4
    assert (config.precision, config.trackers, config.lora.rank, config.steps) == ("bf16", ("tensorboard",), 4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.learning_rat=1", "unknown key 'video.optimizer.learning_rat'; did you mean 'learning_rate'?"),
        ("wibble=1", "unknown key 'video.wibble'; there are steps, batch"),
        ("steps=many", "video.steps is 'many'; expected a whole number"),
        ("checkpointing=1", "video.checkpointing is 1; expected true or false"),
        ("precision=bf32", "video.precision is 'bf32'; did you mean 'fp32'?"),
        ("data.size=[1]", "video.data.size is \\[1\\]; expected a list of 2 of numbers"),
        ("data=3", "video.data is 3; expected a table"),
        ("drops=3", "video.drops is 3; expected a table"),
        ("drops.reference=2", "drops.reference is 2.0; expected a rate from 0 to 1"),
        ("batch=0", "batch is 0; expected at least 1"),
        ("average=1", "average is 1.0; expected a decay"),
        ("optimizer.learning_rate=0", "learning_rate is 0.0; expected a number above 0"),
        ("optimizer.cooldown=2", "cooldown is 2.0; expected a share"),
        ("steps", "it has the form KEY=VALUE"),
        ("steps.a=1", "steps is not a table"),
    ],
)
def test_what_is_not_known_is_refused_with_advice(change: str, message: str, path: Path) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        read_config(path, "video", [change])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[image]\nsteps = 1\n", "has no stage 'video'; it has image"),
        ("steps = 1\n", "'steps' outside of a stage"),
        ("[video]\nbatch = 1\n", "lacks 'video.steps'"),
        ("[video\n", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("[video]\nsteps = 1\noptimizer.learning_rate = nan\n", "is nan; expected a finite number"),
        (f"[video]\nsteps = 1\noptimizer.learning_rate = 1{'0' * 400}\n", "expected a finite number"),
    ],
)
def test_files_that_are_wrong_say_how(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(file, "video")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no configuration"):
        read_config(tmp_path / "none.toml", "video")
