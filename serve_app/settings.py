"""All settings, read once: the only reader of the environment and of ``configs/*.yaml``.

A value comes from the first of these that has it:

1. arguments of ``Settings(...)``
2. the environment
3. ``.env`` in ``ATELIER_HOME`` (names it does not know are somebody else's and ignored)
4. ``DEBUG``, of the log level alone
5. ``configs/<APP_ENV>.yaml`` in ``ATELIER_HOME`` (an unknown name stops the start)
6. ``configs/base.yaml``
7. the default in the model

The boxes of the graph never see ``Settings``: each gets its own small frozen config by ``bind``. Where replicas run, how many and on
what share of a GPU is not here but in ``placement.AppArgs``, which Serve reads from ``serve_config.yaml``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from deployments.comfyui_bridge.config import CLIENT_ID_PREFIX, ComfyConfig
from deployments.drawing.config import DrawingConfig
from deployments.duix_bridge.config import DEFAULT_DATA_DIR, DuixConfig
from deployments.engines.content_filter.config import FilterConfig
from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face_swap.config import FaceSwapConfig
from deployments.engines.marking.config import MarkingConfig
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.config import RunnerConfig, StoreConfig, WebhookConfig, WorkerConfig
from deployments.jobs.intake import IntakeLimits
from deployments.jobs.retention import RetentionConfig
from deployments.jobs.service import ServiceConfig
from deployments.storage.cloud_configs import CF_IMAGES_TOKEN, GCS_CREDENTIALS
from deployments.storage.factory import R2_KEYS, Provider, StorageConfig, r2_config
from deployments.storage.fetch import FetchConfig
from deployments.storage.inputs import InputCacheConfig
from deployments.storage.sweep import SweepConfig
from serve_app.api.config import ApiConfig
from serve_app.api.signing import KEYS_NAME as LINK_KEYS
from serve_app.comfyui_names import address_of, one_meaning
from serve_app.dialects.config import DialectsConfig, split_names

WORK = "work"  # folder of the data directory in which workers compute
HOME = Path(__file__).resolve().parent.parent
LOOPBACK_OF_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- who listens everywhere is reached at loopback
YES = frozenset({"1", "true", "yes", "on"})
AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
KEYS = frozenset({*R2_KEYS, *AWS_KEYS, CF_IMAGES_TOKEN, GCS_CREDENTIALS, LINK_KEYS})  # of object stores, and of links
NOT_IN_YAML = frozenset({"home", "app_env", "debug"})  # the first two decide which yaml is read; yaml has log_level for the third
ELSEWHERE: Mapping[tuple[str, ...], str] = {  # fields of nested configs that are filled from their one home
    ("service", "can_sign"): "ATELIER_MARKING__CERTIFICATE",
    ("service", "storages"): "ATELIER_STORAGE__ALSO",
    ("store", "database_url"): "ATELIER_DATABASE_URL",
    ("storage", "provider"): "STORAGE_PROVIDER",
    ("storage", "gcs", "bucket"): "GCS_BUCKET_NAME",
    ("storage", "gcs", "region"): "GCS_BUCKET_REGION",
    ("storage", "cf_images", "account_id"): "CF_IMAGES_ACCOUNT_ID",
    ("storage", "cf_images", "delivery_domain"): "CF_IMAGES_DELIVERY_DOMAIN",
    ("fetch", "allow"): "ATELIER_FETCH_ALLOW",
    ("fetch", "max_bytes"): "media.max_bytes",
    ("worker", "slots"): "args.pools.<name>.slots in serve_config.yaml",
    ("worker", "drain_s"): "args.pools.<name>.graceful_shutdown_timeout_s in serve_config.yaml",
    ("comfyui", "backends"): "COMFYUI_URL",
    ("comfyui", "client_id_prefix"): "COMFYUI_CLIENT_ID",
    ("duix", "upstreams"): "DUIX_INTERNAL_URL",
    ("duix", "data_dir"): "DUIX_DATA_DIR",
    ("duix", "cleanup_delay_s"): "CLEANUP_DELAY",
    ("api", "work_root"): "ATELIER_DATA_DIR",
    ("dialects", "gateway_http_status"): "GATEWAY_HTTP_STATUS",
    ("dialects", "face2face_timeout_s"): "FACE2FACE_TIMEOUT_S",
    ("api", "data_dir"): "ATELIER_DATA_DIR",
    ("face_swap", "limits"): "the media settings",
    ("face_swap", "session", "device"): "args.profile in serve_config.yaml",
    ("face2face", "limits"): "the media settings",
    ("face2face", "session", "device"): "args.profile in serve_config.yaml",
    ("intake", "upload_bytes"): "media.max_bytes",
    ("api", "max_upload_bytes"): "media.max_bytes",
    ("api", "media"): "the media settings",
    ("api", "bind_host"): "HOST",
    ("api", "title"): "the code",
    ("api", "version"): "the code",
}


class StrictYaml(YamlConfigSettingsSource):
    """A yaml file in which every name must be a setting."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"the settings file {path} does not exist: check APP_ENV and ATELIER_HOME")
        super().__init__(settings_cls, yaml_file=path, yaml_file_encoding="utf-8")
        unknown = sorted(self.yaml_data.keys() - (settings_cls.model_fields.keys() - NOT_IN_YAML))
        if unknown:
            raise ValueError(f"{path} sets what is no setting: {', '.join(unknown)}")


