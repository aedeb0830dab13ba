"""What the job at a site brings back to the server: the client's own replies, or one word, and no error's text."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from protocols.aggregation.messages import Refusal
from protocols.wire import decode, encode
from securefl.deployment import serving
from securefl.deployment import site as deployed
from securefl.deployment.diary import OWNER, Diary
from securefl.deployment.peering import Peering
from securefl.deployment.site_folder import SiteFolder
from securefl.engines import letters
from securefl.engines.carrier import Carrier
from securefl.engines.letters import Absent, Answer, Ask
from securefl.engines.mailbox import Mailbox
from securefl.engines.pipe import Door, Lost, connect
from securefl.errors import RoundFailed
from securefl.proposal import Consent, Propose
from tests.securefl.deployment import owned, sites

pytest.importorskip("nvflare")

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from securefl.engines.nvflare.executor import Forwarder
from securefl.engines.nvflare.frames import BYTES, TOPIC, Back, Call, Ready, decoded, encoded

ROOT = Path(__file__).parents[4]


class Engine:
    """As much of nvflare's engine as a job at a site uses: where the kit is, and who gets messages of a topic."""

    def __init__(self, kit: Path) -> None:
        self._kit = kit
        self.handlers: dict[str, object] = {}

    def get_workspace(self) -> Engine:
        return self

    def get_root_dir(self) -> str:
        return str(self._kit)

    def get_clients(self) -> list[object]:
        return []

    def register_aux_message_handler(self, topic: str, handler: object) -> None:
        self.handlers[topic] = handler


class Site:
    """A site as the server reaches it, through the job. Keeps all that came back."""

    def __init__(self, folder: SiteFolder) -> None:
        folder.kit.mkdir(exist_ok=True)
        engine = Engine(folder.kit)
        self._context = FLContext()
        self._context.set_prop(ReservedKey.ENGINE, engine, private=True, sticky=False)
        forwarder = Forwarder()
        forwarder.handle_event(EventType.START_RUN, self._context)
        self._forward = engine.handlers[TOPIC]
        self.brought: list[Shareable] = []

    def ask(self, letter: object) -> Shareable:
        request = Shareable()
        request[BYTES] = letter
        assert callable(self._forward)
        self.brought.append(self._forward(TOPIC, request, self._context))
        return self.brought[-1]

    def handle(self, request: bytes) -> bytes:
        id = os.urandom(16)
        signature = sites.COORDINATOR.sign(letters.claim("ada", id, request))
        match letters.reply(self.ask(letters.encoded(Ask(id, request, signature)))[BYTES]):
            case Answer(_, body):
                return body
            case other:
                raise AssertionError(other)


