"""What one device does in a compiled program, read from its text: products of matrices and bytes in collectives.

XLA's own cost analysis counts the body of a loop once. Here a loop counts as often as XLA knows that it turns. Bytes
are those that a device receives when a collective over g devices runs as a ring (Patarasuk and Yuan 2009):

    all-gather (g-1)/g of the result,  reduce-scatter (g-1)/g of the operand,  all-reduce both: 2 (g-1)/g
"""

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable

from aijax.flops import count_pairs

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8}
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")
_MOVES = ("bitcast", "copy", "transpose", "reshape", "convert", "get-tuple-element")


@dataclasses.dataclass(frozen=True)
class Program:
    """What one device does in one call of a compiled program.

    Attributes:
      product_flops: 2 per multiply-add of the products of matrices and the convolutions; None where the program hides
        them in calls to a library, as on GPU.
      collective_bytes: bytes received in each kind of collective. An all-reduce of which the device keeps only a
        slice is told as "reduce-scatter": XLA makes it one on GPU and TPU, and leaves the pair on CPU.
      collectives: how many collectives of each kind run.
    """

    product_flops: int | None
    collective_bytes: dict[str, int]
    collectives: dict[str, int]


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    opcode: str
    operands: tuple[str, ...]
    text: str
    is_root: bool

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) * _itemsize(kind) for kind, shape in self.arrays]


def read_program(text: str) -> Program:
    """Returns what one device does in the program that `compiled.as_text()` prints."""
    computations, entry = _parse(text)
    memo: dict[str, Counter] = {}

    def cost(name: str) -> Counter:
        if name not in memo:
            memo[name] = _cost(computations, computations[name], cost)
        return memo[name]

    total = cost(entry)
    moved = {kind: math.ceil(total["bytes", kind]) for kind in COLLECTIVES if total["count", kind]}
    flops = None if re.search(r'custom_call_target="(__cublas|__cudnn|__triton|triton)', text) else total["flops"]
    return Program(flops, moved, {kind: total["count", kind] for kind in moved})


def _parse(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    computations: dict[str, dict[str, _Instruction]] = {}
    entry, current = "", {}
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header[1], {})
            entry = header[1] if line.startswith("ENTRY") else entry
            continue
        match = _INSTRUCTION.match(line)
        if match:
            root, name, kind, opcode, rest = match.groups()
            operands = re.findall(r"%([\w.\-]+)", rest[: _closing(rest)])
            arrays = tuple((t, tuple(int(d) for d in dims.split(",") if d)) for t, dims in _ARRAY.findall(kind))
            current[name] = _Instruction(name, arrays, opcode, tuple(operands), rest, bool(root))
    return computations, entry


def _closing(text: str) -> int:
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    return len(text)


def _cost(computations: dict, computation: dict[str, _Instruction], cost: Callable[[str], Counter]) -> Counter:
    total: Counter = Counter()
    for instruction in computation.values():
        if instruction.opcode == "dot":
            total["flops"] += _dot_flops(instruction, computation)
        if instruction.opcode == "convolution":
            total["flops"] += _convolution_flops(instruction, computation)
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            for seen, moved in _received(instruction, kind, computation, computations).items():
                total["bytes", seen] += moved
                total["count", seen] += 1
        turns = 1
        if instruction.opcode == "while":
            known = re.search(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)', instruction.text)
            turns = int(known[1]) if known else 1
        for called in _called(instruction):
            if called in computations and kind not in COLLECTIVES:
                for key, value in cost(called).items():
                    total[key] += turns * value
    return total


def _called(instruction: _Instruction) -> list[str]:
    names = re.findall(
        r"\b(?:calls|body|condition|to_apply|true_computation|false_computation)=%([\w.\-]+)", instruction.text
    )
    for group in re.findall(r"\bbranch_computations=\{([^}]*)\}", instruction.text):
        names += re.findall(r"%([\w.\-]+)", group)
    return names


def _dot_flops(instruction: _Instruction, computation: dict[str, _Instruction]) -> int:
    ((_, left),) = computation[instruction.operands[0]].arrays
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.text)
    axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
    return 2 * math.prod(instruction.arrays[0][1]) * math.prod(left[axis] for axis in axes)


