"""Published models: a folder with `config.json` and safetensors to a module with its parameters, and back.

`aijax.models.published` says for each published class how its config makes a module and how its tensors are named.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import flax.linen as nn
import jax
from jax.sharding import Mesh

from aijax.errors import ConfigError, UnsupportedError, UserError, choose, did_you_mean
from aijax.models.layout import from_published, looped_shapes, to_published
from aijax.models.published import ARCHITECTURES, RECOGNISED, Architecture, npz
from aijax.models.published.architecture import OWN, TRAINING
from aijax.models.tensor_files import Tensors, find_file, listed, read_object, read_tensors, write_tensors
from aijax.parallel import parameter_shardings
from aijax.trees import named_leaves
from aijax.typing import Any, Params


def load(
    path: str | Path,
    dtype: Any = None,
    *,
    mesh: Mesh | None = None,
    rules: Sequence[tuple[str, Sequence[Any]]] = (),
    **fields: Any,
) -> tuple[nn.Module, Params]:
    """Returns the module that a published folder describes, and its parameters.

    Args:
      path: a folder with `config.json` and a safetensors file, or an index of several; or a file of weights, its config
        beside it; or a `.npz` file of Google's, which needs none.
      dtype: of the parameters; None keeps that of the file.
      mesh: of `aijax.parallel.make_mesh`, over which the parameters are to lie: each device reads its own part. None
        puts all on the default device.
      rules: how parameters are cut, see `aijax.parallel.parameter_shardings`.
      **fields: of the module that no config has, such as `scan=True` or `remat="block"`.

    Raises:
      DataError: a file that is missing or damaged, or tensors that are not those of the model; they are listed.
      ConfigError: a field of the config that is unknown or of another type; one that is null, false or 0
        passes, as what it stands for is not in use.
      UnsupportedError: a class that is not among `ARCHITECTURES`, or a value that is not offered.
    """
    path = Path(path)
    config = read_config(path)
    return from_tensors(config, read_tensors(path), dtype=dtype, mesh=mesh, rules=rules, where=str(path), fields=fields)


def save(
    path: str | Path,
    module: nn.Module,
    params: Params,
    config: Mapping[str, Any] | None = None,
    architecture: str | None = None,
) -> None:
    """Writes `config.json` and a safetensors file with the published names into a folder, which may be new.

    Args:
      path: the folder; or a `.npz` file, for a module that is published as one, which has no config.
      module: of a published class.
      params: of the module.
      config: that of the module, such as `read_config` gave it; None to write one.
      architecture: the published class to save it as; None for that of `config`, or the first that fits the module,
        in a folder of safetensors where there is one.

    Raises:
      UnsupportedError: a module that is no published class, or not the one that is named.
      ConfigError: no config for a module that does not hold it.
    """
    path = Path(path)
    archive = path.suffix == ".npz"
    config, found = _described(module, params, config, architecture, archive)
    layout = found.layout and found.layout(module, config)
    tensors = {found.publish(name): tensor for name, tensor in to_published(params, layout, where="module").items()}
    folder = path.parent if archive else path
    folder.mkdir(parents=True, exist_ok=True)
    if not archive:
        new = folder / ".config.json.new"
        new.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        os.replace(new, folder / "config.json")
    write_tensors(path if archive else folder / found.file, tensors)


def config_of(module: nn.Module, params: Params, architecture: str | None = None) -> dict[str, Any]:
    """Returns the config with which `save` writes a module.

    Args:
      module: of a published class.
      params: of the module, or their shapes.
      architecture: the published class; None for the first that fits the module.

    Raises:
      UnsupportedError, ConfigError: as `save`.
    """
    return _described(module, params, None, architecture, archive=False)[0]


def from_tensors(
    config: Mapping[str, Any],
    tensors: Mapping[str, Any],
    *,
    dtype: Any = None,
    mesh: Mesh | None = None,
    rules: Sequence[tuple[str, Sequence[Any]]] = (),
    where: str = "config",
    fields: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, Params]:
    """Returns the module that a published config describes, and its parameters from tensors under published names.

    Args:
      config: its fields; the class is named by `_class_name`, `architectures` or `model_type`.
      tensors: by published name.
      dtype, mesh, rules: see `load`.
      where: what they are, for messages.
      fields: of the module that no config has.

    Raises:
      DataError, ConfigError, UnsupportedError: as `load`.
    """
    architecture = find_architecture(config, where)
    module = _with_fields(architecture.from_config(config, where), fields or {})
    names = {name: architecture.rename(name) for name in tensors}
    renamed = Tensors({new: (tensors, name) for name, new in names.items() if new is not None})
    shapes = abstract_params(architecture, module, config)
    shardings = None if mesh is None else parameter_shardings(mesh, shapes, rules=rules, where="rules")
    layout = architecture.layout and architecture.layout(module, config)
    return module, from_published(renamed, shapes, layout, dtype=dtype, shardings=shardings, where=where)


def from_config(config: Mapping[str, Any], where: str = "config") -> nn.Module:
    """Returns the module that a published config describes, without parameters.

    >>> from_config({"_class_name": "VQModel", "num_vq_embeddings": 16}).num_vq_embeddings
    16
    """
    return find_architecture(config, where).from_config(config, where)


def read_config(path: str | Path) -> dict[str, Any]:
    """Returns the object in `config.json` of a folder, or beside a file; that of `open_clip_config.json`
    there; or what the names and shapes in a `.npz` file tell.

    Raises:
      DataError: no such file, or one that holds no object.
    """
    path = Path(path)
    folder = path.parent if path.is_file() or path.suffix == ".npz" else path
    other = folder / "open_clip_config.json"
    if other.is_file() and not (folder / "config.json").is_file():
        return read_object(other, "the config of a published model").get("model_cfg", {})
    archives = [path] if path.suffix == ".npz" else sorted(folder.glob("*.npz"))
    if archives and not (folder / "config.json").is_file():
        file = find_file(path)
        if file.suffix == ".npz":
            return npz.config_of(read_tensors(file), str(file))
    return read_object(folder / "config.json", "the config of a published model")


def find_architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the architecture that a config names: by `_class_name`, `architectures` or `model_type`, or by
    a field that only its configs have."""
    named = [config.get("_class_name"), *(config.get("architectures") or ()), config.get("model_type")]
    named = [name for name in named if isinstance(name, str)]
    named += [name for field, name in RECOGNISED if not named and field in config]
    for name in named:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    told = f"unknown class {named[0]!r}{did_you_mean(named[0], ARCHITECTURES)}" if named else "it names no class"
    raise UnsupportedError(f"{where}: {told}")


