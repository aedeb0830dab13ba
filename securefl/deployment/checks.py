"""Everything that could fail later, looked at now: in a site's folder, and in the coordinator's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from securefl.deployment import ledger_head
from securefl.deployment.server_folder import ServerFolder
from securefl.deployment.site_file import SiteFile
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.nvflare import certificates, kit
from securefl.errors import BadInput, SecureFLError

_WARNED_DAYS: Final = 30  # before a certificate expires


class Finding(Struct, frozen=True):
    """What was found of one thing; ``problem``: it will fail, or may be unsafe, until something is done."""

    level: Literal["ok", "warning", "problem"]
    subject: str
    text: str


def of_site(site: SiteFolder, now: datetime | None = None) -> Iterator[Finding]:
    """Of a site that has joined, or is about to. Loads its records; writes nothing. ``now``: for certificates."""
    site.invitation()
    found: list[SiteFile] = []
    yield from _tried("site.toml", lambda: found.append(site.site_file()))
    if found:
        yield from _data_and_models(found[0])
        yield from _budget(site, found[0])
    yield from _private(site.path, [site.keep, *site.tls.glob("*.key"), *(site.kit / "startup").glob("*.key")])
    if not site.kit.exists():
        yield Finding("problem", "kit", "there is none: send the request, then securefl site join")
        return
    yield from _site_kit(site, now)
    if found:
        yield from _roster(site, found[0])


def of_server(server: ServerFolder, now: datetime | None = None) -> Iterator[Finding]:
    """The same of a coordinator."""
    server.invitation()
    keys = [folder.glob("*.key") for folder in (server.authority, server.kit / "startup", server.admin / "startup")]
    yield from _private(server.path, [key for folder in keys for key in folder])
    yield from _as_written(server.kit, "server")
    for label, path in (
        ("server cert.", server.kit / "startup" / "server.crt"),
        ("admin cert.", server.admin / "startup" / "client.crt"),
        ("root cert.", server.kit / "startup" / "rootCA.pem"),
    ):
        yield from _certificate(label, path, now)
    yield from _given_out(server)


def near_their_end(kit_folder: Path, now: datetime | None = None) -> Iterator[str]:
    """Warnings, for whoever starts this kit, of certificates in it that expire soon or have expired."""
    for path in (*sorted((kit_folder / "startup").glob("*.crt")), kit_folder / "startup" / "rootCA.pem"):
        for found in _certificate(path.name, path, now):
            if found.level != "ok":
                yield f"{found.level}: {path}: {found.text}"


def _data_and_models(found: SiteFile) -> Iterator[Finding]:
    """That what the file names can be loaded, and trained on each other."""
    from securefl import training, vector

    try:
        data = found.load()
        held_out, test = found.held_out(), found.test()
    except SecureFLError as error:
        yield Finding("problem", "data", str(error))
        return
    sets = {"to train on": data, "held out": held_out, "public for tests": test}
    yield Finding("ok", "data", ", ".join(f"{len(part)} records {use}" for use, part in sets.items() if part))
    try:
        for factory in found.factories():
            module = vector.build(factory, 0)
            training.check(module)
            training.check_labels(module, data)
            size = len(vector.flatten(module))
            yield Finding("ok", "model", f"{size} parameters, architecture {vector.architecture(module)}")
    except SecureFLError as error:
        yield Finding("problem", "model", str(error))


def _budget(site: SiteFolder, found: SiteFile) -> Iterator[Finding]:
    from securefl.privacy.ledger import Ledger, Owner
    from securefl.privacy.ledger.file import is_ledger

    if found.budget is None:
        yield Finding("warning", "budget", "there is none: this site takes part in jobs without privacy only")
        return
    if found.seed is not None:
        yield Finding("warning", "simulation", "noise and samples come from a seed, and protect nobody")
    path = site.ledger(found.data_name, found.name)
    try:
        ledger_head.check(site, found)
    except SecureFLError as error:
        yield Finding("problem", "budget", str(error))
        return
    if not is_ledger(path):
        yield Finding("ok", "budget", f"epsilon {found.budget.epsilon:g}, of which nothing is spent")
        return
    try:
        owner = Owner(found.name, found.data_name, found.unit)
        ledger = Ledger(path, site.identity(), owner, found.budget)
        spent = ledger.epsilon()
        ledger.close()
    except SecureFLError as error:
        yield Finding("problem", "budget", str(error))
        return
    text = f"epsilon {spent:.3f} of {found.budget.epsilon:g} is spent on {found.data_name!r}"
    yield Finding("ok" if spent < found.budget.epsilon else "problem", "budget", text)


def _site_kit(site: SiteFolder, now: datetime | None) -> Iterator[Finding]:
    invited, startup = site.invitation(), site.kit / "startup"
    yield from _as_written(site.kit, "site")
    yield from _certificate("certificate", startup / "client.crt", now)
    if not certificates.belongs(startup / "client.crt", startup / "client.key"):
        yield Finding("problem", "certificate", "it is not that of the key beside it: join again")
    try:
        root, address = certificates.fingerprint(startup / "rootCA.pem"), kit.address(site.kit)
    except BadInput as error:
        yield Finding("problem", "kit", str(error))
        return
    if root != invited.authority or address != invited.address:
        yield Finding("problem", "kit", "it trusts or dials another server than the invitation names: join again")
    elif (why := kit.unreachable(site.kit)) is None:
        yield Finding("ok", "server", f"{address.host}:{address.port} answers, under the root of the invitation")
    else:
        yield Finding("warning", "server", f"{address.host}:{address.port} cannot be reached now ({why})")


def _roster(site: SiteFolder, found: SiteFile) -> Iterator[Finding]:
    try:
        members = site.roster()
        own = members.members.get(found.name)
        wanted = site.identity().public.hex(), certificates.fingerprint(site.kit / "startup" / "client.crt")
    except SecureFLError as error:
        yield Finding("problem", "roster", str(error))
        return
    if own is None or (own.key, own.certificate) != wanted:
        yield Finding("problem", "roster", "it has not this site's name, key and certificate: pin the newest")
    else:
        text = f"{len(members.members)} members of {members.project}, hash {members.hash()}"
        yield Finding("ok", "roster", text)


def _given_out(server: ServerFolder) -> Iterator[Finding]:
    """Whether the roster that was given out is of those who were admitted."""
    try:
        known = server.known()
        members = server.roster()
    except SecureFLError as error:
        yield Finding("problem", "roster", str(error))
        return
    yield Finding("ok", "roster", f"{len(members.members)} members, hash {members.hash()}")
    if stale := sorted(name for name, member in members.members.items() if known.get(name) != member):
        yield Finding("problem", "roster", f"it is not as {stale[0]} was admitted last: write it anew")
    if missing := sorted(known.keys() - members.members.keys()):
        yield Finding("warning", "roster", f"admitted and not on it: {', '.join(missing)}")


def _as_written(folder: Path, role: kit.Role) -> Iterator[Finding]:
    wrong = list(kit.differences(folder, role))
    yield from (Finding("problem", "kit", f"{what}: the next start writes it anew") for what in wrong)
    if not wrong:
        yield Finding("ok", "kit", f"{folder} is as it was written")


def _certificate(label: str, path: Path, now: datetime | None) -> Iterator[Finding]:
    try:
        found = certificates.read(path)
    except SecureFLError as error:
        yield Finding("problem", label, str(error))
        return
    days = found.days_left(now)
    if days < 0:
        yield Finding("problem", label, f"it has expired, on {found.until:%Y-%m-%d}: ask for a new one")
    else:
        level: Literal["ok", "warning"] = "ok" if days >= _WARNED_DAYS else "warning"
        yield Finding(level, label, f"valid for {days} days, until {found.until:%Y-%m-%d}")


def _private(folder: Path, keys: Iterable[Path]) -> Iterator[Finding]:
    """That nobody else on the machine gets at keys."""
    open_to_others = [path for path in keys if path.exists() and path.stat().st_mode & 0o077]
    if folder.stat().st_mode & 0o077:
        yield Finding("problem", "private", f"others may enter {folder}: chmod 700 it")
    yield from (Finding("problem", "private", f"others may read {path}: chmod 600 it") for path in open_to_others)


def _tried(subject: str, what: Callable[[], object]) -> Iterator[Finding]:
    try:
        what()
    except SecureFLError as error:
        yield Finding("problem", subject, str(error))
    else:
        yield Finding("ok", subject, "every key is known and possible")
