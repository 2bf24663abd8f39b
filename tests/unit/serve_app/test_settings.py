"""Settings: which source wins, what is refused, what is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve_app.settings import HOME, Settings, environment_example, export_keys


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("APP_ENV", "HOST", "PORT", "LOG_LEVEL", "DEBUG", "STORAGE_PROVIDER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    for name in ("base", "development", "production"):
        (tmp_path / "configs" / f"{name}.yaml").write_text("{}")
    return tmp_path


def write(home: Path, name: str, text: str) -> None:
    (home / name).write_text(text)


def test_settings_of_this_tree_are_valid_in_both_profiles():
    development, production = Settings(), Settings(app_env="production")
    assert (development.home, development.data_dir) == (HOME, HOME / "var")
    assert (production.host, production.port, production.log_level) == ("127.0.0.1", 8000, "INFO")


@pytest.mark.parametrize(
    ("last_source", "expected"),
    [("default", 8000), ("base", 1), ("profile", 2), ("dotenv", 3), ("environment", 4), ("init", 5)],
)
def test_settings_take_the_value_of_the_nearest_source(home, monkeypatch, last_source, expected):
    sources = ["default", "base", "profile", "dotenv", "environment", "init"]
    present = sources[: sources.index(last_source) + 1]
    arguments = {}
    if "base" in present:
        write(home, "configs/base.yaml", "port: 1")
    if "profile" in present:
        write(home, "configs/development.yaml", "port: 2")
    if "dotenv" in present:
        write(home, ".env", "PORT=3")
    if "environment" in present:
        monkeypatch.setenv("PORT", "4")
    if "init" in present:
        arguments["port"] = 5
    assert Settings(home=home, **arguments).port == expected


def test_settings_merge_nested_values_of_several_sources(home, monkeypatch):
    write(home, "configs/base.yaml", "store: {stall_s: 7, max_queued: 3}")
    write(home, ".env", "ATELIER_STORE__MAX_QUEUED=4")
    monkeypatch.setenv("ATELIER_STORE__LEASE_S", "20")
    store = Settings(home=home).store
    assert (store.stall_s, store.max_queued, store.lease_s) == (7, 4, 20)
    assert store.database_url == f"sqlite:///{home}/var/atelier.db"


def test_settings_read_the_profile_that_dotenv_names(home):
    write(home, ".env", "APP_ENV=production")
    write(home, "configs/production.yaml", "log_level: ERROR")
    settings = Settings(home=home)
    assert (settings.app_env, settings.log_level) == ("production", "ERROR")


def test_settings_find_home_in_the_environment(home, monkeypatch):
    monkeypatch.setenv("ATELIER_HOME", str(home))
    write(home, "configs/base.yaml", "port: 9")
    assert (Settings().home, Settings().port) == (home, 9)


@pytest.mark.parametrize("text", ["prot: 1", "store: {leas_s: 1}", "home: /", "app_env: production", "debug: true"])
def test_settings_refuse_an_unknown_name_in_yaml(home, text):
    write(home, "configs/base.yaml", text)
    with pytest.raises(ValueError, match=text.partition(":")[0]):
        Settings(home=home)


def test_settings_ignore_foreign_names_in_dotenv(home):
    write(home, ".env", "POSTGRES_USER=somebody\nCOMPOSE_PROJECT_NAME=x\nPORT=81\n")
    assert Settings(home=home).port == 81


def test_settings_refuse_a_profile_without_a_file(home):
    (home / "configs/production.yaml").unlink()
    with pytest.raises(ValueError, match=r"production\.yaml does not exist"):
        Settings(home=home, app_env="production")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", ()), ("10.0.0.0/8", ("10.0.0.0/8",)), (" 10.0.0.0/8 , files.lan,", ("10.0.0.0/8", "files.lan"))],
)
def test_fetch_allow_is_split_at_commas(home, monkeypatch, value, expected):
    monkeypatch.setenv("ATELIER_FETCH_ALLOW", value)
    assert Settings(home=home).fetch_allow == expected


@pytest.mark.parametrize(("value", "expected"), [("data", "{home}/data"), ("/srv/atelier", "/srv/atelier")])
def test_data_dir_is_relative_to_home(home, monkeypatch, value, expected):
    monkeypatch.setenv("ATELIER_DATA_DIR", value)
    assert str(Settings(home=home).data_dir) == expected.format(home=home)


def test_log_level_may_be_written_in_any_case(home, monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert Settings(home=home).log_level == "DEBUG"


@pytest.mark.parametrize("profile", ["development", "production"])
@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({"DEBUG": "True"}, "DEBUG"),
        ({"DEBUG": " YES "}, "DEBUG"),
        ({"DEBUG": "app:*"}, "INFO"),
        ({"DEBUG": "true", "LOG_LEVEL": "warning"}, "WARNING"),
    ],
)
def test_debug_wins_over_the_yaml_of_this_tree(monkeypatch, profile, environment, level):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings(app_env=profile).log_level == level


def test_debug_yields_to_a_log_level_in_dotenv(home, monkeypatch):
    write(home, ".env", "LOG_LEVEL=ERROR")
    monkeypatch.setenv("DEBUG", "1")
    assert Settings(home=home).log_level == "ERROR"


def test_debug_in_dotenv_raises_the_log_level(home):
    write(home, ".env", "DEBUG=on")
    write(home, "configs/development.yaml", "log_level: ERROR")
    assert Settings(home=home).log_level == "DEBUG"


def test_settings_never_show_a_rejected_value(home, monkeypatch):
    monkeypatch.setenv("ATELIER_DATABASE_URL", "postgresql+psycopg://u:hunter2@h/d")
    with pytest.raises(ValidationError) as refused:
        Settings(home=home)
    assert "hunter2" not in str(refused.value)


def test_settings_refuse_heartbeats_longer_than_half_a_lease(home):
    with pytest.raises(ValidationError, match="heartbeat_s must be at most half"):
        Settings(home=home, store={"lease_s": 8}, runner={"heartbeat_s": 5})


@pytest.mark.parametrize(
    ("name", "value", "home_of_the_fact"),
    [
        ("ATELIER_STORE__DATABASE_URL", "sqlite:////tmp/x", "ATELIER_DATABASE_URL"),
        ("ATELIER_WORKER__SLOTS", "2", r"args\.pools\.<name>\.slots in serve_config\.yaml"),
        ("ATELIER_FACE_SWAP__SESSION__DEVICE", "cuda", r"args\.profile in serve_config\.yaml"),
    ],
)
def test_settings_name_the_home_of_a_fact_that_is_set_elsewhere(home, monkeypatch, name, value, home_of_the_fact):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=f"is not set here but by {home_of_the_fact}"):
        Settings(home=home)


def test_settings_hand_media_limits_to_the_engine_and_the_fetcher(home):
    settings = Settings(home=home, media={"max_frames": 5, "max_bytes": 6}, fetch_allow=("10.0.0.0/8",))
    assert settings.face_swap.limits == settings.media
    assert (settings.fetch.max_bytes, settings.fetch.allow) == (6, ("10.0.0.0/8",))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "{home}/var/objects"),
        ({"ATELIER_DATA_DIR": "/srv"}, "/srv/objects"),
        ({"ATELIER_DATA_DIR": "/srv", "ATELIER_STORAGE__ROOT": "/mnt/nfs"}, "/mnt/nfs"),
        ({"ATELIER_STORAGE__ROOT": "bytes"}, "{home}/bytes"),
    ],
)
def test_objects_lie_in_the_data_dir_unless_told_otherwise(home, monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(Settings(home=home).storage.root) == expected.format(home=home)


def test_settings_say_which_storage_there_is(home, monkeypatch):
    monkeypatch.setenv("STORAGE_PROVIDER", "floppy")
    with pytest.raises(ValidationError, match=r"STORAGE_PROVIDER is one of local, s3, r2, gcs, cf_images") as refused:
        Settings(home=home)
    assert refused.value.error_count() == 1


def test_google_by_the_names_that_its_users_have(home, monkeypatch):
    monkeypatch.setenv("STORAGE_PROVIDER", "gcs")
    with pytest.raises(ValidationError, match="STORAGE_PROVIDER=gcs needs GCS_BUCKET_NAME"):
        Settings(home=home)
    monkeypatch.setenv("GCS_BUCKET_NAME", "results")
    monkeypatch.setenv("GCS_BUCKET_REGION", "EUROPE-WEST4")
    monkeypatch.setenv("ATELIER_STORAGE__GCS__PREFIX", "atelier")
    storage = Settings(home=home).storage
    assert (storage.provider, storage.gcs.bucket, storage.gcs.region, storage.gcs.prefix) == ("gcs", "results", "EUROPE-WEST4", "atelier/")
    assert storage.sends_files
    monkeypatch.setenv("ATELIER_STORAGE__GCS__BUCKET", "another")
    with pytest.raises(ValidationError, match=r"storage\.gcs\.bucket is not set here but by GCS_BUCKET_NAME"):
        Settings(home=home)


def test_cloudflare_images_by_the_names_that_its_users_have(home, monkeypatch):
    monkeypatch.setenv("STORAGE_PROVIDER", "cf_images")
    with pytest.raises(ValidationError, match="STORAGE_PROVIDER=cf_images needs CF_IMAGES_ACCOUNT_ID"):
        Settings(home=home)
    monkeypatch.setenv("CF_IMAGES_ACCOUNT_ID", "abc")
    monkeypatch.setenv("CF_IMAGES_API_TOKEN", "knows-everything")
    settings = Settings(home=home)
    assert (settings.storage.provider, settings.storage.beside, settings.storage.cf_images.account_id) == ("cf_images", "local", "abc")
    assert settings.storage.uses == {"cf_images", "local"}
    assert "knows-everything" not in repr(settings)
    monkeypatch.setenv("ATELIER_SERVICE__FILES_FROM", "store")
    with pytest.raises(ValidationError, match="CF_IMAGES_DELIVERY_DOMAIN"):
        Settings(home=home)
    monkeypatch.setenv("CF_IMAGES_DELIVERY_DOMAIN", "images.example.com")
    assert Settings(home=home).storage.cf_images.delivery_domain == "images.example.com"


def test_the_store_beside_cloudflare_images_has_its_own_settings(home, monkeypatch):
    monkeypatch.setenv("STORAGE_PROVIDER", "cf_images")
    monkeypatch.setenv("CF_IMAGES_ACCOUNT_ID", "abc")
    for beside, needed in (("gcs", "GCS_BUCKET_NAME"), ("r2", "ATELIER_STORAGE__S3__BUCKET"), ("s3", "ATELIER_STORAGE__S3__BUCKET")):
        monkeypatch.setenv("ATELIER_STORAGE__BESIDE", beside)
        with pytest.raises(ValidationError, match=needed):
            Settings(home=home)
    monkeypatch.setenv("ATELIER_STORAGE__BESIDE", "r2")
    monkeypatch.setenv("R2_BUCKET_NAME", "results")
    monkeypatch.setenv("R2_ACCOUNT_ID", "abc")
    storage = Settings(home=home).storage
    assert (storage.s3.bucket, storage.s3.endpoint) == ("results", "https://abc.r2.cloudflarestorage.com")
    assert storage.place == "cf_images: account abc and r2: bucket results"


def test_r2_by_the_names_that_its_users_have(home, monkeypatch):
    monkeypatch.setenv("STORAGE_PROVIDER", "r2")
    with pytest.raises(ValidationError, match="needs R2_BUCKET_NAME and R2_ACCOUNT_ID"):
        Settings(home=home)
    monkeypatch.setenv("R2_BUCKET_NAME", "results")
    monkeypatch.setenv("R2_ACCOUNT_ID", "abc")
    monkeypatch.setenv("ATELIER_STORAGE__S3__PREFIX", "atelier")
    storage = Settings(home=home).storage
    assert (storage.provider, storage.s3.bucket, storage.s3.prefix, storage.s3.region) == ("r2", "results", "atelier/", "auto")
    assert storage.s3.endpoint == "https://abc.r2.cloudflarestorage.com"


def test_a_public_bucket_of_r2_is_where_files_are_read(home, monkeypatch):
    for name, value in {
        "STORAGE_PROVIDER": "r2",
        "R2_BUCKET_NAME": "results",
        "R2_ACCOUNT_ID": "abc",
        "R2_PUBLIC_DOMAIN": "media.example.com",
    }.items():
        monkeypatch.setenv(name, value)
    assert Settings(home=home).api.files_url == "https://media.example.com"
    monkeypatch.setenv("ATELIER_STORAGE__S3__PREFIX", "atelier")
    assert Settings(home=home).api.files_url == "https://media.example.com/atelier"
    monkeypatch.setenv("R2_PUBLIC_DOMAIN", "https://media.example.com/")
    monkeypatch.setenv("ATELIER_STORAGE__S3__PREFIX", "")
    assert Settings(home=home).api.files_url == "https://media.example.com"
    monkeypatch.setenv("STORAGE_PROVIDER", "local")
    assert Settings(home=home).api.files_url is None


def test_a_folder_sends_no_files(home, monkeypatch):
    monkeypatch.setenv("ATELIER_SERVICE__FILES_FROM", "store")
    with pytest.raises(ValidationError, match="a folder sends no files"):
        Settings(home=home)


def test_s3_needs_a_bucket(home, monkeypatch):
    monkeypatch.setenv("STORAGE_PROVIDER", "s3")
    with pytest.raises(ValidationError, match="ATELIER_STORAGE__S3__BUCKET"):
        Settings(home=home)
    monkeypatch.setenv("ATELIER_STORAGE__S3__BUCKET", "results")
    assert Settings(home=home).storage.s3.bucket == "results"


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("COMFYUI_URL", "gpu1:port", "comfyui_url"),
        ("COMFYUI_CLIENT_ID", "studio 1", "comfyui_client_id"),
        ("GATEWAY_HTTP_STATUS", "400", "gateway_http_status"),
    ],
)
def test_settings_refuse_a_value_once_and_not_where_it_is_handed_to(home, monkeypatch, name, value, field):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        Settings(home=home)
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


@pytest.mark.parametrize(("text", "enabled"), [(' ["tasks"]', {"tasks"}), ("[]", set()), ("gateway,", {"gateway"})])
def test_dialects_may_be_written_loosely(home, monkeypatch, text, enabled):
    monkeypatch.setenv("ATELIER_DIALECTS__ENABLED", text)
    assert Settings(home=home).dialects.enabled == enabled


def test_dialects_say_how_they_are_written(home, monkeypatch):
    monkeypatch.setenv("ATELIER_DIALECTS__ENABLED", "[tasks")
    with pytest.raises(ValidationError, match="separated by commas or written as a JSON list"):
        Settings(home=home)


def test_settings_cannot_be_changed(home):
    with pytest.raises(ValidationError, match="frozen"):
        Settings(home=home).port = 1


def test_env_example_is_what_the_settings_say():
    assert (HOME / ".env.example").read_text(encoding="utf-8") == environment_example(), "run: make env-example"


def test_env_example_uncommented_changes_nothing(home):
    given = [line[2:] for line in environment_example().splitlines() if "=" in line.partition(" ")[2].split(" ")[0] and line[2:3].isupper()]
    assert len(given) > 20
    write(home, ".env", "\n".join(given))
    from_example = Settings(home=home)
    (home / ".env").unlink()
    assert from_example == Settings(home=home)


@pytest.mark.parametrize(
    ("written", "expected"), [("keys/google.json", "{home}/keys/google.json"), ("/keys/google.json", "/keys/google.json")]
)
def test_google_s_key_file_is_found_from_everywhere(home, monkeypatch, written, expected):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CF_IMAGES_API_TOKEN", "")
    monkeypatch.delenv("CF_IMAGES_API_TOKEN")
    (home / ".env").write_text(f"GOOGLE_APPLICATION_CREDENTIALS={written}\nCF_IMAGES_API_TOKEN=hidden\n")
    export_keys(Settings(home=home))
    assert os.environ["GOOGLE_APPLICATION_CREDENTIALS"] == expected.format(home=home)
    assert os.environ["CF_IMAGES_API_TOKEN"] == "hidden"
    assert "hidden" not in Settings(home=home).model_dump_json()


def test_keys_of_the_object_store_come_from_the_environment_or_env_file_and_are_no_settings(home, monkeypatch):
    (home / ".env").write_text("R2_ACCESS_KEY=from-file\nR2_SECRET_KEY=hidden\nHOOK_KEY=signs\nSOMETHING_ELSE=x\n")
    monkeypatch.setenv("R2_ACCESS_KEY", "from-environment")
    monkeypatch.setenv("R2_SECRET_KEY", "")
    monkeypatch.delenv("R2_SECRET_KEY")
    monkeypatch.delenv("HOOK_KEY", raising=False)
    monkeypatch.setenv("ATELIER_WEBHOOKS__SECRETS", '{"default": ["HOOK_KEY"]}')
    export_keys(Settings(home=home))
    assert os.environ["HOOK_KEY"] == "signs"
    assert (os.environ["R2_ACCESS_KEY"], os.environ["R2_SECRET_KEY"]) == ("from-environment", "hidden")
    assert "SOMETHING_ELSE" not in os.environ
    assert "hidden" not in Settings(home=home).model_dump_json()
