"""A real Ray on this machine, with few clients: what crosses to actors and back, and what becomes of those that end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from protocols.aggregation.messages import InputRequest, Refusal
from protocols.base import Exchange, Messages, Replies, Requests
from protocols.wire import encode, kind
from securefl import DPSGD, Client, settings
from securefl.closing import EndorseRequest, StateRequest
from securefl.engines.correspondence import Deadlines
from securefl.engines.local import Silence
from securefl.engines.ray import cluster as door
from securefl.engines.ray.actors import Actors
from securefl.engines.ray.runs import Recipe
from securefl.engines.ray.shard import Shard, raised
from securefl.errors import BadInput, BudgetExceeded, RoundFailed
from securefl.plan import PrivacyTerms
from securefl.privacy.ledger import read
from securefl.privacy.mechanism import Budget
from securefl.records import RoundRecord
from securefl.round import conduct, federate
from securefl.run import Run
from securefl.server import Server
from securefl.settings import Ray, Resources
from securefl.transcript import Transcript
from securefl.verification import verified
from tests.securefl.federation import NAMES, client, model, records, server
from tests.securefl.verification import toy

# Ray leaves files and sockets of its own to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

ROOT = Path(__file__).resolve().parents[3]
EIGHT = tuple(f"client-{place}" for place in range(8))
TWO = Ray(Resources(2, cpus=0.5))
THREE = Ray(Resources(3, cpus=0.3))
PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3)
QUESTION = encode(StateRequest("a run that nobody knows"))
LONG = encode(EndorseRequest("a run that nobody knows", bytes(300_000)))

Keep = Callable[[Actors], Actors]


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """Two CPUs and, as Ray is told, a GPU. Actors find it and leave it as it is."""
    door._keep_to_this_machine()
    import ray

    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture
def keep(ray: ModuleType) -> Iterator[Keep]:
    """Closes what it is given, in the end."""
    opened: list[Actors] = []

    def kept(actors: Actors) -> Actors:
        opened.append(actors)
        return actors

    yield kept
    for actors in opened:
        actors.close()


# ---- what runs in the actors


def seeded(names: Sequence[str]) -> list[Client]:
    return [client(name, Budget(3.0, 1e-5), seed=7) for name in names]


def in_memory(names: Sequence[str]) -> list[Client]:
    return [client(name, data=records(EIGHT.index(name))) for name in names]


def on_disk(folder: Path, names: Sequence[str], factory: Callable[[], nn.Module] = model) -> list[Client]:
    """Clients whose stores are files. It is noted who was made together, and in which process."""
    (folder / f"{time.time_ns()}.made").write_text(" ".join([str(os.getpid()), *names]))
    return [client(name, None, folder, records(EIGHT.index(name)), factory) for name in names]


def made(folder: Path) -> list[tuple[int, list[str]]]:
    """Processes with the clients that were made in them, in order of time."""
    words = [path.read_text().split() for path in sorted(folder.glob("*.made"))]
    return [(int(process), names) for process, *names in words]


def process_of(folder: Path, name: str) -> int:
    return next(process for process, names in reversed(made(folder)) if name in names)


def on_gpu(folder: Path, names: Sequence[str]) -> list[Client]:
    for name in names:
        (folder / name).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    return in_memory(names)


def over_budget(names: Sequence[str]) -> list[Client]:
    raise BudgetExceeded("client-3", 1.0, 2.0, 1.5, 0)


def faulty(names: Sequence[str]) -> list[Client]:
    raise KeyError("column")


def ending(names: Sequence[str]) -> list[Client]:
    os._exit(3)


def nobody(names: Sequence[str]) -> list[Client]:
    return []


def rounds(actors: Actors, coordinator: Server, count: int) -> list[RoundRecord]:
    return list(conduct(coordinator, actors, count, Transcript()))


def before_input(exchange: Exchange, act: Callable[[], object]) -> Exchange:
    """The same, with something that happens before masked inputs are asked for."""

    def acted(requests: Messages) -> Replies:
        if kind(next(iter(requests.values()))) == InputRequest.KIND:
            act()
        return exchange(requests)

    return acted


def kill(folder: Path, name: str) -> None:
    os.kill(process_of(folder, name), signal.SIGKILL)


# ---- an exchange


def test_the_same_clients_end_in_the_same_model_as_in_one_process(keep: Keep) -> None:
    """To what the encoding rounds: its coins come with the session's keys, which are never from a seed."""
    faults = [Silence("bob", 2, round=2)]
    together, apart = (server("secagg", PRIVATE, privacy=PrivacyTerms(simulated=True)) for _ in range(2))
    expected = list(federate(together, seeded(NAMES), 2, faults=faults))
    actors = keep(Actors(NAMES, seeded, TWO, faults=faults))
    actors.enrol(apart)
    found = rounds(actors, apart, 2)
    one, other = together.model(), apart.model()
    assert one is not None and other is not None
    np.testing.assert_allclose(other, one, atol=2.0**-18)
    for record, in_one_process in zip(found, expected, strict=True):
        assert record.contributors == in_one_process.contributors
        assert record.dropped == in_one_process.dropped
        assert record.epsilon == in_one_process.epsilon
        assert record.upload_bytes == in_one_process.upload_bytes
    assert found[1].dropped == {"bob": "exchange 2"} and found[1].recovered == ("bob",)