@contextmanager
def client(folder: SiteFolder) -> Iterator[subprocess.Popen[str]]:
    """The site's client process."""
    command = [sys.executable, "-m", "securefl", "client", str(folder.path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_of_a_client_that_fails_in_training_the_server_hears_one_word(tmp_path: Path) -> None:
    folders = sites.joined(tmp_path, models={"ada": "in_training"})
    ada = Site(folders["ada"])
    with client(folders["ada"]) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        server, engine = sites.coordinator(folders, {"ada": ada})
        with pytest.raises(RoundFailed) as failed:
            server.round(engine.exchange(1))
    assert failed.value.lost == {"ada": "refused: failed"}
    assert owned.RECORD in (folders["ada"].path / OWNER).read_text(encoding="utf-8")
    require_no_text(ada)


def test_a_member_that_speaks_as_the_coordinator_gets_no_answer(tmp_path: Path) -> None:
    """nvflare lets sites write to each other, so that what asks is signed; to one site, so that no letter is passed on
    to another.
    """
    folders = sites.joined(tmp_path)
    ada, bob = Site(folders["ada"]), folders["bob"].identity()
    asked = encode(Propose("run-1", sites.coordinator(folders)[0].plan.encoded()))
    id = os.urandom(16)
    to_ada, to_bob = letters.claim("ada", id, asked), letters.claim("bob", id, asked)
    with client(folders["ada"]) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for forged in (b"", bob.sign(to_ada), sites.COORDINATOR.sign(to_bob)):
            assert letters.reply(ada.ask(letters.encoded(Ask(id, asked, forged)))[BYTES]) == Absent()
        assert decode(ada.handle(asked), Consent).word == "accepted"
    told = (folders["ada"].path / OWNER).read_text(encoding="utf-8")
    assert told.count("the signature of the coordinator under a letter does not verify") == 3


@contextmanager
def answering(folder: SiteFolder) -> Iterator[Carrier]:
    """What the client process answers with, in this process; its way out."""
    diary = Diary(folder.log)
    site = deployed.Site(folder, diary)
    peering = Peering(folder, site, diary, 1.0)
    mailbox = Mailbox(site.handle)
    door = Door(folder.socket)

    def serve() -> None:
        with suppress(Lost):
            while True:
                Thread(target=serving._answer, args=(door.accept(), mailbox, peering, diary), daemon=True).start()

    accepting = Thread(target=serve)
    accepting.start()
    try:
        yield peering.carrier
    finally:
        door.close()
        accepting.join()


@pytest.mark.attack("a member whose letter says that it is the site's own worker")
def test_no_letter_makes_its_sender_the_sites_own_worker(tmp_path: Path) -> None:
    """Who was taken for the worker would get the site's letters, and could keep them back."""
    folder = sites.joined(tmp_path)["ada"]
    ada = Site(folder)
    with answering(folder) as carrier:
        assert letters.reply(ada.ask(encoded(Ready("job", ("bob", "cyd"))))[BYTES]) == Absent()
        started = time.monotonic()
        assert carrier.carry("bob", b"letter", 0.3) is None
        assert time.monotonic() - started > 0.2  # it waited for a worker, and none was there
        worker = connect(folder.socket)
        worker.send(encoded(Ready("job", ("bob", "cyd"))))
        brought: list[bytes | None] = []
        asking = Thread(target=lambda: brought.append(carrier.carry("bob", b"letter", 5.0)))
        asking.start()
        call = decoded(worker.receive(5.0))
        assert isinstance(call, Call)
        worker.send(encoded(Back(call.number, b"reply")))
        asking.join()
        worker.close()
    assert brought == [b"reply"]


def test_of_a_client_that_never_starts_the_server_hears_one_word(tmp_path: Path) -> None:
    folder = sites.joined(tmp_path, loaders={"ada": "load_nothing"})["ada"]
    ada = Site(folder)
    with client(folder) as process:
        said, _ = process.communicate(timeout=60)
    assert owned.RECORD in said and "Traceback" not in said  # to whoever started it, at the site
    assert letters.reply(ada.ask(letters.encoded(Ask(os.urandom(16), b"")))[BYTES]) == Absent()
    require_no_text(ada)


def test_what_is_no_letter_is_refused_without_a_word(tmp_path: Path) -> None:
    ada = Site(sites.joined(tmp_path)["ada"])
    assert ada.ask("text").get_return_code() == ReturnCode.BAD_REQUEST_DATA
    assert BYTES not in ada.brought[-1]


def test_a_request_that_is_no_message_is_answered_by_one_word(tmp_path: Path) -> None:
    folder = sites.joined(tmp_path)["ada"]
    ada = Site(folder)
    with client(folder) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert decode(ada.handle(owned.RECORD.encode()), Refusal).reason == "protocol"
        assert letters.reply(ada.ask(b"no letter")[BYTES]) == Absent()
    require_no_text(ada)


def require_no_text(site: Site) -> None:
    """All that came back is nvflare's return code and bytes, in which no error's text is."""
    assert site.brought
    for reply in site.brought:
        headers = reply["__headers__"]
        assert set(reply) <= {"__headers__", BYTES} and set(headers) == {"__rc__"}
        for secret in (owned.RECORD, "Traceback", "Error", "owned"):
            assert secret.encode() not in reply.get(BYTES, b"")
