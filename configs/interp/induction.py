"""Induction heads (Olsson et al. 2022): two layers of attention alone learn at once to read a repeat in the context.

aijax run configs/interp/induction.py                  about 45 CPU seconds
aijax run configs/interp/induction.py:one_layer        the control, about 30

Sequences of 36 different random tokens, in which a segment of 6 to 12 comes twice, at a gap that is random too; 24,760
parameters. It gave, on sequences held out:

- The loss of the tokens that the context tells falls slowly to 3.1 nats in 650 steps, then by 2.9 nats until step 1050;
  at the end it is .018 and all of them are predicted. The other tokens stay at chance (3.83 nats; log 40 = 3.69).
- In the same steps three heads of layer 1 become induction heads (1.1, 1.2, 1.3, scores of .98 to .99) and three of
  layer 0 previous-token heads (0.0, 0.1, 0.2, .48 to .56). What those write reaches the keys of the induction heads
  (composition .19 to .23) more than those of the head that is none (.15 to .17). Without head 0.0 the loss is .42,
  without 1.3 it is .27; the head of layer 0 that is not named matters as much as those that are.
- One layer does not get there: 3.02 nats, 13 % predicted, no head with a score of .4 and no drop of more than .11 nats
  in 50 steps.
"""

from ml_collections import ConfigDict


def get_config(kind="two_layers"):
    if kind not in ("two_layers", "one_layer"):
        raise ValueError(f"expected two_layers or one_layer, got {kind!r}")
    config = ConfigDict()
    config.experiment = "interp_induction"
    config.seed = 0
    config.batch_size = 64
    config.total_steps = 1600
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
            "norm_epsilon": 1e-5,
            "tied": False,
            "head_bias": True,
        }
    )
    config.other_weight = 0.3
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.01, "b2": 0.98})
    config.schedule = ConfigDict({"name": "constant", "warmup_steps": 50})
    config.log_every_steps = 50
    config.evaluate_every_steps = 50
    config.checkpoint = ConfigDict({"every_fraction": 0.25, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
