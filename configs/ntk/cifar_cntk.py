"""CNTK and NNGP kernels on small subsets of CIFAR-10; accuracy against the number of training images.

aijax run configs/ntk/cifar_cntk.py --config.data.path=data/cifar10
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "ntk_cifar_cntk"
    config.seed = 0
    config.data = ConfigDict({"source": "cifar10", "path": "data/cifar10"})
    config.preprocess = ConfigDict({"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)})
    config.sizes = (10, 20, 40, 80, 160, 320)
    config.test_images = 500
    config.repeats = 10
    config.ridge = 1e-4
    config.networks = (
        ConfigDict({"name": "vanilla_32x32", "image_size": 32, "pooling": "none", "depth": 5}),
        ConfigDict({"name": "gap_8x8", "image_size": 8, "pooling": "gap", "depth": 5}),
    )
    # accuracies (%) of the 5-layer CNTK with global average pooling on whole images, as recalled from the paper
    recalled = ((10, 15.08), (20, 18.03), (40, 20.83), (80, 24.82), (160, 29.63), (320, 35.26), (640, 41.24))
    config.published = (
        ConfigDict({"name": "CNTK, GAP, 32 x 32 (Arora et al. 2020, as recalled)", "points": recalled}),
    )
    return config
