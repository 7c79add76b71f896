"""A GPT on the characters of Shakespeare, a text file of 1.1 MB that the run is given.

As it stands for an accelerator: 10.7 M parameters, 256 characters of context, dropout 0.2; not run yet. `:tiny` is for
two cores: 0.8 M parameters, 64 characters of context, 1.604 nats a character of held-out text after 3 minutes
(331 CPU s, start and compilation included; one seed).

aijax run configs/lm/shakespeare.py --config.data.path=input.txt
aijax run configs/lm/shakespeare.py:tiny --config.data.path=input.txt
"""

from ml_collections import ConfigDict


def get_config(argument=""):
    if argument not in ("", "tiny"):
        raise ValueError(f"expected no argument or 'tiny', got {argument!r}")
    tiny = argument == "tiny"
    config = ConfigDict()
    config.experiment = "train_lm"
    config.seed = 0
    config.batch_size = 32 if tiny else 64
    config.total_steps = 1500 if tiny else 5000
    config.data = ConfigDict(
        {
            "source": "text",
            "path": "input.txt",
            "tokenizer": "characters",
            "length": 64 if tiny else 256,
            "validation_fraction": 0.1,
        }
    )
    config.model = ConfigDict(
        {
            "name": "lm",
            "width": 128 if tiny else 384,
            "depth": 4 if tiny else 6,
            "num_heads": 4 if tiny else 6,
            "positions": "rotary",
            "dropout_rate": 0.0 if tiny else 0.2,
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-3 if tiny else 1e-3,
            "weight_decay": 0.1,
            "b2": 0.95 if tiny else 0.99,
            "clip_norm": 1.0,
        }
    )
    config.schedule = ConfigDict({"name": "cosine", "warmup_steps": 100, "end_factor": 0.1})
    config.log_every_steps = 20
    config.evaluate_every_fraction = 0.1
    config.sample = ConfigDict({"prompt": "ROMEO:\n", "length": 600, "temperature": 0.8})
    config.checkpoint = ConfigDict({"every_fraction": 0.1, "keep_last": 2})
    config.tensorboard = True
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