class Settings(BaseSettings):
    """What an operator may choose, except placement."""

    model_config = SettingsConfigDict(
        env_prefix="ATELIER_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,  # a rejected value may be a secret
    )

    # A validation alias is the whole name in the environment, without the prefix.
    app_env: Literal["development", "production"] = Field(
        "development", validation_alias="app_env", description="settings profile: which configs/<APP_ENV>.yaml is read"
    )
    home: Path = Field(HOME, description="folder of configs/ and workflows/; default: the folder above serve_app")
    data_dir: Path = Field(Path("var"), description="database, local store and caches; a relative path starts at ATELIER_HOME")
    database_url: str | None = Field(
        None,
        description="job database, sqlite:///<path> or postgresql+psycopg://user@host/name with the password in PGPASSWORD; "
        "default: atelier.db in ATELIER_DATA_DIR",
    )
    host: str = Field("127.0.0.1", validation_alias="host", description="address to listen on; anything else than loopback is your choice")
    port: int = Field(8000, ge=1, le=65535, validation_alias="port", description="port to listen on")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias="log_level", description="least level logged")
    debug: str = Field(
        "", validation_alias="debug", description="True, 1, yes or on: as LOG_LEVEL=DEBUG where LOG_LEVEL is not set; all else is ignored"
    )
    task_api_url: str = Field(
        "", validation_alias="task_api_url", description="service that the command line talks to; default: the one on HOST and PORT"
    )
    fetch_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="hosts and CIDRs that may be fetched from although they are private; comma-separated"
    )

    comfyui_comfyui_server: str = Field(
        "", validation_alias="comfyui_comfyui_server", description="COMFYUI_URL as the middleware names it: host:port"
    )
    comfyui_host: str = Field(
        "",
        validation_alias="comfyui_host",
        description="COMFYUI_URL in two parts, as the gateway names it; default: 127.0.0.1 where the port is set",
    )
    comfyui_port: str = Field("", validation_alias="comfyui_port", description="its other part; default: 8188 where the host is set")
    comfyui_server: str = Field("", validation_alias="comfyui_server", description="COMFYUI_URL as the drawing service names it")
    comfyui_url: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="comfyui_url",
        description="ComfyUI servers that workflows run on, comma-separated: http://host:port, a missing scheme is http; with options: "
        "http://gpu1:8188#name=gpu1&tags=sdxl+flux&weight=2&in_flight=1 (in_flight: prompts sent at once, 1 or 2). "
        "Of it and the four names before, those that are set must name the same servers",
    )
    comfyui_client_id: str = Field(
        ComfyConfig().client_id_prefix,
        validation_alias="comfyui_client_id",
        pattern=CLIENT_ID_PREFIX,
        description="begins the ids under which this installation is known to its ComfyUI servers: two that share a server need two",
    )
    gateway_http_status: Literal["envelope", "mapped"] = Field(
        "envelope",
        validation_alias="gateway_http_status",
        description="HTTP status of the gateway's answers: always 200 with the code in the body, or 400, 404, 500, 502 by the code",
    )
    face2face_timeout_s: float = Field(
        DialectsConfig().face2face_timeout_s,
        ge=1,
        le=86400,
        validation_alias="face2face_timeout_s",
        description="longest time that POST /api/generate_video takes, seconds, waiting in the queue included; "
        "proxies in front of the service must wait longer",
    )
    face2face_auto: Annotated[tuple[Literal["duix", "wav2lip", "mesh"], ...], NoDecode, BeforeValidator(split_names)] = Field(
        ("duix", "wav2lip", "mesh"),
        description="engines that a face2face job may be given that names none, best first; separated by commas",
    )
    duix_internal_url: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="duix_internal_url",
        description="Duix services that face2face jobs run on, comma-separated: http://host:8383; with options: "
        "http://gpu1:8383#name=gpu1&data_dir=/mnt/gpu1, or http://gpu1:8383#results=http://gpu1:8090/temp where no folder is shared",
    )
    duix_data_dir: Path = Field(
        DEFAULT_DATA_DIR,
        validation_alias="duix_data_dir",
        description="data folder of the Duix services as this machine sees it, where they have none of their own",
    )
    cleanup_delay: float = Field(
        DuixConfig().cleanup_delay_s,
        ge=0,
        validation_alias="cleanup_delay",
        description="seconds for which the files of a finished task stay in a folder shared with a Duix service; our own go at once",
    )
    periodic_cleanup_interval: float = Field(
        SweepConfig().interval_s,
        gt=0,
        validation_alias="periodic_cleanup_interval",
        description="seconds between two looks for files that killed processes left",
    )
    max_file_age: float = Field(
        SweepConfig().max_age_s,
        gt=0,
        validation_alias="max_file_age",
        description="seconds for which such a file has not changed before it is removed where its process may still live",
    )
    r2_bucket_name: str | None = Field(None, validation_alias="r2_bucket_name", description="bucket of Cloudflare R2")
    r2_account_id: str | None = Field(
        None,
        validation_alias="r2_account_id",
        description="account at Cloudflare; the keys are read from R2_ACCESS_KEY and R2_SECRET_KEY by the processes that use them",
    )
    r2_public_domain: str | None = Field(
        None,
        validation_alias="r2_public_domain",
        description="name under which Cloudflare shows the bucket to everybody, such as media.example.com: files' URLs then lead there",
    )
    gcs_bucket_name: str | None = Field(
        None,
        validation_alias="gcs_bucket_name",
        description="bucket of Google Cloud Storage; the credentials are read by the processes that use them, from the key file that "
        "GOOGLE_APPLICATION_CREDENTIALS names or from the machine's account",
    )
    gcs_bucket_region: str | None = Field(
        None,
        validation_alias="gcs_bucket_region",
        description="where that bucket is, such as EUROPE-WEST4; the start fails when it is elsewhere",
    )
    cf_images_account_id: str | None = Field(
        None,
        validation_alias="cf_images_account_id",
        description="account of Cloudflare Images; the token is read from CF_IMAGES_API_TOKEN by the processes that use it",
    )
    cf_images_delivery_domain: str | None = Field(
        None,
        validation_alias="cf_images_delivery_domain",
        description="domain of that account from which Cloudflare sends pictures to readers, re-encoded and without their marks, where "
        "ATELIER_SERVICE__FILES_FROM=store; not set: this service sends them as they are",
    )
    storage_provider: str = Field(
        "local",
        validation_alias="storage_provider",
        description="kind of object store: local, s3 (AWS, MinIO, Ceph and others), r2, gcs (Google Cloud Storage) or cf_images "
        "(Cloudflare Images, which holds pictures alone; see ATELIER_STORAGE__BESIDE)",
    )

    store: StoreConfig = Field({}, description="job store")  # type: ignore[assignment]  # validated, with what follows from above
    worker: WorkerConfig = Field(WorkerConfig(), description="how a replica takes work")
    webhooks: WebhookConfig = Field(WebhookConfig(), description="delivery of webhooks")
    retention: RetentionConfig = Field(RetentionConfig(), description="removal of what is old")
    runner: RunnerConfig = Field(RunnerConfig(), description="how workers keep in touch with the store")
    marking: MarkingConfig = Field(MarkingConfig(), description="marks in results that say they are generated")
    filter: FilterConfig = Field(FilterConfig(), description="classifier that inputs and results must pass")
    media: MediaLimits = Field(MediaLimits(), description="upper bounds of inputs")
    storage: StorageConfig = Field({}, description="object store")  # type: ignore[assignment]  # same
    fetch: FetchConfig = Field({}, description="inputs by URL")  # type: ignore[assignment]  # same
    inputs: InputCacheConfig = Field({}, description="cache of inputs on each machine")  # type: ignore[assignment]  # same
    comfyui: ComfyConfig = Field({}, description="ComfyUI bridge")  # type: ignore[assignment]  # same
    face_swap: FaceSwapConfig = Field({}, description="face-swap engine")  # type: ignore[assignment]  # same
    face2face: Face2FaceConfig = Field({}, description="face2face engine")  # type: ignore[assignment]  # same
    duix: DuixConfig = Field({}, description="Duix bridge")  # type: ignore[assignment]  # same
    drawing: DrawingConfig = Field({}, description="sketches that become pictures while they are drawn")  # type: ignore[assignment]  # same
    dialects: DialectsConfig = Field({}, description="APIs of older services")  # type: ignore[assignment]  # same
    api: ApiConfig = Field({}, description="HTTP API")  # type: ignore[assignment]  # same
    intake: IntakeLimits = Field({}, description="upper bounds of uploads")  # type: ignore[assignment]  # same
    service: ServiceConfig = Field(ServiceConfig(), description="upper bounds of requests")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- replaced, because its place follows from ATELIER_HOME
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- not offered
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in their order; the first two say where the others lie."""
        home = _first("home", init_settings, env_settings) or HOME
        dotenv = DotEnvSettingsSource(settings_cls, env_file=Path(home) / ".env", env_file_encoding="utf-8")
        profile = _first("app_env", init_settings, env_settings, dotenv) or settings_cls.model_fields["app_env"].default
        configs = Path(home) / "configs"
        yaml = [StrictYaml(settings_cls, configs / f"{name}.yaml") for name in (profile, "base")]
        # Other programs use the name for other things (DEBUG=app:*): what is no yes is ignored.
        asked = str(_first("debug", init_settings, env_settings, dotenv)).strip().lower() in YES
        debug = InitSettingsSource(settings_cls, {"log_level": "DEBUG"} if asked else {})
        return init_settings, env_settings, dotenv, debug, *yaml

    @property
    def work_root(self) -> Path:
        """Folder in which workers compute."""
        return self.data_dir / WORK

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("task_api_url")
    @classmethod
    def _server_of_host_and_port(cls, value: str, info: ValidationInfo) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("a server's address looks like http://127.0.0.1:8000")
        if value or not {"host", "port"} <= info.data.keys():
            return value
        return url_of(info.data["host"], info.data["port"])

    @field_validator("comfyui_url", "duix_internal_url", mode="before")
    @classmethod
    def _split_servers(cls, value: object) -> object:
        return _servers(value) if isinstance(value, str) else value

    @field_validator("comfyui_url")
    @classmethod
    def _all_names_mean_the_same(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        data = info.data
        others = {
            "COMFYUI_COMFYUI_SERVER": _servers(data.get("comfyui_comfyui_server", "")),
            "COMFYUI_HOST and COMFYUI_PORT": _servers(address_of(data.get("comfyui_host", ""), data.get("comfyui_port", ""))),
            "COMFYUI_SERVER": _servers(data.get("comfyui_server", "")),
        }
        return one_meaning({"COMFYUI_URL": value, **others})

    @field_validator("comfyui", mode="before")
    @classmethod
    def _comfyui_drives_the_servers(cls, value: object, info: ValidationInfo) -> object:
        data = info.data
        return _fill(value, backends=data.get("comfyui_url"), client_id_prefix=data.get("comfyui_client_id"))

    @field_validator("duix", mode="before")
    @classmethod
    def _duix_drives_the_services(cls, value: object, info: ValidationInfo) -> object:
        return _fill(
            value,
            upstreams=info.data.get("duix_internal_url"),
            data_dir=info.data.get("duix_data_dir"),
            cleanup_delay_s=info.data.get("cleanup_delay"),
        )

    @field_validator("dialects", mode="before")
    @classmethod
    def _dialects_answer_as_set(cls, value: object, info: ValidationInfo) -> object:
        data = info.data
        return _fill(value, gateway_http_status=data.get("gateway_http_status"), face2face_timeout_s=data.get("face2face_timeout_s"))

    @field_validator("fetch_allow", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("storage_provider")
    @classmethod
    def _provider_is_there(cls, value: str, info: ValidationInfo) -> str:
        if value not in get_args(Provider):
            raise ValueError(f"STORAGE_PROVIDER is one of {', '.join(get_args(Provider))}")
        if value == "gcs" and not info.data.get("gcs_bucket_name"):
            raise ValueError("STORAGE_PROVIDER=gcs needs GCS_BUCKET_NAME")
        if value == "cf_images" and not info.data.get("cf_images_account_id"):
            raise ValueError("STORAGE_PROVIDER=cf_images needs CF_IMAGES_ACCOUNT_ID")
        if value == "r2" and not (info.data.get("r2_bucket_name") and info.data.get("r2_account_id")):
            raise ValueError("STORAGE_PROVIDER=r2 needs R2_BUCKET_NAME and R2_ACCOUNT_ID")
        return value

    @field_validator("home")
    @classmethod
    def _absolute_home(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("data_dir")
    @classmethod
    def _below_home(cls, value: Path, info: ValidationInfo) -> Path:
        return info.data["home"] / value.expanduser() if "home" in info.data else value

    @field_validator("database_url")
    @classmethod
    def _sqlite_in_data_dir(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and "data_dir" in info.data:
            return f"sqlite:///{info.data['data_dir'] / 'atelier.db'}"
        return value

    @model_validator(mode="before")
    @classmethod
    def _one_home_per_fact(cls, values: dict[str, object]) -> dict[str, object]:
        for path, home in ELSEWHERE.items():
            if _is_given(values, path):
                raise ValueError(f"{'.'.join(path)} is not set here but by {home}")
        return values

    @field_validator("store", mode="before")
    @classmethod
    def _store_uses_the_database(cls, value: object, info: ValidationInfo) -> object:
        return _fill(value, database_url=info.data.get("database_url"))

    @field_validator("storage", mode="before")
    @classmethod
    def _storage_of_the_provider(cls, value: object, info: ValidationInfo) -> object:
        data = info.data
        value = _fill(_below_data_dir(value, "objects", info), provider=data.get("storage_provider"))
        if not isinstance(value, Mapping):
            return value
        gcs = _fill(value.get("gcs") or {}, bucket=data.get("gcs_bucket_name"), region=data.get("gcs_bucket_region"))
        pictures = {"account_id": data.get("cf_images_account_id"), "delivery_domain": data.get("cf_images_delivery_domain")}
        filled = {**value, "gcs": gcs, "cf_images": _fill(value.get("cf_images") or {}, **pictures)}
        bucket, account_id = data.get("r2_bucket_name"), data.get("r2_account_id")
        kinds = {value.get("provider"), *(value.get("also") or ())}
        is_r2 = "r2" in kinds | ({value.get("beside")} if "cf_images" in kinds else set())
        if is_r2 and bucket and account_id:  # what is set for S3 by name, such as a prefix, is kept
            filled["s3"] = _fill(value.get("s3") or {}, **r2_config(bucket, account_id))
        return filled

    @field_validator("inputs", mode="before")
    @classmethod
    def _inputs_in_data_dir(cls, value: object, info: ValidationInfo) -> object:
        return _below_data_dir(value, "inputs", info)

    @field_validator("fetch", mode="before")
    @classmethod
    def _fetch_within_the_limits(cls, value: object, info: ValidationInfo) -> object:
        media = info.data.get("media")
        return _fill(value, allow=info.data.get("fetch_allow"), max_bytes=media.max_bytes if media else None)

    @field_validator("api", mode="before")
    @classmethod
    def _api_listens_and_takes_what_jobs_take(cls, value: object, info: ValidationInfo) -> object:
        media = info.data.get("media")
        data, most = info.data, media.max_bytes if media else None
        return _fill(
            value,
            bind_host=data.get("host"),
            media=media,
            max_upload_bytes=most,
            data_dir=data.get("data_dir"),
            work_root=data["data_dir"] / WORK if "data_dir" in data else None,
            files_url=_public_bucket(data),
        )

    @field_validator("intake", mode="before")
    @classmethod
    def _uploads_are_what_jobs_take(cls, value: object, info: ValidationInfo) -> object:
        media = info.data.get("media")
        return _fill(value, upload_bytes=media.max_bytes if media else None)

    @field_validator("face_swap", mode="before")
    @classmethod
    def _face_swap_uses_the_limits(cls, value: object, info: ValidationInfo) -> object:
        return _fill(value, limits=info.data.get("media"))

    @field_validator("face2face", mode="before")
    @classmethod
    def _face2face_uses_the_limits(cls, value: object, info: ValidationInfo) -> object:
        return _fill(_below_data_dir(value, "references", info), limits=info.data.get("media"))

    @model_validator(mode="after")
    def _the_store_can_send_files(self) -> Settings:
        if self.service.files_from == "store" and not self.storage.sends_files:
            raise ValueError(
                "service.files_from=store needs a bucket: a folder sends no files, set STORAGE_PROVIDER (with cf_images "
                "CF_IMAGES_DELIVERY_DOMAIN or ATELIER_STORAGE__BESIDE) or leave it at service"
            )
        return self

    @model_validator(mode="after")
    def _heartbeats_fit_in_a_lease(self) -> Settings:
        if self.runner.heartbeat_s * 2 > self.store.lease_s:
            raise ValueError("runner.heartbeat_s must be at most half of store.lease_s, or one slow heartbeat loses the job")
        return self


def _public_bucket(data: Mapping[str, Any]) -> str | None:
    """Return where a public bucket of R2 is read, with the folder in it that is ours."""
    domain, storage = data.get("r2_public_domain"), data.get("storage")
    if not domain or storage is None or storage.provider != "r2":
        return None
    address = domain if "://" in domain else f"https://{domain}"
    return f"{address.rstrip('/')}/{storage.s3.prefix}".rstrip("/")


def url_of(host: str, port: int) -> str:
    """Return the address at which this machine reaches a service that listens on ``host``."""
    host = LOOPBACK_OF_ANY.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def unknown_names(home: Path) -> list[str]:
    """Return the names in the environment and in ``.env`` that begin as ours and are no setting: nobody reads them."""
    known = {name for name, field in Settings.model_fields.items() if field.validation_alias is None}
    known.add(LINK_KEYS.lower().removeprefix("atelier_"))
    dotenv = DotEnvSettingsSource(Settings, env_file=home / ".env", env_file_encoding="utf-8")
    given = {name.lower() for source in (EnvSettingsSource(Settings), dotenv) for name in source.env_vars}
    ours = (name for name in given if name.startswith("atelier_"))
    return sorted(name.upper() for name in ours if name.removeprefix("atelier_").partition("__")[0] not in known)


def export_keys(settings: Settings) -> None:
    """Put the keys of the object store, of links and of webhooks from ``.env`` into the environment, which wins over them.

    They are no settings: what is bound to a deployment can be read in the cluster's metadata. The processes that use them find them in the
    environment, which those of a local cluster have from this one.
    """
    keys = KEYS.union(*settings.webhooks.secrets.values())
    for name, value in dotenv_values(settings.home / ".env", encoding="utf-8").items():
        if name in keys and value:
            is_path = name == GCS_CREDENTIALS  # relative to .env, because the processes of a cluster start elsewhere
            os.environ.setdefault(name, str(settings.home / Path(value).expanduser()) if is_path else value)


def environment_example() -> str:
    """Return the text of ``.env.example``: every name in the environment with its default and its meaning."""
    head = "# Every setting. Copy to .env and uncomment what you change. Generated from serve_app/settings.py: make env-example\n"
    return head + "".join(_example_lines(Settings, ()))


def _example_lines(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        here = (*path, name)
        if here in ELSEWHERE:
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"\n# == {field.description}\n"
            yield from _example_lines(field.annotation, here)
        else:
            prefix = "" if field.validation_alias else "ATELIER_"
            yield f"\n# {field.description}\n# {prefix}{'__'.join(here).upper()}={_to_text(field.get_default())}\n"


def _to_text(default: object) -> str:
    if default is None or any(default == none for none in (PydanticUndefined, HOME)):
        return ""
    if isinstance(default, tuple | frozenset):
        ordered = default if isinstance(default, tuple) else sorted(default)
        return json.dumps(ordered) if ordered else ""
    return str(default)


def _first(name: str, *sources: PydanticBaseSettingsSource) -> str | Path | None:
    found: list[str | Path | None] = [source().get(name) for source in sources]
    return next((value for value in found if value), None)


def _is_given(values: object, path: tuple[str, ...]) -> bool:
    if not path:
        return True
    return isinstance(values, Mapping) and path[0] in values and _is_given(values[path[0]], path[1:])


def _servers(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _below_data_dir(value: object, folder: str, info: ValidationInfo) -> object:
    """Give a nested config its ``root``: a folder of the data directory, or what was set, relative to home."""
    if not isinstance(value, Mapping) or "data_dir" not in info.data:
        return value
    root = Path(value.get("root") or info.data["data_dir"] / folder).expanduser()
    return {**value, "root": info.data["home"] / root}


def _fill(value: object, **defaults: object) -> object:
    """Add to the mapping of a nested config what it takes over from a setting above it; a setting that was refused is None."""
    taken = {name: default for name, default in defaults.items() if default is not None}
    return {**taken, **value} if isinstance(value, Mapping) else value


if __name__ == "__main__":
    print(environment_example(), end="")  # noqa: T201 -- make env-example
