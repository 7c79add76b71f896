"""Diffusion of CIFAR-10 as EDM trains it; `config.data.path` is the folder with cifar-10-binary.tar.gz.

The objective, the sampler (Heun, 18 steps, 35 network calls) and the optimiser are those of Karras et al. 2022, tables
1 and 7, with classes: batch 512, 200 million images, Adam at 1e-3, an average over half a million images, flips and
dropout 0.13. The network has the size of DDPM++ (width 128 by 1, 2, 2, 2; four blocks a resolution; attention at 16 x
16). Not theirs: augmentation stops at flips, and one image in ten is trained without its class.

aijax run configs/diffusion/cifar10.py --config.data.path=data/cifar10          for accelerators
aijax run configs/diffusion/cifar10.py:tiny --config.data.path=data/cifar10     for a CPU

`:tiny` shows that all of it runs, and no more: after its 200 steps of 32 images (ten CPU minutes with all
measurements) the loss of test images is 0.369, and its 50 samples are coloured blotches, at a Frechet distance of 506
in pixels from the test images (496 with guidance 1.5). The full size was never run.
"""

from ml_collections import ConfigDict


def get_config(size="ddpmpp"):
    if size not in ("ddpmpp", "tiny"):
        raise ValueError(f"expected one of ddpmpp, tiny, got {size!r}")
    tiny = size == "tiny"
    config = ConfigDict()
    config.experiment = "train_diffusion"
    config.seed = 0
    config.batch_size = 32 if tiny else 512
    config.data = ConfigDict({"source": "cifar10", "path": "data/cifar10"})
    if tiny:
        config.total_steps = 200
    else:
        config.total_examples = 200_000_000
    config.model = ConfigDict(
        {
            "name": "unet",
            "widths": (16, 32, 64) if tiny else (128, 256, 256, 256),
            "layers": 1 if tiny else 4,
            "attention_levels": (2,) if tiny else (1,),
            "head_width": 32 if tiny else 256,
            "dropout_rate": 0.0 if tiny else 0.13,
            "time_scale": 16.0 if tiny else 1.0,
            "dtype": None if tiny else "bfloat16",
        }
    )
    config.augment = ConfigDict({"flip": True})
    config.process = ConfigDict({"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0})
    config.objective = ConfigDict(
        {"conditional": True, "drop_rate": 0.1, "levels": 256, "mean": -1.2, "std": 1.2, "sigma_data": 0.5}
    )
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-3 if tiny else 1e-3, "clip_norm": 1.0})
    config.schedule = ConfigDict({"name": "cosine" if tiny else "constant", "warmup_fraction": 0.05})
    config.ema_decay = 0.98 if tiny else 0.9993
    config.sample = ConfigDict(
        {
            "sampler": {"name": "heun"},
            "steps": 18,
            "spacing": "karras",
            "count": 50 if tiny else 50_000,
            "block": 50 if tiny else 1000,
            "guidance": 1.5,
        }
    )
    config.judge = None
    if not tiny:
        config.judge = ConfigDict(
            {"model": {"name": "cnn", "widths": (32, 64, 128)}, "epochs": 10, "learning_rate": 3e-3}
        )
    config.likelihood = ConfigDict({"examples": 0 if tiny else 1000, "probes": 1, "block": 250})
    config.log_every_steps = 100
    config.evaluate_every_fraction = 0.25
    config.checkpoint = ConfigDict({"every_fraction": 0.01, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
