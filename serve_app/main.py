"""Composition root: from the arguments of ``serve_config.yaml`` and the settings to a Serve application.

The only file that knows which box runs where. Boxes are plain classes; they become deployments here.
"""

# No `from __future__ import annotations`: Serve tells from the annotation of `build_app` which model its `args:` are, and a string is none.

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import ServeDeploySchema

from deployments.comfyui import BridgeSetup, ComfyUI
from deployments.duix import Duix, DuixSetup
from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face_swap.config import FaceSwapConfig
from deployments.engines.onnx import check_one_runtime
from deployments.face2face import Face2Face
from deployments.face_swap import FaceSwap
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.spec import DUIX_POOL
from deployments.storage.sweep import SweepConfig
from deployments.uploader import Uploader
from deployments.webhooks import Webhooks, WebhooksSetup, read_secrets
from deployments.worker import WorkerSetup
from serve_app.api.signing import read_keys
from serve_app.capabilities import describe, installed
from serve_app.ingress import Ingress, IngressSetup
from serve_app.placement import AppArgs, PoolOptions
from serve_app.settings import Settings

log = get_logger(__name__)

APP_NAME = "atelier"

# Every WebSocket and event stream holds one request of its replica for as long as it is open.
MAX_STREAMS = 2000

DRAIN_MARGIN_S = 15.0  # a drain ends so much before Serve would kill the replica, to hand back what has not ended
HIDE_GPU = {"runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}  # an actor without a GPU share would still see the GPU


def build_app(args: AppArgs) -> Application:
    """Build the application; runs in a task on the cluster when ``serve deploy`` is called.

    Raises:
        ValueError: the gpu profile on a cluster without a GPU.
        EngineFailed: both builds of ONNX Runtime are installed.
    """
    return _build(args, Settings())


def _build(args: AppArgs, settings: Settings) -> Application:
    check_one_runtime()
    gpu = wants_gpu(args.profile)
    uploader = _deploy_uploader(settings, gpu=gpu)
    pools = {name: _deploy_pool(name, options, settings, uploader, gpu=gpu) for name, options in args.pools.items()}
    return _deploy_ingress(settings, uploader, pools, gpu=gpu)


def wants_gpu(profile: str) -> bool:
    """Decide between CPU and GPU.

    Raises:
        ValueError: a GPU is asked for and the cluster has none.
    """
    if profile == "cpu":
        return False
    found = bool(ray.cluster_resources().get("GPU", 0))
    if profile == "gpu" and not found:
        raise ValueError("profile gpu: this cluster has no GPU. Add a GPU node, or set args.profile to cpu or auto in serve_config.yaml")
    return found


def run_local(settings: Settings, announce: Callable[[str], None]) -> None:
    """Start Ray and Serve on this machine, deploy ``serve_config.yaml`` to them and stay until SIGINT or SIGTERM.

    A stop does not wait for running jobs: they are on disk and run again at the next start.

    Args:
        settings: used here and by every replica.
        announce: called once the application answers, with the address of Ray's dashboard.

    Raises:
        ValueError: the gpu profile on a machine without a GPU.
        EngineFailed: both builds of ONNX Runtime are installed.
        RuntimeError: the application does not start.
    """
    config = ServeDeploySchema.model_validate(yaml.safe_load((settings.home / "serve_config.yaml").read_text("utf-8")))
    args = AppArgs.model_validate(config.applications[0].args)
    try:
        dashboard = _start_ray(settings)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has just put a handler of its own there
        serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=config.logging_config)
        serve.run(_build(args, settings), name=APP_NAME, route_prefix="/", logging_config=config.logging_config)
        announce(dashboard)
        threading.Event().wait()
    except KeyboardInterrupt:
        log.info("stopping", extra=fields(action="serve_stopping"))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave processes behind
        ray.shutdown()


def _start_ray(settings: Settings) -> str:
    """Start a cluster of this machine alone and return its dashboard's address.

    Ray's own ports listen on every interface whatever address it is given; its token, which ``ray.init`` makes by default, guards them.
    """
    debug = settings.log_level == "DEBUG"
    logging.getLogger("ray.serve").setLevel(logging.INFO if debug else logging.WARNING)  # of this process; replicas log to files
    context = ray.init(
        address="local",
        _node_ip_address="127.0.0.1",
        dashboard_host="127.0.0.1",
        include_dashboard=True,
        logging_level=logging.INFO if debug else logging.ERROR,
        log_to_driver=debug,
        namespace=APP_NAME,
    )
    return f"http://{context.dashboard_url}"


def _deploy_uploader(settings: Settings, *, gpu: bool) -> Application:
    deployment = serve.deployment(
        name="Uploader",
        max_ongoing_requests=64,  # parts of 8 MiB: half a GiB in flight at most
        ray_actor_options={"num_cpus": 0, **(HIDE_GPU if gpu else {})},
        health_check_period_s=5,
        autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=4, target_ongoing_requests=8),
    )
    return deployment(Uploader).bind(settings.storage)


