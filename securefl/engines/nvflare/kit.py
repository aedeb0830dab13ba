"""The kits of server and sites, made narrow: what nvflare would allow, and no job of ours needs, is taken out.

Everything is written from here, so that a kit can be compared with what it must be (``differences``).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import sys
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from securefl.engines.nvflare.certificates import Address
from securefl.engines.nvflare.jobs import CONTROLLER, EXECUTOR
from securefl.errors import BadInput
from securefl.run_folder import explained

Role = Literal["server", "site"]

_COMPONENTS: Final = "nvflare.app_common"
_LOG_BYTES: Final = 20 * 1024 * 1024
_SILENCE_SECONDS: Final = 600  # after which the server takes a site for gone
_STARTUP: Final = {
    "server": {"fed_server.json", "rootCA.pem", "server.crt", "server.key"},
    "site": {"fed_client.json", "rootCA.pem", "client.crt", "client.key"},
}
_HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How every connection begins (RFC 9113, section 3.4): a fixed text, and settings of which none is another."""
_REACHED_SECONDS: Final = 5.0
MOST_SITES: Final = 1000
"""That one server serves."""


@dataclass(frozen=True)
class Admin:
    """What ``new_secure_session`` of nvflare's API takes: a name, and the folder of the administrator's kit."""

    username: str
    location: str


def harden(kit: Path, role: Role, home: Path | None = None) -> None:
    """Write the kit's own settings; what else nvflare put there as defaults, samples and scripts is removed.

    Its scripts would start processes that answer what ours do not (:mod:`securefl.engines.nvflare.closed`). It reads
    any ``*__resources.json``, and takes what lies in ``custom`` for code that the site's administrator installed.
    ``home``: where the kit will lie, if not where it is. May be done again, before each start: it undoes changes.
    """
    local, startup, wanted = kit / "local", kit / "startup", _settings(role, home or kit)
    with explained(kit):
        local.mkdir(mode=0o700, exist_ok=True)
        for name, content in wanted.items():
            _write(local / name, content)
        for extra in (*_extra(local, wanted), *_extra(startup, _STARTUP[role])):
            _remove(extra)
        for path in (kit, startup, local):
            path.chmod(0o700)
        for path in startup.glob("*.key"):
            path.chmod(0o600)


def differences(kit: Path, role: Role) -> Iterator[str]:
    """What is not as ``harden`` leaves it, in words; nothing where a kit is as it must be."""
    wanted = _settings(role, kit)
    local, startup = kit / "local", kit / "startup"
    if not startup.is_dir() or not local.is_dir():
        yield f"{kit} is not a kit"
        return
    for name, content in wanted.items():
        if _read(local / name) != content:
            yield f"{local / name} is not as it was written"
    for extra in (*_extra(local, wanted), *_extra(startup, _STARTUP[role])):
        yield f"{extra} does not belong there"
    for key in sorted(startup.glob("*.key")):
        if key.stat().st_mode & 0o077:
            yield f"{key} can be read by others: chmod 600 it"


def server_command(kit: Path) -> list[str]:
    """The arguments that run the server's process in the foreground."""
    settings = ["secure_train=true", "org=coordinator", "config_folder="]
    module = "nvflare.private.fed.app.server.server_train"
    return [sys.executable, "-u", "-m", module, "-m", str(kit.absolute()), "-s", "fed_server.json", "--set", *settings]


def site_command(kit: Path) -> list[str]:
    """The arguments that run a site's process of nvflare in the foreground."""
    # The organisation matters to rules like "whoever is of the site's own organisation", of which there is none here.
    settings = ["secure_train=true", f"uid={site_name(kit)}", "org=site", "config_folder="]
    module = "securefl.engines.nvflare.closed"
    return [sys.executable, "-u", "-m", module, "-m", str(kit.absolute()), "-s", "fed_client.json", "--set", *settings]


def admin(kit: Path) -> Admin:
    """What a session of the coordinator, as the server's administrator, is opened with."""
    found = _startup(kit, "fed_admin.json")["admin"]
    return Admin(str(found["username"]), str(kit.absolute()))


def site_name(kit: Path) -> str:
    """The name under which a site's kit registers."""
    return str(_startup(kit, "fed_client.json")["client"]["fqsn"])


def address(kit: Path) -> Address:
    """Where a site's kit dials."""
    server = _startup(kit, "fed_client.json")["servers"][0]
    host, _, port = str(server["service"]["target"]).rpartition(":")
    return Address(str(server["name"]), host, int(port))


def unreachable(kit: Path) -> str | None:
    """Why a site's kit gets no answer of its server, under its root and with its certificate; None if it does."""
    startup, server = kit / "startup", address(kit)
    try:
        context = ssl.create_default_context(cafile=startup / "rootCA.pem")
        context.load_cert_chain(startup / "client.crt", startup / "client.key")
        context.set_alpn_protocols(["h2"])
        context.check_hostname = False  # the root certifies this one server
        with (
            socket.create_connection((server.host, server.port), _REACHED_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=server.host) as secured,
        ):
            # Whether the server took the certificate is seen in its first answer only (TLS 1.3).
            secured.sendall(_HTTP2)
            return None if secured.recv(1) else "it closes the connection"
    except OSError as error:
        return error.strerror or str(error)


