"""Keep in a file what runs hold while they wait: memory then holds one of them, and an allowance for all others.

What a run's operators make is noted by its storages. While the run waits, those that are still there may be written to
a temporary file and emptied; before it goes on they are filled again, so that whoever refers to them finds them as they
were. A storage that another run asks for meanwhile (a table that the model made and keeps) is filled on the spot, and
stays. What numpy looks at cannot be emptied, and is not.
"""

import ctypes
import os
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from io import BufferedRandom
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, UntypedStorage

from fxprune.capture.dispatch import TorchDispatchMode, outside_modes
from fxprune.capture.pytrees import tree_iter, tree_map_only
from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example

# Bytes that waiting runs may hold in memory, all together. What is smaller than WORTH is less than their threads' own.
ALLOWANCE, WORTH = 2 ** 29, 2 ** 16
# Older releases of torch lose a storage that is referred to weakly (2.6 does; those between were not tried): there what
# waits stays in memory.
WEAK = torch.__version__ >= "2.15"
# Bytes that are read and written at a time.
CHUNK = 2 ** 22
# What the C library's allocator has free in each thread's own arena goes back to the system by this alone, where it is
# glibc; another one is left to itself.
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None


class Spill:
    """A temporary file for the tensors of waiting runs; gone once it is closed, or the process is.

    Args:
        allowance: bytes that waiting runs may hold in memory, all together.

    Attributes:
        in_memory: bytes that they hold there.
        owners: storage that lies in the file -> whose it is.
    """

    def __init__(self, allowance: int = ALLOWANCE):
        self.allowance, self.in_memory = allowance, 0
        self.owners: dict[UntypedStorage, LiveTensors] = {}
        self._end, self._emptied = 0, 0
        self._file: BufferedRandom | None = None
        self._buffer = torch.empty(CHUNK, dtype=torch.uint8)

    def empty(self, storage: UntypedStorage, size: int) -> None:
        """Give a storage's memory back."""
        storage.resize_(0)
        self._emptied += size
        if self._emptied > self.allowance:
            self.trim()

    def trim(self) -> None:
        """Have the allocator give the system what it has free, where runs have ever been emptied."""
        if TRIM is not None and self._file is not None:
            TRIM(0)
        self._emptied = 0

    def reserved(self, size: int) -> int:
        """A place in the file with room for so many bytes."""
        self._end += size
        return self._end - size

    def write(self, place: int, storage: UntypedStorage) -> None:
        """Write a storage to this place of the file.

        Raises:
            InputError: there is no room for it.
        """
        try:
            file = self._at(place)
            for part in _parts(storage):
                file.write(self._buffer[:len(part)].copy_(part).numpy().data)
            file.flush()  # so that a full disk is told here
        except OSError as error:
            raise InputError(f"what waits for recovery must fit into {tempfile.gettempdir()!r}, and could not be "
                             f"written there ({error.strerror}); set TMPDIR to a folder with more room, or pass fewer "
                             "samples") from error

    def read(self, place: int, storage: UntypedStorage) -> None:
        """Fill a storage from this place of the file."""
        file = self._at(place)
        for part in _parts(storage):
            file.readinto(self._buffer[:len(part)].numpy().data)
            part.copy_(self._buffer[:len(part)])

    def close(self) -> None:
        """No run waits any more."""
        if self._file is not None:
            self._file.close()

    def _at(self, place: int) -> BufferedRandom:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="fxprune-")  # noqa: SIM115  (closed when the runs are)
        self._file.seek(place)
        return self._file


class LiveTensors:
    """What the runs of one batch have made and still hold.

    Args:
        spill: where it goes while they wait.
    """

    def __init__(self, spill: Spill):
        self._spill = spill
        self._made: WeakSet[UntypedStorage] = WeakSet()
        self._shared: WeakSet[UntypedStorage] = WeakSet()
        self._away: dict[UntypedStorage, tuple[int, int]] = {}
        self._place, self._room, self._in_memory = 0, 0, 0

    def copied(self, example: Example) -> Example:
        """A copy of a batch, which is the runs' own."""
        copy: Example = tree_map_only(Tensor, torch.clone, example)
        if WEAK:
            self._made.update(_storages(copy))
        return copy

    def noting(self) -> AbstractContextManager[Any]:
        """Notes the results of operators, around a run."""
        return _Notes(self) if WEAK else nullcontext()

    def before(self, given: set[UntypedStorage]) -> None:
        """An operator of these runs is about to read this."""
        for storage in given & self._spill.owners.keys():
            with outside_modes():
                self._spill.owners[storage].fill(shared=storage)

    def behind(self, given: set[UntypedStorage], out: set[UntypedStorage]) -> None:
        """An operator of these runs has made ``out``; what it was given may be a parameter."""
        self._made.update(out - given)

    def rest(self) -> None:
        """The runs wait; what goes beyond the allowance goes to the file.

        Raises:
            InputError: there is no room for it.
        """
        sizes = {storage: storage.nbytes() for storage in self._made - self._shared
                 if storage.nbytes() >= WORTH and storage.resizable() and storage.device.type != "meta"}
        total = sum(sizes.values())
        if self._spill.in_memory + total <= self._spill.allowance:
            self._in_memory = total
            self._spill.in_memory += total
            return
        if total > self._room:
            self._place, self._room = self._spill.reserved(total), total
        place = self._place
        for storage, size in sizes.items():
            self._spill.write(place, storage)
            self._spill.owners[storage] = self
            self._away[storage] = place, size
            self._spill.empty(storage, size)
            place += size

    def fill(self, shared: UntypedStorage | None = None) -> None:
        """Before the runs go on: what went to the file is back.

        Args:
            shared: what another run reads, too; it does not go to the file any more.
        """
        self._shared.update(() if shared is None else (shared,))
        self._spill.in_memory -= self._in_memory
        self._in_memory = 0
        for storage, (place, size) in self._away.items():
            del self._spill.owners[storage]
            storage.resize_(size)
            self._spill.read(place, storage)
        self._away = {}

    def release(self) -> None:
        """The runs are over: what somebody still refers to, as tracebacks do, is filled, since it might be shown."""
        self._spill.owners = {storage: owner for storage, owner in self._spill.owners.items() if owner is not self}
        left = WeakKeyDictionary(self._away)
        self._away = {}
        for storage, (place, size) in left.items():
            storage.resize_(size)
            self._spill.read(place, storage)


class _Notes(TorchDispatchMode):
    def __init__(self, tensors: LiveTensors):
        super().__init__()
        self.tensors = tensors

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _storages((args, kwargs))
        self.tensors.before(given)
        out = func(*args, **(kwargs or {}))
        self.tensors.behind(given, _storages(out))
        return out


def _storages(values: Any) -> set[UntypedStorage]:
    return {tensor.untyped_storage() for tensor in tree_iter(values)
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided}


def _parts(storage: UntypedStorage) -> Iterable[Tensor]:
    """Its bytes, piece by piece."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).split(CHUNK)
