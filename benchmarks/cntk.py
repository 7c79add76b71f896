"""Kernels of infinitely wide convolutional networks on images of CIFAR-10's size, within a memory that is given.

    python benchmarks/cntk.py --networks myrtle5,myrtle10,wideresnet28 --images 4 --memory 512

Pooling pairs all 1024 x 1024 positions of two images, 4 MB an entry and covariance in float32: `kernel_blocks` takes
blocks of images that fit into the budget. Told are the CPU seconds of an entry of the upper triangle, NNGP and NTK
together, after compiling; the seconds of compiling; and the process's largest memory. Myrtle networks are those of
Shankar et al. 2020 (arXiv:2003.02237), the WideResNet that of Zagoruyko and Komodakis 2016 without normalisation, as
neural-tangents shows it.

On one core of a shared CPU, 3 images, 256 MB for a block, each network in a process of its own (in which JAX with its
compiler takes 300 to 500 MB):

    network         CPU s an entry   compiling s     MB
    Myrtle-5             0.22             12         629
    Myrtle-10            0.34             16         724
    WideResNet-28        0.72             35         953
"""

import argparse
import resource
import time

import numpy as np

from aijax.ntk import kernel_blocks, stax


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="myrtle5,myrtle10,wideresnet28", help="of: " + ", ".join(NETWORKS))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=32, help="height and width of an image")
    parser.add_argument("--memory", type=int, default=512, help="MB of a device that a block may take")
    options = parser.parse_args()
    shape = (options.images, options.size, options.size, 3)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    print(f"{'':14} {'CPU s an entry':>14} {'first s':>8} {'MB':>6}  finite")
    for name in options.networks.split(","):
        kernel_fn = NETWORKS[name](options.size)[2]

        def both(x1, x2, kernel_fn=kernel_fn):
            return kernel_fn(x1, x2, ("nngp", "ntk"))._asdict()

        seconds = []
        for _ in range(2):
            began = time.process_time()
            kernels = kernel_blocks(both, x, memory_budget=options.memory * 10**6)
            seconds.append(time.process_time() - began)
        entries = options.images * (options.images + 1) // 2
        finite = all(np.isfinite(kernel).all() for kernel in kernels.values())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name:14} {seconds[1] / entries:14.3f} {seconds[0] - seconds[1]:8.1f} {memory:6.0f}  {finite}", flush=True
        )


def myrtle(convolutions: tuple[int, int, int], size: int):
    """Returns the Myrtle network with so many convolutions before each of three poolings; then all positions meet."""
    layers = []
    for count in convolutions:
        for _ in range(count):
            layers += [stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5), stax.Relu()]
        layers.append(stax.AvgPool((2, 2), strides=(2, 2)))
    return stax.serial(*layers, stax.GlobalAvgPool(), stax.Dense(1))


def wide_resnet(blocks: int, size: int):
    """Returns the WideResNet of three groups of so many residual blocks (4 are 28 layers)."""

    def block(strides: tuple[int, int], widens: bool):
        main = [stax.Relu(), stax.Conv(1, (3, 3), strides, "SAME"), stax.Relu(), stax.Conv(1, (3, 3), padding="SAME")]
        shortcut = stax.Conv(1, (3, 3), strides, "SAME") if widens else stax.Identity()
        return stax.serial(stax.FanOut(2), stax.parallel(stax.serial(*main), shortcut), stax.FanInSum())

    def group(strides: tuple[int, int]):
        return stax.serial(block(strides, True), *[block((1, 1), False) for _ in range(blocks - 1)])

    groups = [group((1, 1)), group((2, 2)), group((2, 2))]
    readout = [stax.AvgPool((size // 4, size // 4)), stax.Flatten(), stax.Dense(1)]
    return stax.serial(stax.Conv(1, (3, 3), padding="SAME"), *groups, *readout)


NETWORKS = {
    "myrtle5": lambda size: myrtle((2, 1, 1), size),
    "myrtle7": lambda size: myrtle((2, 2, 2), size),
    "myrtle10": lambda size: myrtle((3, 3, 3), size),
    "wideresnet28": lambda size: wide_resnet(4, size),
}

if __name__ == "__main__":
    main()
