"""The job at a site: takes letters from the server to the site's own client process and back. It opens none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from securefl.engines import letters
from securefl.engines.letters import Absent
from securefl.engines.nvflare.frames import BYTES, SOCKET, TOPIC
from securefl.engines.pipe import Lost, connect

_PATIENCE: Final = 15.0  # seconds; a client that works longer says so before


class Forwarder(Executor):  # type: ignore[misc]
    """Has no keys and no data, so that it may crash or be replaced at any time."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = Path()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            engine = fl_ctx.get_engine()
            self._socket = Path(engine.get_workspace().get_root_dir()) / SOCKET
            engine.register_aux_message_handler(TOPIC, self._forward)

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
                client.send(letter)
                reply[BYTES] = client.receive(_PATIENCE)
            finally:
                client.close()
        except Lost:
            reply[BYTES] = letters.encoded(Absent())
        return reply
