"""A report as a record of OpenDP's registry of differential privacy deployments, in YAML.

The record follows schemas/deployments-schema.yaml of github.com/opendp/deployments-registry-data as of 2026. What a
report cannot know is left for a person: marked "Fill in" behind the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from securefl.errors import BadInput
from securefl.report import words
from securefl.report.document import Claim, Report

_NAMELESS: Final = "securefl-run"


@dataclass(frozen=True)
class Fill:
    """A scalar that the person who files the record has to look at: ``value`` is only allowed there, not known."""

    value: str
    hint: str


Scalar = str | int | float | Fill
Node = Scalar | Sequence["Node"] | Mapping[str, "Node"]


def yaml(report: Report) -> str:
    """The record. Raises ``BadInput`` for a run that has nothing to register: no epsilon towards a model's holder."""
    return "\n".join(_lines(_record(report, _product(report)), "")) + "\n"


def _product(report: Report) -> Claim:
    """The claim about the data product, towards whoever gets it."""
    held = [claim for claim in report.federation if claim.audience == "holder" and isinstance(claim.epsilon, float)]
    if not held:
        raise BadInput(
            f"the run is {report.status.word!r} and has no epsilon for the federation: the registry holds deployments "
            "of differential privacy; finish the run, or run it with privacy"
        )
    return held[0]


def _record(report: Report, claim: Claim) -> Node:
    return {
        "url_slug": re.sub(r"[^a-z0-9]+", "-", report.run.job.lower()).strip("-") or _NAMELESS,
        "deployment": {
            "basic": _basic(report),
            "dp_variant": _variant(report, claim),
            "privacy_loss": _loss(report, claim),
            "deployment_model": _model(report),
            "implementation": _implementation(report, claim),
            "administrative": _administrative(report),
        },
    }


def _basic(report: Report) -> Node:
    kinds = "Government, Industry or Nonprofit"
    date = re.match(r"\d{4}-\d{2}-\d{2}", report.created)
    return {
        "name": report.run.job,
        "data_curators": [
            {"data_curator_name": client, "data_curator_type": Fill("Nonprofit", kinds)}
            for client in report.run.clients
        ],
        "description": (
            f"A model of {report.run.dimension} parameters, trained by {len(report.run.clients)} organisations, in "
            f"{report.run.rounds_done} rounds, on {report.data.name} ({report.data.source}). Records were not pooled."
        ),
        "intended_use": Fill("unknown", "what the model is for"),
        "data_product_type": "Machine learning model",
        "data_product_region": Fill("unknown", "whose laws apply"),
        "publication_date": date[0] if date else Fill("1900-01-01", "YYYY-MM-DD"),
    }


def _variant(report: Report, claim: Claim) -> Node:
    neighbours = words.NEIGHBOURS.get(claim.neighbours, claim.neighbours)
    listed = "unknown" if isinstance(report.hazards, str) else "; ".join(one.text for one in report.hazards)
    return {
        "variant_name": "Approximate DP",
        "data_domain": f"What each of the organisations holds of {report.data.name}; neighbouring are {neighbours}.",
        "unprotected_quantities": listed or "None were declared.",
    }


def _loss(report: Report, claim: Claim) -> Node:
    if not (isinstance(claim.epsilon, float) and isinstance(claim.delta, float)):
        raise AssertionError("a product's claim has figures")
    spent = ", ".join(f"{owner.client} {words.number(owner.epsilon_after)}" for owner in report.owners)
    return {
        "privacy_unit": claim.unit,
        "privacy_unit_details": f"{words.UNITS[claim.unit]}; {claim.neighbours}.",
        "privacy_parameters": {"epsilon": claim.epsilon, "delta": claim.delta},
        "privacy_parameters_details": (
            f"Of this run, towards a holder of the model. {claim.why} Spent on each data set in all its runs: {spent}."
        ),
    }


def _model(report: Report) -> Node:
    seen = [f"{sight.party}: updates {sight.update}; sum {sight.total}; model {sight.model}" for sight in report.sights]
    return {
        "model_name": "Federated",
        "model_name_details": report.aggregation.visibility,
        "trust_assumptions": f"{report.aggregation.threat_model} {report.aggregation.assumptions}",
        "actors": ". ".join(seen) + ".",
        "release_type": "Many releases",
        "release_type_details": "Every round releases a sum; an owner's budget covers all its runs, not refilled.",
        "data_source_type": "Static",
        "access_type": "Non-interactive",
    }


def _implementation(report: Report, claim: Claim) -> Node:
    tuned = [] if isinstance(report.hazards, str) else report.hazards
    before = [one.text for one in tuned if one.kind in ("preprocessing", "tuning", "sample-counts", "public-test")]
    released = ". ".join(words.mechanism(one) for one in report.training.mechanisms)
    package = f"{report.accounting.package} {report.accounting.version}"
    return {
        "preprocessing_and_hyperparameter_tuning": "; ".join(before) or "None was declared.",
        "mechanisms": f"{released}. {report.training.sampling} Encoding: {report.aggregation.encoding}.",
        "composition": f"{report.accounting.decides} Here: {claim.accountant}, by {package}. {claim.why}",
        "post_processing": "Every round's model is computed from the sums before it.",
        "justification": f"{report.status.word}: {' '.join(report.status.reasons)}",
        "utility": (
            f"Accuracy {words.number(report.utility.accuracy)} on a test set: {report.data.test}. Trained centrally, "
            f"without privacy: {words.number(report.utility.centralised)}."
            + (f" {words.metrics(report)}." if report.utility.metrics else "")
        ),
        "additional_information": f"securefl run {report.run.id}, plan {report.run.plan}, model {report.run.model}.",
    }


def _administrative(report: Report) -> Node:
    # Tier 3 asks for the number of privacy units besides, which a report does not hold.
    title = f"privacy_report.json of run {report.run.id}"
    attested: Mapping[str, Node] = {"title": title, "howpublished": Fill("unknown", "where")}
    return {
        "evidence_sources": {
            "privacy_report": {"evidence_source_type": "Authorized organizational attestation", "misc": attested}
        },
        "status": "Draft",
        "registry_authors": [Fill("unknown", "who files this record")],
        "tier": 2,
    }


def _lines(node: Node, indent: str) -> Iterator[str]:
    """Block style; every text in double quotes, so that nothing in it can mean anything to YAML."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _entry(f"{indent}{key}:", value, indent + "  ")
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            yield from _entry(f"{indent}-", value, indent + "  ")


def _entry(head: str, value: Node, indent: str) -> Iterator[str]:
    if isinstance(value, Fill):
        yield f"{head} {_scalar(value.value)}  # Fill in: {value.hint}"
    elif isinstance(value, str | int | float):
        yield f"{head} {_scalar(value)}"
    else:
        yield head
        yield from _lines(value, indent)


def _scalar(value: str | int | float) -> str:
    if not isinstance(value, float):
        return "".join(map(_printable, json.dumps(value, ensure_ascii=False)))
    # YAML 1.1 takes 1e-05 for text: a number needs its point.
    digits, e, power = repr(value).partition("e")
    return f"{digits}{'' if '.' in digits else '.0'}{e}{power}"


def _printable(character: str) -> str:
    return character if character.isprintable() else f"\\U{ord(character):08x}"
