"""A consistency model of the digits, distilled from a run of `configs/diffusion/digits.py`: one call, one sample.

1,400 samples of each kind, measured as there:

| | class read as asked | Frechet distance, pixels | of the CNN's features | nearest training digit |
|---|---|---|---|---|
| one call | 97.2 % | 0.68 | 0.28 | 1.97 |
| two calls | 98.4 % | 0.64 | 0.20 | 1.97 |
| teacher, 35 calls | 97.6 % | 0.55 | 0.16 | 1.93 |

All takes 120 CPU seconds. At 320 levels, with the pseudo-Huber distance and weights 1 / gap (as is best without a
teacher), one call is at 1.6 and two at 0.9 after 1,500 steps: each level is one more that errors pass through.

aijax run configs/diffusion/digits.py --workdir runs/digits
aijax run configs/diffusion/consistency_digits.py --config.teacher=runs/digits
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "diffusion_consistency"
    config.seed = 0
    config.teacher = "runs/digits"
    # noise levels of each stage, which all have `steps` steps
    config.stages = (18,)
    config.steps = 2000
    config.batch_size = 128
    config.learning_rate = 1e-3
    config.clip_norm = 1.0
    config.ema_decay = 0.995
    config.second_ratio = 0.8
    config.num_samples = 1400
    config.judge = ConfigDict({"model": {"name": "cnn", "widths": (32, 64)}, "epochs": 30, "learning_rate": 3e-3})
    return config
