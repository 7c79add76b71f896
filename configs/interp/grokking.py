"""Grokking of modular addition (Nanda et al. 2023): a one-layer transformer without norms, full batches, AdamW.

aijax run configs/interp/grokking.py               p = 113, three pairs in ten, d 128: about 480 CPU seconds
aijax run configs/interp/grokking.py:small         p = 47, half of the pairs, d 64
aijax run configs/interp/grokking.py:published     as the first, with learning rate 1e-3 and 40,000 steps

The first has the published network and data, and twice the published learning rate, with which it takes a tenth of
the steps. Seed 0: all training pairs are right from step 200 on; of the others .06 at step 500, .20 at 2,000, .39 at
2,500, .92 at 3,000, .99 from 3,200 on and all from 3,400 on. The circuit is there before it is seen: at step 2,000 the
test loss is 13.2 and the restricted loss .29, at 2,500 they are 6.3 and .018, while the excluded loss of the training
pairs rises from .004 (step 800) to 1.9 and 7.3 (and to 19.6 at 3,200). The sum of squared weights falls from 3,240
(step 1,000) to 937. At the end the frequencies 17, 18, 48 and 56 have 99 % of the variance of the logits, 61 % of the
neurons are of one frequency to 85 % or more, the Gini coefficient of the embedding is .74, that of what neurons do to
logits .84, and the test loss 2e-7.

The small one, seed 0: .43 of the other pairs are right at step 1,000, .57 at 3,000, .86 at 4,000, .99 from 5,100 on
and all from 5,400 on. The published setting has not been run.
"""

from ml_collections import ConfigDict


def get_config(size="full"):
    if size not in ("full", "small", "published"):
        raise ValueError(f"expected full, small or published, got {size!r}")
    small = size == "small"
    config = ConfigDict()
    config.experiment = "interp_grokking"
    config.seed = 0
    # all that is trained on at once: numbers of pairs that many devices can share
    config.batch_size = 1104 if small else 3840
    config.total_steps = {"full": 5000, "small": 6000, "published": 40_000}[size]
    config.data = ConfigDict(
        {"source": "modular_addition", "modulus": 47 if small else 113, "train_size": config.batch_size}
    )
    config.model = ConfigDict(
        {
            "name": "lm",
            "width": 64 if small else 128,
            "num_heads": 4,
            "mlp_width": 192 if small else 512,
            "activation": "relu",
            "biases": ("up", "down"),
        }
    )
    config.num_frequencies = 5
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 2e-3 if size == "full" else 1e-3,
            "weight_decay": 1.0,
            "weight_decay_rules": ((".*", 1.0),),
            "b1": 0.9,
            "b2": 0.98,
        }
    )
    config.schedule = ConfigDict({"name": "constant", "warmup_steps": 10})
    config.log_every_steps = 50
    config.evaluate_every_steps = 500 if size == "published" else 100
    config.checkpoint = ConfigDict({"every_fraction": 0.25, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
