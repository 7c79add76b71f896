"""CNTK and NNGP kernels on small subsets of CIFAR-10; accuracy against the number of training images.

aijax run configs/ntk/cifar_cntk.py --config.data.path=data/cifar10      about 2.5 CPU minutes

On whole images global average pooling pairs all 1024 x 1024 pixels of two images and would take hours on a CPU; here it
sees images brought to 8 x 8 by means, and the network without it sees them whole.
Accuracy (%) on 500 test images, which is known to about 2, mean over 10 random balanced subsets of 320 images:

    training images            10     20     40     80    160    320
    vanilla 32 x 32, NTK     15.6   18.0   19.1   22.4   25.4   27.8
    vanilla 32 x 32, NNGP    15.4   17.7   18.7   21.3   23.8   25.6
    GAP 8 x 8, NTK           15.2   19.2   20.7   23.2   27.2   31.6
    GAP 8 x 8, NNGP          14.8   19.4   20.4   23.6   26.4   31.6
    GAP 32 x 32, published   15.1   18.0   20.8   24.8   29.6   35.3

The last line is the 5-layer CNTK of Arora et al. 2020 (arXiv:1910.01663, table 2) as recalled, not checked against the
paper. Pooling helps from about 100 images on; what the small images lose grows with the number of examples.
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
    config.networks = ConfigDict()
    config.networks.vanilla_32x32 = ConfigDict({"image_size": 32, "pooling": "none", "depth": 5})
    config.networks.gap_8x8 = ConfigDict({"image_size": 8, "pooling": "gap", "depth": 5})
    # accuracies (%) of the 5-layer CNTK with global average pooling on whole images, as recalled from the paper
    config.published = ConfigDict({"label": "CNTK, GAP, 32 x 32 (Arora et al. 2020, as recalled)"})
    config.published.sizes = (10, 20, 40, 80, 160, 320, 640)
    config.published.accuracies = (15.08, 18.03, 20.83, 24.82, 29.63, 35.26, 41.24)
    return config