@pytest.mark.slow
def test_no_more_clients_are_asked_than_there_are_actors_until_a_reply_is_taken(tmp_path: Path, keep: Keep) -> None:
    """However long the requests are. And two actors share a GPU, where each asked for a half."""
    asked: list[str] = []

    def request(name: str) -> bytes:
        asked.append(name)
        return LONG if name in EIGHT[2:6] else QUESTION

    actors = keep(Actors(EIGHT, partial(on_gpu, tmp_path), Ray(Resources(cpus=0.1, gpus=0.5))))
    replies = iter(actors.exchange(1)(Requests(EIGHT, request)))
    assert asked == []
    taken = dict([next(replies)])
    while len(taken) < len(EIGHT):
        assert len(asked) <= len(taken) + 2
        taken.update([next(replies)])
    assert sorted(asked) == list(EIGHT)
    # None says "protocol": all arrived as they were sent.
    assert taken == {name: encode(Refusal("failed" if request(name) is LONG else "policy")) for name in EIGHT}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(EIGHT, "0")


# ---- who is lost, and who is late


@pytest.mark.slow
def test_a_lost_actor_is_a_dropout_and_its_clients_go_on_from_their_stores(tmp_path: Path, keep: Keep) -> None:
    """Those in other actors keep their sessions, keys and process."""
    heard: list[str] = []
    coordinator = server()
    actors = keep(Actors(EIGHT, partial(on_disk, tmp_path), THREE, tell=heard.append))
    actors.enrol(coordinator)
    rounds(actors, coordinator, 1)
    before = made(tmp_path)
    assert sorted(names for _, names in before) == sorted(list(EIGHT[place::3]) for place in range(3))
    lost = ("client-2", "client-5")
    outcome = coordinator.round(before_input(actors.exchange(2), partial(kill, tmp_path, lost[0])))
    assert outcome.dropped == dict.fromkeys(lost, "exchange 2") and outcome.recovered == lost
    assert rounds(actors, coordinator, 3)[0].contributors == EIGHT
    assert [names for _, names in made(tmp_path)[3:]] == [list(lost)]
    assert made(tmp_path)[:3] == before
    assert heard == ["1 actors were lost: client-2 and 1 others are started again"]
    # Between two rounds nobody is missed.
    kill(tmp_path, "client-0")
    assert rounds(actors, coordinator, 4)[0].contributors == EIGHT


@pytest.mark.slow
def test_who_was_made_again_is_in_no_session_and_says_so(tmp_path: Path, keep: Keep) -> None:
    coordinator = server()
    actors = keep(Actors(EIGHT, partial(on_disk, tmp_path), THREE))
    actors.enrol(coordinator)

    def made_again() -> None:
        kill(tmp_path, "client-2")
        actors.exchange(1)

    outcome = coordinator.round(before_input(actors.exchange(1), made_again))
    assert outcome.dropped == {"client-2": "refused: spent", "client-5": "refused: spent"}


@pytest.mark.slow
def test_clients_that_kept_nothing_do_not_come_back(keep: Keep, ray: ModuleType) -> None:
    heard: list[str] = []
    coordinator = server()
    actors = keep(Actors(EIGHT, in_memory, THREE, tell=heard.append))
    actors.enrol(coordinator)
    ray.kill(actors._crew.actors[2].process.actor)
    record = rounds(actors, coordinator, 1)[0]
    assert record.dropped == {"client-2": "not reached", "client-5": "not reached"}
    assert heard[1:] == [
        "client-2 and 1 others have other keys than before and take no part: keep their stores in files"
    ]
    ray.kill(actors._crew.actors[0].process.actor)
    started = time.monotonic()
    with pytest.raises(RoundFailed, match="3 clients were reached, 6 are needed"):
        rounds(actors, coordinator, 2)
    assert time.monotonic() - started < THREE.patience / 2  # nobody is waited for who cannot come


