"""What a job says of its encoding and keys: what cannot be is refused with a remedy that works, the rest is kept."""

from __future__ import annotations

import re

import pytest

from securefl import job
from securefl.errors import BadJob
from securefl.job import file

SIZES = "[data.sizes]\nhospital-1 = 200\nhospital-2 = 100\nhospital-3 = 100\nhospital-4 = 100\nhospital-5 = 400\n"


def with_sizes(toml: str, shield: str) -> str:
    """The job with declared sizes, by which the noise of an update is 0.01, and with these lines on its protection."""
    return f"{SIZES}[protection]\n{shield}\n{toml}"


CKKS = 'kind = "ckks"\n'


@pytest.mark.parametrize(
    ("shield", "key", "remedy", "remedied"),
    [
        ("bits = 40", "bits", "Write bits = 16, 24 or 32, or leave the key out", ["bits = 16", "bits = 24", ""]),
        (f"{CKKS}bits = 24", "bits", "Write bits = 32, 40, 48 or 54", [f"{CKKS}bits = {n}" for n in (32, 40, 48, 54)]),
        ("precision = 1e-3", "precision", 'out, or write kind = "ckks"', ["", f"{CKKS}precision = 1e-3"]),
        ("key_rounds = 3", "key_rounds", 'out, or write kind = "ckks"', ["", f"{CKKS}key_rounds = 3"]),
        ('profile = "compact"', "profile", "out, and write bits = 24 or 16", ["", "bits = 24", "bits = 16"]),
        (f'{CKKS}profile = "kompakt"', "profile", 'Write profile = "standard", or "compact"', [
            f'{CKKS}profile = "standard"', f'{CKKS}profile = "compact"']),
        (f'{CKKS}profile = "compact"\nbits = 40', "bits", "Leave the key out, or the others", [
            f'{CKKS}profile = "compact"', f"{CKKS}bits = 40"]),
        (f"{CKKS}precision = 1e-4\nbits = 40", "bits", "Leave the key out, or the others", [
            f"{CKKS}precision = 1e-4", f"{CKKS}bits = 40"]),
        (f"{CKKS}precision = 0", "precision", "for example precision = 1e-4", [f"{CKKS}precision = 1e-4"]),
        (f"{CKKS}bound = 1e5\nprecision = 5.0", "precision", "rite precision = 0.00063", [
            f"{CKKS}bound = 1e5\nprecision = 0.00063"]),
        (f"{CKKS}key_rounds = 0", "key_rounds", "for example key_rounds = 1", [f"{CKKS}key_rounds = 1"]),
        (f"{CKKS}key_rounds = 205", "key_rounds", "Write at most 204, or leave the key out", [
            f"{CKKS}key_rounds = 204", CKKS]),
    ],
)  # fmt: skip
def test_what_a_kind_of_protection_cannot_keep_is_refused_and_the_remedy_works(
    toml: str, shield: str, key: str, remedy: str, remedied: list[str]
) -> None:
    with pytest.raises(BadJob) as caught:
        job.checked(file.parse(with_sizes(toml, shield)))
    assert caught.value.key == f"protection.{key}"
    assert remedy in caught.value.remedy
    for other in remedied:
        job.checked(file.parse(with_sizes(toml, other)))


@pytest.mark.parametrize(
    "shield",
    [
        f"{CKKS}bound = 1e5\nbits = 32",  # a precision beside the width
        f"{CKKS}bound = 1e6\nprecision = 5.0",  # a sixteenth of the noise is too fine; half of it is not
        f'{CKKS}bound = 1e6\nprofile = "compact"',  # names a precision that is as impossible
        "bound = 1e3\nbits = 16",  # names the very same bits first
    ],
)
def test_a_step_that_drowns_the_noise_or_cannot_be_is_refused_with_a_value_that_works(toml: str, shield: str) -> None:
    with pytest.raises(BadJob) as caught:
        job.checked(file.parse(with_sizes(toml, shield)))
    found = re.search(r"(?:[Ww]rite|for example) (\w+) = ([0-9.e+-]*[0-9])", caught.value.remedy)
    assert found
    key, value = found.groups()
    dropped = {key, *re.findall(r"in place of (\w+)", caught.value.remedy)}
    kept = [line for line in shield.splitlines() if line.split()[0] not in dropped]
    job.checked(file.parse(with_sizes(toml, "\n".join([*kept, f"{key} = {value}"]))))


