import pytest
from pydantic import ValidationError

from serve_app.placement import AppArgs, PoolOptions


def test_app_args_run_every_pool_by_default():
    assert AppArgs() == AppArgs(profile="auto", pools=dict.fromkeys(("comfyui", "duix", "face2face", "faceswap"), PoolOptions()))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"profile": "tpu"}, "profile"),
        ({"pools": {"facewsap": {}}}, "no such pool: facewsap; there is comfyui, duix, face2face, faceswap"),
        ({"pools": {"faceswap": {"replicas": 2}}}, "replicas"),
        ({"pools": {"faceswap": {"min_replicas": 3, "max_replicas": 2}}}, "min_replicas <= initial_replicas <= max_replicas"),
        ({"pools": {"faceswap": {"initial_replicas": 0}}}, "min_replicas <= initial_replicas <= max_replicas"),
        ({"pools": {"faceswap": {"num_gpus": 1.5}}}, "whole number"),
        ({"pools": {"faceswap": {"num_gpus": 0}}}, "num_gpus"),
    ],
)
def test_app_args_refuse_what_cannot_be_placed(args, message):
    with pytest.raises(ValidationError, match=message):
        AppArgs.model_validate(args)