def sluggish(flag: Path) -> nn.Module:
    """A model that takes long to make as long as the flag is there."""
    if flag.exists():
        time.sleep(8)
    return model()


@pytest.mark.slow
def test_a_late_actor_is_left_out_until_it_is_done(tmp_path: Path, keep: Keep) -> None:
    flag = tmp_path / "slow"
    coordinator = server()
    recipe = partial(on_disk, tmp_path, factory=partial(sluggish, flag))
    actors = keep(Actors(EIGHT, recipe, Ray(Resources(2, cpus=0.5), deadlines=Deadlines(60, 6))))
    actors.enrol(coordinator)
    rounds(actors, coordinator, 1)
    flag.touch()
    with pytest.raises(RoundFailed, match="0 clients"):
        coordinator.round(actors.exchange(2))
    assert actors._crew.idle() == []
    flag.unlink()
    record = rounds(actors, coordinator, 2)[0]
    assert len(record.contributors) >= 6 and len(made(tmp_path)) == 2


# ---- how actors are started


@pytest.mark.slow
def test_what_a_recipe_raises_is_raised_here(ray: ModuleType) -> None:
    with pytest.raises(BudgetExceeded, match=r"client-3: budget refused: spent epsilon 1\.000") as refusal:
        Actors(EIGHT, over_budget, Ray(Resources(1, cpus=0.1)))
    assert (refusal.value.cap, refusal.value.rounds_left) == (1.5, 0)
    assert "in an actor:\nTraceback" in refusal.value.__notes__[0]


@pytest.mark.slow
def test_a_recipe_that_ends_the_process_is_said_to(ray: ModuleType) -> None:
    with pytest.raises(BadInput, match="an actor ended while its clients were made"):
        Actors(EIGHT, ending, Ray(Resources(1, cpus=0.1)))


@pytest.mark.parametrize(
    ("recipe", "error", "says"),
    [
        (faulty, RuntimeError, "KeyError: 'column'"),
        (nobody, BadInput, "the recipe made nobody where client-0, client-1, .* were asked for"),
    ],
)
def test_what_goes_wrong_as_clients_are_made_is_no_answer(
    recipe: Callable[[Sequence[str]], list[Client]], error: type[Exception], says: str
) -> None:
    shard = Shard()
    with pytest.raises(error, match=says):
        raised(shard.open(recipe, EIGHT, (), None))
    assert shard.keys() == {}


