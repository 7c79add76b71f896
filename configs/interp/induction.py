"""Induction heads (Olsson et al. 2022): two layers of attention alone learn at once to read a repeat in the context.

aijax run configs/interp/induction.py                  about 35 CPU seconds
aijax run configs/interp/induction.py:one_layer        the control, about 25

Sequences of 36 different random tokens, in which a segment of 6 to 12 comes twice, at a gap that is random too; 22,984
parameters. It gave, on sequences held out (nats, of the tokens that the context tells):

| seed | step 550 | 600 | 650 | 700 | 750 | 800 | 900 | 1000 | 1200 | induction heads | previous-token heads |
|---|---|---|---|---|---|---|---|---|---|---|---|
| 0 | 3.42 | 3.31 | 2.72 | 1.33 | .28 | .13 | .02 | .02 | .02 | 1.0, 1.2, 1.3 | 0.3 |
| 1 | 3.47 | 3.40 | 3.24 | 2.60 | 1.23 | .32 | .07 | .02 | .02 | 1.0, 1.3 | 0.0, 0.1 |
| 2 | 3.40 | 3.29 | 2.80 | 1.34 | .28 | .11 | .03 | .02 | .02 | 1.1, 1.2, 1.3 | 0.0, 0.3 |
| 0, one layer | 3.43 | 3.37 | 3.34 | 3.29 | 3.26 | 3.22 | 3.16 | 3.15 | 3.12 | none | none |

- The loss falls slowly until step 600 and by 3 nats until 900; all of the repeats are predicted at the end (11 % by one
  layer). The other tokens stay at chance (3.8 nats; log 40 = 3.69), but for 4.5 nats in the midst of the change.
- In the same steps heads of layer 1 become induction heads (scores of .95 to .99) and of layer 0 previous-token heads
  (.55 to .91). Of seed 0, what 0.3 writes reaches the keys of the three induction heads (composition .26 to .30) more
  than those of the head that is none (.08). Without 0.3 the loss is 3.62, without 0.2, which is not named, 2.46, and
  without 1.3 .94; without 1.0 it hardly rises.
- One layer does not get there: no head has a score above .07, and after step 300 no 50 steps gain more than .10 nats.

The learning rate rises for 800 steps: the change comes late, and is steep when it comes. Positions are rotary: with a
table that is learned and a like rise of the rate (to 4e-3 in 600 steps), seed 0 changed from 600 to 900 and seed 1 from
800 to 1100, and seed 2 learned to tell the repeats with heads that are of neither kind.
"""

from ml_collections import ConfigDict


def get_config(kind="two_layers"):
    if kind not in ("two_layers", "one_layer"):
        raise ValueError(f"expected two_layers or one_layer, got {kind!r}")
    config = ConfigDict()
    config.experiment = "interp_induction"
    config.seed = 0
    config.batch_size = 64
    config.total_steps = 1200
    # gaps are random: at a fixed distance one layer would copy by position
    config.data = ConfigDict(
        {
            "source": "repeated_segments",
            "vocabulary": 40,
            "length": 37,
            "shortest": 6,
            "longest": 12,
            "size": 65536,
            "held_out_size": 256,
        }
    )
    config.model = ConfigDict(
        {
            "name": "lm",
            "width": 48,
            "depth": 2 if kind == "two_layers" else 1,
            "num_heads": 4,
            "mlp_width": 0,  # attention alone
            "positions": "rotary",  # none is learned: with a table, some seeds find other circuits
            "norm_epsilon": 1e-5,
            "tied": False,
            "head_bias": True,
        }
    )
    config.other_weight = 0.3
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.01, "b2": 0.98})
    config.schedule = ConfigDict({"name": "constant", "warmup_steps": 800})
    config.log_every_steps = 50
    config.evaluate_every_steps = 50
    config.checkpoint = ConfigDict({"every_fraction": 0.25, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
