"""A site's process of nvflare that answers only what a job needs.

nvflare lets the server say whether a request has to be authorised at all, so that a site's own policy binds an honest
server only. What is not answered here, a server gets from no site: no files, no environment, no change of logging.
"""

from __future__ import annotations

import sys
from typing import Final

from nvflare.private.fed.app.client import client_train
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


def close() -> None:
    """Take every other request out of what the process answers."""
    known = ClientRequestProcessors.request_processors
    known[:] = [processor for processor in known if type(processor).__name__ in ANSWERED]


def main() -> int:
    close()
    client_train.version_check()
    arguments = client_train.parse_arguments()
    return int(client_train.mpm.run(main_func=client_train.main, run_dir=arguments.workspace, args=arguments))


if __name__ == "__main__":
    sys.exit(main())
