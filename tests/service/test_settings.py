from __future__ import annotations

from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from service.settings import PREFIX, Settings, check_guarded, is_loopback, settings_from_environment


def test_every_setting_is_read_from_its_variable() -> None:
    values = {
        "DATA_DIR": "/data",
        "HOST": "0.0.0.0",
        "PORT": "9000",
        "API_KEY": "secret",
        "MAX_UPLOAD_BYTES": "1000",
        "STAGE_MEMORY_BYTES": "1073741824",
        "STAGE_SECONDS": "60.5",
        "UNPACK_SECONDS": "30.5",
        "MIN_FREE_BYTES": "1024",
    }
    found = settings_from_environment({f"ONNX_TRT_OPTIMIZER_{name}": text for name, text in values.items()})
    assert found == Settings(Path("/data"), "0.0.0.0", 9000, "secret", 1000, 2**30, 60.5, 30.5, 1024)


def test_unset_and_empty_variables_give_the_defaults() -> None:
    assert settings_from_environment({"ONNX_TRT_OPTIMIZER_API_KEY": "", "PORT": "9"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("PORT", "high", "expected a number"),
        ("PORT", "70000", "0 to 65535"),
        ("MAX_UPLOAD_BYTES", "0", "at least 1"),
        ("STAGE_SECONDS", "nan", "at least 1"),
        ("ENCRYPTION_KEYS", "hush", "number 1 is no key"),
        ("ENCRYPTION_KEYS", f"{'A' * 43}=, {'A' * 44}", "number 2 is no key"),
        ("STAGE_MEMORY_BYTES", "1", "at least"),
        ("PARTS_ON_GPU_WORKERS", "gpu", "expected cuda or any or none"),
    ],
)
def test_wrong_value_is_refused_with_its_name_and_a_fix(name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message) as caught:
        settings_from_environment({f"ONNX_TRT_OPTIMIZER_{name}": text})
    assert caught.value.fix


def test_key_is_not_shown() -> None:
    assert repr(Settings(api_key="secret")) == repr(Settings(api_key="another")) == repr(Settings())
    assert repr(Settings(encryption_keys=f"{'A' * 43}=")) == repr(Settings())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback_names_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "localhost.example.org",
        "",
        "127.0.0.1.nip.io",
        "127.0.0.1%evil",
        "[::1].evil",
        "[127.0.0.1",
        "127.0.0.1]",
    ],
)
def test_other_names_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("name", "value"), [("LOG_FORMAT", "xml"), ("WEBHOOK_ADDRESSES", "some"), ("RETENTION_DAYS", "-1"), ("RETENTION_BYTES", "x")]
)
def test_setting_that_nobody_knows_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"{PREFIX}{name}: found"):
        settings_from_environment({PREFIX + name: value})


def test_retention_and_log_are_read() -> None:
    values = {"RETENTION_DAYS": "0.5", "RETENTION_BYTES": "1000", "LOG_FORMAT": "json", "WEBHOOK_ADDRESSES": "any"}
    found = settings_from_environment({PREFIX + name: value for name, value in values.items()})
    assert (found.retention_days, found.retention_bytes, found.log_format, found.webhook_addresses) == (0.5, 1000, "json", "any")


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org", "::"])
def test_without_a_key_a_server_listens_to_its_own_machine_alone(host: str) -> None:
    with pytest.raises(InvalidConfigError, match="without an API key"):
        check_guarded(Settings(host=host), has_keys=False)
    check_guarded(Settings(host=host, api_key="secret"), has_keys=False)
    check_guarded(Settings(host=host), has_keys=True)
    check_guarded(Settings(), has_keys=False)


def test_engines_are_built_ahead_unless_it_is_switched_off() -> None:
    assert Settings().trials_ahead > 0
    assert settings_from_environment({PREFIX + "TRIALS_AHEAD": "0"}).trials_ahead == 0
    with pytest.raises(InvalidConfigError, match="TRIALS_AHEAD: found -1, expected at least 0"):
        settings_from_environment({PREFIX + "TRIALS_AHEAD": "-1"})


