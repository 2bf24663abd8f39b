"""What the nodes compute, save and send."""

from __future__ import annotations

import io
import json
import struct

import av
import numpy as np
import pytest
from PIL import Image

from deployments.fake_comfyui.pictures import draw_label


async def picture_of(comfy, entry, node_id="2"):
    [item] = entry["outputs"][node_id]["images"]
    status, data = await comfy.view(item)
    assert status == 200
    return Image.open(io.BytesIO(data))


def has_label(image):
    label = draw_label(max(1, image.width // 170)) > 127
    corner = np.asarray(image.convert("L"))[image.height - label.shape[0] :, : label.shape[1]] > 127
    return (corner == label).mean() > 0.98  # JPEG and H.264 blur a few edges


async def test_saved_pictures_say_what_made_them(comfy, graphs):
    graph = graphs.preview(width=512, height=256)
    graph["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub dir/mf"}}
    _, entry = await comfy.run(graph, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    assert entry["outputs"]["2"] == {"images": [{"filename": "mf_00001_.png", "subfolder": "sub dir", "type": "output"}]}
    image = await picture_of(comfy, entry)
    assert has_label(image)
    assert json.loads(image.text["prompt"]) == graph
    assert json.loads(image.text["workflow"]) == {"id": "w"}
    assert image.text["software"] == "fake backend"


async def test_the_label_fits_64_pixels_and_leaves_out_narrower_pictures(comfy, graphs):
    assert has_label(await picture_of(comfy, (await comfy.run(graphs.preview()))[1]))
    image = await picture_of(comfy, (await comfy.run(graphs.preview(width=63)))[1])
    assert len(image.getcolors()) == 1
    assert image.text["software"] == "fake backend"


async def test_a_batch_is_saved_under_counted_names(comfy, graphs):
    graph = graphs.preview(batch_size=3)
    graph["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "b%width%"}}
    _, entry = await comfy.run(graph)
    assert [item["filename"] for item in entry["outputs"]["2"]["images"]] == ["b64_00001_.png", "b64_00002_.png", "b64_00003_.png"]


async def test_a_prefix_cannot_leave_the_output_folder(comfy, graphs):
    graph = graphs.preview()
    graph["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../../out"}}
    _, entry = await comfy.run(graph)
    assert entry["status"]["status_str"] == "error"


SIZES = [
    ("ImageInvert", {}, (128, 96)),
    ("ImageScale", {"upscale_method": "lanczos", "width": 64, "height": 0, "crop": "disabled"}, (64, 48)),
    ("ImageScale", {"upscale_method": "area", "width": 80, "height": 80, "crop": "center"}, (80, 80)),
    ("ImageScaleBy", {"upscale_method": "nearest-exact", "scale_by": 2.0}, (256, 192)),
    ("ImageBlur", {"blur_radius": 3, "sigma": 1.0}, (128, 96)),
    ("ImageCrop", {"width": 70, "height": 50, "x": 100, "y": 0}, (28, 50)),
    ("FakeDelay", {"seconds": 0.01}, (128, 96)),
]


@pytest.mark.parametrize(("class_type", "inputs", "size"), SIZES)
async def test_pictures_pass_through_nodes(comfy, graphs, class_type, inputs, size):
    graph = graphs.through(class_type, **inputs)
    graph["1"] = graphs.image(width=128, height=96)
    _, entry = await comfy.run(graph)
    assert (await picture_of(comfy, entry)).size == size


async def test_batches_are_joined_and_repeated(comfy, graphs):
    graph = {
        "1": graphs.image(),
        "3": graphs.image(width=100, height=30),
        "4": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["3", 0]}},
        "5": {"class_type": "RepeatImageBatch", "inputs": {"image": ["4", 0], "amount": 2}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }
    _, entry = await comfy.run(graph)
    assert len(entry["outputs"]["2"]["images"]) == 4


async def test_an_uploaded_picture_is_loaded_inverted_and_its_alpha_is_the_mask(comfy, graphs, png):
    await comfy.upload("in.png", png((200, 100, 50, 64)))
    assert (await comfy.get("/object_info/LoadImage"))[1]["LoadImage"]["input"]["required"]["image"] == [["in.png"], {"image_upload": True}]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
        "5": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
        "6": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}},
        "7": {"class_type": "LoadImageMask", "inputs": {"image": "in.png", "channel": "red"}},
        "8": {"class_type": "MaskToImage", "inputs": {"mask": ["7", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}},
    }
    _, entry = await comfy.run(graph)
    assert (await picture_of(comfy, entry)).getpixel((79, 0)) == (55, 155, 205)
    assert (await picture_of(comfy, entry, "3")).getpixel((79, 0)) == (191, 191, 191)
    assert (await picture_of(comfy, entry, "4")).getpixel((79, 0)) == (200, 200, 200)