def _deploy_pool(name: str, options: PoolOptions, settings: Settings, uploader: Application, *, gpu: bool) -> Application:
    box, arguments = _boxes(settings, gpu=gpu)[name]
    drives_others = {"comfyui": not settings.comfyui.managed.enabled, "duix": True}.get(name, False)
    if drives_others:
        gpu = False  # it computes nothing itself
        if not (settings.comfyui.backends if name == "comfyui" else settings.duix.upstreams):
            options = options.model_copy(update={"min_replicas": 0, "initial_replicas": 0})  # nothing to drive until one is added
    drain_s = max(1.0, options.graceful_shutdown_timeout_s - DRAIN_MARGIN_S)
    setup = WorkerSetup(
        pool=name,
        storage=settings.storage,
        fetch=settings.fetch,
        inputs=settings.inputs,
        work_root=settings.work_root,
        runner=settings.runner,
        marking=settings.marking,
        filter=settings.filter,
        media=settings.media,
        sweep=SweepConfig(interval_s=settings.periodic_cleanup_interval, max_age_s=settings.max_file_age),
        worker=settings.worker.model_copy(update={"slots": options.slots, "drain_s": drain_s}),
    )
    resources: dict[str, Any] = {"num_cpus": options.num_cpus} | ({"num_gpus": options.num_gpus} if gpu else HIDE_GPU)
    deployment = serve.deployment(
        name=box.__name__,
        ray_actor_options=resources,
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=options.graceful_shutdown_timeout_s,
        autoscaling_config=_autoscaling(name, options),
    )
    return deployment(box).bind(setup, *arguments, uploader)


def _boxes(settings: Settings, *, gpu: bool) -> dict[str, tuple[type, tuple[Any, ...]]]:
    """Return each pool's box and what it is bound with besides its setup."""
    device, manifest = "cuda" if gpu else "cpu", manifest_of(settings)
    face_swap, face2face = (
        config.model_copy(update={"session": config.session.model_copy(update={"device": device}), "limits": settings.media})
        for config in (settings.face_swap, settings.face2face)
    )
    bridge = BridgeSetup(config=settings.comfyui, limits=settings.media, lease_s=settings.store.lease_s)
    return {
        "faceswap": (FaceSwap, (FaceSwapConfig.model_validate(face_swap), manifest)),
        "face2face": (Face2Face, (Face2FaceConfig.model_validate(face2face), manifest)),
        "comfyui": (ComfyUI, (bridge,)),
        DUIX_POOL: (Duix, (DuixSetup(config=settings.duix, media=Face2FaceConfig.model_validate(face2face)),)),
    }


def manifest_of(settings: Settings) -> Path:
    """Return where the model manifest lies."""
    return settings.home / "configs" / "models.yaml"


def _autoscaling(pool: str, options: PoolOptions) -> AutoscalingConfig:
    policy = AutoscalingPolicy(
        policy_function="deployments.autoscaling:DepthPolicy",
        policy_kwargs={"pool": pool, "slots": options.slots, "target_wait_s": options.target_wait_s},
    )
    return AutoscalingConfig(
        min_replicas=options.min_replicas,
        initial_replicas=options.initial_replicas,
        max_replicas=options.max_replicas,
        upscale_delay_s=options.upscale_delay_s,
        downscale_delay_s=options.downscale_delay_s,
        downscale_to_zero_delay_s=options.downscale_to_zero_delay_s,
        policy=policy,
    )


def _deploy_webhooks(settings: Settings, *, gpu: bool) -> Application | None:
    if not settings.webhooks.secrets:
        return None  # nothing could be signed, so no job has a webhook
    read_secrets(settings.webhooks)  # at start: a secret that is not there is found out by a receiver otherwise
    deployment = serve.deployment(
        name="Webhooks",
        ray_actor_options={"num_cpus": 0, **(HIDE_GPU if gpu else {})},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=settings.webhooks.timeout_s + 5,
    )
    return deployment(Webhooks).bind(WebhooksSetup(webhooks=settings.webhooks, fetch=settings.fetch))


def _deploy_ingress(settings: Settings, uploader: Application, pools: dict[str, Application], *, gpu: bool) -> Application:
    if settings.api.signed_links:
        read_keys()  # at start, as the secrets of webhooks
    setup = IngressSetup(
        store=settings.store,
        storage=settings.storage,
        fetch=settings.fetch,
        webhook_secrets=tuple(settings.webhooks.secrets),
        intake=settings.intake,
        service=settings.service.model_copy(
            update={"can_sign": settings.marking.can_sign and settings.marking.profile != "off", "storages": settings.storage.also}
        ),
        comfyui=settings.comfyui,
        face2face_engines=tuple(engine.name for engine in installed(settings, frozenset(pools)) if engine.kind == "face2face"),
        face2face_auto=settings.face2face_auto,
        workflows=settings.home / "workflows",
        drawing=settings.drawing,
        media=settings.media,
        api=settings.api,
        marking=settings.marking,
        retention=settings.retention,
        dialects=settings.dialects,
        capabilities=describe(settings, manifest_of(settings), frozenset(pools)),
    )
    deployment = serve.deployment(
        name="Ingress",
        max_ongoing_requests=MAX_STREAMS,
        ray_actor_options={"num_cpus": 0, **(HIDE_GPU if gpu else {})},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=10,  # streams never end by themselves; clients resume by the event's id
    )
    return deployment(serve.ingress()(Ingress)).bind(setup, uploader, pools, _deploy_webhooks(settings, gpu=gpu))
