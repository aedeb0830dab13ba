"""What a site's process of nvflare answers, by name: an upgrade that adds or renames a request is seen here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("nvflare")

PROGRAM = """
import json
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors as known
before = sorted(type(one).__name__ for one in known.request_processors)
from securefl.engines.nvflare import closed
closed.close()
after = sorted(type(one).__name__ for one in known.request_processors)
print(json.dumps([before, after, sorted(closed.ANSWERED), closed.client_train.FedAdminAgent is closed.Agent]))
"""


def test_a_site_answers_what_a_job_needs_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after, answered, ours = json.loads(done.stdout.splitlines()[-1])
    assert after == answered
    assert ours
    assert set(before) - set(after) == {
        "AbortTaskProcessor",
        "ClientInfoProcessor",
        "ConfigureJobLogProcessor",
        "ConfigureSiteLogProcessor",
        "ReportEnvProcessor",
        "ReportResourcesProcessor",
        "ReportVersionProcessor",
        "RestartClientProcessor",
        "ScopeInfoProcessor",
        "ShellCommandProcessor",
        "ShutdownClientProcessor",
        "SysInfoProcessor",
    }