def abstract_params(architecture: Architecture, module: nn.Module, config: Mapping[str, Any]) -> Params:
    """Returns the shapes of the parameters of a module of a published class."""
    inputs = architecture.inputs(module, config)
    return jax.eval_shape(lambda given: module.init(jax.random.key(0), **given)["params"], inputs)


def _with_fields(module, fields):
    for name in fields:
        choose(dict.fromkeys(type(module).__dataclass_fields__), name, "fields")
    return module.clone(**fields)


def _described(module, params, config, name, archive):
    """Returns the config to save a module with, and its architecture."""
    if config is not None:
        return config, choose(ARCHITECTURES, name, "architecture") if name else find_architecture(config, "config")
    name = name or (getattr(module, "published_as", None) or "").partition(":")[0]
    tensors_first = dict(sorted(ARCHITECTURES.items(), key=lambda item: item[1].file.endswith(".npz")))
    named = {name: choose(ARCHITECTURES, name, "architecture")} if name else tensors_first
    if archive and not all(one.file.endswith(".npz") for one in named.values()):
        named = {name: one for name, one in ARCHITECTURES.items() if one.file.endswith(".npz")}
    found = {
        name: one for name, one in named.items() if isinstance(one.module, type) and isinstance(module, one.module)
    }
    if not found:
        raise UnsupportedError(f"module: {type(module).__name__} is no {name or 'published class'}")
    reasons = {}
    for name, one in found.items():
        if one.to_config is None:
            raise ConfigError(f"config: {type(module).__name__} does not hold its published config; give it")
        try:
            config = one.to_config(module)
            again = one.from_config(config, "config")
            reason = _difference(module, again) or _misshapen(params, abstract_params(one, again, config))
        except UserError as error:
            reason = str(error)
        if reason is None:
            return config, one
        reasons.setdefault(reason, name)
    told = "; ".join(f"{name}: {reason}" for reason, name in reasons.items())
    raise UnsupportedError(f"module: this {type(module).__name__} is none that is published; {told}")


def _difference(module, other):
    """The first field in which a module differs from what its config gives; None stands for undecided."""
    for field in type(module).__dataclass_fields__:
        value, new = getattr(module, field), getattr(other, field)
        if field in (*OWN, *TRAINING) or value is None:
            continue
        if isinstance(value, nn.Module) and type(value) is type(new):
            within = _difference(value, new)
            if within:
                return f"{field}.{within}"
        elif value != new:
            return f"{field}: {value!r} where it has {new!r}"
    return None


def _misshapen(params, shapes):
    shapes, params = (
        {path: shape for path, (*_, shape) in looped_shapes({n: leaf.shape for n, leaf in leaves.items()}).items()}
        for leaves in (named_leaves(shapes), named_leaves(params))
    )
    wrong = sorted(name for name in params.keys() | shapes.keys() if params.get(name) != shapes.get(name))
    return f"other parameters: {listed(wrong)}" if wrong else None
