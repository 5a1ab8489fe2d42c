"""What all tabs share: an order is checked, waits in line, is drawn and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from referencenet.ui.drawing import Order
from referencenet.ui.films import animate, talk, turn
from referencenet.ui.given import Given, Limits
from referencenet.ui.jobs import Desk, Job
from referencenet.ui.models import Model, Models, TabName, key_of
from referencenet.ui.pictures import compose, dress, face
from referencenet.ui.refer import refer
from referencenet.ui.runs import Run, Runs

ORDERS: Mapping[TabName, Callable[[Given, Model], Order]] = {
    "refer": refer, "compose": compose, "dress": dress, "face": face, "animate": animate, "talk": talk, "turn": turn,
}  # fmt: skip
FILMS = ("animate", "talk", "turn")


@dataclass(frozen=True)
class Office:
    """What all tabs share.

    Attributes:
        models: To choose from.
        desk: Takes jobs.
        runs: Keeps results.
        limits: Of what is taken.
        sentence: An error as one sentence.
    """

    models: Models
    desk: Desk
    runs: Runs
    limits: Limits
    sentence: Callable[[BaseException], str]

    def begin(self, tab: TabName, values: Mapping[str, Any]) -> Job:
        """Check what a tab was given, and put it in line.

        Raises:
            ValueError: If something is missing or wrong.
        """
        model = self.models.find(tab, values.get("model"))
        order = ORDERS[tab](Given(values, self.limits), model)
        self.models.check_controlnet(order.controlnet, model)

        def work(job: Job) -> Run:
            pipe = self.models.pipeline(
                tab, model, is_busy=self.desk.is_busy, posed=order.posed, controlnet=order.controlnet
            )
            job.check()
            settings = {"model": model.title, **order.settings}
            job.record = {"task": tab, **settings, "count": 1}
            return self.runs.make(tab, settings, order.files, lambda folder: order.draw(pipe, job, folder))

        return self.desk.submit(key_of(tab, model, order.posed, order.controlnet), work)
