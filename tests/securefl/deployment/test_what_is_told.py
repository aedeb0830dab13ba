"""What leaves a site when its own code or files fail, and what its log for machines says: nothing of the records."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from protocols.aggregation.messages import Envelope, Refusal
from protocols.base import Exchange, Messages
from protocols.wire import decode, kind
from securefl.coarse import Duration
from securefl.deployment.diary import OWNER
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.errors import BadInput, RoundFailed
from securefl.server import Server
from tests.securefl.deployment import owned, sites

WORDS = {"budget", "policy", "behind", "spent", "protocol", "failed"}


def heard(exchange: Exchange, replies: list[tuple[str, bytes]]) -> Exchange:
    """The same, with all that comes back remembered."""

    def remembering(requests: Messages) -> Iterator[tuple[str, bytes]]:
        for name, reply in exchange(requests):
            replies.append((name, reply))
            yield name, reply

    return remembering


def refused(folders: Mapping[str, SiteFolder], spoil: Callable[[SiteFolder], object] | None) -> list[bytes]:
    """All that ada says in a round that fails by her; where something is to be spoilt, after one that succeeds."""
    server, engine = sites.coordinator(folders)
    replies: list[tuple[str, bytes]] = []
    if spoil is not None:
        server.round(heard(engine.exchange(1), replies))
        spoil(folders["ada"])
    with pytest.raises(RoundFailed) as failed:
        server.round(heard(engine.exchange(2), replies))
    assert set(failed.value.lost) == {"ada"}
    return [reply for name, reply in replies if name == "ada"]


def ledger(folder: SiteFolder) -> Path:
    return next(folder.ledgers.rglob("ada.sqlite"))


def damaged(path: Path) -> None:
    path.write_bytes(owned.RECORD.encode() * 1000)


SPOILT: dict[str, Callable[[SiteFolder], object]] = {
    "a ledger that is no ledger any more": lambda folder: damaged(ledger(folder)),
    "a ledger that is gone": lambda folder: os.unlink(ledger(folder)),
    "a store that is none any more": lambda folder: damaged(folder.store),
    "a store of what outlives runs that is none any more": lambda folder: damaged(folder.keep),
}


@pytest.mark.parametrize("model", ["in_training", "unmade", "always"])
def test_of_a_model_that_fails_the_server_hears_one_word(tmp_path: Path, model: str) -> None:
    folders = sites.joined(tmp_path, models={"ada": model})
    require_words(folders["ada"], refused(folders, None))
    assert owned.RECORD in (folders["ada"].path / OWNER).read_text(encoding="utf-8")


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_of_files_that_fail_the_server_hears_one_word(tmp_path: Path, spoil: Callable[[SiteFolder], object]) -> None:
    folders = sites.joined(tmp_path)
    require_words(folders["ada"], refused(folders, spoil))
    assert (folders["ada"].path / OWNER).read_text(encoding="utf-8")


def require_words(folder: SiteFolder, replies: list[bytes]) -> None:
    """Envelopes, and at last one fixed word; neither they nor the log for machines say more."""
    *before, last = replies
    for reply in before:
        decode(reply, Envelope)
    assert kind(last) == Refusal.KIND
    assert decode(last, Refusal).reason in WORDS
    told = b"".join(replies) + folder.log.read_bytes()
    for secret in (owned.RECORD, "Ada", "diabetes", "Traceback", "Error", str(folder.path), "sqlite"):
        assert secret.encode() not in told


def test_a_loader_that_fails_tells_its_owner_and_answers_nobody(tmp_path: Path) -> None:
    folders = sites.joined(tmp_path, loaders={"ada": "load_nothing"})
    with pytest.raises(BadInput, match=owned.RECORD):
        sites.opened({"ada": folders["ada"]})
    assert not folders["ada"].socket.exists()


def test_what_is_no_message_is_answered_by_one_word(tmp_path: Path) -> None:
    folder = sites.joined(tmp_path)["ada"]
    site: Site = sites.opened({"ada": folder})["ada"]
    for request in (b"", b"\x00" * 10, owned.RECORD.encode()):
        assert decode(site.handle(request), Refusal).reason in WORDS
    assert owned.RECORD.encode() not in folder.log.read_bytes()


def test_sites_with_very_different_records_write_the_same_log(tmp_path: Path) -> None:
    """But for times, which are in classes. Sizes of messages are equal: they follow from the plan."""
    folders = sites.joined(tmp_path)
    server, engine = sites.coordinator(folders)
    rounds(server, engine.exchange)
    logs = {name: lines(folder.log) for name, folder in folders.items()}
    kinds = ["keys", "shares", "masked-input", "consistency", "unmask"]
    assert [line["kind"] for line in logs["ada"]] == 2 * kinds
    for line in (line for log in logs.values() for line in log):
        assert list(line) == ["time", "event", "kind", "outcome", "bytes", "took"]
        assert line["took"] in get_args(Duration)
    assert timeless(folders["ada"]) == timeless(folders["bob"]) == timeless(folders["cyd"])


def test_a_model_that_fails_on_records_shows_it_to_the_owner_alone(tmp_path: Path) -> None:
    folders = sites.joined(tmp_path, models={"ada": "on_records"})
    server, engine = sites.coordinator(folders)
    replies: list[tuple[str, bytes]] = []
    rounds(server, lambda number: heard(engine.exchange(number), replies))
    sizes = {name: [len(reply) for who, reply in replies if who == name] for name in folders}
    assert sizes["ada"] == sizes["bob"] == sizes["cyd"]
    assert timeless(folders["ada"]) == timeless(folders["bob"])
    assert owned.RECORD in (folders["ada"].path / OWNER).read_text(encoding="utf-8")


def test_a_refusal_is_in_the_log_as_its_word(tmp_path: Path) -> None:
    folders = sites.joined(tmp_path, models={"ada": "in_training"})
    refused(folders, None)
    last = lines(folders["ada"].log)[-1]
    assert (last["kind"], last["outcome"]) == ("masked-input", "refused: failed")


def rounds(server: Server, exchange: Callable[[int], Exchange]) -> None:
    for number in (1, 2):
        assert server.round(exchange(number)).contributors == sites.NAMES


def timeless(folder: SiteFolder) -> list[dict[str, str | int]]:
    return [{key: value for key, value in line.items() if key not in ("time", "took")} for line in lines(folder.log)]


def lines(log: Path) -> list[dict[str, str | int]]:
    return [msgspec.json.decode(line, type=dict[str, str | int]) for line in log.read_bytes().splitlines()]