async def test_a_changed_input_file_is_not_taken_from_the_cache(fake, comfy, graphs, png):
    graph = graphs.preview() | {"1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}}}
    for colour in ((1, 2, 3), (1, 2, 3), (9, 9, 9)):
        await comfy.upload("in.png", png(colour), overwrite="true")
        await comfy.run(graph)
    assert fake.executions_by_node["LoadImage"] == 2


async def test_websocket_images_come_as_png_and_leave_no_output(comfy, graphs):
    graph = graphs.preview(width=80, batch_size=2)
    graph["2"]["class_type"] = "SaveImageWebsocket"
    _, entry = await comfy.run(graph)
    assert entry["outputs"] == {}
    assert [struct.unpack(">II", message[:8]) for message in comfy.binaries()] == [(1, 2), (1, 2)]
    image = Image.open(io.BytesIO(comfy.binaries()[0][8:]))
    assert (image.size, has_label(image)) == ((80, 64), True)
    comfy.messages.clear()
    await comfy.run(graph)  # never cached
    assert len(comfy.binaries()) == 2


async def test_a_video_stands_under_images_and_every_frame_has_the_label(comfy, graphs):
    graph = {
        "1": graphs.image(width=171, height=97, batch_size=8),
        "4": {"class_type": "EmptyAudio", "inputs": {"duration": 0.5, "sample_rate": 44100, "channels": 2}},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 16, "audio": ["4", 0]}},
        "2": {"class_type": "SaveVideo", "inputs": {"video": ["3", 0], "filename_prefix": "v", "format": "auto", "codec": "auto"}},
    }
    _, entry = await comfy.run(graph)
    assert entry["outputs"]["2"] == {"images": [{"filename": "v_00001_.mp4", "subfolder": "", "type": "output"}], "animated": [True]}
    _, data = await comfy.view(entry["outputs"]["2"]["images"][0])
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].average_rate == 16
        assert json.loads(container.metadata["prompt"]) == graph
        assert len(container.streams.audio) == 1
        frames = [frame.to_image() for frame in container.decode(video=0)]
    assert len(frames) == 8
    assert all(frame.size == (172, 98) and has_label(frame) for frame in frames)


async def test_sound_is_saved_and_loaded(fake, comfy):
    graph = {
        "1": {"class_type": "EmptyAudio", "inputs": {"duration": 0.1, "sample_rate": 8000, "channels": 1}},
        "2": {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0], "filename_prefix": "a"}},
        "3": {"class_type": "PreviewAudio", "inputs": {"audio": ["1", 0]}},
    }
    _, entry = await comfy.run(graph)
    assert entry["outputs"]["2"] == {"audio": [{"filename": "a_00001_.flac", "subfolder": "", "type": "output"}]}
    assert entry["outputs"]["3"]["audio"][0]["type"] == "temp"
    _, data = await comfy.view(entry["outputs"]["2"]["audio"][0])
    await comfy.upload("a.flac", data)
    graph["1"] = {"class_type": "LoadAudio", "inputs": {"audio": "a.flac"}}
    _, entry = await comfy.run(graph)
    with av.open(io.BytesIO((await comfy.view(entry["outputs"]["2"]["audio"][0]))[1])) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 800


async def test_latents_are_saved_as_safetensors(comfy):
    graph = {
        "1": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 32, "batch_size": 1}},
        "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "l"}},
    }
    _, entry = await comfy.run(graph)
    assert entry["outputs"]["2"] == {"latents": [{"filename": "l_00001_.latent", "subfolder": "", "type": "output"}]}
    _, data = await comfy.view(entry["outputs"]["2"]["latents"][0])
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert header["latent_tensor"] == {"dtype": "F32", "shape": [1, 4, 4, 8], "data_offsets": [0, 512]}


