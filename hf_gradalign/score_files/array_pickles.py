"""Reads pickled NumPy arrays without running code: only arrays, text, numbers, lists and dictionaries are created.

`numpy.load(allow_pickle=True)` runs any code in a file.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from hf_gradalign.score_files.clips import ScoreFileError


def load_object_array(path: str | Path) -> Any:
    """Load a `.npy` file, including one of Python objects, such as a dictionary from `numpy.save`.

    Returns:
        The array, or the object in it if the array has no dimensions.

    Raises:
        ScoreFileError: If it is not such a file, is damaged, or contains objects other than arrays, text, numbers,
            lists, tuples and dictionaries.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            array = _read_array(file)
        except OSError:
            raise
        except ScoreFileError as error:
            raise ScoreFileError(f"{path} is not read: {error}") from error
        except Exception as error:  # a damaged pickle may raise anything
            raise ScoreFileError(f"{path} is not a .npy file of arrays, or is damaged ({error})") from error
    return array.item() if array.dtype.hasobject and array.ndim == 0 else array


def _read_array(file: BinaryIO) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        array = _ArrayUnpickler(file).load()
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise ScoreFileError("it does not contain the array that its header announces")
        return array
    file.seek(0)
    return np.load(file, allow_pickle=False)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise ScoreFileError(
                f"it contains {module}.{name}, but only arrays, text, numbers, lists and dictionaries are read from a "
                "pickle, because anything else could run code"
            )
        return known


class _ArrayType:
    """Stands for the type `numpy.ndarray`, which a pickle could call to allocate any amount of memory."""


def _empty_array(kind: object, shape: tuple[int, ...], code: bytes | str) -> np.ndarray:
    if kind is not _ArrayType or tuple(shape) != (0,):
        raise ScoreFileError("it has an array of an unsupported form")
    return np.empty(0, np.int8)  # the pickle then sets its shape, type and content


def _scalar(dtype: np.dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype)[0]


def _from_buffer(data: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape, order=order)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),  # bytes, in the oldest protocols
}
