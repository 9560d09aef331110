"""A holder's word on a run: a signed invitation that its own study resolves to the very chain that was asked for.

The charter need not name the plan then: it names the study, and what the holder takes from the papers it works out
itself. In a run with any privacy setting the piece must stand still, and this is where a holder sees to that.
"""

from collections.abc import Callable
from functools import lru_cache

from clients.chain.request import StageRequest
from clients.chain.service import Allowed, Authorise
from privacy.charter.document import Charter
from privacy.errors import RemoteProtocolError, VerificationError
from privacy.secagg.context import MIN_SITES
from privacy.store.application import application_digest
from strategies.chain_job import chain_of
from strategies.invitation import Invitation, open_invitation, resolve_invited
from strategies.job import Job
from strategies.study import Study
from strategies.task import SiteId


def by_invitation(study: Study, charter: Callable[[], Charter]) -> Authorise:
    """Returns what lets a stage of a run be held.

    Args:
      study: The holder's own.
      charter: Returns the one in force; asked at every request.
    """

    @lru_cache(maxsize=4)
    def resolved(data: bytes, coordinator: bytes) -> tuple[Invitation, Job]:
        invitation = open_invitation(data, coordinator)
        return invitation, resolve_invited(study, invitation)

    def authorise(peer: str, request: StageRequest) -> Allowed:
        own = charter()
        invitation, job = resolved(request.grant, own.server.identity)
        if (invitation.federation, invitation.charter) != (own.federation, own.digest):
            raise VerificationError("the run was proposed under another charter than the one in force here")
        if invitation.application != application_digest():
            raise VerificationError("the run is of another application than the one installed here")
        owner = SiteId(peer)
        if owner not in job.sites or job.chain is None:
            raise VerificationError(f"{peer} was not invited to train through a chain")
        plan = chain_of(job, owner)
        if request.plan != plan.encode():
            raise VerificationError(f"{peer} asks for another chain than the run's")
        _check_terms(request, invitation, job, owner)
        return Allowed(plan, job.seed, study.digest, MIN_SITES)

    return authorise


def _check_terms(request: StageRequest, invitation: Invitation, job: Job, owner: SiteId) -> None:
    training = job.agent_of(owner).training(job.task.training)
    rate = 0.0 if job.privacy else training.learning_rate
    asked = (request.run, request.learning_rate, request.steps, request.seed)
    if asked != (invitation.run, rate, training.local_steps, job.seed):
        raise RemoteProtocolError(f"{owner} asks for other steps than the run's", phase="open")
    if not 1 <= request.round <= training.rounds or request.attempt > job.max_attempts:
        raise RemoteProtocolError(f"{owner} asks for a round that the run does not have", phase="open")
