"""ViT-B/16 on ImageNet-21k, after A. Steiner et al., How to train your ViT? (2021): sigmoid loss, light mixup.

Their weight decay 0.03 and learning rate 1e-3 are those of Adam with decoupled decay; RandAugment is at our largest
magnitude. `config.data.path` is a folder with a sub-folder a class; 1 % of it is held out.

aijax run configs/vit/i21k_b16.py --config.data.path=imagenet21k
aijax check configs/vit/i21k_b16.py:synthetic --devices 256
"""

from ml_collections import ConfigDict


def get_config(data="folder"):
    noise = {"image_shape": (224, 224, 3), "num_classes": 21_841, "train_size": 12_743_321, "test_size": 102_400}
    sources = {
        "folder": {"source": "image_folder", "path": "imagenet21k", "test_fraction": 0.01, "size": 224},
        "synthetic": {"source": "synthetic", **noise},
    }
    if data not in sources:
        raise ValueError(f"expected one of {', '.join(sources)}, got {data!r}")
    config = ConfigDict()
    config.experiment = "train_classifier"
    config.seed = 0
    config.batch_size = 4096
    config.total_epochs = 300
    config.data = ConfigDict(sources[data])
    config.preprocess = ConfigDict({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    config.augment = ConfigDict(
        {
            "crop_area": (0.05, 1.0),
            "flip": True,
            "rand_augment_layers": 2,
            "rand_augment_magnitude": 10.0,
            "mixup": 0.2,
        }
    )
    config.model = ConfigDict({"name": "vit", "variant": "B/16", "pool": "cls", "pre_logits": 768})
    config.label_smoothing = 0.0
    config.loss = "sigmoid"
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.03, "clip_norm": 1.0})
    config.schedule = ConfigDict({"name": "cosine", "warmup_steps": 10_000})
    config.compute_dtype = "bfloat16"
    config.ema_decay = None
    config.log_every_steps = 50
    config.evaluate_every_epochs = 5
    config.checkpoint = ConfigDict({"every_steps": 1000, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 8, "tensor": 1})
    return config
