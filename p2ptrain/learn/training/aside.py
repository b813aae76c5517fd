"""Work beside training: another thread uses the device, and training does not wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Aside:
    """The place beside training. On a GPU it is a stream of its own; elsewhere there is nothing to do."""

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def now(self) -> torch.cuda.Event | None:
        """Return the moment when all that was asked of the device so far will be done."""
        return None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()

    def give(self, tensor: Tensor) -> Tensor:
        """Let training use a tensor that was made beside it: its memory stays taken until both are done."""
        if tensor.device.type == "cuda":
            tensor.record_stream(torch.cuda.default_stream(tensor.device))
        return tensor

    @contextmanager
    def after(self, moment: torch.cuda.Event | None) -> Iterator[None]:
        """Compute with what stands at that moment, in any thread; all is done when this ends."""
        if self._stream is None or moment is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(moment)
            yield
            self._stream.synchronize()
