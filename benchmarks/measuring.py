"""Measuring: interleaved times, peak memory and FLOPs of functions, and where and with what they were measured."""

import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

Action = Callable[[], Any]

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def cpu_attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of the CPU's attention kernel, by the shapes of its arguments."""
    return sdpa_flop(query, key, value)


FLOP_FORMULAS = {CPU_ATTENTION: cpu_attention_flop}
"""torch's counter knows the CUDA attention kernels but counts the CPU's as nothing."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved_seconds(
    actions: Mapping[str, Action], *, warm_up: int, repeats: int, device: torch.device, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each action in each round; a round runs all of them in turn: slow minutes slow all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for i in range(warm_up + repeats):
        for name, action in actions.items():
            synchronize(device)
            start = clock()
            action()
            synchronize(device)
            if i >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over the rounds of ours / theirs within the round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def peak_bytes(action: Action, device: torch.device) -> int:
    """Most bytes that the action had allocated at one time, beyond what was there before it.

    On a CPU every allocation and release of torch's allocator is read from the profiler, kernels' workspaces included.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        events = [e for e in json.loads(file.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    return peak


def flops(action: Action) -> int:
    """Floating-point operations of an action, by torch's counter."""
    return counted(action)[0]


def counted(action: Action) -> tuple[int, Any]:
    """Floating-point operations of an action, by torch's counter, and its result."""
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
        result = action()
    return counter.get_total_flops(), result


def circumstances(device: torch.device) -> dict[str, Any]:
    """Command, commit, versions and machine."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no", "--", "../src", "."],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": (commit or "unknown") + ("+changes" if changed else ""),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "num_threads": torch.get_num_threads(),
    }


def processor_name() -> str:
    """The processor's name as Linux gives it, elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
