"""The job at a site: takes letters to the site's own client process and back, and that process's letters to other sites
by way of the server. It opens none.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Final

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from protocols.errors import MalformedMessage
from securefl.engines import letters
from securefl.engines.letters import Absent
from securefl.engines.nvflare.frames import BYTES, SOCKET, TOPIC, Back, Call, Forwarded, Ready, decoded, encoded
from securefl.engines.pipe import Lost, Pipe, connect

_PATIENCE: Final = 15.0  # seconds; a client that works longer says so before
_AGAIN: Final = 1.0  # seconds until a client process that is not there is looked for again
_LISTEN: Final = 0.5  # seconds between looks at whether the job is over


class Forwarder(Executor):  # type: ignore[misc]
    """Has no keys and no data, so that it may crash or be replaced at any time."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = Path()
        self._over = Event()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            engine = fl_ctx.get_engine()
            self._socket = Path(engine.get_workspace().get_root_dir()) / SOCKET
            engine.register_aux_message_handler(TOPIC, self._forward)
            Thread(target=self._carry_out, args=(engine, str(fl_ctx.get_job_id())), daemon=True).start()
        elif event_type == EventType.END_RUN:
            self._over.set()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        return make_reply(ReturnCode.TASK_UNKNOWN)

    def _forward(self, topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
        letter = request.get(BYTES)
        if not isinstance(letter, bytes):
            return make_reply(ReturnCode.BAD_REQUEST_DATA)
        reply = make_reply(ReturnCode.OK)
        try:
            client = connect(self._socket)
            try:
                client.send(encoded(Forwarded()))
                client.send(letter)
                reply[BYTES] = client.receive(_PATIENCE)
            finally:
                client.close()
        except Lost:
            reply[BYTES] = letters.encoded(Absent())
        return reply

    def _carry_out(self, engine: Any, job: str) -> None:
        """Take the client process's own letters to other sites, for as long as the job runs."""
        sites = tuple(client.name for client in engine.get_clients())
        pool, sending = ThreadPoolExecutor(max(1, 2 * len(sites)), "letters"), Lock()
        while not self._over.is_set():
            try:
                client = connect(self._socket)
            except Lost:
                self._over.wait(_AGAIN)
                continue
            try:
                client.send(encoded(Ready(job, sites)))
                while not self._over.is_set():
                    if client.waiting(_LISTEN) and isinstance(call := decoded(client.receive()), Call):
                        pool.submit(self._carry, engine, call, client, sending)
            except (Lost, MalformedMessage):
                self._over.wait(_AGAIN)
            finally:
                client.close()
        pool.shutdown(wait=False, cancel_futures=True)

    def _carry(self, engine: Any, call: Call, client: Pipe, sending: Lock) -> None:
        request, reply = Shareable(), b""
        request[BYTES] = call.letter
        with engine.new_context() as fl_ctx:
            replies = engine.send_aux_request([call.site], TOPIC, request, call.seconds, fl_ctx, optional=True)
        found = (replies or {}).get(call.site)
        if isinstance(found, Shareable) and isinstance(found.get(BYTES), bytes):
            reply = found[BYTES]
        try:
            with sending:
                client.send(encoded(Back(call.number, reply)))
        except Lost:
            pass  # the loop above sees it, too