def _extra(folder: Path, wanted: Container[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name not in wanted)


def _settings(role: Role, home: Path) -> Mapping[str, object]:
    """What lies in ``local``, by file name."""
    resources = _server_resources(home) if role == "server" else _site_resources()
    return {
        "resources.json": resources,
        "authorization.json": _authorization(role),
        "comm_config.json": _connections(),
        "log_config.json": _logs(),
    }


def _allowed(path: str) -> dict[str, object]:
    """The one class that a job may name. nvflare's own list has some eighty; many read data, or send what they find."""
    return {"format_version": 2, "class_list_enforcement_mode": "enforce", "class_allow_list": [path]}


def _site_resources() -> dict[str, object]:
    return {
        **_allowed(EXECUTOR),
        # By default a site sends its errors to the server unasked, and a job may ask for its logs.
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            # A job needs no part of the machine: the client process trains, and is no job.
            _component("resource_manager", "resource_managers.passthrough_resource_manager.PassthroughResourceManager"),
            _component(
                "resource_consumer", "resource_consumers.passthrough_resource_consumer.PassthroughResourceConsumer"
            ),
            _component("process_launcher", "job_launcher.client_process_launcher.ClientProcessJobLauncher"),
        ],
    }


def _server_resources(home: Path) -> dict[str, object]:
    """Jobs and snapshots lie in the kit: nvflare's places under /tmp can be made first by anybody on the machine."""
    storage = "storages.filesystem_storage.FilesystemStorage"
    kept = home.absolute() / "storage"  # nvflare wants no path that depends on where it starts
    snapshots = {"path": f"{_COMPONENTS}.{storage}", "args": {"root_dir": str(kept / "snapshots"), "uri_root": "/"}}
    jobs = {"uri_root": str(kept / "jobs"), "job_store_id": "job_store"}
    return {
        **_allowed(CONTROLLER),
        "servers": [
            {
                "admin_storage": "transfer",
                "max_num_clients": MOST_SITES,
                "heart_beat_timeout": _SILENCE_SECONDS,
                "admin_timeout": 10.0,
            }
        ],
        "snapshot_persistor": {
            "path": f"{_COMPONENTS}.state_persistors.storage_state_persistor.StorageStatePersistor",
            "args": {"uri_root": "/", "storage": snapshots},
        },
        # Without nvflare's receiver of logs: sites are not asked for any.
        "components": [
            # A job that ended is replaced at once: the sites wait for it.
            _component(
                "job_scheduler",
                "job_schedulers.job_scheduler.DefaultJobScheduler",
                max_jobs=3,  # one that ends takes its time
                min_schedule_interval=1.0,
                max_schedule_interval=5.0,
            ),
            {"id": "job_manager", "path": "nvflare.apis.impl.job_def_manager.SimpleJobDefManager", "args": jobs},
            _component("job_store", storage),
            _component("process_launcher", "job_launcher.server_process_launcher.ServerProcessJobLauncher"),
        ],
    }


def _component(name: str, path: str, **arguments: object) -> dict[str, object]:
    return {"id": name, "path": f"{_COMPONENTS}.{path}", "args": arguments}


def _authorization(role: Role) -> dict[str, object]:
    """What whoever has the coordinator's certificate may do; nvflare refuses a right that is not named here.

    So there is no custom code, no shell, no restart, no look into a site's files, errors or statistics, for anybody.
    """
    submit = {"submit_job": "any"}
    look = {right: "any" for right in ("check_status", "list_jobs", "get_job_meta")}
    end = {right: "n:submitter" for right in ("abort_job", "delete_job")}
    # A site is asked again as a job is sent to it, and for nothing else.
    rights = submit if role == "site" else {**submit, **look, **end}
    return {"format_version": "1.0", "permissions": {"lead": rights}}


def _connections() -> dict[str, object]:
    """Between the processes of one machine: by default in the clear, and whoever is on the machine may connect."""
    resources = {"host": "localhost", "connection_security": "mtls"}
    return {"allow_adhoc_conns": False, "internal": {"scheme": "tcp", "resources": resources}}


def _logs() -> dict[str, object]:
    """Warnings and progress to one file, and to whoever started the process."""
    words = "%(asctime)s - %(name)s - %(levelname)s - %(fl_ctx)s - %(message)s"
    rotated = {"class": "logging.handlers.RotatingFileHandler", "filename": "log.txt", "maxBytes": _LOG_BYTES}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "nvflare.fuel.utils.log_utils.BaseFormatter", "fmt": words}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"},
            "file": {**rotated, "backupCount": 5, "formatter": "line"},
        },
        "loggers": {"root": {"level": "INFO", "handlers": ["console", "file"]}},
    }


def _startup(kit: Path, name: str) -> Mapping[str, Any]:
    """A file that nvflare made as it packed the kit."""
    path = kit / "startup" / name
    found = _read(path)
    if not isinstance(found, dict):
        raise BadInput(f"{path} is missing or damaged: make the kit anew")
    return found


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _write(path: Path, content: object) -> None:
    """In the place of what may be there, at once: a process that is running may read it."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if path.is_dir():
        _remove(path)
    os.replace(partial, path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
