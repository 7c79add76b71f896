"""What FSDP costs on meshes of 8, 64 and 256 devices, read from the compiled train step of a ViT; nothing is run.

    python benchmarks/sharding.py                        ViT-B/16, batch 1024, blocks in a loop and scanned
    python benchmarks/sharding.py --devices 8 --variant Ti/16 --batch 64

Each mesh is compiled in a process of its own on simulated CPU devices. Columns, all for one device:

    state       bytes of parameters and AdamW moments, and its ratio to an even share
    FLOP        in products of matrices, and its ratio to an even share of the analytic count of the whole step
    gathered    bytes received in all-gathers, in units of the parameters' bytes x (N-1)/N: FSDP needs 2 (forward and
                backward), or 1 where the forward's copy is kept, as a loop without remat keeps it
    scattered   bytes received in reduce-scatters of gradients, in the same unit: at least 1
    other       bytes in any other collective, in the same unit: 0 is best

XLA:CPU writes a reduce-scatter as an all-reduce and a slice; it is counted as what GPU and TPU make of it.
"""

import argparse
import json
import subprocess
import sys
import time


def main() -> int:
    """Returns 1 when the state or the FLOPs of a device are not within 5 % of an even share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="8,64,256")
    parser.add_argument("--variant", default="B/16")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--layout", default="loop,scan", help="how blocks are stacked")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(int(options.devices), options.variant, options.batch, options.one, options.remat)))
        return 0
    print(f"ViT-{options.variant}, batch {options.batch}, float32, AdamW, mesh fsdp=N, remat {options.remat}")
    print(
        f"{'N':>4} {'blocks':>6} {'state MB':>9} {'ratio':>6} {'GFLOP':>9} {'ratio':>6} {'activ. MB':>9} "
        f"{'gathered':>9} {'scattered':>9} {'other':>7} {'MB moved':>9} {'compile s':>9}"
    )
    worst = 0.0
    for layout in options.layout.split(","):
        for devices in options.devices.split(","):
            command = [sys.executable, __file__, "--one", layout, "--devices", devices]
            command += ["--variant", options.variant, "--batch", str(options.batch), "--remat", options.remat]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            row = json.loads(done.stdout.splitlines()[-1])
            worst = max(worst, abs(row["state_ratio"] - 1), abs(row["flops_ratio"] - 1))
            print(
                f"{devices:>4} {layout:>6} {row['state'] / 1e6:9.2f} {row['state_ratio']:6.3f} "
                f"{row['flops'] / 1e9:9.1f} {row['flops_ratio']:6.3f} {row['activations'] / 1e6:9.0f} "
                f"{row['gathered']:9.3f} {row['scattered']:9.3f} {row['other']:7.4f} {row['moved'] / 1e6:9.0f} "
                f"{row['seconds']:9.1f}",
                flush=True,
            )
    print(f"state and FLOPs are within {100 * worst:.2f} % of an even share (asked: 5 %)")
    return int(worst > 0.05)


def measure(devices: int, variant: str, batch_size: int, layout: str, remat: str) -> dict:
    """Returns what one device does in a train step compiled for a mesh of `devices`."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    from aijax import flops, hlo
    from aijax.launch.check import bytes_per_device
    from aijax.train import prepare
    from aijax.trees import count_bytes

    config = {
        "seed": 0,
        "batch_size": batch_size,
        "total_steps": 100,
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "mesh": {"data": 1, "fsdp": -1},
    }
    run = prepare(vit_experiment(variant, layout, remat), config)
    arguments = (run.state, run.batch, run.key)
    lowered = run.step.lower(*arguments)
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    program = hlo.read_program(compiled.as_text())
    state = sum(map(bytes_per_device, jax.tree.leaves(run.state)))
    unit = count_bytes(run.state.params) * (devices - 1) / devices
    moved = program.collective_bytes
    known = moved.get("all-gather", 0) + moved.get("reduce-scatter", 0)
    return {
        "state": state,
        "state_ratio": state * devices / count_bytes(run.state),
        "flops": program.product_flops,
        "flops_ratio": program.product_flops * devices / flops.count(run.step, *arguments).model,
        "activations": compiled.memory_analysis().temp_size_in_bytes,
        "gathered": moved.get("all-gather", 0) / unit,
        "scattered": moved.get("reduce-scatter", 0) / unit,
        "other": (sum(moved.values()) - known) / unit,
        "moved": sum(moved.values()),
        "seconds": seconds,
    }


def vit_experiment(variant: str, layout: str, remat: str):
    """Returns a classifier of images of 224 x 224 pixels, without any images."""
    import jax
    import jax.numpy as jnp
    import optax

    from aijax import models
    from aijax.data.described import Described
    from aijax.train import Experiment

    spec = {"image": {"shape": [224, 224, 3], "dtype": "float32"}, "label": {"shape": [], "dtype": "int32"}}
    model = models.vit(variant, num_classes=1000, pool="gap", scan=layout == "scan", remat=remat)
    example = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)

    def apply_fn(params, images):
        return model.apply({"params": params}, images)

    def loss_fn(params, batch, key):
        logits = model.apply({"params": params}, batch["image"], train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), {}

    return Experiment(
        init=lambda key: models.init(key, model, example),
        loss_fn=loss_fn,
        source=Described({"length": 1_281_167, "spec": spec, "classes": None}),
        apply_fn=apply_fn,
    )


if __name__ == "__main__":
    sys.exit(main())
