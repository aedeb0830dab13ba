"""Whether a job's protection can keep what it says for the job's clients; if not, the nearest values that can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from protocols.degree import Sparse, parameters
from protocols.encoding.rlwe import PRIMES
from protocols.errors import ConfigurationError
from protocols.graph import LARGEST_COMPLETE
from securefl.errors import BadInput, BadJob
from securefl.job.file import remedy
from securefl.precision import well_below
from securefl.protection import KINDS, Protection

if TYPE_CHECKING:
    from securefl.job import Job

# Sixteenths of an octave, nearest first: scales are powers of two, so that a coarser look might miss one.
_FACTORS: Final = tuple(2 ** (step / 16) for step in sorted(range(-640, 17), key=abs))


def check_kind(job: Job) -> None:
    """Raises ``BadJob`` for colluders or a width that the kind of protection does not have at all."""
    section, kind = job.protection, KINDS[job.protection.kind]
    if section.colluders and not kind.masked:
        problem = f"{kind.kind!r} withstands no colluding client"
        raise BadJob("protection.colluders", problem, 'Write kind = "secagg" or "ckks", or leave the key out')
    if section.bits is not None and section.bits not in _widths(kind):
        raise BadJob("protection.bits", f"impossible value {section.bits}", _widths_words(kind))
    for key in ("precision", "key_rounds"):
        if not kind.sealed and getattr(section, key) is not None:
            problem = f"it is for CKKS, and {kind.kind!r} is fixed point"
            raise BadJob(f"protection.{key}", problem, 'Leave the key out, or write kind = "ckks"')
    if not kind.sealed and section.profile != "standard":
        problem = f"{section.profile!r} is a profile of CKKS, and {kind.kind!r} is fixed point"
        raise BadJob("protection.profile", problem, "Leave the key out, and write bits = 24 or 16 for fewer bytes")
    if section.bits is not None and (section.precision is not None or section.profile != "standard"):
        raise BadJob("protection.bits", "a profile or a precision chooses them", "Leave the key out, or the others")


def check_graph(job: Job) -> None:
    """Raises ``BadJob`` where what a sparse graph assumes is set and there is none, or none can be built on it."""
    section, count = job.protection, len(job.clients)
    sparse = job.masked and section.threshold is None and count > LARGEST_COMPLETE
    for key, value in (("corrupt", section.corrupt), ("dropout", section.dropout)):
        if value is not None and not sparse:
            problem = f"it is for graphs with few neighbours: masks, more than {LARGEST_COMPLETE} clients, no threshold"
            raise BadJob(f"protection.{key}", problem, "Leave the key out")
    if not sparse:
        return
    try:
        parameters(count, Sparse(job.shield.corrupt, job.shield.dropout), colluders=section.colluders)
    except ConfigurationError as error:
        raise BadJob("protection.dropout", str(error), remedy("protection.dropout")) from error


def check_rules(shield: Protection, clients: int) -> None:
    """Raises ``BadJob`` unless so many clients withstand that many colluders: the conditions of ``CohortRules``."""
    try:
        _rules(shield, clients)
    except ConfigurationError as error:
        # Of as many colluders as clients, the nearest number of clients would help nobody.
        tolerable = min(shield.colluders, clients)
        fewer, more = range(tolerable - 1, -1, -1), range(clients + 1, clients + 5 * tolerable + 2)
        minima = range(shield.minimum_of(clients) + 1, clients + 1)
        thresholds = range((shield.threshold or clients) + 1, clients + 1)
        nearest = (
            _first("write colluders = {}", fewer, lambda value: _rules(replace(shield, colluders=value), clients)),
            _first("write minimum = {}", minima, lambda value: _rules(replace(shield, minimum=value), clients)),
            _first("write threshold = {}", thresholds, lambda value: _rules(replace(shield, threshold=value), clients)),
            _first("name {} clients", more, lambda value: _rules(shield, int(value))),
        )
        key = "protection.colluders" if shield.colluders else "protection.minimum"
        raise BadJob(key, str(error), _either(nearest, key)) from error


def check_encoding(shield: Protection, clients: int, noise: float | None = None, profile: str = "standard") -> None:
    """Raises ``BadJob`` where a sum of so many updates could wrap, or rounding would drown the noise in them."""
    if profile == "compact" and shield.precision is None:
        problem = "'compact' takes its precision from the updates' noise, and there is none, or a client has no size"
        raise BadJob("protection.profile", problem, "Write precision = ..., or declare data.sizes for a private job")
    try:
        _usable(shield, clients, noise)
    except ConfigurationError as error:
        chosen = "profile" if profile == "compact" else "precision" if shield.precision is not None else "bits"
        key = f"protection.{'bound' if chosen == 'bits' and shield.bits is None else chosen}"
        raise BadJob(key, str(error), _either(_remedies(shield, clients, noise), key)) from error


def _remedies(shield: Protection, clients: int, noise: float | None) -> Iterator[str | None]:
    """What else to write: the nearest value of each key with which the rest can stay as it is."""

    def usable(**changes: float | None) -> None:
        _usable(replace(shield, **changes), clients, noise)

    wider = [bits for bits in _widths(type(shield)) if bits > (shield.bits or 0)] if shield.precision is None else []
    yield _first("write bits = {}", wider, lambda value: usable(bits=int(value)))
    if shield.sealed and (shield.precision is not None or shield.bits is not None) and noise is not None:
        instead = "" if shield.bits is None else " in place of bits"
        finest = [float(f"{well_below(noise) * 2**octave:.2g}") for octave in range(6)]
        yield _first(f"write precision = {{:g}}{instead}", finest, lambda value: usable(bits=None, precision=value))
    bounds = [float(f"{shield.bound * factor:.3g}") for factor in _FACTORS]
    yield _first("write bound = {:g}", bounds, lambda value: usable(bound=value))
    yield _most_clients(shield, clients, noise)


def _usable(shield: Protection, clients: int, noise: float | None) -> None:
    """Raises ``ConfigurationError`` for an encoding that cannot be, or is too coarse for updates with so much noise."""
    step = shield.parameters(1, clients).step
    if noise is not None and step / 2 > noise:
        raise ConfigurationError(f"rounding to steps of {step:.2g} is coarser than the noise of an update, {noise:.2g}")


def check_key_rounds(shield: Protection, clients: int) -> None:
    """Raises ``BadJob`` for more sums under one CKKS key than are safe."""
    try:
        shield.key_rounds_of(clients)
    except BadInput as error:
        most = replace(shield, key_rounds=None).key_rounds_of(clients)
        raise BadJob("protection.key_rounds", str(error), f"Write at most {most}, or leave the key out") from error


def _widths(kind: type[Protection]) -> tuple[int, ...]:
    return tuple(PRIMES) if kind.sealed else (16, 24, 32)


def _widths_words(kind: type[Protection]) -> str:
    *others, last = map(str, _widths(kind))
    return f"Write bits = {', '.join(others)} or {last}, or leave the key out"


def _rules(shield: Protection, clients: int) -> None:
    shield.rules(clients).threshold_for(clients)


def _most_clients(shield: Protection, clients: int, noise: float | None) -> str | None:
    """The largest number of clients below this one that fits, found by halving: fewer always fit better."""
    fits, fails = 2, clients
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if _works(lambda value: _usable(shield, int(value), noise), middle):
            fits = middle
        else:
            fails = middle
    return f"name at most {fits} clients" if fits > 2 else None


def _first(text: str, candidates: Iterable[float], build: Callable[[float], object]) -> str | None:
    return next((text.format(value) for value in candidates if _works(build, value)), None)


def _works(build: Callable[[float], object], value: float) -> bool:
    try:
        build(value)
    except ConfigurationError:
        return False
    return True


def _either(choices: Iterable[str | None], key: str) -> str:
    """The choices in one sentence; where there is none, what the key is for."""
    found = ", or ".join(choice for choice in choices if choice)
    return found[:1].upper() + found[1:] or remedy(key)
