"""GDCM in a process of its own, because damaged JPEG data can make it abort the whole process.

The child is started when first needed, answers one request after another, is started anew after a crash, and
ends with this process. Run as a module, this file is that child. It reads lines of JSON (`path`, `indices`)
and answers each frame with a line of JSON (`shape`, `dtype`, or `error`) and the frame's bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array

_PATIENCE = 120.0  # seconds for one frame


class _Child:
    """The child process, behind a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def frames(self, path: str, indices: Sequence[int]) -> Iterator[Array]:
        """Decoded frames in order.

        Raises:
            UnusableInput: GDCM cannot decode a frame, crashes on it, or does not come to an end.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps({"path": path, "indices": list(indices)}).encode() + b"\n")
                process.stdin.flush()
                for _ in indices:
                    yield _answer(process)
            except UnusableInput:  # the child said so and is ready for the next request
                raise
            except (OSError, EOFError, ValueError) as error:
                self._stop()
                raise _damaged() from error
            except BaseException:  # also where the caller stops in the middle: what is left in the pipe is stale
                self._stop()
                raise

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            # Our own interpreter and module, no shell.
            command = [sys.executable, "-P", "-m", "vesalius.formats.gdcm_apart"]
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@cache
def _child() -> _Child:
    return _Child()


def decode_apart(path: str | Path, indices: Sequence[int]) -> Iterator[Array]:
    """Frames of a DICOM file, decoded by GDCM in the child: (rows, columns) or (rows, columns, 3).

    Raises:
        UnusableInput: a frame is damaged.
    """
    return _child().frames(str(path), indices)


def _answer(process: subprocess.Popen[bytes]) -> Array:
    assert process.stdout is not None
    alarm = threading.Timer(_PATIENCE, process.kill)
    alarm.start()
    try:
        head = json.loads(process.stdout.readline() or b"{}")
        if "error" in head:
            raise _damaged()
        if "shape" not in head:
            raise EOFError("the decoder crashed")
        dtype = np.dtype(head["dtype"])
        size = int(np.prod(head["shape"])) * dtype.itemsize
        data = process.stdout.read(size)
        if len(data) != size:
            raise EOFError("the decoder crashed")
    finally:
        alarm.cancel()
    return np.frombuffer(data, dtype).reshape(head["shape"])


def _damaged() -> UnusableInput:
    return UnusableInput(
        "A frame of its compressed pixel data is damaged.",
        remedy="Export it again from its source, uncompressed if it can be.",
    )


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The child: answer requests until there are no more."""
    for line in requests:
        request = json.loads(line)
        try:
            for frame in _decode(request["path"], request["indices"]):
                head = {"shape": frame.shape, "dtype": frame.dtype.str}
                answers.write(json.dumps(head).encode() + b"\n" + frame.tobytes())
        except Exception as error:  # whatever it is, the parent is told and the child goes on
            answers.write(json.dumps({"error": type(error).__name__}).encode() + b"\n")
        answers.flush()


def _decode(path: str, indices: Sequence[int]) -> Iterator[Array]:
    from pydicom.pixels.decoders.base import get_decoder

    from vesalius.formats.dicom_header import lenient
    from vesalius.formats.dicom_pixels import open_whole

    with lenient():
        dataset: Any = open_whole(Path(path))
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        for index in indices:
            yield np.asarray(decoder.as_array(dataset, index=index, decoding_plugin="gdcm")[0])


def main() -> None:
    """Serve on standard input and output; what libraries print goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
