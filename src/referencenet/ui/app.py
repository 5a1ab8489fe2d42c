"""The page itself: tabs, history, and how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from referencenet.ui.examples import example_of
from referencenet.ui.models import Model, TabName
from referencenet.ui.office import FILMS, Office
from referencenet.ui.running import Drawings, remember, runner, said
from referencenet.ui.tabs import ABOUT, CONTENTS, Inputs
from referencenet.version import __version__

CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")
THEME = gr.themes.Soft(primary_hue="pink", neutral_hue="slate", font=FONT, font_mono=MONO, text_size="md")
"""Fonts of the machine itself: the page asks no other host for anything."""

BUILT_IN = "Small weights that come with the package draw small figures of one drawn world."
TINY = "Tiny random weights try the installation: the result shows nothing. For pictures, start with --models FOLDER."
DARK = "() => document.body.classList.toggle('dark')"


def page(office: Office, examples: Mapping[str, dict[str, Any]]) -> gr.Blocks:
    """The page.

    Args:
        office: What its buttons use.
        examples: As `write_examples` gives them.
    """
    with gr.Blocks(title="referencenet", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
        history = gr.BrowserState([], storage_key="referencenet-history", secret="referencenet-history")
        with gr.Row(elem_classes="head"):
            gr.HTML(f"<h1>referencenet <small>{__version__}</small></h1>")
            dark = gr.Button("Light or dark", size="sm", elem_classes="dark-button", min_width=110, scale=0)
        dark.click(None, js=DARK, api_visibility="private")
        with gr.Tabs():
            for name in CONTENTS:
                with gr.Tab(ABOUT[name][0], id=name):
                    _tab(office, name, examples, history)
            with gr.Tab("History", id="history") as tab:
                _history(office, tab, history)
    return blocks


def _tab(office: Office, name: TabName, examples: Mapping[str, dict[str, Any]], history: Any) -> None:
    """One task: its model and inputs, and beside them its result."""
    rows = office.models.rows(name)
    _, verb, what = ABOUT[name]
    gr.Markdown(what)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            first = rows[0]
            model = gr.Dropdown([(row.title, row.value) for row in rows], value=first.value, label="Model",
                                filterable=len(rows) > 8)  # fmt: skip
            about = gr.HTML(about_model(first), elem_classes="about")
            inputs = CONTENTS[name](*([office.models.controlnets] if name == "refer" else []))
            groups = inputs.pop("_for", {})
            fill = gr.Button("Fill in the example", size="sm", elem_id=f"{name}-example")
        with gr.Column(min_width=320, elem_classes="result"):
            with gr.Row():
                draw = gr.Button(verb, variant="primary", min_width=120, elem_id=f"{name}-draw")
                cancel = gr.Button("Cancel", min_width=120, elem_id=f"{name}-cancel")
            status = gr.HTML(elem_id=f"{name}-status")
            result = (_film if name in FILMS else _pictures)("Result", f"{name}-result")
            with gr.Accordion("Settings of the result", open=False):
                settings = gr.JSON(show_label=False)
    done = gr.State()
    model.change(
        lambda value: [about_model(office.models.find(name, value)), *_visible(groups, office, name, value)],
        model, [about, *_listed(groups)], api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    _show_groups(groups, first)
    known = {key for row in rows for key in example_of(examples, name, row)}
    filled = [key for key in inputs if key in known]

    def example(value: str) -> list[Any]:
        values = example_of(examples, name, office.models.find(name, value))
        return [said("the example is filled in.", "note"), *(values.get(key) for key in filled)]

    fill.click(
        example, model, [status, *(inputs[key] for key in filled)], api_visibility="private", show_progress="hidden"
    )  # fmt: skip
    drawings = Drawings()
    running = draw.click(
        runner(office, name, ["model", *inputs], drawings), [model, *inputs.values()], [status, result, settings, done],
        api_name=name, concurrency_limit=None, show_progress="hidden",
    )  # fmt: skip
    running.success(remember, [done, history], history, api_visibility="private", show_progress="hidden")
    cancel.click(drawings.cancel, None, status, queue=False, api_visibility="private", show_progress="hidden")


def about_model(model: Model) -> str:
    """A sentence on a model, as HTML; empty if there is nothing to say."""
    sentence = {"built in": BUILT_IN, "tiny": TINY}.get(model.kind, "")
    return f"<p>{sentence}</p>" if sentence else ""


def _film(label: str, name: str, **options: Any) -> Any:
    return gr.Video(label=label, interactive=False, height=420, elem_id=name, buttons=["download"], **options)


def _pictures(label: str, name: str, **options: Any) -> Any:
    options |= {"height": 420, "object_fit": "contain", "preview": True, "buttons": ["download", "fullscreen"]}
    return gr.Gallery(label=label, interactive=False, elem_id=name, format="png", **options)


def _history(office: Office, tab: Any, history: Any) -> None:
    """Results of this browser, with their settings."""
    gr.Markdown("Results of this browser, the newest first. Choose one to see it with its settings.")
    shown = gr.State([])
    gallery = gr.Gallery(
        label="Results", columns=4, height="auto", object_fit="contain", allow_preview=False, elem_id="history-results",
        interactive=False, buttons=[],
    )  # fmt: skip
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            pictures = _pictures("Pictures", "history-pictures", visible=False)
            film = _film("Film", "history-film", visible=False)
        with gr.Column(min_width=320):
            settings = gr.JSON(label="Settings", visible=False, elem_id="history-settings")

    def show(names: list[str] | None) -> tuple[Any, Any]:
        runs = office.runs.known(names or [])
        captions = [f"{run.settings['task']}: {str(run.settings.get('prompt', ''))[:60]}".strip(": ") for run in runs]
        return [(str(run.preview), caption) for run, caption in zip(runs, captions, strict=True)], [
            run.name for run in runs
        ]

    def choose(names: list[str], chosen: gr.SelectData) -> tuple[Any, Any, Any]:
        run = office.runs.find(names[chosen.index])
        is_film = run.settings["task"] in FILMS
        files = [str(path) for path in run.files]
        return (
            gr.update(value=None if is_film else files, visible=not is_film),
            gr.update(value=files[0] if is_film else None, visible=is_film),
            gr.update(value=run.settings, visible=True),
        )

    tab.select(show, history, [gallery, shown], api_visibility="private", show_progress="hidden")
    gallery.select(choose, shown, [pictures, film, settings], api_visibility="private", show_progress="hidden")


def _listed(groups: Inputs) -> list[Any]:
    """Groups of inputs, each once."""
    return list(dict.fromkeys(group for several in groups.values() for group in several))


def _show_groups(groups: Inputs, model: Model) -> None:
    """Show the inputs that a model takes, before the page is there."""
    for group in _listed(groups):
        group.visible = group in groups.get(str(model.system), [])


def _visible(groups: Inputs, office: Office, name: TabName, value: str) -> list[Any]:
    """Which inputs a chosen model takes."""
    taken = groups.get(str(office.models.find(name, value).system), [])
    return [gr.update(visible=group in taken) for group in _listed(groups)]
