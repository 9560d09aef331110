"""Home's side of a chain: feeds micro-batches in, ends the step where labels stay, and lets nothing leave unpaid.

Micro-batches are under way at once, so that home's front and tail and every held piece work at the same time; what a
step gives does not depend on how many (`clients.chain.stage`).

Noise on what leaves assumes that the weights of home's own pieces tell nothing of the records, as `Releaser` says. So
where anything leaves with noise, they are trained by `ChainDriver.per_record` under a privacy plan, or not at all.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from clients.chain.home import Answering, Links, Outward, Own, PerRecord, Training, Work
from clients.chain.links import DONE, MOST_IN_FLIGHT, Inbox, Place
from clients.chain.per_record import Driven
from clients.chain.released import Releaser
from clients.layer_gradients import trainable_layers
from privacy.errors import ConfigError, PrivacyError, RemoteProtocolError
from strategies.chain_plan import ChainPlan, leaving
from strategies.release import Release


class ChainDriver:
    """A chain at work, seen from home; one thread's. After an error it is over."""

    def __init__(
        self, plan: ChainPlan, links: Links, own: Own, releaser: Releaser | None = None, *, deadline: float = 30.0
    ) -> None:
        """Takes over open sessions.

        Args:
          plan: Who holds what.
          links: Sessions that the holders' loops serve.
          own: The pieces at home; in training, built with the optimiser's settings.
          releaser: Needed where anything leaves the organisation.
          deadline: Seconds without a message from a holder after which the chain is over.

        Raises:
          PrivacyError: Something would leave without a release.
          ConfigError: Pieces that are not the plan's, or under a release with noise, a layer that mixes records.
          ValueError: A releaser for another plan: the caller's bug.
        """
        torch.set_num_threads(1)  # a setting of the calling thread
        released = [release for release in leaving(plan).values() if release is not None]
        if released and releaser is None:
            raise PrivacyError(f"values of {plan.owner} would leave it, and nothing counts or pays for them")
        if releaser is not None and releaser.plan != plan:
            raise ValueError("what leaves is counted and paid for by another plan")
        if (plan.front is None, plan.tail is None) != (own.front is None, own.tail is None):
            raise ConfigError(f"the pieces at {plan.home} are not the plan's")
        if any(stage.trains != plan.train for stage in own.stages):
            raise ConfigError("a chain trains all its pieces or none")
        self._noised = any(isinstance(release, Release) for release in released)
        if self._noised and plan.train:
            for stage in own.stages:
                trainable_layers(stage.module)  # raises where one record reaches another's row
        self._plan, self._links, self._own, self._releaser = plan, links, own, releaser
        self._outward, self._deadline, self._steps = Outward(plan, links, releaser, deadline), deadline, 0
        self._most = min(plan.in_flight, MOST_IN_FLIGHT * len(links.sessions) // 2)
        self._inbox = Inbox(links.sessions)

    def step(self, inputs: Tensor, labels: Tensor, *, records: Sequence[int] | None = None) -> float:
        """Takes one step of every stage's optimiser on a batch; returns the mean loss before it. See `accumulate`."""
        loss = self.accumulate(inputs, labels, records=records)
        self.apply()
        return loss

    def accumulate(self, inputs: Tensor, labels: Tensor, *, records: Sequence[int] | None = None) -> float:
        """Lets the held pieces take a step, and adds this step's gradients to those of home's parameters.

        Args:
          inputs: Shape ``(b, …)``, cut into micro-batches here. Secret.
          labels: As `strategies.losses` takes them, shape ``(b,)``. Secret.
          records: Numbers of the records, for `Releaser.admit`.

        Returns: The mean loss. Secret.

        Raises:
          PrivacyError: More than was paid for, or weights trained without privacy under a release with noise.
          ChannelError, RemoteProtocolError: A holder is gone, stalled, or sent what no stage sends.
        """
        if self._noised and any(each.requires_grad for stage in self._own.stages for each in stage.module.parameters()):
            raise PrivacyError(
                "noise on what leaves protects nothing while weights trained without it carry the records along",
                hint="Train with --privacy record, or freeze the pieces at home.",
            )
        work = Training(self._own, self._outward, self._chunks(inputs, labels))
        self._run(inputs, work, records)
        return work.loss

    def apply(self) -> None:
        """Takes a step of the optimiser of home's own pieces."""
        for stage in self._own.stages:
            stage.apply()

    def per_record(self, inputs: Tensor, labels: Tensor, *, records: Sequence[int] | None = None) -> Driven:
        """Lets the held pieces take a step, and returns what gives home's own gradients record by record.

        Args:
          inputs: Shape ``(b, …)``, float32. Secret.
          labels: Shape ``(b,)``, float32. Secret.
          records: As for `accumulate`.

        Returns: Home's pieces as a model, with losses and batch, for `clients.clipping.Clipping` or
          `clients.training.integer_sum`. What they make of it is private only if the holders return for each record a
          gradient that depends on that record alone. So a held piece that is given values without noise must stand
          still (a learning rate of 0): trained, it would carry one record into another's gradient.
        Raises: As `accumulate`; ConfigError: Values that are not float32.
        """
        work = PerRecord(self._own, self._outward, self._chunks(inputs, labels))
        self._run(inputs, work, records)
        return work.driven(inputs)

    def infer(self, inputs: Tensor, *, records: Sequence[int] | None = None) -> Tensor:
        """Returns the model's output, shape ``(b, …)``, of inputs ``(b, …)``. Raises: As `accumulate`."""
        if self._plan.train:
            raise ValueError("the chain was opened for training")
        work = Answering(self._own, self._outward)
        self._run(inputs, work, records)
        return torch.cat([work.outputs[index] for index in sorted(work.outputs)])

    def close(self) -> None:
        """Ends the chain well: every held piece has taken all its steps when this returns.

        Raises: ChannelError, RemoteProtocolError: A holder is gone or does something else.
        """
        try:
            self._links.first.send(Place(self._steps, 0, 1, 1).message(DONE), self._deadline)
            if self._inbox.next(self._deadline).kind != DONE:
                raise _wrong("something came after the last step")
            if self._releaser is not None:
                self._releaser.sent()
        finally:
            self.abort()

    def abort(self) -> None:
        """Ends the chain as it is; holders may have taken a step by halves."""
        self._inbox.stop()
        for session in self._links.sessions:
            session.close()

    def __enter__(self) -> Self:
        """Returns the driver."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes after work that went well, and aborts after an error."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def _chunks(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Returns the labels by micro-batch."""
        if not self._plan.train:
            raise ValueError("the chain was opened for inference")
        if not len(inputs) or len(labels) != len(inputs):
            raise ValueError("a step takes records, and a label for each")
        return torch.split(labels, self._plan.micro_batch)

    def _run(self, inputs: Tensor, work: Work, records: Sequence[int] | None) -> None:
        """Sends micro-batches as long as few enough are under way, and takes what comes back."""
        chunks = torch.split(inputs, self._plan.micro_batch)
        places = [Place(self._steps, index, len(chunks), len(inputs)) for index in range(len(chunks))]
        if self._releaser is not None:
            self._releaser.admit(records)
        seen: set[tuple[str, int]] = set()
        sent, ended, most = 0, 0, self._most
        while ended < len(chunks):
            while sent < len(chunks) and sent - ended < most:
                work.begin(places[sent], chunks[sent])
                sent += 1
            message = self._inbox.next(self._deadline)
            kind, index = message.kind, message.place.index
            if kind not in work.kinds or index >= sent or message.place != places[index] or (kind, index) in seen:
                raise _wrong(f"a {kind} came that was not asked for")
            seen.add((kind, index))
            work.take(message)
            ended += all((each, index) in seen for each in work.kinds)
        self._steps += 1


def _wrong(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(what, phase="chain")
