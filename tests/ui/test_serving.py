"""The server: who may ask, what it gives away, and many clients at once; over HTTP, without a browser."""

from __future__ import annotations

import io
import json
import secrets
import signal
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from commands import told
from referencenet.builtin.load import load
from referencenet.cli import ui
from referencenet.cli.app import app
from referencenet.media.images import read_image
from referencenet.methods.reference_only import reference
from tiny import picture
from ui.conftest import Page

PROMPTS = ("full body, waving, facing front", "portrait, smiling", "full body, running, facing left")


class Client:
    """Somebody who asks the page over HTTP.

    Args:
        page: The page.
    """

    def __init__(self, page: Page) -> None:
        self.http = httpx.Client(base_url=page.address, timeout=120)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    def upload(self, content: bytes, name: str = "hero.png") -> dict[str, Any]:
        answer = self.http.post("/gradio_api/upload", files={"files": (name, content)}).raise_for_status()
        return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def ask(self, tab: str, **values: Any) -> str:
        """Begin a job as a browser does, and give the name under which it is heard of."""
        known = self.http.get("/gradio_api/info").json()["named_endpoints"][f"/{tab}"]["parameters"]
        given = [values.get(each["parameter_name"], each.get("parameter_default")) for each in known]
        assert values.keys() <= {each["parameter_name"] for each in known}
        functions = self.http.get("/config").json()["dependencies"]
        number = next(each["id"] for each in functions if each["api_name"] == tab)
        asked = {"data": given, "fn_index": number, "session_hash": secrets.token_hex(6)}
        self.http.post("/gradio_api/queue/join", json=asked).raise_for_status()
        return asked["session_hash"]

    def cancel(self, tab: str, session: str) -> list[Any]:
        """Press the button beside, and give what is said at once."""
        config = self.http.get("/config").json()
        button = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == f"{tab}-cancel")
        number = next(each["id"] for each in config["dependencies"] if [button, "click"] in each["targets"])
        asked = {"data": [], "fn_index": number, "session_hash": session}
        return self.http.post("/gradio_api/run/predict", json=asked).raise_for_status().json()["data"]

    def hear(self, session: str) -> Generator[dict[str, Any]]:
        """What is said of a job; who stops listening has left."""
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def answer(self, session: str) -> Any:
        """What became of a job: what was said last, its files and settings; or the error."""
        for said in self.hear(session):
            if said["msg"] == "process_completed":
                return said["output"]["data"] if said["success"] else said["output"]
        raise AssertionError("the answer broke off")

    def picture(self, file: dict[str, Any]) -> Image.Image:
        return read_image(Image.open(io.BytesIO(self.http.get(file["url"]).raise_for_status().content)))


def png(seed: int = 1, size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    picture(seed, size).save(file, "PNG")
    return file.getvalue()


def painted(file: dict[str, Any]) -> dict[str, Any]:
    return {"background": file, "layers": [], "composite": None}


@pytest.fixture
def client(page: Page) -> Iterator[Client]:
    with Client(page) as client:
        yield client


def test_other_names_of_the_machine_and_other_hosts_content_are_refused(client: Client) -> None:
    assert client.http.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    answer = client.http.get("/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(__file__)), "/proc/self/environ"])
def test_a_file_outside_is_not_given_away(client: Client, path: str) -> None:
    assert client.http.get(f"/gradio_api/file={path}").status_code == 403


@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(__file__)), "https://elsewhere.example/hero.png"])
def test_a_file_outside_is_not_read_as_an_upload(page: Page, client: Client, path: str) -> None:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    before = page.results
    number = client.ask("refer", reference=painted(file), prompt="x", steps=1)
    assert "error" in client.answer(number)
    assert page.results == before


def test_too_large_a_file_is_refused(client: Client) -> None:
    answer = client.http.post("/gradio_api/upload", files={"files": ("hero.png", bytes(2 * 2**20))})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no picture", "hero.png is not a picture that Pillow can read; give a PNG, JPEG, WebP or TIFF file."),
        (png(1, (1024, 1024)), "hero.png is 1024 x 1024 pixels; this page takes up to 1 million."),
        (png()[:200], "hero.png cannot be decoded"),
    ],
)
def test_a_wrong_file_is_answered_by_one_sentence_without_the_servers_paths(
    client: Client, content: bytes, says: str
) -> None:
    number = client.ask("refer", reference=painted(client.upload(content)), prompt="x")
    assert client.answer(number)["error"].startswith(says)


