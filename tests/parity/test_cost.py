"""What a guided step costs, in counts: rows, passes, projections, FLOPs, bytes. Never in seconds."""

from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

import measuring
import pytest
import torch
from reference_only import Bench, Layout, floor_flops

CONFIG = {
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": 24,
}
LAST_BLOCK = "up_blocks.3.attentions.1.transformer_blocks.0"
NUM_STEPS = 2


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Return SD 1.5's four levels, narrow and shallow, on 16 x 16 latents."""
    return Bench(Layout(CONFIG, 16), Namespace(steps=NUM_STEPS, device="cpu", dtype="float32", compile=False))


@contextmanager
def counted(bench: Bench) -> Generator[tuple[list[int], Counter[str]]]:
    """Rows of every pass through the UNet, in their order, and how many rows each submodule was given in all."""
    calls: list[int] = []
    rows: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            assert isinstance(module, torch.nn.Module)
            rows[name] += args[0].shape[0]

        return hook

    hooks = [
        module.register_forward_pre_hook(count(name))
        for name, module in bench.unet.named_modules()
        if name.endswith((".to_k", ".ff", "conv_out"))
    ]
    hooks.append(bench.unet.conv_in.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[0])))
    try:
        yield calls, rows
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("generate", "rows_per_step"),
    [
        (lambda bench: bench.plain(), [2]),
        (lambda bench: bench.ours(0.5), [2, 2]),
        (lambda bench: bench.ours(0.0), [2, 2]),
        (lambda bench: bench.ours(1.0), [1, 2]),
        (lambda bench: bench.ours(0.5, 4), [8, 8]),
        (lambda bench: bench.ours(0.5, 4, noise="fixed"), [2, 8]),
        (lambda bench: bench.ours(1.0, 4, noise="fixed"), [1, 8]),
    ],
    ids=["plain", "s=0.5", "s=0", "s=1", "four pictures", "four pictures, fixed", "four pictures, fixed, s=1"],
)
def test_a_step_writes_only_rows_that_somebody_reads_and_only_once(
    bench: Bench, generate: Callable[[Bench], torch.Tensor], rows_per_step: list[int]
) -> None:
    with counted(bench) as (calls, _):
        generate(bench)
    assert calls == rows_per_step * NUM_STEPS


def test_write_pass_ends_at_the_last_site(bench: Bench) -> None:
    with counted(bench) as (_, rows):
        bench.ours(0.5)
    read_only = 2 * NUM_STEPS
    assert rows["conv_out"] == read_only
    assert rows[f"{LAST_BLOCK}.ff"] == read_only
    assert rows[f"{LAST_BLOCK}.attn2.to_k"] == read_only


def projected_rows(rows: Counter[str]) -> dict[str, float]:
    """Rows per step that each self-attention's keys were projected from."""
    return {name: count / NUM_STEPS for name, count in rows.items() if name.endswith("attn1.to_k")}


def test_bank_of_few_rows_is_projected_once(bench: Bench) -> None:
    """The own rows and the bank's: 2 + 1 at style fidelity 1; 8 + 2 where four pictures share one reference."""
    with counted(bench) as (_, rows):
        bench.ours(1.0)
    assert set(projected_rows(rows).values()) == {2 + 1}
    with counted(bench) as (_, rows):
        bench.ours(0.5, 4, noise="fixed")
    assert set(projected_rows(rows).values()) == {8 + 2}


def test_bank_of_all_rows_is_projected_again_instead_of_kept_at_twice_the_size(bench: Bench) -> None:
    with counted(bench) as (_, rows):
        bench.ours(0.5)
    projected = projected_rows(rows)
    assert projected.pop(f"{LAST_BLOCK}.attn1.to_k") == 2 + 2  # the write pass ends before it projects
    assert set(projected.values()) == {2 + 2 + 2}


@pytest.mark.parametrize(
    ("floor", "generate"),
    [
        ("plain", lambda bench: bench.plain()),
        ("exact", lambda bench: bench.ours(0.5)),
        ("exact_s1", lambda bench: bench.ours(1.0)),
        ("shared", lambda bench: bench.ours(0.5, 4, noise="fixed")),
    ],
)
def test_flops_of_a_step_are_within_three_percent_of_the_floor(
    bench: Bench, floor: str, generate: Callable[[Bench], torch.Tensor]
) -> None:
    needed = floor_flops(bench)[floor]
    assert needed <= measuring.flops(lambda: generate(bench)) / NUM_STEPS <= 1.03 * needed


@pytest.mark.parametrize(
    ("style_fidelity", "num_pictures", "noise"), [(0.5, 1, None), (1.0, 1, None), (0.5, 4, "fixed")]
)
def test_peak_memory_is_never_above_the_published_ways(
    bench: Bench, style_fidelity: float, num_pictures: int, noise: str | None
) -> None:
    ours = measuring.peak_bytes(lambda: bench.ours(style_fidelity, num_pictures, noise=noise), bench.device)
    theirs = measuring.peak_bytes(lambda: bench.theirs(style_fidelity, num_pictures), bench.device)
    assert ours <= theirs


def test_exact_path_equals_the_published_way(bench: Bench) -> None:
    for style_fidelity in (0.0, 0.5, 1.0):
        ours, theirs = bench.ours(style_fidelity), bench.theirs(style_fidelity)
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
