"""A series: the banks of a writer that runs at every step, by timestep, and what they were made for.

IDM-VTON, MagicPose, MagicAnimate, StableGarment, FlashFace and DiffPortrait3D write at the denoiser's own timestep, so
what they need of a reference is one bank per step of one schedule, for one size. A series is refused, by name, where
scheduler, steps or size are others than those it was written for. It is saved as one file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from referencenet.links.bank import ReferenceBank
from referencenet.links.bank_file import read_entries, write_entries
from referencenet.links.table import size, table

_FORMAT = "referencenet-series-1"
_MAX_STEPS = 10_000
_MAX_METADATA = 2**20  # characters


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What a series was written for.

    Attributes:
        scheduler: Name of the scheduler's class.
        digest: Of its configuration.
        timesteps: Of all steps, in their order.
        width: In pixels.
        height: In pixels.
    """

    scheduler: str
    digest: str
    timesteps: tuple[int, ...]
    width: int
    height: int

    @classmethod
    def of(cls, scheduler: Any, *, width: int, height: int) -> Schedule:
        """The schedule that a diffusers scheduler has been set to.

        Args:
            scheduler: After its `set_timesteps`.
            width: In pixels.
            height: In pixels.
        """
        config = {key: value for key, value in dict(scheduler.config).items() if not key.startswith("_")}
        text = json.dumps(config, sort_keys=True, default=str)
        return cls(
            scheduler=type(scheduler).__name__, digest=hashlib.sha256(text.encode()).hexdigest()[:16],
            timesteps=tuple(int(t) for t in scheduler.timesteps), width=width, height=height,
        )  # fmt: skip

    def check(self, other: Schedule) -> None:
        """Refuse another schedule.

        Raises:
            ValueError: If scheduler, steps or size differ; it says which.
        """
        if self.scheduler != other.scheduler:
            raise ValueError(f"the series is for {self.scheduler}, but this is {other.scheduler}; write it again.")
        if self.digest != other.digest:
            raise ValueError(
                f"the series was written for a {self.scheduler} of another configuration ({self.digest}, here "
                f"{other.digest}); write it again."
            )
        if self.timesteps != other.timesteps:
            raise ValueError(
                f"the series was written for {_steps(self.timesteps)}, but these are {_steps(other.timesteps)}; write "
                "it again with the same number of steps."
            )
        if (self.width, self.height) != (other.width, other.height):
            raise ValueError(
                f"the series was written for {self.width} x {self.height}, but this is {other.width} x "
                f"{other.height}; write it again."
            )


@dataclass(frozen=True, repr=False)
class BankSeries(Mapping[int, ReferenceBank]):
    """Timestep to bank.

    Attributes:
        banks: One for every step that reads.
        schedule: What they were written for.
    """

    banks: Mapping[int, ReferenceBank]
    schedule: Schedule

    def __getitem__(self, timestep: Any) -> ReferenceBank:
        if int(timestep) not in self.banks:
            raise KeyError(f"the series has no bank for timestep {int(timestep)}, only for {_steps(list(self.banks))}.")
        return self.banks[int(timestep)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.banks)

    def __len__(self) -> int:
        return len(self.banks)

    @property
    def nbytes(self) -> int:
        """The size of all tensors, which is that on disk but for some kilobytes of names."""
        return sum(bank.nbytes for bank in self.banks.values())

    def check(self, scheduler: Any, *, width: int, height: int) -> None:
        """Refuse a call that the series was not written for.

        Args:
            scheduler: The call's, after its `set_timesteps`.
            width: Of the results, in pixels.
            height: In pixels.

        Raises:
            ValueError: If scheduler, steps or size differ; it says which.
        """
        self.schedule.check(Schedule.of(scheduler, width=width, height=height))

    def to(self, *args: torch.device | torch.dtype | str) -> BankSeries:
        """A copy on another device or in another dtype, as `Tensor.to`."""
        return BankSeries({timestep: bank.to(*args) for timestep, bank in self.banks.items()}, self.schedule)

    def save(self, path: str | Path) -> None:
        """Write all banks as one safetensors file of about `nbytes`; it appears whole or not at all.

        Raises:
            ValueError: If the series or one of its banks is empty.
        """
        if not self.banks:
            raise ValueError("an empty series cannot be saved; write a reference first.")
        tensors = {f"{t}/{name}": x for t, bank in self.banks.items() for name, x in bank.entries().items()}
        dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
        made_for = json.dumps(asdict(self.schedule) | {"dtype": ", ".join(dtypes)})
        write_entries(Path(path), tensors, {"format": _FORMAT, "made_for": made_for})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> BankSeries:
        """Read a series that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a whole series.
        """
        path = Path(path)
        tensors, metadata = read_entries(path, _FORMAT, device)
        schedule = _schedule(path, metadata.get("made_for", ""))
        parts: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            timestep, _, rest = name.partition("/")
            if not timestep.isdecimal() or int(timestep) not in schedule.timesteps:
                raise ValueError(
                    f"{path} is not a complete series: its entry {name[:100]!r} is of no step of its schedule."
                )
            parts.setdefault(int(timestep), {})[rest] = tensor
        order = dict.fromkeys(t for t in schedule.timesteps if t in parts)
        return cls({t: ReferenceBank.of_entries(parts[t], f"{path}, timestep {t},") for t in order}, schedule)

    def __repr__(self) -> str:
        made = self.schedule
        rows = [("timestep", "sites", "bytes")]
        rows += [(str(t), str(len(bank.sites())), size(bank.nbytes)) for t, bank in self.banks.items()]
        return "\n".join([
            f"BankSeries for {made.scheduler}, {len(made.timesteps)} steps, {made.width} x {made.height}",
            table(rows), f"total: {len(self)} banks, {size(self.nbytes)}",
        ])  # fmt: skip


def _schedule(path: Path, text: str) -> Schedule:
    """The schedule in a file's metadata."""
    try:
        found: dict[str, Any] = json.loads(text) if len(text) <= _MAX_METADATA else {}
        timesteps = tuple(int(t) for t in found["timesteps"])
        schedule = Schedule(
            scheduler=str(found["scheduler"])[:100], digest=str(found["digest"])[:100], timesteps=timesteps,
            width=int(found["width"]), height=int(found["height"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} does not say for which schedule it was made ({error!r:.80}).") from error
    if not 0 < len(timesteps) <= _MAX_STEPS or min(schedule.width, schedule.height) < 1:
        raise ValueError(
            f"{path} claims {len(timesteps)} steps of {schedule.width} x {schedule.height}; write it again."
        )
    return schedule


def _steps(timesteps: Any) -> str:
    """A schedule in a few words."""
    listed = ", ".join(str(t) for t in list(timesteps)[:4]) + (" ..." if len(timesteps) > 4 else "")
    return f"{len(timesteps)} steps ({listed})"
