"""Class-conditional diffusion of the 8x8 handwritten digits, with classifier-free guidance.

1,400 samples by Heun's method in 18 steps, measured by a CNN trained on the same digits; Frechet distances are to the
360 test digits, and those of the training digits are given for comparison:

| | class read as asked | Frechet distance, pixels | of the CNN's features |
|---|---|---|---|
| samples | 97.6 % | 0.55 | 0.16 |
| with guidance 2 | 99.8 % | 0.64 | 0.16 |
| training digits | | 0.41 | 0.07 |

A support vector machine that is right on 98.9 % of the test digits reads 99.3 % of the samples as asked, and all of the
guided ones. The test digits take 2.51 bits a dimension (standard error 0.03; 17 grey levels). From a sample to the
nearest training digit it is 1.93, from a test digit 2.14. The run takes 280 CPU seconds on two cores, two and a half
minutes, and 190 on one.

The network is told ln(rho) / 4 by sines of it times `time_scale`. With 1000 in place of 8 it is a rough function of the
noise: samples are as good, but the test digits take 2.56 bits, and no consistency model can be distilled of it.

aijax run configs/diffusion/digits.py
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "train_diffusion"
    config.seed = 0
    config.batch_size = 128
    config.total_steps = 6000
    config.data = ConfigDict({"source": "digits"})
    config.model = ConfigDict({"name": "film_mlp", "width": 512, "depth": 4, "time_scale": 8.0})
    config.process = ConfigDict({"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0})
    config.objective = ConfigDict(
        {"conditional": True, "drop_rate": 0.1, "levels": 17, "mean": -1.2, "std": 1.2, "sigma_data": 0.5}
    )
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01, "clip_norm": 1.0})
    config.schedule = ConfigDict({"name": "cosine", "warmup_fraction": 0.05})
    config.ema_decay = 0.999
    config.sample = ConfigDict(
        {"sampler": {"name": "heun"}, "steps": 18, "spacing": "karras", "count": 1400, "block": 1400, "guidance": 2.0}
    )
    config.judge = ConfigDict({"model": {"name": "cnn", "widths": (32, 64)}, "epochs": 30, "learning_rate": 3e-3})
    config.likelihood = ConfigDict({"examples": 360, "probes": 1, "block": 360})
    config.log_every_steps = 100
    config.evaluate_every_steps = 2000
    config.checkpoint = ConfigDict({"every_fraction": 0.1, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
