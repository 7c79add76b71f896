"""Self-distillation without labels (DINO) on CIFAR-10; `config.data.path` is the folder with cifar-10-binary.tar.gz, or
with train.npz and test.npz.

aijax run configs/vit/dino_cifar10.py --config.data.path=data/cifar10           ViT-S/4 for accelerators
aijax run configs/vit/dino_cifar10.py:tiny --config.data.path=data/cifar10      three narrow blocks, for CPUs

A classifier begins from the encoder that a run left in its folder with configs/vit/mae_cifar10.py:finetune and
--config.pretrained=RUN/encoder.

The tiny one, on a lossy JPEG copy of the images, seed 0, one epoch: the 20 nearest of the 50,000 training images tell
34.6 % of the 10,000 test images, 33.6 % by the features of the same network untrained. One epoch shows that the run
works and is too short to learn much: the method's recipes are of hundreds. What learns in minutes is
configs/vit/dino_digits.py.
"""

from ml_collections import ConfigDict


def get_config(size="small"):
    if size not in ("small", "tiny"):
        raise ValueError(f"expected small or tiny, got {size!r}")
    config = ConfigDict()
    config.experiment = "pretrain_vision"
    config.seed = 0
    config.data = ConfigDict({"source": "cifar10", "path": "data/cifar10"})
    config.preprocess = ConfigDict({"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)})
    config.log_every_steps = 50
    config.checkpoint = ConfigDict({"every_fraction": 0.1, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return tiny(config) if size == "tiny" else small(config)


def small(config):
    """The recipe of the paper, with patches of 4 x 4 pixels and fewer prototypes."""
    config.batch_size = 512
    config.total_epochs = 300.0
    config.model = ConfigDict({"name": "vit", "variant": "S/4", "stochastic_depth_rate": 0.1})
    config.dino = ConfigDict({"outputs": 16384, "hidden_width": 2048, "bottleneck": 256})
    config.views = ConfigDict(
        {"local_crops": 6, "local_size": 16, "global_area": (0.4, 1.0), "local_area": (0.05, 0.4)}
    )
    config.sharpening = ConfigDict(
        {
            "student_temperature": 0.1,
            "teacher_temperature": 0.07,
            "first_teacher_temperature": 0.04,
            "warmup_epochs": 30.0,
            "freeze_epochs": 1.0,
            "center_momentum": 0.9,
        }
    )
    config.ema_decay = 0.996
    config.ema_end_decay = 1.0
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1, "clip_norm": 3.0})
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.033})
    config.compute_dtype = "bfloat16"
    config.report = ("neighbours", "ridge_probe")
    return config


def tiny(config):
    """Patches of 4 x 4 pixels; few prototypes and a teacher that follows soon, for a run of a few hundred steps."""
    config = small(config)
    config.batch_size = 128
    config.total_epochs = 1.0
    config.model = ConfigDict(
        {
            "name": "vit",
            "patch_size": 4,
            "embed_dim": 96,
            "depth": 3,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "activation": "gelu_tanh",
        }
    )
    config.dino.update({"outputs": 1024, "hidden_width": 256, "bottleneck": 64})
    config.views.update({"local_crops": 2, "local_area": (0.15, 0.4)})
    config.sharpening.update({"teacher_temperature": 0.04, "warmup_epochs": 0.0, "freeze_epochs": 0.1})
    config.ema_decay = 0.98
    config.optimizer.update({"weight_decay": 0.05})
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.1})
    config.report = ("neighbours",)
    del config.compute_dtype
    return config
