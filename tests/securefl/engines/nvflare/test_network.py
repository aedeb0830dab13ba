"""A real server and real sites on this machine: who connects, and what a site does not do whatever its server says."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from securefl.deployment import admission
from securefl.engines.nvflare import certificates, jobs, kit
from tests.securefl.deployment.deployed import Deployed, coordinated, joined, requested
from tests.securefl.engines.nvflare.network import (
    Network,
    curious,
    free_port,
    lying,
    nvflares_own,
    own_copy,
    wait,
)

pytestmark = pytest.mark.slow
pytest.importorskip("nvflare")

SECRET: Final = "what only the site may read"  # noqa: S105 no password
STREAMER: Final = "nvflare.app_common.logging.job_log_streamer.JobLogStreamer"
STREAMING: Final = {
    "format_version": 2,
    "executors": [{"tasks": ["securefl"], "executor": {"path": jobs.EXECUTOR, "args": {}}}],
    "components": [{"id": "streamer", "path": STREAMER, "args": {}}],
}
FOREIGN: Final = """
from pathlib import Path
from nvflare.apis.executor import Executor

class Foreign(Executor):
    def __init__(self):
        super().__init__()
        Path({!r}).write_text("the server's code ran at the site")

    def execute(self, *arguments):
        pass
"""
_HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
QUIET_SECONDS: Final = 8.0  # in which an honest site has connected long since


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return joined(tmp_path_factory.mktemp("network") / "project", free_port())


@pytest.fixture(scope="module")
def ours(project: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Server and site as they are meant to be run."""
    path = tmp_path_factory.mktemp("ours")
    network = Network(path, project.server.kit, project.server.admin)
    network.start("server", kit.server_command(project.server.kit))
    network.start("hospital-1", kit.site_command(project.site("hospital-1").kit))
    yield network
    network.close()


def elsewhere(project: Deployed, path: Path) -> Deployed:
    """A copy of the project whose server listens at another port."""
    made, port = project.copied(path), free_port()
    old = str(project.server.invitation().port)
    for file in (
        *(made.server.kit / "startup" / "fed_server.json", made.server.admin / "startup" / "fed_admin.json"),
        *(made.site(name).kit / "startup" / "fed_client.json" for name in ("hospital-1", "hospital-2")),
    ):
        file.write_text(file.read_text().replace(old, str(port)))
    return made


@pytest.fixture(scope="module", params=["as nvflare runs it", "as it is run here"])
def site(
    request: pytest.FixtureRequest, project: Deployed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Network, Path, bool]]:
    """A site under a server that lies: the network, the site's kit, and whether the site is run as ours are."""
    path = tmp_path_factory.mktemp("lying")
    made, closed = elsewhere(project, path / "project"), request.param == "as it is run here"
    network = Network(path, made.server.kit, made.server.admin)
    network.start("server", lying(made.server.kit))
    own = made.site("hospital-1").kit
    if not closed:
        open_up(own)
    network.start("hospital-1", kit.site_command(own) if closed else nvflares_own(own))
    wait(lambda: "hospital-1" in network.connected())
    yield network, own, closed
    network.close()


def open_up(site: Path) -> None:
    """A site's settings as nvflare packs them, where it matters: whoever leads may send code."""
    from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST

    rights = {"submit_job": "any", "byoc": "any", "shell_commands": "o:site", "operate": "o:site"}
    policy = {"format_version": "1.0", "permissions": {"lead": rights}}
    (site / "local" / "authorization.json").write_text(json.dumps(policy))
    resources = json.loads((site / "local" / "resources.json").read_text())
    resources["class_allow_list"] = [*DEFAULT_CLASS_ALLOW_LIST, jobs.EXECUTOR]
    resources["allow_log_streaming"] = True
    (site / "local" / "resources.json").write_text(json.dumps(resources))


def test_a_site_connects_and_runs_our_job(ours: Network, tmp_path: Path) -> None:
    wait(lambda: ours.connected() == {"hospital-1"})
    with ours.coordinator():
        job = ours.submit(tmp_path)
        wait(lambda: f"run={job}" in ours.said("hospital-1"))
        assert ours.meta(job)["job_deploy_detail"] == ["server: OK", "hospital-1: OK"]
    assert ours.ended(job)["status"] == "FINISHED:COMPLETED"


