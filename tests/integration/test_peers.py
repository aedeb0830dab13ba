"""Without a server on real sites: five of them as processes, over mutual TLS, with a relay that opens nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from benchmarks.deployed import SITE, Deployment, deployed, environment
from securefl import job as jobs
from securefl.deployment.in_turn_folder import InTurnFolder
from securefl.peers.run import demonstration
from securefl.report import HTML, JSON
from securefl.verification import verified

pytestmark = pytest.mark.slow
pytest.importorskip("nvflare", reason="the extra [nvflare] is not installed")

NAMES = tuple(f"hospital-{number}" for number in range(1, 6))
ACTING, NEXT = "hospital-2", "hospital-3"  # in round 2


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "securefl", *words]


@contextmanager
def relayed(deployment: Deployment) -> Iterator[None]:
    with (deployment.root / "relay.out").open("ab") as log:
        relay = subprocess.Popen(
            command("server", "relay", str(deployment.server.path)), stdout=log, stderr=log, env=environment()
        )
    try:
        yield
    finally:
        relay.terminate()
        relay.wait(30)


def proposed(deployment: Deployment, protection: str) -> dict[str, InTurnFolder]:
    """A run of three rounds, by one owner's command; its folder at each site."""
    file = deployment.root / f"{protection}.toml"
    file.write_text(demonstration(jobs.from_pilot("breast-cancer", protection, rounds=3)).to_toml())
    words = ("site", "propose", str(deployment.sites["hospital-1"].path), str(file))
    done = subprocess.run(
        command(*words, "--deadline", "10", "--training", "60", "--json"),
        capture_output=True,
        env=environment(),
        check=True,
    )
    run = msgspec.json.decode(done.stdout.splitlines()[-1])["run"]
    return {name: InTurnFolder(site.runs / run) for name, site in deployment.sites.items()}


def test_sites_act_in_turn_and_the_next_goes_on_where_one_hangs(tmp_path: Path) -> None:
    site = SITE.partition("[simulation]")[0]
    with deployed(tmp_path, NAMES, site) as five, relayed(five):
        runs = proposed(five, "ckks")
        five.wait(lambda: all(run.ended for run in runs.values()), 240)
        (reported,) = (run.path for run in runs.values() if (run.path / JSON).exists())
        five.wait(lambda: (reported / HTML).exists())
        assert verified(reported).problems == ()
        assert len({(run.path / "history.jsonl").read_bytes() for run in runs.values()}) == 1

        log = five.sites[ACTING].path / "owner.log"
        before = log.read_text().count("acts as the server in round 2")
        runs = proposed(five, "secagg")
        five.wait(lambda: log.read_text().count("acts as the server in round 2") > before, 120)
        five.strike("client", signal.SIGSTOP, ACTING)
        others = {name: run for name, run in runs.items() if name != ACTING}
        five.wait(lambda: all(run.ended for run in others.values()), 240)
        five.strike("client", signal.SIGCONT, ACTING)
        five.wait(lambda: runs[ACTING].ended, 240)
        models = {(run.path / "model.safetensors").read_bytes() for run in runs.values()}
        histories = {(run.path / "history.jsonl").read_bytes() for run in runs.values()}
    assert len(models) == len(histories) == 1
    assert "acts as the server in round 2, turn 1" in (five.sites[NEXT].path / "owner.log").read_text()
