"""The job at the server: takes letters from the coordinator to sites and back. It opens none, and ends with it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, Final

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from protocols.errors import MalformedMessage
from securefl.engines.nvflare.frames import BYTES, SOCKET, TOPIC, Back, Call, Ready, decoded, encoded
from securefl.engines.pipe import Lost, Pipe, connect

_LISTEN: Final = 0.5  # seconds between looks at whether the job was aborted


class Switchboard(Controller):  # type: ignore[misc]
    """Connects to the coordinator's socket beside the server's kit, and works until that connection ends."""

    def start_controller(self, fl_ctx: FLContext) -> None:
        self._engine: Any = fl_ctx.get_engine()

    def stop_controller(self, fl_ctx: FLContext) -> None:
        pass

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        pass

    def process_task_check(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        pass

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        sites = tuple(client.name for client in self._engine.get_clients())
        try:
            coordinator = connect(Path(self._engine.get_workspace().get_root_dir()) / SOCKET)
            coordinator.send(encoded(Ready(fl_ctx.get_job_id(), sites)))
        except Lost:
            self.log_error(fl_ctx, "no coordinator listens: the job ends")
            return
        pool = ThreadPoolExecutor(max(1, 2 * len(sites)), "letters")
        sending = Lock()
        while not abort_signal.triggered:
            try:
                if not coordinator.waiting(_LISTEN):
                    continue
                frame = decoded(coordinator.receive())
            except (Lost, MalformedMessage):
                break
            if isinstance(frame, Call):
                pool.submit(self._carry, frame, coordinator, sending)
        coordinator.close()
        pool.shutdown(wait=False, cancel_futures=True)

    def _carry(self, call: Call, coordinator: Pipe, sending: Lock) -> None:
        request = Shareable()
        request[BYTES] = call.letter
        reply = b""
        with self._engine.new_context() as fl_ctx:
            # Not secure=True: it is for links without TLS, and keeps the job from ending. To one target at a time: what
            # sends to several at once swallows its own errors.
            replies = self._engine.send_aux_request(
                [call.site], TOPIC, request, call.seconds, fl_ctx, optional=True, secure=False
            )
        found = (replies or {}).get(call.site)
        if isinstance(found, Shareable) and isinstance(found.get(BYTES), bytes):
            reply = found[BYTES]
        try:
            with sending:
                coordinator.send(encoded(Back(call.number, reply)))
        except Lost:
            pass  # the loop above sees it, too