def test_a_job_is_ended_by_whoever_submitted_it(ours: Network, tmp_path: Path) -> None:
    wait(lambda: ours.connected() == {"hospital-1"})
    with ours.coordinator():
        job = ours.submit(tmp_path)
        wait(lambda: str(ours.meta(job)["status"]) == "RUNNING")
        ours.session().abort_job(job)
        assert ours.ended(job)["status"] == "FINISHED:ABORTED"
    ours.session().delete_job(job)


def test_the_server_is_reached_with_a_sites_certificate(ours: Network, project: Deployed) -> None:
    ours.session()
    assert kit.unreachable(project.site("hospital-1").kit) is None


@pytest.mark.attack("a stranger without a certificate")
def test_who_has_no_certificate_gets_no_answer(ours: Network, project: Deployed) -> None:
    ours.session()
    server, startup = project.server.invitation(), project.site("hospital-2").kit / "startup"
    for context, expected in ((certified(startup), True), (uncertified(startup), False)):
        context.set_alpn_protocols(["h2"])
        assert answered(context, server.host, server.port, _HTTP2) == expected


@pytest.mark.attack("another user of a site's machine, who connects as a job")
def test_who_is_on_the_machine_alone_is_no_job(ours: Network, project: Deployed) -> None:
    """As nvflare comes, its processes on one machine take whoever connects."""
    ours.session()
    startup = project.site("hospital-1").kit / "startup"
    for name in ("server", "hospital-1"):
        wait(lambda name=name: "internal listener for" in ours.said(name))  # type: ignore[misc]
        (port,) = re.findall(r"internal listener for stcp://\S+:(\d+)", ours.said(name))
        for context, expected in ((certified(startup), True), (uncertified(startup), False)):
            assert answered(context, "127.0.0.1", int(port), b"") == expected


def certified(startup: Path) -> ssl.SSLContext:
    context = uncertified(startup)
    context.load_cert_chain(startup / "client.crt", startup / "client.key")
    return context


def uncertified(startup: Path) -> ssl.SSLContext:
    """Of somebody who knows the root of trust, which is no secret."""
    context = ssl.create_default_context(cafile=startup / "rootCA.pem")
    context.check_hostname = False
    return context


