"""The empirical tangent kernel of a multilayer perceptron over the 1,437 training digits, fresh or trained.

At initialisation 65 % of the trace is the leading eigenvalue, then lambda_k ~ k^-1.28; alignment with the classes 0.54;
the 100 leading eigenvectors hold 86 % of the labels. After training (97 % test accuracy) the alignment is 0.61 and they
hold 91 %: the kernel turns towards the labels. 10 s on two cores, 8 CPU s.

aijax run configs/ntk/digits.py
aijax run configs/mlp/digits.py --workdir runs/a --config.model.widths="(512,512)"
aijax run configs/ntk/digits.py --config.run=runs/a
"""

from ml_collections import ConfigDict, config_dict


def get_config():
    config = ConfigDict()
    config.experiment = "ntk_kernel"
    config.seed = 0
    config.run = config_dict.placeholder(str)
    config.data = ConfigDict({"source": "digits"})
    config.split = "train"
    config.examples = config_dict.placeholder(int)
    config.model = ConfigDict({"name": "mlp", "widths": (512, 512)})
    config.block_size = config_dict.placeholder(int)
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