def test_two_names_that_are_equal_are_refused() -> None:
    with pytest.raises(BadInput, match="two of the same name"):
        Actors(["a", "a"], in_memory)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_refused_at_once(address: str) -> None:
    program = f"""
from securefl.engines.ray.cluster import Cluster
from securefl.errors import BadInput
try:
    Cluster({address!r})
except BadInput as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"no Ray cluster at {address} ("), done.stderr
    assert "ray start --head" in done.stdout


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"actors": 0}, "0 actors: at least 1"),
        ({"cpus": -1.0}, "-1.0 CPUs and 0.0 GPUs"),
        ({"gpus": float("inf")}, "finite"),
        ({"gpus": 1.5}, "a fraction of one GPU, or whole ones"),
    ],
)
def test_resources_that_make_no_sense_are_refused(resources: dict[str, float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Resources(**resources)  # type: ignore[arg-type]


def test_without_ray_the_message_says_what_to_install(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
sys.modules["ray"] = None
from securefl.errors import MissingExtra
from securefl.run import Run
from securefl.settings import Ray
from tests.securefl.verification import toy
try:
    Run.create(toy.job(), Path({str(tmp_path / "run")!r}), engine=Ray())
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "the Ray engine needs an optional package: pip install 'securefl[ray]'\n"
    assert not (tmp_path / "run").exists()


# ---- runs in a folder


@pytest.mark.slow
def test_a_run_is_begun_resumed_and_verified_on_its_engine(ray: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begun = Run.create(toy.job(), folder, engine=TWO)
    assert next(begun.rounds()).contributors == toy.CLIENTS
    begun.close()
    assert settings.read(folder) == TWO
    resumed = Run.open(folder)
    assert [record.round for record in resumed.rounds()] == [2]
    summary = resumed.finish()
    resumed.close()
    assert summary.accuracy is not None and summary.accuracy_centralised is None
    for name in toy.CLIENTS:
        entries = read(folder / "ledgers" / f"{name}.sqlite").entries
        assert [(entry.round, entry.attempt) for entry in entries] == [(1, 1), (2, 2)]
    assert verified(folder).problems == ()


@pytest.mark.slow
def test_a_run_that_does_not_fit_into_a_budget_leaves_nothing(ray: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match="budget refused") as refusal:
        Run.create(toy.job(rounds=200), tmp_path / "run", engine=TWO)
    assert refusal.value.spent == 0 and refusal.value.rounds == 200
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_sealed_models_are_written_by_their_clients(ray: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begun = Run.create(toy.job("ckks", metrics={"noise_multiplier": 20.0}), folder, engine=TWO)
    assert all(record.held_out is not None for record in begun.rounds())
    begun.finish()
    begun.close()
    written = sorted(path.parent.name for path in folder.rglob("model.safetensors"))
    assert written == list(toy.CLIENTS)
    assert verified(folder).problems == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU")
def test_an_actor_with_a_gpu_that_torch_does_not_find_is_refused(tmp_path: Path) -> None:
    job = toy.job(privacy={"enabled": False})
    (tmp_path / "job.toml").write_text(job.to_toml())
    with pytest.raises(BadInput, match="torch finds no GPU"):
        Recipe(job, tmp_path, Path.cwd(), "cuda")(toy.CLIENTS)


def test_a_machine_that_does_not_see_the_folders_of_a_run_makes_no_new_ones(tmp_path: Path) -> None:
    """An empty ledger of its own would forget what was spent."""
    job, folder = toy.job(), tmp_path / "run"
    recipe = Recipe(job, folder, tmp_path, "cpu")
    with pytest.raises(BadInput, match=r"run/job.toml is not there on machine .*: let all machines share its folder"):
        recipe(toy.CLIENTS)
    folder.mkdir()
    (folder / "job.toml").write_text(job.to_toml())
    with pytest.raises(BadInput, match="ledgers is not there on machine"):
        recipe(toy.CLIENTS)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["job.toml", "run"]


# ---- a cluster of its own

_ALONE = """
import sys, time
from securefl.engines.ray.actors import Actors
from securefl.errors import BadInput
from securefl.settings import Ray, Resources
from tests.securefl.engines.test_ray import EIGHT, QUESTION, ending, in_memory
try:
    Actors(EIGHT, in_memory, Ray(Resources(8, cpus=1000)))
except BadInput as error:
    print(error, flush=True)
actors = Actors(EIGHT, in_memory, Ray(Resources(1)))
try:
    Actors(EIGHT, ending, Ray(Resources(1, cpus=0)))
except BadInput as error:
    print(error, flush=True)
time.sleep(3)
print(len(list(actors.exchange(1)(dict.fromkeys(EIGHT, QUESTION)))), flush=True)
if sys.stdin.readline() == "close\\n":
    actors.close()
    print("closed", flush=True)
    sys.stdin.readline()
"""


def family(process: int) -> set[int]:
    """All processes that a process began, and those that they began."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
    found = {process}
    while more := {child for child, parent in parents if parent in found} - found:
        found |= more
    return found - {process}


def alive(processes: set[int]) -> set[int]:
    """Those that run; whoever is dead may wait for a parent to take notice."""
    found = set()
    for process in processes:
        with suppress(OSError):
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(process)
    return found


def gone(processes: set[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while alive(processes) and time.monotonic() < until:
        time.sleep(0.2)
    return not alive(processes)


def listening(processes: set[int]) -> set[str]:
    """Addresses on which they take connections, in hexadecimal as Linux has them."""
    sockets = {
        os.readlink(file) for one in processes for file in Path(f"/proc/{one}/fd").iterdir() if file.is_symlink()
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.add(words[1].partition(":")[0])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_cluster_that_was_started_here_is_open_to_nobody_else_and_ends_with_its_driver(end: str) -> None:
    command = [sys.executable, "-c", _ALONE]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdin is not None and driver.stdout is not None
        assert "8 actors of 1000 CPUs and 0 GPUs do not fit on this machine" in driver.stdout.readline()
        assert "an actor ended while its clients were made" in driver.stdout.readline()
        assert driver.stdout.readline() == "8\n"  # and nothing that Ray says of the one that ended
        processes = family(driver.pid)
        assert len(processes) >= 3
        assert listening(processes | {driver.pid}) <= {"0100007F", "0000000000000000FFFF00000100007F"}
        if end == "close":
            driver.stdin.write("close\n")
            driver.stdin.flush()
            assert driver.stdout.readline() == "closed\n"
        else:
            driver.kill()
        assert gone(processes, 30 if end == "close" else 180)  # Ray's own agents look up once a minute
        driver.kill()
