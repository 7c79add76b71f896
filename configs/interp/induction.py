"""Induction heads (Olsson et al. 2022): two layers of attention alone learn at once to read a repeat in the context.

aijax run configs/interp/induction.py
aijax run configs/interp/induction.py:one_layer        the control
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