def _convolution_flops(instruction: _Instruction, computation: dict[str, _Instruction]) -> int:
    shapes = [computation[name].arrays[0][1] for name in instruction.operands[:2]] + [instruction.arrays[0][1]]
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text).groups()
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", re.search(r"window=\{(.*?)\}", instruction.text)[1]))
    left, right, out = (dict(zip(names, shape, strict=True)) for names, shape in zip(labels, shapes, strict=True))
    products = out["b"] * out["f"] * right["i"]
    for i in range(len(labels[0]) - 2):
        entries = {name: text.split("x")[i] for name, text in window.items()}
        products *= count_pairs(
            left[str(i)],
            right[str(i)],
            out[str(i)],
            stride=int(entries.get("stride", 1)),
            low=int(entries.get("pad", "0_0").split("_")[0]),
            spread=int(entries.get("lhs_dilate", 1)),
            dilation=int(entries.get("rhs_dilate", 1)),
        )
    return 2 * products


def _received(
    instruction: _Instruction, kind: str, computation: dict[str, _Instruction], computations: dict
) -> dict[str, float]:
    """Returns `{kind: bytes}` that a device receives in one collective."""
    group = _group_size(instruction.text)
    share = (group - 1) / group
    sizes = instruction.sizes
    if instruction.opcode.endswith("-start"):
        sizes = sizes[len(sizes) // 2 :] if kind != "all-reduce" else sizes
    if kind == "collective-permute":
        return {kind: sum(sizes[:1])}
    if kind == "reduce-scatter":
        return {kind: sum(sizes) * (group - 1)}
    if kind != "all-reduce":
        return {kind: sum(sizes) * share}
    received: dict[str, float] = defaultdict(float)
    for index, size in enumerate(sizes):
        if _is_sliced(instruction, index, computation, computations):
            received["reduce-scatter"] += size * share
        else:
            received["all-reduce"] += 2 * size * share
    return received


def _group_size(text: str) -> int:
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    if listed:
        return len(listed[1].split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", text)
    if iota:
        return int(iota[2])
    mesh = re.search(r"replica_groups=mesh\[(.*?)\]\s*\{(.*?)\}", text)
    if mesh:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", mesh[2]))
    return 2


def _is_sliced(instruction: _Instruction, index: int, computation: dict, computations: dict) -> bool:
    """Returns whether all that is made of result `index` begins with taking a slice of it."""
    if len(instruction.arrays) == 1:
        return _fates(instruction, computation, computations) == {"sliced"}
    users = [user for user in computation.values() if instruction.name in user.operands]
    parts = [user for user in users if re.search(rf"\bindex={index}\b", user.text)]
    return {fate for part in parts for fate in _fates(part, computation, computations)} == {"sliced"}


def _fates(value: _Instruction, computation: dict, computations: dict) -> set[str]:
    """Returns what becomes of a value, moved or cast: "sliced", "used", "returned" from its computation."""
    fates = {"returned"} if value.is_root else set()
    for user in computation.values():
        if value.name not in user.operands:
            continue
        if user.opcode == "dynamic-slice" and user.operands[0] == value.name:
            fates.add("sliced")
        elif user.opcode == "fusion":
            fates |= _fates_in_fusion(value, user, computation, computations)
        elif user.opcode in _MOVES:
            fates |= _fates(user, computation, computations)
        else:
            fates.add("used")
    return fates


def _fates_in_fusion(value: _Instruction, fusion: _Instruction, computation: dict, computations: dict) -> set[str]:
    inner = computations[_called(fusion)[0]]
    places = {place for place, name in enumerate(fusion.operands) if name == value.name}
    inputs = [i for i in inner.values() if i.opcode == "parameter" and int(i.text.split(")")[0]) in places]
    fates = {fate for parameter in inputs for fate in _fates(parameter, inner, computations)}
    if "returned" in fates:
        fates = fates - {"returned"} | _fates(fusion, computation, computations)
    return fates


def _itemsize(kind: str) -> int:
    bits = _BITS.get(kind) or int(re.sub(r"\D", "", kind) or 0)
    return max(1, bits // 8)