def answered(context: ssl.SSLContext, host: str, port: int, first: bytes) -> bool:
    """Whether whoever listens there goes on after these first bytes; silence counts as that, too."""
    with (
        socket.create_connection((host, port), 2.0) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        try:
            secured.sendall(first)
            return secured.recv(1) != b""
        except TimeoutError:
            return True
        except OSError:
            return False


@pytest.mark.attack("a stranger with another root's certificate")
def test_a_certificate_of_another_root_connects_nobody(ours: Network, project: Deployed, tmp_path: Path) -> None:
    """It is for the same name and project, and its owner knows which root the server trusts."""
    ours.session()
    other = coordinated(tmp_path / "other", 8002)
    signed = other.server.admit(admission.read(requested(other, "hospital-2"), "trial"))
    root = other.server.invitation().authority
    certificates.package(signed, other.site("hospital-2").tls, root, tmp_path / "foreign")
    stranger = own_copy(project.site("hospital-2").kit, tmp_path / "stranger")
    for name in ("client.crt", "client.key"):
        shutil.copyfile(tmp_path / "foreign" / "startup" / name, stranger / "startup" / name)
    assert kit.unreachable(stranger) is not None
    ours.start("stranger", kit.site_command(stranger))
    time.sleep(QUIET_SECONDS)
    assert "Successfully registered" not in ours.said("stranger")
    assert "hospital-2" not in ours.connected()


@pytest.mark.attack("a site under another site's name")
def test_a_site_cannot_take_another_sites_name(ours: Network, project: Deployed, tmp_path: Path) -> None:
    """hospital-2, properly admitted, says that it is hospital-9; under its own name the same kit connects."""
    ours.session()
    for name, connects in (("hospital-9", False), ("hospital-2", True)):
        own = own_copy(project.site("hospital-2").kit, tmp_path / name)
        started = own / "startup" / "fed_client.json"
        started.write_text(started.read_text().replace("hospital-2", name))
        ours.start(name, kit.site_command(own))
        if connects:
            wait(lambda: "hospital-2" in ours.connected())
        else:
            time.sleep(QUIET_SECONDS)
            assert "Successfully registered" not in ours.said(name)
            assert ours.connected() == {"hospital-1"}


def refused(call: Callable[[], object]) -> str:
    """How the server says no."""
    with pytest.raises(Exception) as raised:
        call()
    return str(raised.value)


@pytest.mark.attack("an administrator who looks into sites or ends them")
def test_the_coordinator_may_do_no_more_than_run_jobs(ours: Network) -> None:
    session = ours.session()
    for call in (
        lambda: session.ls_target("server"),
        lambda: session.cat_target("server", file="audit.log"),
        lambda: session.shutdown("all"),
        lambda: session.remove_client("hospital-1"),
        lambda: session.get_client_env(),
        lambda: session.configure_site_log("DEBUG", "all"),
    ):
        assert "not authorized" in refused(call)


@pytest.mark.attack("a job that brings code, at a server")
def test_the_server_takes_no_code_of_a_job(ours: Network, tmp_path: Path) -> None:
    job = ours.submit(tmp_path, code="raise SystemExit")
    found = ours.ended(job)
    assert (found["status"], found["job_deploy_detail"]) == ("FINISHED:FAILED_TO_RUN", ["server: BYOC not permitted"])


@pytest.mark.attack("a server that reads a site's files")
def test_a_site_shows_its_files_to_no_server(site: tuple[Network, Path, bool]) -> None:
    """As nvflare runs it, a site shows files to a server that says that nobody needs to be asked.

    Only what the server itself checks keeps it to files in the kit: the site runs ``cat`` with whatever path it gets.
    """
    network, own, closed = site
    (own / "records.csv").write_text(SECRET)
    shown = network.session().cat_target("hospital-1", file="records.csv")
    assert (SECRET in shown) != closed
    assert ("invalid_request" in shown) == closed


@pytest.mark.attack("a server that sends code to a site")
def test_a_site_runs_no_code_that_a_server_sends(site: tuple[Network, Path, bool], tmp_path: Path) -> None:
    network, _, closed = site
    trace = tmp_path / "trace"
    executor = {"tasks": ["securefl"], "executor": {"path": "foreign.Foreign", "args": {}}}
    client = {"format_version": 2, "executors": [executor], "components": []}
    with network.coordinator():
        job = network.submit(tmp_path, client, FOREIGN.format(str(trace)))
        if closed:
            assert "hospital-1: NVFLARE_ERROR: BYOC not permitted" in network.ended(job)["job_deploy_detail"]
        else:
            wait(trace.exists)
    network.ended(job)
    assert trace.exists() != closed


@pytest.mark.attack("a job that names a class which sends a site's log")
def test_a_site_makes_no_class_but_ours(site: tuple[Network, Path, bool], tmp_path: Path) -> None:
    """nvflare's own list allows it: no code has to be sent for that."""
    network, _, closed = site
    with network.coordinator():
        job = network.submit(tmp_path, STREAMING)
        sign = (
            f"{STREAMER!r} at config path 'components.#1' is not in allow_list" if closed else "live log streaming for"
        )
        wait(lambda: sign in network.said("hospital-1"))
    network.ended(job)
    assert ("Started live log streaming" in network.said("hospital-1")) != closed


@pytest.mark.attack("a site that asks another site for its files")
def test_a_site_answers_no_other_site(site: tuple[Network, Path, bool], tmp_path: Path) -> None:
    """By way of the server, which carries what a site that was admitted sends, honest or not."""
    network, own, closed = site
    (own / "records.csv").write_text(SECRET)
    other = own_copy(own.parent.parent / "hospital-2" / "kit", tmp_path / "curious")
    network.start("curious", curious(other))
    wait(lambda: "ANSWER" in network.said("curious"))
    answer = network.said("curious").partition("ANSWER ")[2].splitlines()[0]
    assert answer == ("invalid_request" if closed else SECRET)
