"""Grokking of modular addition (Nanda et al. 2023): a one-layer transformer without norms, full batches, AdamW.

aijax run configs/interp/grokking.py               p = 113, 3,840 of the 12,769 pairs, d 128: 8 CPU minutes
aijax run configs/interp/grokking.py:small         p = 47, half of the pairs, d 64
aijax run configs/interp/grokking.py:published     as the first, with the paper's learning rate of 1e-3, 40,000 steps

It gave, with seed 0:

| step | test accuracy | test loss | restricted loss | excluded loss, training pairs | squared weights | pure neurons |
|---|---|---|---|---|---|---|
| 200 | .04 | 15.2 | 4.1 | .05 | 3379 | 0 |
| 1000 | .10 | 20.4 | 1.7 | .006 | 3235 | 0 |
| 2000 | .20 | 13.2 | .29 | 1.9 | 2469 | 0 |
| 2500 | .39 | 6.3 | .018 | 7.3 | 2202 | .02 |
| 3000 | .92 | .29 | 5e-6 | 17.2 | 1774 | .12 |
| 3300 | .996 | .010 | 1e-7 | 18.9 | 1463 | .23 |
| 3400 | 1 | 9e-4 | 6e-8 | 16.4 | 1365 | .27 |
| 5000 | 1 | 2e-7 | 4e-8 | 7.3 | 937 | .61 |

All training pairs are right from step 200 on. The circuit grows while nothing is to be seen of it: the restricted loss
falls and the excluded loss rises for 2,000 steps before most of the other pairs are right; weights are cleaned up last.
At the end the frequencies 17, 18, 48 and 56 have 99 % of the variance of the logits (the fifth that is looked for, 36,
has next to nothing), pure neurons are of one frequency to 85 % or more, the Gini coefficient of the embedding is .74,
that of what neurons do to logits .84. Step 4,000, when little but the cleaning up is left, comes after 6 CPU minutes.

The small one, seed 0: all training pairs are right from step 300 on; of the others .43 at step 1,000, .57 at 3,000,
.86 at 4,000, .99 from 5,100 on and all from 5,400 on. At step 1,000 the test loss is 12.3 and the restricted loss .45,
at 3,000 they are 5.3 and .07. At the end the frequencies 1, 6, 13 and 22 have 96 % of the variance of the logits, 65 %
of the neurons are pure. Fewer pairs take longer: with two in five of p = 53 less than half of the others were right at
step 6,000. The last of the three has not been run.
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
