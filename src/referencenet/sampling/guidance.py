"""What the rows of a guidance batch are for, and how much each sees of a reference. Links know rows and weights only.

Pipelines put the rows of one picture into a batch in two orders: part behind part, or picture by picture (views of a
panorama). Which parts there are is the pipeline's affair, and what it says of them is held against the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from referencenet.sampling.caller import Caller
from referencenet.sampling.unet_call import UNetCall

FLAG = "do_classifier_free_guidance"
"""diffusers' name for it, a variable of the call in some pipelines and a property in others."""

PERTURBED_FLAG = "do_perturbed_attention_guidance"
"""diffusers' name for a part at the end of the batch that attends to itself alone (perturbed-attention guidance)."""

Role = Literal["conditional", "unconditional", "perturbed"]


@dataclass(frozen=True)
class Batch:
    """The rows of a pass.

    Attributes:
        parts: What each part of the batch is for; every picture has a row in each.
        count: The number of pictures.
        by_picture: Whether the rows of a picture stand beside each other; else those of a part do.
    """

    parts: tuple[Role, ...]
    count: int
    by_picture: bool = False

    @property
    def pictures(self) -> list[int]:
        """For every row the number of its picture."""
        parts = len(self.parts)
        return [row // parts if self.by_picture else row % self.count for row in range(parts * self.count)]

    @property
    def roles(self) -> list[Role]:
        """For every row what it is for."""
        parts = len(self.parts)
        return [self.parts[row % parts if self.by_picture else row // self.count] for row in range(parts * self.count)]

    def amounts(self, style_fidelity: float) -> list[float]:
        """How much every row reads, by s in [0, 1].

        Published blend (Reference-Only): an unconditional row is s * plain + (1 - s) * reading, a conditional row
        reads. A perturbed row is a conditional one wherever its attention is not the identity.
        """
        return [1.0 - style_fidelity if role == "unconditional" else 1.0 for role in self.roles]

    def writers(self) -> list[int]:
        """For every row the one in whose place its reference is written: what is perturbed is not written anew."""
        pictures, roles = self.pictures, self.roles
        places = {(pictures[row], role): row for row, role in reversed(list(enumerate(roles)))}
        return [places[pictures[row], "conditional"] if role == "perturbed" else row for row, role in enumerate(roles)]


def batch_of(caller: Caller, call: UNetCall, given: bool | None, known: dict[object, Batch]) -> Batch:
    """What the rows of a pass are for.

    A property may still speak of another call, so variables of the call go first; where nobody says whether there is
    guidance, the number of rows for each of the call's latents does.

    Args:
        caller: The pipeline's call.
        call: The pass.
        given: What the user said about an unconditional half; None: nothing.
        known: What earlier passes of the call were found to be; this one is added.

    Raises:
        ValueError: If nobody says it, or the batch is of another kind.
    """
    said = given if given is not None else caller.local(FLAG)
    said = getattr(caller.pipe, FLAG, None) if said is None else said
    found = _parts(caller, call)
    key = (call.rows, said, found, is_perturbed(caller.pipe))
    if key not in known:
        known[key] = _found(caller, call, given, said, found)
    return known[key]


def _found(caller: Caller, call: UNetCall, given: bool | None, said: Any, found: int | None) -> Batch:
    """As `batch_of`, with what was said and how many rows there are for each of the call's latents."""
    if said is None and (found is None or (found == 1 and _may_be_guided(call))):
        raise ValueError(
            f"{_name(caller)} does not say whether this pass is guided; give guided=True if the first half of the "
            "UNet's rows is the unconditional one, or guided=False if there is none."
        )
    guided = found == 2 if said is None else bool(said)
    parts = _expected(caller, call, guided, found)
    if given is None and found not in (None, len(parts)):
        raise ValueError(
            f"{_name(caller)} gives its UNet {call.rows} rows for {call.rows // (found or 1)} latents, with guidance "
            f"{'on' if guided else 'off'}; expected {len(parts)} row{'s' * (len(parts) > 1)} for each. Such a batch "
            "has a meaning of its own: give guided=True if its first half is unconditional, guided=False if no row is."
        )
    return _ordered(caller, call, parts)


def half_weights(*, guided: bool, style_fidelity: float) -> list[float]:
    """How much each guidance half reads, in diffusers' order (unconditional half first).

    Args:
        guided: Whether the batch has an unconditional half.
        style_fidelity: s in [0, 1].
    """
    parts: tuple[Role, ...] = ("unconditional", "conditional") if guided else ("conditional",)
    return Batch(parts, 1).amounts(style_fidelity)


def is_perturbed(pipe: Any) -> bool:
    """Whether a pipeline's call has perturbed-attention guidance."""
    return bool(getattr(pipe, PERTURBED_FLAG, False))


def _may_be_guided(call: UNetCall) -> bool:
    """Whether the second half of the rows has the latents of the first, as if they had been doubled for guidance."""
    return call.rows % 2 == 0 and torch.equal(*call.sample.chunk(2))


def _expected(caller: Caller, call: UNetCall, guided: bool, found: int | None) -> tuple[Role, ...]:
    """The parts of a batch, in diffusers' order."""
    perturbed: tuple[Role, ...] = ("perturbed",) if is_perturbed(caller.pipe) else ()
    if not guided:
        return ("conditional", *perturbed)
    if found == 3 and not perturbed and _is_three_way(call):
        return ("conditional", "unconditional", "unconditional")
    return ("unconditional", "conditional", *perturbed)


def _is_three_way(call: UNetCall) -> bool:
    """Whether a batch is InstructPix2Pix's (Brooks et al. 2023): words and picture, the picture alone, neither.

    Its last part is shown an empty picture in the channels beside the latents, and has the words of the second.
    """
    count, latents = call.rows // 3, call.sample.shape[1] // 2
    words, beside = call.conditions.get("encoder_hidden_states"), call.sample[:, latents:]
    if not isinstance(words, Tensor) or call.sample.shape[1] % 2 or words.shape[0] != call.rows:
        return False
    is_without = not bool(beside[2 * count :].any()) and torch.equal(beside[:count], beside[count : 2 * count])
    return is_without and torch.equal(words[count : 2 * count], words[2 * count :])


def _ordered(caller: Caller, call: UNetCall, parts: tuple[Role, ...]) -> Batch:
    """The order of the rows, seen from their latents and, where those leave it open, from the words.

    Raises:
        ValueError: If it is none of the two.
    """
    count, rest = divmod(call.rows, len(parts))
    if len(parts) == 1:
        return Batch(parts, count)
    three_way = parts.count("unconditional") == 2
    latents = call.sample[:, : call.sample.shape[1] // 2] if three_way else call.sample
    behind = not rest and _repeats(latents, count)
    if count > 1 and not rest and _repeats(_turned(latents, count), count):
        words = call.conditions.get("encoder_hidden_states")
        if isinstance(words, Tensor) and words.shape[0] == call.rows * call.frames:
            words = words[:: call.frames]
            is_told_apart = not behind or not torch.equal(words[0], words[1])
            if is_told_apart and _repeats(words, len(parts)):
                return Batch(parts, count, by_picture=True)
    if not behind:
        raise ValueError(
            f"{_name(caller)} gives its UNet {call.rows} rows under guidance in an order of its own; expected the "
            "unconditional part first and then the same latents again, or the rows of each picture beside each other. "
            "With one picture at a time no other order is possible."
        )
    return Batch(parts, count)


def _turned(rows: Tensor, count: int) -> Tensor:
    """Rows that stand picture by picture, part by part."""
    return rows.unflatten(0, (count, -1)).transpose(0, 1).flatten(0, 1)


def _repeats(rows: Tensor, count: int) -> bool:
    """Whether every `count` rows are the first ones again."""
    return all(torch.equal(rows[:count], each) for each in rows.split(count)[1:])


def _parts(caller: Caller, call: UNetCall) -> int | None:
    """Rows of the UNet for each of the call's latents; None where its latents are of another size than the rows."""
    latents = caller.local("latents")
    if not isinstance(latents, Tensor) or latents.shape[2:] != call.sample.shape[2:] or not len(latents):
        return None
    return call.rows // len(latents) if call.rows % len(latents) == 0 else None


def _name(caller: Caller) -> str:
    return type(caller.pipe).__name__