@pytest.mark.parametrize(
    ("class_type", "value", "text"), [("PrimitiveString", "hello", "hello"), ("PrimitiveInt", "7", "7"), ("PrimitiveBoolean", 1, "True")]
)
async def test_values_are_shown_as_text(comfy, class_type, value, text):
    graph = {
        "1": {"class_type": class_type, "inputs": {"value": value}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    assert (await comfy.run(graph))[1]["outputs"] == {"2": {"text": [text]}}


async def sampled(comfy, graph):
    return np.asarray(await picture_of(comfy, (await comfy.run(graph))[1], "9"))[:100]  # above the label


async def test_a_sampler_paints_the_same_for_the_same_inputs_and_else_another_picture(fake, comfy, graphs):
    first = await sampled(comfy, graphs.sampler())
    await comfy.post("/free", {"free_memory": True})
    assert np.array_equal(first, await sampled(comfy, graphs.sampler()))
    assert fake.executions_by_node["KSampler"] == 2
    assert not np.array_equal(first, await sampled(comfy, graphs.sampler(seed=2)))
    assert not np.array_equal(first, await sampled(comfy, graphs.sampler(text="a dog")))


async def test_denoise_says_how_much_of_the_input_picture_stays(comfy, graphs):
    encoded = {"class_type": "VAEEncode", "inputs": {"pixels": ["1", 0], "vae": ["4", 2]}}
    flat = {"1": {"class_type": "EmptyImage", "inputs": {"width": 128, "height": 128, "batch_size": 1, "color": 0x808080}}}
    spread = [float((await sampled(comfy, flat | graphs.sampler(latent=encoded, denoise=denoise))).std()) for denoise in (0.0, 0.3, 1.0)]
    assert spread[0] == 0.0 < spread[1] < spread[2]


async def test_a_sampler_reports_each_step_and_sends_no_preview_unless_asked(comfy, graphs):
    await comfy.run(graphs.sampler(steps=3))
    steps = [(data["node"], data["value"], data["max"]) for event, data in comfy.messages if event == "progress"]
    assert steps == [("3", 1, 3), ("3", 2, 3), ("3", 3, 3)]
    assert comfy.binaries() == []


async def test_previews_are_jpeg_with_the_label(comfy, graphs):
    await comfy.run(graphs.sampler(size=640, steps=2), extra_data={"preview_method": "latent2rgb"})
    assert [struct.unpack(">II", message[:8]) for message in comfy.binaries()] == [(1, 1), (1, 1)]
    image = Image.open(io.BytesIO(comfy.binaries()[-1][8:]))
    assert (image.format, image.size, has_label(image)) == ("JPEG", (512, 512), True)


async def test_previews_say_where_they_belong_to_clients_that_negotiated_it(start, visit, graphs):
    fake = await start(preview_method="auto")
    comfy = await visit(fake, flags={"supports_preview_metadata": True})
    prompt_id, _ = await comfy.run(graphs.sampler(steps=1))
    [message] = comfy.binaries()
    event, length = struct.unpack(">II", message[:8])
    metadata = json.loads(message[8 : 8 + length])
    assert (event, metadata["node_id"], metadata["prompt_id"], metadata["image_type"]) == (4, "3", prompt_id, "image/jpeg")
    assert message[8 + length :][:2] == b"\xff\xd8"


async def test_sampling_in_two_parts_and_the_loaders_around_it(comfy, graphs):
    graph = graphs.sampler()
    part = graph["3"]["inputs"]
    part["noise_seed"] = part.pop("seed")
    part.pop("denoise")
    shared = part | {
        "add_noise": "enable",
        "start_at_step": 0,
        "end_at_step": 2,
        "return_with_leftover_noise": "enable",
        "model": ["12", 0],
    }
    rest = shared | {
        "add_noise": "disable",
        "start_at_step": 2,
        "end_at_step": 100,
        "return_with_leftover_noise": "disable",
        "latent_image": ["10", 0],
    }
    graph |= {
        "10": {"class_type": "KSamplerAdvanced", "inputs": shared},
        "3": {"class_type": "KSamplerAdvanced", "inputs": rest},
        "11": {"class_type": "UNETLoader", "inputs": {"unet_name": "fake_unet.safetensors", "weight_dtype": "default"}},
        "12": {"class_type": "ModelSamplingAuraFlow", "inputs": {"model": ["13", 0], "shift": 3.0}},
        "13": {
            "class_type": "LoraLoader",
            "inputs": {
                "model": ["11", 0],
                "clip": ["14", 0],
                "lora_name": "fake_lora.safetensors",
                "strength_model": 1,
                "strength_clip": 1,
            },
        },
        "14": {"class_type": "CLIPLoader", "inputs": {"clip_name": "fake_clip.safetensors", "type": "sd3"}},
        "15": {"class_type": "VAELoader", "inputs": {"vae_name": "fake_vae.safetensors"}},
    }
    graph["8"]["inputs"]["vae"] = ["15", 0]
    _, entry = await comfy.run(graph)
    assert entry["status"]["completed"]
    steps = [(data["node"], data["value"]) for event, data in comfy.messages if event == "progress"]
    assert steps == [("10", 1), ("10", 2), ("3", 3)]


async def test_an_unknown_checkpoint_is_refused_with_the_known_ones(comfy, graphs):
    graph = graphs.sampler()
    graph["4"]["inputs"]["ckpt_name"] = "nope.safetensors"
    status, body = await comfy.post("/prompt", {"prompt": graph})
    assert status == 400
    assert body["node_errors"]["4"] == {
        "errors": [
            {
                "type": "value_not_in_list",
                "message": "Value not in list",
                "details": "ckpt_name: 'nope.safetensors' not in ['fake_sd15.safetensors', 'fake_sdxl.safetensors']",
                "extra_info": {
                    "input_name": "ckpt_name",
                    "input_config": [["fake_sd15.safetensors", "fake_sdxl.safetensors"], {}],
                    "received_value": "nope.safetensors",
                },
            }
        ],
        "dependent_outputs": ["9"],
        "class_type": "CheckpointLoaderSimple",
    }
    assert body["error"]["details"] == ""
