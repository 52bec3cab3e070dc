# SPDX-License-Identifier: Apache-2.0
"""The processes of one avatar: how they start, how rank 0 commands the others, and how all end when one dies.

Messages are torch.distributed's. Commands and pictures are tensors on the CPU and go through gloo; what the denoiser
exchanges lies on its device, and on GPUs goes through NCCL. A process that dies is noticed twice: rank 0 waits for its
children, and the others find the connection closed. One that hangs is noticed by the time limit of every message;
between messages rank 0 gives a sign of life.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from flowact_ros.engine.interfaces import EngineError
from flowact_ros.models.precision import check_device

TIMEOUT_S = 20.0  # of one message: an evaluation takes a fraction of a second
START_S = 600.0  # until the last rank has loaded its weights
NUMBERS = 8  # of a command
LIFE, END = 0, 1  # commands that every channel knows; its own ones begin behind them
FIRST_OWN = 2
_EXIT_S = 5.0  # for a rank to end by itself


class RankLost(EngineError):
    """A process of the avatar died or does not answer; the message says which."""


@dataclass(frozen=True)
class Layout:
    """devices: of the ranks that share the denoiser, this process's first; decoder: of one more rank, or None.

    Raises ValueError, one line, for devices that cannot be together.
    """

    devices: tuple[str, ...]
    decoder: str | None = None

    def __post_init__(self) -> None:
        every = [*self.devices, *([self.decoder] if self.decoder else [])]
        if not self.devices:
            raise ValueError("no device is named for the denoiser; name one a rank, such as cuda:0,cuda:1")
        kinds = {torch.device(name).type for name in every}
        if len(kinds) > 1:
            raise ValueError(f"devices {', '.join(every)} are of different kinds; all ranks need the same kind")
        for name in every:
            if kinds == {"cuda"} and every.count(name) > 1:
                raise ValueError(f"device {name} is named twice; every rank needs a GPU of its own")
        for name in dict.fromkeys(every):
            check_device(name)

    @property
    def size(self) -> int:
        """Ranks, that of the decoder included."""
        return len(self.devices) + (self.decoder is not None)

    def device(self, rank: int) -> str:
        return self.devices[rank] if rank < len(self.devices) else str(self.decoder)


def end_this_process(line: str) -> None:
    """What an avatar does whose ranks are not whole: it says so and ends, for its supervisor to start it again."""
    sys.stderr.write(f"flowact: {line}\n")
    sys.stderr.flush()
    os._exit(1)


class Channel:
    """Commands from rank 0 to the other ranks of a mesh, in order, with a sign of life between them.

    lost: is called with what torch.distributed says when a message fails, and raises RankLost
    """

    def __init__(self, mesh: DeviceMesh, timeout_s: float, lost: Callable[[BaseException], RankLost]) -> None:
        self.group = mesh.get_group()
        self.group.set_timeout(timedelta(seconds=timeout_s))
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        self._lost, self._lock, self._closed = lost, threading.Lock(), threading.Event()
        if self.rank == 0:
            threading.Thread(target=self._live, args=(timeout_s / 4,), name="ranks-life", daemon=True).start()

    @contextmanager
    def command(self, *numbers: int) -> Iterator[None]:
        """Rank 0: tells the others, and what belongs to the command is sent inside. Raises RankLost."""
        with self._lock, self.failing():
            self._head(numbers)
            yield

    def hear(self) -> list[int]:
        """The other ranks: the next command that is not a sign of life. Raises RankLost."""
        while True:
            with self.failing():
                numbers = self._head(())
            if numbers[0] != LIFE:
                return numbers

    def send(self, x: torch.Tensor, source: int = 0) -> torch.Tensor:
        """Inside of a command, on all ranks: `x` becomes that of the rank `source` of the world; returned as well."""
        dist.broadcast(x, source, group=self.group)
        return x

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Errors of messages become RankLost; those of the engine stay."""
        try:
            yield
        except EngineError:
            raise
        except (dist.DistError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise self._lost(error) from error

    def close(self, *, whole: bool = True) -> None:
        """Rank 0: gives no more signs of life, and has the others end if they are `whole`."""
        self._closed.set()
        if whole:
            with self.command(END):
                pass

    def _head(self, numbers: Sequence[int]) -> list[int]:
        head = torch.zeros(NUMBERS, dtype=torch.int64)
        head[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        dist.broadcast(head, 0, group=self.group)
        return head.tolist()

    def _live(self, every_s: float) -> None:
        while not self._closed.wait(every_s):
            try:
                with self.command(LIFE):
                    pass
            except RankLost:  # it was told where it is raised first
                return


class Ranks:
    """Rank 0's side of all processes: starts the others, waits for them, and ends with them.

    arguments: what the others build their networks from, see `build.build_across`; on_death: gets one line, once,
    when a rank has died or does not answer, in any thread
    """

    def __init__(
        self,
        layout: Layout,
        arguments: dict[str, Any],
        *,
        timeout_s: float = TIMEOUT_S,
        on_death: Callable[[str], None] = end_this_process,
    ) -> None:
        self.layout, self._timeout_s, self._on_death = layout, timeout_s, on_death
        self._store = dist.TCPStore("127.0.0.1", 0, layout.size, is_master=True, wait_for_workers=False)
        self._closing, self._told = False, threading.Lock()
        self._death = ""  # the first one's
        self._children: list[subprocess.Popen[bytes]] = []
        for rank in range(1, layout.size):
            told = {
                "rank": rank, "port": self._store.port, "devices": layout.devices, "decoder": layout.decoder,
                "timeout_s": timeout_s, "arguments": arguments,
            }  # fmt: skip
            command = [sys.executable, "-m", "flowact_ros.engine.parallel.rank", json.dumps(told)]
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            self._children.append(child)
            threading.Thread(target=self._watch, args=(rank, child), name=f"rank-{rank}", daemon=True).start()

    @property
    def pids(self) -> list[int]:
        """Of the ranks from 1 on."""
        return [child.pid for child in self._children]

    def join(self) -> tuple[Channel | None, Channel | None]:
        """When rank 0 has its networks: waits for the others. The channels of denoiser and decoder.

        Raises RankLost, with what to look for, if one ends instead.
        """
        until = time.monotonic() + START_S
        try:
            for rank in range(1, self.layout.size):
                while not self._store.check([_ready(rank)]):
                    if self._death:
                        raise RankLost(self._death)
                    if time.monotonic() > until:
                        raise RankLost(f"rank {rank} has not loaded its networks within {START_S:g} s")
                    time.sleep(0.05)
            self._store.set("go", "")
            return connect(self.layout, 0, self._store, self._timeout_s, self.lost)
        except BaseException:
            self.close()
            raise

    def lost(self, error: BaseException) -> RankLost:
        """What a failed message means. Tells it, once."""
        until = time.monotonic() + 2.0  # a death is known a moment after the connection is closed
        while not self._death and time.monotonic() < until:
            time.sleep(0.01)
        reason = " ".join(str(error).split())[:200]
        line = self._death or f"a rank did not answer within {self._timeout_s:g} s ({reason})"
        self._tell(line)
        return RankLost(line)

    def close(self, channels: Sequence[Channel | None] = ()) -> None:
        """Has the other ranks end, and waits for that. Harmless when called again."""
        if self._closing:
            return
        self._closing = True
        whole = not self._death
        for channel in channels:
            if channel is not None:
                channel.close(whole=whole)
        for child in self._children:
            if not (channels and whole):
                child.terminate()
            try:
                child.wait(_EXIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _watch(self, rank: int, child: subprocess.Popen[bytes]) -> None:
        status = child.wait()
        if self._closing:
            return
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        started = dist.is_initialized()
        whose = f"rank {rank} of {self.layout.size}, on {self.layout.device(rank)}"
        line = f"{whose}, {how}: the avatar needs all its ranks"
        self._death = self._death or line
        if started:
            self._tell(self._death)

    def _tell(self, line: str) -> None:
        if self._told.acquire(blocking=False):  # and never released: it is told once
            self._on_death(line)


def connect(
    layout: Layout, rank: int, store: dist.Store, timeout_s: float, lost: Callable[[BaseException], RankLost]
) -> tuple[Channel | None, Channel | None]:
    """All ranks at once: the channels of denoiser and decoder, None where this rank has no part or nobody else has."""
    device = torch.device(layout.device(rank))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=store, rank=rank, world_size=layout.size, timeout=timedelta(seconds=timeout_s),
    )  # fmt: skip
    sharing = len(layout.devices)
    split = DeviceMesh(device.type, torch.arange(sharing), mesh_dim_names=("tokens",)) if sharing > 1 else None
    decoding = DeviceMesh("cpu", torch.tensor([0, sharing]), mesh_dim_names=("decoder",)) if layout.decoder else None
    denoiser = Channel(split, timeout_s, lost) if split is not None and rank < sharing else None
    decoder = Channel(decoding, timeout_s, lost) if decoding is not None and rank in (0, sharing) else None
    return denoiser, decoder


def _ready(rank: int) -> str:
    return f"ready-{rank}"


def join_as(layout: Layout, rank: int, port: int, timeout_s: float) -> tuple[Channel | None, Channel | None]:
    """Another rank, when it has its networks: waits for rank 0, and connects. Raises RankLost, ConnectionError."""
    store = dist.TCPStore("127.0.0.1", port, layout.size, is_master=False, timeout=timedelta(seconds=START_S))
    store.set(_ready(rank), "")
    store.wait(["go"])

    def lost(error: BaseException) -> RankLost:
        return RankLost(f"rank {rank} ends: another rank is gone or did not answer within {timeout_s:g} s")

    return connect(layout, rank, store, timeout_s, lost)