# ---- precision and keys


def test_a_compact_job_takes_its_precision_from_the_noise_of_its_updates(toml: str) -> None:
    found = job.checked(file.parse(with_sizes(toml, f'{CKKS}profile = "compact"')))
    # 0.5 * 4 * 1 / 0.5 a record, and the most records are 400
    assert found.noise == pytest.approx(4.0 / 400)
    assert found.shield.precision == pytest.approx(found.noise / 16)
    assert found.shield.parameters(30, 5).bits == 32
    standard = job.checked(file.parse(with_sizes(toml, CKKS)))
    assert standard.noise == found.noise and standard.shield.precision is None


def test_a_written_precision_comes_before_the_profile_s(toml: str) -> None:
    found = job.checked(file.parse(with_sizes(toml, f'{CKKS}profile = "compact"\nprecision = 1e-6')))
    assert found.shield.precision == 1e-6
    assert found.shield.parameters(30, 5).bits == 40


@pytest.mark.parametrize("pilot", ["breast-cancer", "heart"])
def test_a_compact_pilot_sends_32_bits_at_its_own_noise(pilot: str) -> None:
    found = job.checked({"data": {"pilot": pilot}, "protection": {"kind": "ckks", "profile": "compact"}})
    chosen = found.shield.parameters(62, len(found.clients))
    assert chosen.bits == 32
    assert found.noise is not None and chosen.step <= found.noise / 16


def test_a_pilot_s_noise_is_that_of_the_clients_that_take_part() -> None:
    some = {"pilot": "breast-cancer", "clients": ["hospital-3", "hospital-1", "hospital-5"]}
    found = job.checked({"data": some})
    assert found.sizes == (65, 88, 68)
    weighted = [weight / size for weight, size in zip((0.5, 0.67, 0.52), found.sizes, strict=True)]
    assert found.noise == pytest.approx(13.33 * 5.54 * 0.3 * min(weighted))


@pytest.mark.parametrize("lacking", ["privacy", "a size"])
def test_a_compact_job_without_noise_or_precision_is_refused_and_the_remedies_work(toml: str, lacking: str) -> None:
    compact = with_sizes(toml, f'{CKKS}profile = "compact"')
    changed = {
        "privacy": compact.replace("[privacy]", "[privacy]\nenabled = false"),
        "a size": compact.replace("hospital-3 = 100\n", ""),
    }[lacking]
    with pytest.raises(
        BadJob, match=r"protection\.profile: 'compact' takes its precision from the updates' noise"
    ) as bad:
        job.checked(file.parse(changed))
    assert bad.value.remedy == "Write precision = ..., or declare data.sizes for a private job"
    job.checked(file.parse(changed.replace('"compact"', '"compact"\nprecision = 1e-4')))
    job.checked(file.parse(compact))


def test_a_job_whose_noise_nobody_can_tell_is_not_held_to_it(toml: str) -> None:
    coarse = f"{CKKS}bound = 1e6\nprecision = 5.0"
    assert job.checked(file.parse(f"[protection]\n{coarse}\n{toml}")).noise is None


def test_precision_profile_and_key_rounds_survive_a_file(toml: str) -> None:
    for shield in ('profile = "compact"', "precision = 1e-5\nkey_rounds = 7", "bits = 54"):
        found = job.checked(file.parse(with_sizes(toml, CKKS + shield)))
        assert job.checked(file.parse(found.to_toml())) == found
    assert (found.shield.bits, found.shield.precision, found.shield.key_rounds) == (54, None, None)


def test_key_rounds_reach_the_protection(toml: str) -> None:
    assert job.checked(file.parse(with_sizes(toml, f"{CKKS}key_rounds = 7"))).shield.key_rounds_of(5) == 7
    assert job.checked(file.parse(with_sizes(toml, CKKS))).shield.key_rounds_of(5) == 204
