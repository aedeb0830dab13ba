from __future__ import annotations

import io
import zipfile
from collections import Counter

import numpy as np
import pytest

from benchmarks.tune import goodness, simulate
from securefl import job, vector
from securefl.errors import BadInput
from securefl.pilots import students
from securefl.pilots.students import GRADES, PASS_FAIL

ADA = {
    **{"school": "GP", "sex": "F", "age": "15", "address": "U", "famsize": "GT3", "Pstatus": "T", "Medu": "4"},
    **{"Fedu": "2", "Mjob": "health", "Fjob": "other", "reason": "course", "nursery": "yes", "internet": "no"},
    **{"guardian": "mother", "traveltime": "1", "studytime": "4", "failures": "0", "schoolsup": "no", "famsup": "yes"},
    **{"paid": "no", "activities": "yes", "higher": "yes", "romantic": "no", "famrel": "4", "freetime": "3"},
    **{"goout": "5", "Dalc": "1", "Walc": "1", "health": "1", "absences": "75", "G1": "13", "G2": "14", "G3": "14"},
}


@pytest.mark.needs_data
def test_every_record_is_at_one_client_or_in_the_test_set() -> None:
    parts = [GRADES.load(client) for client in GRADES.clients]
    assert tuple(map(len, parts)) == students.ROWS
    assert sum(map(len, parts)) + len(GRADES.test()) == 395 + 649


@pytest.mark.needs_data
def test_nobody_is_trained_on_and_tested() -> None:
    records = [record for subject in students._SHA256 for record in students._records(subject)]
    tested = {students.person(record) for record in records if students._is_test(record)}
    trained = {students.person(record) for record in records if not students._is_test(record)}
    assert tested and trained and not tested & trained


@pytest.mark.needs_data
def test_382_pairs_of_records_are_of_one_person_as_the_data_says() -> None:
    counts = [Counter(map(students.person, students._records(subject))) for subject in students._SHA256]
    assert sum(count * counts[1][one] for one, count in counts[0].items()) == 382


@pytest.mark.parametrize("pilot", [GRADES, PASS_FAIL], ids=lambda pilot: pilot.name)
def test_who_is_at_two_clients_is_never_covered_by_one_epsilon(pilot: students.Pilot) -> None:
    assert not pilot.disjoint
    assert not job.from_pilot(pilot.name).terms.disjoint
    assert any("epsilons of both owners add up" in hazard.text for hazard in pilot.hazards)


def test_both_tasks_spend_one_budget() -> None:
    grades, passing = (job.from_pilot(pilot.name) for pilot in (GRADES, PASS_FAIL))
    assert grades.data.name == passing.data.name == "students"
    assert grades.budget == passing.budget


def test_a_label_is_the_distance_from_a_pass_in_steps_of_four_points() -> None:
    assert students._dataset([(ADA, "mathematics")], "students").labels.tolist() == [1.0]
    assert students._dataset([(ADA, "mathematics")], "students-pass").labels.tolist() == [1]
    failed = {**ADA, "G3": "9"}
    assert students._dataset([(failed, "mathematics")], "students").labels.tolist() == [-0.25]
    assert students._dataset([(failed, "mathematics")], "students-pass").labels.tolist() == [0]


def test_features_are_scaled_by_what_the_questionnaire_allows() -> None:
    features = students._features(ADA, "mathematics")
    assert len(features) == students.FEATURES
    # age, parents' education, travel and study time, failures, free time, going out, health, absences (cut off at 30)
    assert features[:10].tolist() == [-1, 1, 0, -1, 1, -1, 0, 1, -1, 1]
    # extra support, family's, paid classes, activities, nursery, higher education, internet; urban; mathematics
    assert features[10:].tolist() == [0, 1, 0, 1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("change", [{"G1": "2", "G2": "0"}, {"sex": "M"}, {"romantic": "yes"}, {"Walc": "5"}])
def test_earlier_grades_and_private_life_are_not_features(change: dict[str, str]) -> None:
    before, after = (students._features(record, "portuguese") for record in (ADA, {**ADA, **change}))
    assert np.array_equal(before, after)


def test_the_file_is_taken_out_of_the_archive_that_is_downloaded() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("student-mat.csv", "school;sex\n")
    assert students._member("student-mat.csv", archive.getvalue()) == b"school;sex\n"


def test_an_unknown_client_is_refused() -> None:
    with pytest.raises(BadInput, match="students has no client 'gp-latin': its clients are gp-mathematics"):
        GRADES.load("gp-latin")


def test_the_regression_begins_with_a_bare_pass() -> None:
    assert not vector.flatten(vector.build(GRADES.model, 0)).any()
    assert GRADES.scale is not None and (GRADES.scale.unit, GRADES.scale.size) == ("grade points", 4.0)


@pytest.mark.needs_data
@pytest.mark.slow
def test_the_recipes_beat_saying_the_same_of_everyone() -> None:
    for pilot in (GRADES, PASS_FAIL):
        clients, test = [pilot.load(client) for client in pilot.clients], pilot.test()
        untrained = goodness(pilot, vector.build(pilot.model, 0), test)
        assert goodness(pilot, simulate(pilot, pilot.public, clients), test) > untrained