def test_processes_that_share_need_a_postgres_and_a_folder() -> None:
    url = "postgresql+psycopg://optimizer:secret@db/optimizer"
    values = {"DATABASE_URL": url, "SHARED_DIR": "/mnt/shared", "EXECUTOR_ID": "one", "LEASE_SECONDS": "7.5", "TENANT_RUNNING_JOBS": "2"}
    found = settings_from_environment({PREFIX + name: value for name, value in values.items()})
    assert (found.database_url, found.files_dir, found.executor_id) == (url, Path("/mnt/shared"), "one")
    assert (found.lease_seconds, found.tenant_running_jobs, found.is_shared) == (7.5, 2, True)
    assert "secret" not in repr(found)
    found.require_shared()
    with pytest.raises(InvalidConfigError, match="SHARED_DIR: found none"):
        settings_from_environment({PREFIX + "DATABASE_URL": url})
    with pytest.raises(InvalidConfigError, match="DATABASE_URL: found something else") as caught:
        settings_from_environment({PREFIX + "DATABASE_URL": "mysql://optimizer:secret@db/optimizer", PREFIX + "SHARED_DIR": "/mnt"})
    assert "secret" not in str(caught.value)


def test_an_object_store_takes_the_place_of_the_folder() -> None:
    url = {PREFIX + "DATABASE_URL": "postgresql+psycopg://u@db/db"}
    values = {**url, PREFIX + "OBJECT_STORE": "s3://bucket/some/prefix", PREFIX + "DOWNLOADS": "redirect", PREFIX + "DATA_DIR": "/data"}
    found = settings_from_environment(values)
    assert (found.object_store, found.downloads, found.files_dir) == ("s3://bucket/some/prefix", "redirect", Path("/data"))
    assert found.object_cache_bytes == 16 * 2**30
    for wrong, words in (
        ({**url, PREFIX + "OBJECT_STORE": "s3://bucket", PREFIX + "SHARED_DIR": "/mnt"}, "SHARED_DIR: found .*OBJECT_STORE beside it"),
        ({**url, PREFIX + "OBJECT_STORE": "https://bucket"}, "OBJECT_STORE: found 'https://bucket', expected s3://BUCKET"),
        ({PREFIX + "OBJECT_STORE": "s3://bucket"}, "OBJECT_STORE: found it without .*DATABASE_URL"),
        ({PREFIX + "DOWNLOADS": "redirect"}, "DOWNLOADS: found 'redirect' without .*OBJECT_STORE"),
        (
            {**url, PREFIX + "SHARED_DIR": "/mnt", PREFIX + "DOWNLOADS": "elsewhere"},
            "DOWNLOADS: found 'elsewhere', expected stream or redirect",
        ),
    ):
        with pytest.raises(InvalidConfigError, match=words):
            settings_from_environment(wrong)


@pytest.mark.parametrize(
    ("rest", "is_good"),
    [
        ("u:s/e:c?ret@[::1]:5432/db", True),
        ("u@db/db?sslmode=require", True),
        ("/db", True),
        ("u:secret@db:54x/db", False),
        ("u:@b:1:2/db", False),
    ],
)
def test_an_address_of_a_database_has_a_number_for_its_port(rest: str, is_good: bool) -> None:
    values = {PREFIX + "DATABASE_URL": "postgresql+psycopg://" + rest, PREFIX + "SHARED_DIR": "/mnt"}
    if is_good:
        assert settings_from_environment(values).is_shared
    else:
        with pytest.raises(InvalidConfigError, match="DATABASE_URL: found something else"):
            settings_from_environment(values)


def test_alone_a_process_keeps_its_files_with_the_rest() -> None:
    assert Settings(data_dir=Path("data")).files_dir == Path("data")
    with pytest.raises(InvalidConfigError, match="DATABASE_URL: found none"):
        Settings().require_shared()
