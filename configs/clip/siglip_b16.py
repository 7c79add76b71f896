"""SigLIP B/16, after X. Zhai et al., Sigmoid loss for language image pre-training (2023): two 12-block transformers.

`config.data.path` is a folder of images with captions of their own: tar files of the WebDataset kind (1.jpg with 1.txt,
or 1.json that has "text"), or images with a metadata.jsonl or metadata.csv ("file_name", "text").
`config.data.tokenizer` is the folder of a published tokenizer; without it one is learned from the captions. With
`:folder` the images have classes, a sub-folder each, whose names in the templates are the captions. On a mesh the loss
goes round the ring of devices.

aijax run configs/clip/siglip_b16.py --config.data.path=pairs/train --config.data.test_path=pairs/val
aijax run configs/clip/siglip_b16.py:folder --config.data.path=imagenet/train --config.data.test_path=imagenet/val
aijax check configs/clip/siglip_b16.py:synthetic --devices 256
"""

from ml_collections import ConfigDict

TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "a drawing of a {}.", "a close-up of a {}.", "{}")


def get_config(data="pairs"):
    pairs = {"path": "pairs/train", "test_path": "pairs/val", "size": 224, "length": 64, "tokenizer": None}
    sources = {
        "pairs": {"source": "captioned_images", **pairs},
        "folder": {"source": "image_folder", "path": "imagenet/train", "test_path": "imagenet/val", "size": 224},
        "synthetic": {"source": "synthetic", "image_shape": (224, 224, 3)},
    }
    if data not in sources:
        raise ValueError(f"expected one of {', '.join(sources)}, got {data!r}")
    config = ConfigDict()
    config.experiment = "train_clip"
    config.seed = 0
    config.batch_size = 16_384
    config.total_examples = 3_000_000_000
    config.data = ConfigDict(sources[data])
    config.splits = ("test",)
    if data != "pairs":
        config.templates = TEMPLATES
    config.augment = ConfigDict({"crop_area": (0.5, 1.0), "flip": True})
    config.preprocess = ConfigDict({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    config.vision = ConfigDict({"name": "vit", "variant": "B/16", "pool": "map"})
    config.text = ConfigDict(
        {"name": "text_encoder", "context_length": 64, "width": 768, "depth": 12, "num_heads": 12, "pool": "last"}
    )
    config.clip = ConfigDict({"embed_dim": 768, "loss": "sigmoid"})
    config.feature_parts = 1
    config.optimizer = ConfigDict(
        {
            "name": "adafactor",
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "multiply_by_parameter_scale": False,
            "min_dim_size_to_factor": 32,
            "momentum": 0.9,
            "dtype_momentum": "bfloat16",
        }
    )
    config.schedule = ConfigDict({"name": "cosine", "warmup_steps": 20_000})
    config.compute_dtype = "bfloat16"
    config.ema_decay = None
    config.log_every_steps = 50
    config.evaluate_every_steps = 10_000
    config.checkpoint = ConfigDict({"every_steps": 1000, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
