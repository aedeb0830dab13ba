"""Kits are narrow: what is written into them, and that a change of it is seen. No process runs here."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from securefl.engines.nvflare import kit
from securefl.engines.nvflare.certificates import Address, Certificate
from securefl.engines.nvflare.kit import Admin, Role
from securefl.errors import BadInput

CLIENT = {
    "servers": [{"name": "trial", "service": {"target": "fl.example.org:8002", "scheme": "grpc"}}],
    "client": {"fqsn": "hospital-1"},
}


@pytest.fixture(params=["server", "site"])
def role(request: pytest.FixtureRequest) -> Role:
    found: Role = request.param
    return found


def pack(path: Path, role: Role) -> Path:
    """As nvflare packs a kit, in what matters here."""
    own = {"server": ("server.key", "server.crt", "fed_server.json"), "site": ("client.key", "client.crt")}[role]
    for name in ("start.sh", "sub_start.sh", "rootCA.pem", *own):
        (path / "startup" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "startup" / name).write_text("x")
    (path / "local").mkdir()
    for name in ("resources.json.default", "authorization.json.default", "privacy.json.sample"):
        (path / "local" / name).write_text('{"class_allow_list": ["*"]}')
    if role == "site":
        (path / "startup" / "fed_client.json").write_text(json.dumps(CLIENT))
    return path


@pytest.fixture
def packed(tmp_path: Path, role: Role) -> Path:
    return pack(tmp_path / "kit", role)


def read(path: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((path / "local" / name).read_text())
    return found


def test_nothing_of_nvflares_own_settings_is_left(packed: Path, role: Role) -> None:
    kit.harden(packed, role)
    assert sorted(path.name for path in (packed / "local").iterdir()) == [
        *("authorization.json", "comm_config.json", "log_config.json", "resources.json"),
    ]
    assert list((packed / "startup").glob("*.sh")) == []
    assert {stat.S_IMODE(key.stat().st_mode) for key in (packed / "startup").glob("*.key")} == {0o600}
    assert list(kit.differences(packed, role)) == []


def test_a_job_may_name_one_class(packed: Path, role: Role) -> None:
    kit.harden(packed, role)
    resources = read(packed, "resources.json")
    ours = {"server": "controller.Switchboard", "site": "executor.Forwarder"}[role]
    assert resources["class_allow_list"] == [f"securefl.engines.nvflare.{ours}"]
    assert resources["class_list_enforcement_mode"] == "enforce"


def test_nobody_may_send_code_or_look_into_a_site(packed: Path, role: Role) -> None:
    kit.harden(packed, role)
    assert (
        read(packed, "authorization.json")["permissions"]
        == {
            "site": {"lead": {"submit_job": "any"}},
            "server": {
                "lead": {
                    **{right: "any" for right in ("submit_job", "check_status", "list_jobs", "get_job_meta")},
                    **{right: "n:submitter" for right in ("abort_job", "delete_job")},
                }
            },
        }[role]
    )


def test_a_site_sends_no_logs(tmp_path: Path) -> None:
    packed = pack(tmp_path / "kit", "site")
    kit.harden(packed, "site")
    assert read(packed, "resources.json")["allow_log_streaming"] is False
    assert "log_streamer" not in (packed / "local" / "resources.json").read_text()


def test_a_server_keeps_nothing_where_others_could_put_it_first(tmp_path: Path) -> None:
    packed = pack(tmp_path / "kit", "server")
    kit.harden(packed, "server")
    text = (packed / "local" / "resources.json").read_text()
    assert "/tmp/nvflare" not in text  # noqa: S108 that is the point
    assert text.count(str(packed / "storage")) == 2
    assert "log_receiver" not in text


def test_a_kit_may_be_written_for_where_it_will_lie(tmp_path: Path) -> None:
    packed = pack(tmp_path / "kit", "server")
    kit.harden(packed, "server", tmp_path / "home")
    assert list(kit.differences(packed, "server")) == [
        f"{packed / 'local' / 'resources.json'} is not as it was written"
    ]
    packed.rename(tmp_path / "home")
    assert list(kit.differences(tmp_path / "home", "server")) == []


@pytest.mark.attack("a setting of a kit that was changed")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("local/resources.json", '{"class_allow_list": ["*"]}'),
        ("local/resources.json", "{"),
        ("local/resources.json", "[" * 100_000),
        ("local/authorization.json", '{"format_version": "1.0", "permissions": {"lead": "any"}}'),
        ("local/log_config.json", '{"handlers": {"h": {"class": "logging.handlers.HTTPHandler"}}}'),
        ("local/privacy.json", "{}"),
        ("local/x__p_resources.json", "{}"),
        ("local/custom", None),
        ("startup/x__resources.json", "{}"),
        ("startup/start.sh", ""),
        ("local/resources.json", None),
    ],
)
def test_what_was_changed_is_seen_and_mended(name: str, content: str | None, packed: Path, role: Role) -> None:
    kit.harden(packed, role)
    path = packed / name
    path.unlink(missing_ok=True)
    path.mkdir() if content is None else path.write_text(content)
    assert any(str(path) in line for line in kit.differences(packed, role))
    kit.harden(packed, role)
    assert list(kit.differences(packed, role)) == []


def test_a_key_that_others_may_read_is_seen(packed: Path, role: Role) -> None:
    kit.harden(packed, role)
    for key in (packed / "startup").glob("*.key"):
        key.chmod(0o644)
    assert [line.split(": ")[-1] for line in kit.differences(packed, role)] == ["chmod 600 it"]


def test_a_folder_that_is_no_kit_is_said_so(tmp_path: Path) -> None:
    assert list(kit.differences(tmp_path, "site")) == [f"{tmp_path} is not a kit"]
    with pytest.raises(BadInput, match="make the kit anew"):
        kit.site_name(tmp_path)


def test_commands_say_what_is_run_and_where(tmp_path: Path) -> None:
    packed = pack(tmp_path / "kit", "site")
    site, server = kit.site_command(packed), kit.server_command(packed)
    settings = ["--set", "secure_train=true", "uid=hospital-1", "org=site", "config_folder="]
    assert site[-len(settings) :] == settings
    assert "securefl.engines.nvflare.closed" in site
    assert server[server.index("-s") + 1] == "fed_server.json"
    assert str(packed) in site and str(packed) in server
    assert kit.address(packed) == Address("trial", "fl.example.org", 8002)


def test_a_session_is_opened_with_the_administrators_name(tmp_path: Path) -> None:
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "fed_admin.json").write_text('{"admin": {"username": "coordinator@securefl.org"}}')
    assert kit.admin(tmp_path) == Admin("coordinator@securefl.org", str(tmp_path))


def test_days_that_are_left_are_whole_ones() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    days = [Certificate("", "", now + timedelta(hours=hours)).days_left(now) for hours in (-25, -1, 1, 25, 48)]
    assert days == [-2, -1, 0, 1, 2]
