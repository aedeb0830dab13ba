from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scale, secagg
from benchmarks.cohort import Session, run, run_apart
from benchmarks.masked import ClientMask, ServerUnmask
from benchmarks.peers import __main__ as peers
from benchmarks.peers.process import COMMAND, FLOWER, Peer, PeerFailed, PeerMissing
from benchmarks.rows import ratio_row
from protocols.aggregation.session import Step
from protocols.masking import Work

# A peer in a few lines of Python: it says its name and answers whatever it is asked with the next of these lines.
PEER = "print('\"peer 1\"', flush=True)\nfor answer in {answers!r}:\n    input()\n    print(answer, flush=True)\n"


@pytest.mark.parametrize(
    ("unit", "value", "peer_value", "ratio", "met"),
    [
        ("s", 0.5, 5.0, 10.0, True),
        ("s", 1.0, 5.0, 5.0, False),
        ("GB/s", 16.0, 2.0, 8.0, True),
        ("GB/s", 2.0, 16.0, 0.125, False),
        ("s", 1.0, None, None, False),
    ],
)
def test_a_ratio_says_how_much_better_we_are(
    unit: str, value: float, peer_value: float | None, ratio: float | None, met: bool
) -> None:
    row = ratio_row("work", value, unit, "peer", peer_value, quick=True, at_least=8.0)
    assert (row.ratio, row.met, row.peer) == (ratio, met, "peer")


def test_without_its_environment_a_peer_did_not_run_and_the_row_has_the_command(
    tmp_path: Path,
) -> None:
    with pytest.raises(PeerMissing, match=COMMAND):
        Peer(FLOWER, tmp_path / "python")
    row = secagg.compare(ClientMask(1000, 3), None, 1, quick=True)
    assert (row.peer_value, row.ratio, row.met) == (None, None, False)
    assert row.peer is not None and COMMAND in row.peer


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "peer.py"


@pytest.mark.parametrize(
    "answer",
    [
        '{"seconds": 1.0, "hidden": 7, "opened": 8}',
        '{"seconds": 1.0, "hidden": 9, "opened": 9}',
    ],
    ids=["wrong result", "never masked"],
)
def test_a_peer_that_did_not_do_the_work_has_no_time(answer: str, script: Path) -> None:
    script.write_text(PEER.format(answers=[answer]))
    with Peer(script, Path(sys.executable)) as peer, pytest.raises(PeerFailed, match="masked"):
        peer.seconds(ClientMask(10, 2), expected=9)


def test_a_peer_that_did_the_work_says_how_long_it_took(script: Path) -> None:
    script.write_text(PEER.format(answers=['{"seconds": 1.5, "hidden": 7, "opened": 9}']))
    with Peer(script, Path(sys.executable)) as peer:
        assert peer.version == "peer 1"
        assert peer.seconds(ClientMask(10, 2), expected=9) == 1.5


def test_a_peer_that_ends_is_said_to_have_ended(script: Path) -> None:
    script.write_text(PEER.format(answers=[]))
    with Peer(script, Path(sys.executable)) as peer, pytest.raises(PeerFailed, match="ended"):
        peer.seconds(ClientMask(10, 2), expected=9)


def test_the_peers_are_pinned_to_the_version() -> None:
    assert all("==" in requirement for requirement in peers.requirements())


@pytest.mark.parametrize(
    "work", [ClientMask(5000, 4), ServerUnmask.of(5, 5000, 1), ServerUnmask.of(5, 5000, 0)], ids=str
)
def test_our_side_does_the_work_that_it_times(work: ClientMask | ServerUnmask) -> None:
    assert work.seconds() > 0  # raises where masks do not come off


def test_a_cohort_in_other_processes_gives_the_right_sum_and_its_costs() -> None:
    cost = run(Session(7, 1000, dropped=1), processes=2)
    assert set(cost.up) == set(Step) & set(range(5))
    assert 4 * 6 * 1000 < cost.up[Step.INPUT] < 4 * 6 * 1000 + 6 * 1000  # six vectors and their signatures
    assert min(cost.upload.values()) < 4 * 1000 < sorted(cost.upload.values())[1]
    assert cost.server_bytes > 1e6


def test_a_sum_that_lacks_a_client_is_noticed() -> None:
    session = Session(5, 100, dropped=1)
    others = Session(5, 100)
    server, clients = session.server(Work()), session.members(session.names)
    requests = server.open()
    while requests:
        requests = server.advance([(name, clients[name].handle(data)) for name, data in requests.items()])
    others.check(server.result)
    with pytest.raises(AssertionError, match="contributed"):
        session.check(server.result)


def test_a_larger_vector_takes_a_server_apart_more_memory() -> None:
    large, small = (run_apart(Session(3, dimension)).server_bytes for dimension in (2_000_000, 1000))
    assert large - small > 4 * 2_000_000  # at least the sum itself


def test_what_a_client_pays_is_reported_by_what_it_is_for() -> None:
    rows = {row.name: row.value for row in scale.cost_rows(Session(4, 1000), quick=True)}
    assert set(rows) == {
        f"{figure}_n4" for figure in ("client_cpu", "key_list", "shares", "input", "agreement", "unmask")
    }
    assert rows["input_n4"] > 4000 > rows["key_list_n4"] > 4 * 64


ATTACKS = """
import pytest
@pytest.mark.attack("shown")
@pytest.mark.parametrize("case", [1, 2])
def test_shown(case): pass
@pytest.mark.attack("fails once")
@pytest.mark.parametrize("case", [1, 2])
def test_fails(case): assert case == 1
@pytest.mark.attack("skipped")
def test_skipped(): pytest.skip("not here")
@pytest.fixture
def broken():
    yield
    raise AssertionError
@pytest.mark.attack("breaks afterwards")
def test_breaks(broken): pass
def test_unmarked(): pass
"""


def test_only_attacks_whose_every_test_passes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = attack: an attack\n")
    (tmp_path / "test_attacks.py").write_text(ATTACKS)
    program = (
        "import pytest; from benchmarks.attacks import Tally; tally = Tally()\n"
        f"pytest.main(['-q', '-p', 'no:cacheprovider', {str(tmp_path)!r}], plugins=[tally]); print(tally.shown)"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "['shown']"
