"""The composition without a cluster: which box becomes which deployment, and where the GPU goes."""

from __future__ import annotations

import pytest

from serve_app.main import build_app, wants_gpu
from serve_app.placement import AppArgs


@pytest.fixture(autouse=True)
def data_in_tmp(tmp_path, monkeypatch):
    monkeypatch.setenv("ATELIER_DATA_DIR", str(tmp_path))


@pytest.fixture
def gpus(monkeypatch):
    def have(count):
        monkeypatch.setattr("serve_app.main.ray.cluster_resources", lambda: {"CPU": 4.0} | ({"GPU": float(count)} if count else {}))

    return have


@pytest.mark.parametrize(("profile", "count", "expected"), [("auto", 0, False), ("auto", 2, True), ("gpu", 1, True), ("cpu", 1, False)])
def test_wants_gpu(gpus, profile, count, expected):
    gpus(count)
    assert wants_gpu(profile) is expected


def test_the_gpu_profile_without_a_gpu_says_what_to_do(gpus):
    gpus(0)
    with pytest.raises(ValueError, match=r"no GPU.*args\.profile"):
        build_app(AppArgs(profile="gpu"))


def deployments(args):
    """Return the deployments of an application by name."""
    ingress = build_app(args)._bound_deployment
    _, uploader, pools, *_ = ingress.init_args
    bound = [ingress, uploader._bound_deployment, *(pool._bound_deployment for pool in pools.values())]
    return {deployment.name: deployment for deployment in bound}


def options(pool):
    return AppArgs.model_validate({"profile": "auto", "pools": {"faceswap": pool}})


def test_pool_options_reach_the_deployment(gpus):
    gpus(1)
    built = deployments(options({"min_replicas": 0, "max_replicas": 3, "num_gpus": 0.5, "slots": 2, "graceful_shutdown_timeout_s": 100}))
    face_swap = built["FaceSwap"]
    setup, config, _, _ = face_swap.init_args
    scaling = face_swap._deployment_config.autoscaling_config
    assert face_swap.ray_actor_options == {"num_cpus": 0.0, "num_gpus": 0.5}
    assert (scaling.min_replicas, scaling.max_replicas) == (0, 3)
    assert (setup.worker.slots, setup.worker.drain_s, config.session.device) == (2, 85.0, "cuda")


def test_boxes_without_a_share_do_not_see_the_gpu(gpus):
    gpus(1)
    built = deployments(options({}))
    for name in ("Ingress", "Uploader"):
        assert built[name].ray_actor_options["runtime_env"]["env_vars"] == {"CUDA_VISIBLE_DEVICES": ""}


def test_the_cpu_profile_books_no_gpu(gpus):
    gpus(0)
    face_swap = deployments(options({}))["FaceSwap"]
    assert "num_gpus" not in face_swap.ray_actor_options
    assert face_swap.init_args[1].session.device == "cpu"


def test_a_pool_that_is_left_out_is_not_offered(gpus):
    gpus(0)
    built = deployments(AppArgs(profile="cpu", pools={}))
    assert built.keys() == {"Ingress", "Uploader"}
    assert built["Ingress"].init_args[0].capabilities.engines == ()
