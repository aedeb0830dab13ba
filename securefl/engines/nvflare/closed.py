"""A site's process of nvflare that answers its server only, and only what a job needs.

nvflare lets whoever asks say whether the request has to be authorised, so that a site's own policy binds an honest
server only, and another site that asks by way of it is answered, too. What is not answered here, nobody gets from a
site: no file, no log, no settings.
"""

from __future__ import annotations

import sys
from typing import Final

from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.message import Message
from nvflare.private.admin_defs import error_reply
from nvflare.private.defs import new_cell_message
from nvflare.private.fed.app.client import client_train
from nvflare.private.fed.client.admin import FedAdminAgent
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

ANSWERED: Final = (
    "ClientStatusProcessor",
    "DeployProcessor",
    "CheckResourceProcessor",
    "CancelResourceProcessor",
    "StartJobProcessor",
    "NotifyJobStatusProcessor",
    "AbortAppProcessor",
    "DeleteRunNumberProcessor",
)
"""What the server asks of a site as it checks, sends, starts and ends a job."""


class Agent(FedAdminAgent):  # type: ignore[misc]
    """nvflare's own, for requests that come from the server."""

    def _dispatch_request(self, request: Message) -> Message:
        # The server binds this header to whoever it authenticated (nvflare's validate_auth_headers).
        if request.get_header(MessageHeaderKey.ORIGIN) != FQCN.ROOT_SERVER:
            return new_cell_message({}, error_reply("invalid_request"))
        return super()._dispatch_request(request)


def close() -> None:
    """Take every other request out of what the process answers."""
    known = ClientRequestProcessors.request_processors
    known[:] = [processor for processor in known if type(processor).__name__ in ANSWERED]
    client_train.FedAdminAgent = Agent


def main() -> int:
    close()
    client_train.version_check()
    arguments = client_train.parse_arguments()
    return int(client_train.mpm.run(main_func=client_train.main, run_dir=arguments.workspace, args=arguments))


if __name__ == "__main__":
    sys.exit(main())
