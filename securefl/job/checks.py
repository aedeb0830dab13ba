"""What must hold between the keys of a job before anything starts: one function a subject."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from securefl.errors import BadJob
from securefl.job.file import closest, quoted, remedy
from securefl.job.learning import check_learning
from securefl.job.shield import check_encoding, check_graph, check_key_rounds, check_kind, check_rules

if TYPE_CHECKING:
    from securefl.job import Job

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # a client's name is also the name of its folder
_VACUOUS_DELTA: Final = 0.1  # delta is the chance that the guarantee fails altogether


def check(job: Job) -> None:
    """Raises ``BadJob`` at the first thing in the job that could only fail later."""
    _check_names(job)
    _check_source(job)
    _check_privacy(job)
    _check_metrics(job)
    _check_survey(job)
    _check_unit_weights(job)
    check_learning(job)
    check_kind(job)
    check_graph(job)
    _check_cohort(job)
    asked = job.asked
    check_rules(job.shield, asked.expected(len(job.clients)))
    check_encoding(job.shield, asked.largest(len(job.clients)), job.noise, job.protection.profile)
    _check_weights(job)
    check_key_rounds(job.shield, len(job.clients))
    _check_silences(job)


def _check_names(job: Job) -> None:
    for key, value in (("job.name", job.name), ("data.name", job.data.name)):
        if not value.isprintable():
            raise BadJob(key, "contains characters that cannot be printed", remedy(key))
    if "\0" in job.privacy.ledger:
        raise BadJob("privacy.ledger", "contains a null character", remedy("privacy.ledger"))
    for client in job.clients:
        if not _NAME.fullmatch(client):
            hint = "Use up to 64 letters, digits, - and _, with no - or _ first: it is also a folder's name"
            raise BadJob("data.clients", f"{quoted(client)} cannot be a client's name", hint)
    if len({client.lower() for client in job.clients}) < len(job.clients):
        raise BadJob("data.clients", "two clients have the same name", "Give each client a name of its own")


def _check_source(job: Job) -> None:
    from securefl import pilots

    data = job.data
    for client in data.sizes:
        if client not in job.clients:
            raise BadJob(f"data.sizes.{client}", "no such client", closest(client, job.clients))
    if data.pilot is None:
        if job.model.factory is None:
            raise BadJob("model.factory", "missing, and there is no pilot to bring a model", remedy("model.factory"))
        return
    brought = (data.loader, data.test, data.held_out, data.sizes or None)
    for key, value in zip(("data.loader", "data.test", "data.held_out", "data.sizes"), brought, strict=True):
        if value is not None:
            raise BadJob(key, f"the pilot {data.pilot!r} brings its own data", "Leave this key out, or data.pilot")
    pilot = pilots.pilot(data.pilot)
    if data.name != pilot.records:  # a second name for the same records would be a second budget
        raise BadJob("data.name", f"the data of this pilot is called {pilot.records!r}", "Leave this key out")
    known = pilot.clients
    for client in job.clients:
        if client not in known:
            raise BadJob("data.clients", f"the pilot {data.pilot!r} has no client {client!r}", closest(client, known))


def _check_privacy(job: Job) -> None:
    # Reading the budget raises where the values that differential privacy needs are missing.
    if job.budget is not None and job.budget.delta >= _VACUOUS_DELTA:
        raise BadJob("privacy.delta", f"{job.budget.delta} guarantees nothing", remedy("privacy.delta"))
    section = job.privacy
    if section.target_epsilon is not None and section.noise_multiplier is not None:
        raise BadJob("privacy.target_epsilon", "the noise is given, so there is none to solve for", "Leave one key out")
    if section.adaptive_quantile is not None and not job.client_level:
        problem = "only the clip of client-level noise can follow the updates"
        raise BadJob("privacy.adaptive_quantile", problem, 'Leave the key out, or write unit = "client"')
    if (job.training.steps is None) == (job.training.epochs is None):
        raise BadJob("training.steps", "either steps or epochs say how long a round trains", remedy("training.steps"))
    if job.simulation.seed is not None and not job.simulation.enabled:
        problem = "a seed undoes all noise, so it is for simulations only"
        raise BadJob("simulation.seed", problem, remedy("simulation.seed"))


def _check_metrics(job: Job) -> None:
    if job.metrics is None:
        return
    if (job.metrics.noise_multiplier is None) != job.metrics.exact:
        raise BadJob("metrics", "metrics are either noised or exact", remedy("metrics"))
    if job.client_level:
        problem = "their noise hides records, and this job is to hide clients"
        raise BadJob("metrics", problem, 'Leave the section out, or write unit = "record" under [privacy]')
    if not job.has_held_out:
        raise BadJob("metrics", "there are no held-out records to measure with", remedy("data.held_out"))


def _check_survey(job: Job) -> None:
    if job.survey is None:
        return
    if not job.has_held_out:
        raise BadJob("survey", "there are no held-out records to measure with", remedy("data.held_out"))
    if job.client_level and job.survey.scores is not None:
        problem = "its noise hides records, and this job is to hide clients"
        raise BadJob("survey.scores", problem, "Leave the key out")
    from securefl import pilots

    known = pilots.pilot(job.data.pilot).classes if job.data.pilot else None
    if job.survey.scores is not None and known is not None and len(known) != 2:
        problem = "scores are of one class against another, and these labels are no two classes"
        raise BadJob("survey.scores", problem, "Leave the key out")
    if job.stopping is not None:
        raise BadJob("survey", "it comes after all rounds, and this job may stop before", "Leave [stopping] out")


def _check_unit_weights(job: Job) -> None:
    if job.client_level and any(weight != 1 for weight in job.declared_weights.values()):
        problem = "client-level noise hides clients that all weigh the same"
        raise BadJob("weights", problem, "Write 1.0 for each client, or leave the section out")


def _check_cohort(job: Job) -> None:
    count, kind, shield = job.asked.expected(len(job.clients)), job.protection.kind, job.protection
    fewest = 3
    if count < fewest:
        why = "with two, each could subtract its own update from the sum"
        raise BadJob(
            "data.clients", f"{count} clients under {kind!r}; it needs at least {fewest}: {why}", "Name more clients"
        )
    for key, value in (("threshold", shield.threshold), ("minimum", shield.minimum)):
        if value is not None and value > count:
            problem = f"{value} is above the cohort of {count} clients"
            raise BadJob(f"protection.{key}", problem, f"Write at most {count}, or leave the key out")
    if shield.threshold is not None and kind == "plain":
        raise BadJob("protection.threshold", "'plain' shares no secrets, so it has no threshold", "Leave the key out")
    if shield.threshold is not None and 2 * shield.threshold <= count:
        problem = f"{shield.threshold} of {count} is not a majority: two halves could be opened against each other"
        raise BadJob("protection.threshold", problem, f"Write at least {count // 2 + 1}, or leave the key out")
    if job.minimum < fewest:
        problem = f"{job.minimum} is below {fewest}: a sum of fewer hides nobody"
        raise BadJob("protection.minimum", problem, f"Write at least {fewest}, or leave the key out")


def _check_weights(job: Job) -> None:
    for client, weight in job.weights.items():
        if client not in job.clients:
            raise BadJob(f"weights.{client}", "no such client", closest(client, job.clients))
        if not 0 < weight <= 1:
            raise BadJob(f"weights.{client}", f"{weight} is not above 0 and at most 1", remedy("weights"))


def _check_silences(job: Job) -> None:
    for silence in job.silences:
        if silence.client not in job.clients:
            raise BadJob("simulation.drop", f"no client {silence.client!r}", closest(silence.client, job.clients))
        if silence.round > job.rounds:
            problem = f"round {silence.round} never comes: the job has {job.rounds}"
            raise BadJob("simulation.drop", problem, "Name an earlier round")
