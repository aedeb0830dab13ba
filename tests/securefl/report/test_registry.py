"""The registry entry has the registry's own fields and words, whatever a job is called."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from securefl import report
from securefl.errors import BadInput
from securefl.report import registry
from securefl.report.document import Report
from tests.securefl.report.runs import CLIENT_LEVEL, JOB, NOT_PRIVATE, Scene

TEXT = {"type": "string"}


def fields(required: str = "", optional: str = "", **typed: object) -> dict[str, object]:
    """An object with these fields and no others; text unless ``typed``."""
    names = {*required.split(), *optional.split()}
    properties = dict.fromkeys(sorted(names), TEXT) | typed
    needed = sorted({*required.split(), *typed})
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def one_of(*words: object) -> dict[str, object]:
    return {"enum": list(words)}


# Names and words of schemas/deployments-schema.yaml in opendp/deployments-registry-data, as of autumn 2026.
SCHEMA = fields(
    "url_slug",
    deployment=fields(
        basic=fields(
            "name description intended_use data_product_region",
            "data_product_sector",
            data_curators={
                "type": "array",
                "minItems": 1,
                "items": fields("data_curator_name", data_curator_type=one_of("Government", "Industry", "Nonprofit")),
            },
            data_product_type=one_of("Summary statistics", "Machine learning model", "Dataset", "Synthetic data"),
            publication_date={"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        ),
        dp_variant=fields(
            "data_domain unprotected_quantities",
            variant_name=one_of("Pure DP", "Approximate DP", "Zero-concentrated DP", "Renyi DP", "Custom"),
        ),
        privacy_loss=fields(
            "privacy_unit privacy_unit_details privacy_parameters_details",
            privacy_parameters=fields(epsilon={"type": "number"}, delta={"type": "number"}),
        ),
        deployment_model=fields(
            "model_name_details trust_assumptions actors release_type_details",
            "data_source_type_details access_type_details",
            model_name=one_of("Local", "Central", "Shuffle", "Federated", "Varies"),
            release_type=one_of("One release", "Many releases"),
            data_source_type=one_of("Static", "Dynamic"),
            access_type=one_of("Interactive", "Non-interactive"),
        ),
        implementation=fields(
            "preprocessing_and_hyperparameter_tuning mechanisms composition post_processing justification utility "
            "additional_information"
        ),
        administrative=fields(
            status=one_of("Converted", "Draft", "Pending", "Changes Required", "Approved"),
            registry_authors={"type": "array", "minItems": 1, "items": TEXT},
            tier=one_of(1, 2, 3),
            evidence_sources={
                "type": "object",
                "patternProperties": {
                    r"^\w+$": fields(
                        evidence_source_type=one_of(
                            "Peer-reviewed publication",
                            "Formal publication by the deploying organization",
                            "Authorized organizational attestation",
                            "Other public source",
                        ),
                        misc=fields("title howpublished"),
                    )
                },
                "additionalProperties": False,
            },
        ),
    ),
)


def made(folder: Path, toml: str = JOB) -> Report:
    return report.assembled(Scene(toml).write(folder / "run"), "2026-11-27T10:00:00+00:00")


@pytest.mark.parametrize("toml", [JOB, CLIENT_LEVEL, JOB.replace("disjoint = true", "disjoint = false")])
def test_an_entry_has_the_registrys_fields_and_words(tmp_path: Path, toml: str) -> None:
    jsonschema.validate(yaml.safe_load(registry.yaml(made(tmp_path, toml))), SCHEMA)


def test_its_figures_are_those_of_the_federation_towards_a_models_holder(tmp_path: Path) -> None:
    found = made(tmp_path)
    loss = yaml.safe_load(registry.yaml(found))["deployment"]["privacy_loss"]
    holder = next(claim for claim in found.federation if claim.audience == "holder")
    assert loss["privacy_parameters"] == {"epsilon": holder.epsilon, "delta": holder.delta}
    assert loss["privacy_unit"] == "record"


def test_hazards_are_the_unprotected_quantities(tmp_path: Path) -> None:
    entry = yaml.safe_load(registry.yaml(made(tmp_path)))
    assert "scaling constants" in entry["deployment"]["dp_variant"]["unprotected_quantities"]


def test_what_nobody_knows_here_is_marked_for_a_person(tmp_path: Path) -> None:
    marked = [line for line in registry.yaml(made(tmp_path)).splitlines() if "# Fill in: " in line]
    assert {line.split(":")[0].strip(" -") for line in marked} == {
        "data_curator_type",
        "intended_use",
        "data_product_region",
        "howpublished",
        '"unknown"  # Fill in',
    }


def test_an_entry_without_a_date_has_one_to_fill_in(tmp_path: Path) -> None:
    entry = registry.yaml(replace(made(tmp_path), created="unknown"))
    assert 'publication_date: "1900-01-01"  # Fill in' in entry


@pytest.mark.parametrize("scene", [Scene(NOT_PRIVATE), Scene(rounds=4)])
def test_a_run_without_an_epsilon_is_not_registered(tmp_path: Path, scene: Scene) -> None:
    with pytest.raises(BadInput, match="no epsilon for the federation"):
        registry.yaml(report.assembled(scene.write(tmp_path / "run")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return made(tmp_path_factory.mktemp("registry"))


@given(st.text(min_size=1))
@settings(max_examples=50)
def test_no_name_of_a_job_means_anything_to_yaml(whole: Report, name: str) -> None:
    named = replace(whole, run=replace(whole.run, job=name))
    assert yaml.safe_load(registry.yaml(named))["deployment"]["basic"]["name"] == name
