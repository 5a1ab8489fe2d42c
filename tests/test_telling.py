"""What the library tells: notices as warnings and in the log, what is done in the log alone."""

import logging
import subprocess
import sys

import pytest

from referencenet.links.attach import attach
from referencenet.telling import Notice, note
from tiny import Tiny


def test_a_notice_is_a_warning_and_a_line_of_the_log_where_it_was_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.warns(Notice, match="the sound is lost"):
        note("the sound is lost")
    (record,) = caplog.records
    assert (record.name, record.levelname, record.module) == ("referencenet", "WARNING", "test_telling")
    assert record.getMessage() == "the sound is lost"


def test_what_is_done_is_logged_under_the_files_name(sd: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="referencenet")
    with attach(sd.pipe.unet):
        pass
    said = [(record.name, record.getMessage()) for record in caplog.records]
    assert [name for name, _ in said] == ["referencenet.links.attach"] * 2
    assert "linked at" in said[0][1]
    assert said[1][1] == "UNet2DConditionModel unlinked"


def test_without_logging_set_up_nothing_is_printed_but_the_warning() -> None:
    code = (
        "from referencenet.telling import note\nimport logging\n"
        "logging.getLogger('referencenet.any').error('said to nobody')\nnote('lost')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "said to nobody" not in done.stderr
    assert done.stderr.count("lost") == 1
    assert "Notice: lost" in done.stderr
