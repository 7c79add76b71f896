"""Image data sets by name: TensorFlow Datasets (`tfds`) and the Hugging Face hub (`huggingface`).

Both libraries are extras, imported when a config asks for them; neither needs TensorFlow here, since records are read
one by one through their random access. Images are decoded when a batch asks for them.
"""

import dataclasses
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aijax.data.images import height_and_width, to_pixels
from aijax.data.parts import check_split, named_split
from aijax.data.source import Source, check_labels, shape_of
from aijax.errors import ConfigError, DataError, did_you_mean


def huggingface(
    split: str,
    field: str = "config.data",
    *,
    dataset: str,
    configuration: str | None = None,
    image: str = "image",
    label: str = "label",
    size: int | tuple[int, int] | None = None,
    mode: Literal["RGB", "L"] = "RGB",
    train_split: str = "train",
    test_split: str = "test",
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    split_seed: int = 0,
) -> Source:
    """Returns a split of an image data set of the Hugging Face hub, or of one saved by `Dataset.save_to_disk`.

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      dataset: its name on the hub, or the folder that it was saved to.
      configuration: which of its configurations, where it has several.
      image, label: names of the columns.
      size: height and width in pixels that images are brought to; None where all have one size already.
      mode: "RGB" or "L" (grey).
      train_split, test_split: names of its own splits.
      validation_fraction: of the training split.
      test_fraction: of the training split; above 0 it takes the place of `test_split`.
      split_seed: of the shuffle that splits.

    Raises:
      ConfigError: the package `datasets` is not installed; a size that is not positive.
      DataError: no such data set, split or column; a label out of range.
    """
    package = extra("datasets", field)
    size = None if size is None else height_and_width(size, f"{field}.size")

    def read(name: str) -> Source:
        table = _open_huggingface(package, dataset, configuration, name, field)
        for column in (image, label):
            if column not in table.features:
                raise DataError(f"{field}: {dataset} has no column {column!r}{did_you_mean(column, table.features)}")
        targets = np.asarray(table.with_format("numpy")[label][:])
        names = getattr(table.features[label], "names", None)
        columns = table.select_columns([image])
        return hub_source(
            lambda indices: columns[indices.tolist()][image], targets, names, size, mode, f"{dataset} ({name})"
        )

    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return _split(read, split, field, train_split, test_split, split_seed, **fractions)


def tfds(
    split: str,
    field: str = "config.data",
    *,
    dataset: str,
    path: str | None = None,
    image: str = "image",
    label: str = "label",
    size: int | tuple[int, int] | None = None,
    mode: Literal["RGB", "L"] = "RGB",
    train_split: str = "train",
    test_split: str = "test",
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    split_seed: int = 0,
) -> Source:
    """Returns a split of an image data set of TensorFlow Datasets, read without TensorFlow (`tfds.data_source`).

    Args:
      split: "train", "validation" or "test".
      field: the config section, for messages.
      dataset: its name, such as "mnist" or "oxford_flowers102:2.1.1".
      path: the folder of prepared data sets; None is the library's own.
      image, label: names of the features.
      size: height and width in pixels that images are brought to; None where all have one size already.
      mode: "RGB" or "L" (grey).
      train_split, test_split: names of its own splits.
      validation_fraction: of the training split.
      test_fraction: of the training split; above 0 it takes the place of `test_split`.
      split_seed: of the shuffle that splits.

    Raises:
      ConfigError: the package `tensorflow-datasets` is not installed; a size that is not positive.
      DataError: no such data set, split or feature; a label out of range.
    """
    package = extra("tensorflow_datasets", field)
    size = None if size is None else height_and_width(size, f"{field}.size")

    def read(name: str) -> Source:
        try:
            builder = package.builder(dataset, data_dir=path)
            builder.download_and_prepare(file_format="array_record")
            features = builder.info.features
            for feature in (image, label):
                if feature not in features:
                    raise DataError(f"{field}: {dataset} has no feature {feature!r}{did_you_mean(feature, features)}")
            records = builder.as_data_source(split=name)
            encoded = builder.as_data_source(split=name, decoders={image: package.decode.SkipDecoding()})
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{field}.dataset: cannot open {dataset!r}, split {name!r}: {_first(error)}") from error
        targets = np.array([encoded[i][label] for i in range(len(encoded))])
        names = getattr(features[label], "names", None)
        return hub_source(
            lambda indices: [record[image] for record in records.__getitems__(indices.tolist())],
            targets, names, size, mode, f"{dataset} ({name})",
        )  # fmt: skip

    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return _split(read, split, field, train_split, test_split, split_seed, **fractions)


