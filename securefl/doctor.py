"""Whether this machine can run securefl, and how fast: versions, processor, data sets and cryptographic parameters."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Final

from msgspec import Struct

from securefl.precision import Facts, facts

_CORE: Final = ("torch", "opacus", "cryptography", "tenseal", "numpy", "dp-accounting", "msgspec", "safetensors")
_CORE_MORE: Final = ("typer", "rich", "jinja2", "matplotlib", "scipy", "scikit-learn")
_EXTRAS: Final = {"nvflare": "nvflare", "ray": "ray", "llm": "transformers", "metrics": "prometheus_client"}
_FEATURES: Final = ("aes", "vaes", "pclmulqdq", "vpclmulqdq", "avx2", "avx512f", "sha_ni")


class Health(Struct, frozen=True):
    """What was found. A version is None where the package is missing; ``problems`` is empty on a healthy machine."""

    python: str
    platform: str
    cores: int
    cpu_features: dict[str, bool]
    versions: dict[str, str | None]
    extras: dict[str, bool]
    aes_gigabytes_per_second: float | None
    pilots: tuple[str, ...]
    data: dict[str, tuple[str, ...]]
    ckks: dict[str, Facts]
    problems: tuple[str, ...]


def examine() -> Health:
    """Look at this machine. Downloads nothing and writes nothing."""
    from securefl import pilots

    versions = {name: installed(name) for name in ("securefl", *_CORE, *_CORE_MORE)}
    return Health(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_features=cpu_features(),
        versions=versions,
        extras={extra: util.find_spec(module) is not None for extra, module in _EXTRAS.items()},
        aes_gigabytes_per_second=None if versions["cryptography"] is None else aes_speed(),
        pilots=pilots.names(),
        data=dict(_data_folders()),
        ckks=_ckks(),
        problems=tuple(_problems(versions)),
    )


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_features() -> dict[str, bool]:
    """Instructions that make masks fast; nothing where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return {feature: feature in flags for feature in _FEATURES}


def aes_speed() -> float:
    """Gigabytes of mask keystream a second on one core, as masking makes it here."""
    from securefl.keystream import fastest, gigabytes_per_second

    return gigabytes_per_second(fastest())


def lines(health: Health) -> Iterator[tuple[str, str]]:
    """Label and text of each line that a person wants to read."""
    yield "system", f"Python {health.python}, {health.platform}, {health.cores} cores"
    present = [name for name, found in health.cpu_features.items() if found]
    yield "processor", ", ".join(present) or "features unknown"
    if health.aes_gigabytes_per_second is not None:
        yield "masks", f"{health.aes_gigabytes_per_second:.1f} GB/s of AES-128-CTR keystream on one core"
    yield "packages", ", ".join(f"{name} {version or 'not installed'}" for name, version in health.versions.items())
    for extra, found in health.extras.items():
        yield f"extra {extra}", "installed" if found else f"not installed (optional): pip install 'securefl[{extra}]'"
    yield "pilots", ", ".join(health.pilots)
    for place, found_sets in health.data.items():
        yield "data", f"{place}: {', '.join(found_sets) or 'nothing there'}"
    if not health.data:
        yield "data", "SECUREFL_DATA is not set and nothing is cached: what a pilot needs is downloaded and checked"
    for profile, encoding in health.ckks.items():
        yield f"ckks {profile}", f"10 clients within +-1: {encoding}"


def _data_folders() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The data sets in each place where pilots look before they download."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    for place in (os.environ.get("SECUREFL_DATA"), str(Path(cache) / "securefl")):
        if place and (place == os.environ.get("SECUREFL_DATA") or Path(place).is_dir()):
            folder = Path(place)
            found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
            yield place, tuple(found)


def _ckks() -> dict[str, Facts]:
    """CKKS as it is for ten clients with a million parameters within +-1: the default, and the fewest bytes."""
    from protocols.encoding.rlwe import PRIMES, CKKSParameters, narrowest

    standard, compact = narrowest(10**6, 1.0, 10), CKKSParameters(10**6, 1.0, 10, min(PRIMES))
    return {"standard": facts(standard), "compact": facts(compact)}


def _problems(versions: Mapping[str, str | None]) -> Iterator[str]:
    missing = [name for name in (*_CORE, *_CORE_MORE) if versions[name] is None]
    if missing:
        yield f"missing packages: pip install {' '.join(missing)}"
    given = os.environ.get("SECUREFL_DATA")
    if given and not Path(given).is_dir():
        yield f"SECUREFL_DATA names {given}, which is not a folder: correct or unset it"
    if platform.machine() not in {"x86_64", "AMD64"}:
        yield f"{platform.machine()} is not tested; x86-64 is"