def test_twenty_clients_at_once_each_get_their_own_picture(page: Page) -> None:
    def wish(number: int) -> tuple[bytes, str]:
        return png(number), PROMPTS[number % 3]

    def served(number: int) -> Image.Image:
        content, prompt = wish(number)
        with Client(page) as client:
            job = client.ask("refer", reference=painted(client.upload(content)), prompt=prompt, seed=number, steps=2)
            status, files, settings, *_ = client.answer(job)
            assert "done" in status
            assert settings["prompt"] == prompt
            return client.picture(files[0]["image"])

    before = page.results
    with ThreadPoolExecutor(20) as threads:
        pictures = list(threads.map(served, range(20)))
    pipe = load("base")
    pipe.set_progress_bar_config(disable=True)
    for number in (0, 7, 19):  # alone
        content, prompt = wish(number)
        with reference(pipe, read_image(Image.open(io.BytesIO(content)))):
            seed = torch.Generator().manual_seed(number)
            alone = pipe(prompt, num_inference_steps=2, guidance_scale=3.0, generator=seed).images[0]
        assert pictures[number].tobytes() == alone.tobytes()
    assert len({each.tobytes() for each in pictures}) == 20
    assert len(page.results) == len(before) + 20


def test_the_place_in_line_is_told_and_a_client_who_leaves_ends_its_job(page: Page, client: Client) -> None:
    before = page.results
    with Client(page) as first, Client(page) as second:
        wish = {"reference": painted(client.upload(png())), "prompt": "x", "steps": 900}
        drawing = first.hear(first.ask("refer", **wish))
        assert any("of 900" in json.dumps(said) for said in drawing)
        waiting = second.hear(second.ask("refer", **wish))
        assert any("in line: 1 before you" in json.dumps(said) for said in waiting)
        drawing.close()
        waiting.close()
    deadline = time.monotonic() + 60
    while page.results != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert page.results == before
    quick = client.ask("refer", reference=painted(client.upload(png())), prompt="x", steps=1)
    assert "done" in client.answer(quick)[0]


@pytest.mark.parametrize("begun", [True, False], ids=["drawn", "just asked for"])
def test_cancel_ends_what_is_drawn_and_it_says_so_as_its_last_word(page: Page, client: Client, begun: bool) -> None:
    before = page.results
    session = client.ask("refer", reference=painted(client.upload(png())), prompt="x", steps=900)
    heard = client.hear(session)
    assert any(("of 900" if begun else "process_starts") in json.dumps(said) for said in heard)
    client.cancel("refer", session)
    last = [said for said in heard if said["msg"] in ("process_generating", "process_completed")][-2:]
    assert "cancelled; nothing was kept." in json.dumps(last[0])
    assert last[1]["output"]["error"] == "cancelled; nothing was kept."
    assert page.results == before
    assert "nothing is being drawn" in client.cancel("refer", session)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_what_is_drawn_and_leaves_nothing_half_written(tmp_path: Path, number: int) -> None:
    page = Page.served(tmp_path)
    with Client(page) as client:
        client.ask("refer", reference=painted(client.upload(png())), prompt="x", steps=900)
    deadline = time.monotonic() + 60
    while not page.results and time.monotonic() < deadline:
        time.sleep(0.05)
    assert page.results[0].startswith(".unfinished")
    status, said = page.close(number)
    assert status == 0, said
    assert "Traceback" not in said
    assert list(page.out.iterdir()) == []
    assert not list(page.private.glob("refnet-ui-*"))


def test_without_gradio_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "find_spec", lambda _: None)
    result = CliRunner().invoke(app, ["ui"])
    assert result.exit_code == 1
    assert "pip install 'referencenet[ui]'" in told(result)


@pytest.mark.parametrize(
    ("typed", "says"),
    [("--models=./nowhere", "there is no --models ./nowhere"), ("--models={folder}", "holds no model")],
)
def test_places_without_models_are_refused(tmp_path: Path, typed: str, says: str) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed (extra `ui`)")
    result = CliRunner().invoke(app, ["ui", typed.format(folder=tmp_path), f"--out={tmp_path / 'out'}"])
    assert result.exit_code == 2
    assert says in told(result)