@dataclasses.dataclass(frozen=True, eq=False)
class HubSource:
    """Records behind `read(indices) -> images`, Pillow images or arrays, each brought to `shape`."""

    read: Callable[[np.ndarray], list]
    labels: np.ndarray
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    resize: bool
    where: str

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        mode, size = "L" if self.shape[-1] == 1 else "RGB", self.shape[:2] if self.resize else None
        images = [_pixels(image, mode, size) for image in self.read(np.asarray(indices))]
        for index, image in zip(indices, images, strict=True):
            if image.shape != self.shape:
                raise DataError(
                    f"{self.where}: record {index} has shape {list(image.shape)}, record 0 {list(self.shape)}; give "
                    "config.data.size to bring all images to one size"
                )
        return {"image": np.stack(images), "label": self.labels.take(indices)}

    @property
    def spec(self) -> dict[str, Any]:
        return {"image": shape_of(self.shape, np.uint8), "label": shape_of((), np.int32)}

    @property
    def read_threads(self) -> int:
        return min(8, os.cpu_count() or 1)


def hub_source(
    read: Callable[[np.ndarray], list],
    targets: np.ndarray,
    names: list[str] | None,
    size: tuple[int, int] | None,
    mode: str,
    where: str,
) -> HubSource:
    """Returns the source of images behind `read`, with checked labels; without `size` record 0 says the shape."""
    if len(targets) == 0:
        raise DataError(f"{where}: holds no records")
    labels = check_labels(targets, None if names is None else len(names), where)
    shape = _pixels(read(np.zeros(1, np.int64))[0], mode, size).shape
    classes = tuple(names) if names is not None else tuple(map(str, range(int(labels.max()) + 1)))
    return HubSource(read, labels, classes, shape, size is not None, where)


def extra(module: str, field: str):
    """Returns a package of the extra `[data]`; where it is missing, a `ConfigError` says what to type."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.replace("_", "-")
        raise ConfigError(
            f"{field}.source: needs the package {name}, which is not installed; type: pip install 'aijax[data]'"
        ) from error


def _split(read, split, field, train_split, test_split, seed, *, validation_fraction, test_fraction) -> Source:
    check_split(split, field)
    if split == "test" and not test_fraction:
        return read(test_split)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return named_split(read(train_split), split, field, seed=seed, **fractions)


def _open_huggingface(package, dataset: str, configuration: str | None, name: str, field: str):
    folder = Path(dataset).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file():
            return package.load_from_disk(str(folder))[name]
        if (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file():
            if name != "train":
                raise KeyError(f"a data set saved by itself has the split 'train' only; give {field}.test_fraction")
            return package.load_from_disk(str(folder))
        return package.load_dataset(dataset, configuration, split=name)
    except Exception as error:
        raise DataError(f"{field}.dataset: cannot open {dataset!r}, split {name!r}: {_first(error)}") from error


def _pixels(image, mode: str, size: tuple[int, int] | None) -> np.ndarray:
    if isinstance(image, (np.ndarray, list)):
        import PIL.Image

        array = np.asarray(image, np.uint8)
        image = PIL.Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    return to_pixels(image, mode, size)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip("'\"")[:300]
