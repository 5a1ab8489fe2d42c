"""What a run has trained, written for others: a pipeline folder, published names, low-rank weights, or what learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor, nn

from referencenet.checkpoints.eight_bit import packed
from referencenet.checkpoints.written import write_published
from referencenet.training.checkpoint import RunFolder
from referencenet.training.config import RunConfig, made, meant
from referencenet.training.loop import load_weights
from referencenet.training.lora import NAME, save_lora
from referencenet.training.memory import in_single
from referencenet.training.recipe import running_statistics
from referencenet.training.recipes.index import recipe_of
from referencenet.training.run import STARTS, Starts, read_order, start_pipeline

Form = Literal["pipeline", "published", "lora"]


def export(
    run: str | Path,
    out: str | Path,
    *,
    raw: bool = False,
    form: Form = "pipeline",
    trained: Sequence[str] = (),
    eight_bit: bool = False,
    starts: Starts = STARTS,
) -> Path:
    """Write what a run has trained.

    Args:
        run: Its folder.
        out: The folder to make; it must not exist, or be empty.
        raw: The weights themselves instead of their moving average.
        form: `pipeline`: an ordinary folder, which `from_pretrained` reads, low-rank weights merged; `published`: files
            with the published names, and the parts beside them, which `from_published` reads; `lora`: low-rank weights
            by themselves, which `load_lora_weights` reads.
        trained: Of these stages only what learned, in half precision, as COMPONENT/model.safetensors: as the package
            ships it; empty: the whole pipeline, of all stages.
        eight_bit: Of what learned, large tensors in eight bits: half the size, an error of at most 1/254 of a channel's
            largest number.
        starts: What else than a folder the run may have begun with.

    Returns:
        The folder.

    Raises:
        FileExistsError: If there is something in `out`.
        FileNotFoundError: If `run` is no run, or has no checkpoint.
        ValueError: If it has no such stage, low-rank weights are asked for of a run that has not trained them alone,
            weights have no published names, or eight bits are asked for without `trained`.
    """
    run, out = Path(run), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already; name a new folder.")
    if eight_bit and not trained:
        raise ValueError("eight bits are for what stages have trained alone; name the stages, or leave eight bits out.")
    told = read_order(run)
    stages = _stages(run, told, form, trained)
    pipe, learned = start_pipeline(told["system"], told["start"], told["base"], starts), set[str]()
    for name in stages:
        config = made(RunConfig, told["stages"][name], str(run / "run.json"), name)
        recipe = recipe_of(told["system"])(pipe, name, config)
        names = _restore(recipe, run / name, raw)
        learned |= names if name in trained else set()
        if form == "lora":
            save_lora(pipe, recipe.modules, out)
            return out
        for module in (m for m in recipe.modules.values() if getattr(m, "peft_config", None)):
            merge_lora(module)
        in_single(pipe)
    for module in (m for m in pipe.components.values() if isinstance(m, nn.Module)):
        module.eval().requires_grad_(False)
    if trained:
        _save_learned(pipe, learned, out, eight_bit)
    elif form == "published":
        write_published(pipe.components, pipe.published, out)
    else:
        pipe.save_pretrained(out)
    return out


def _stages(run: Path, told: Mapping[str, Any], form: Form, trained: Sequence[str]) -> list[str]:
    """The stages of a run that have checkpoints.

    Raises:
        FileNotFoundError: If none has.
        ValueError: If what is asked for is not there.
    """
    for name in trained:
        if name not in told["stages"]:
            raise ValueError(f"{run} has no stage {name!r}{meant(name, told['stages'])}")
    stages = [name for name in told["stages"] if RunFolder(run / name).checkpoints()]
    if not stages:
        raise FileNotFoundError(f"{run} has no checkpoint yet; train further, or name another run.")
    if form == "lora" and not (len(stages) == 1 and told["stages"][stages[0]]["lora"]["rank"]):
        raise ValueError(f"{run} has not trained low-rank weights alone; export it without --lora.")
    return stages


def merge_lora(module: Any) -> None:
    """Add an adapter's weights to those beside which they were trained, and take it away."""
    module.fuse_lora(adapter_names=[NAME])
    module.unload_lora()


def _restore(recipe: Any, run: Path, raw: bool) -> set[str]:
    """Load a stage's newest weights; the names of what learned, as `component.name`."""
    folder = RunFolder(run)
    state = folder.load(weights_only=True)
    assert state is not None
    weights = state.weights if raw or state.average is None else {**state.weights, **state.average}
    saved: Mapping[str, Tensor] = {**recipe.parameters, **running_statistics(recipe.modules)}
    load_weights(saved, weights, folder.checkpoints()[-1])
    return set(saved)


def _save_learned(pipe: Any, names: Iterable[str], out: Path, eight_bit: bool) -> None:
    """Write some of a pipeline's tensors, named `component.name`, one file for each component."""
    by_component: dict[str, dict[str, Tensor]] = {}
    for full in sorted(names):
        component, _, name = full.partition(".")
        value = pipe.components[component].state_dict().get(name)
        if value is None:
            raise ValueError(f"{full} is merged into other weights, as low-rank ones are; export the whole pipeline.")
        by_component.setdefault(component, {})[name] = value
    for component, tensors in by_component.items():
        halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        (out / component).mkdir(parents=True, exist_ok=True)
        save_file(packed(tensors) if eight_bit else halves, out / component / "model.safetensors")
