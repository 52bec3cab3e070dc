# SPDX-License-Identifier: Apache-2.0
"""PortAudio and its devices, for the microphone and the loudspeaker alike. No ROS in here."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any, Literal

SILENT_S = 2.0  # an open device that does nothing for so long is gone

Kind = Literal["input", "output"]
_REMEDY = {"input": "plug in a microphone", "output": "plug in a loudspeaker"}


class DeviceError(RuntimeError):
    """No PortAudio, no such device, or a device that cannot be opened: one line with what to do."""


def portaudio(rescan: bool = False) -> ModuleType:
    """The sounddevice module, loaded when first needed. `rescan` looks for devices plugged in since.

    Raises DeviceError.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"no sound device can be used: {error}; install PortAudio (apt install libportaudio2) and sounddevice"
        ) from None
    if rescan:
        # PortAudio lists devices once, at its start; sounddevice has no public call for a second look.
        with contextlib.suppress(sounddevice.PortAudioError):  # the start before this one may have failed
            sounddevice._terminate()
        try:
            sounddevice._initialize()
        except sounddevice.PortAudioError as error:  # a card is just being plugged in or out, say
            raise DeviceError(f"sound devices cannot be listed: {error}; see `flowact doctor`") from None
    return sounddevice


def choose_device(devices: list[dict[str, Any]], wanted: str, kind: Kind = "input") -> int | None:
    """Index of the device that `wanted` means: "" or "default", an index, or a part of a name (any case).

    None is PortAudio's own default. Raises DeviceError with the names there are.
    """
    usable = {i: str(d["name"]) for i, d in enumerate(devices) if int(d[f"max_{kind}_channels"]) > 0}
    listing = "; ".join(f"{i}: {name}" for i, name in usable.items())
    if not usable:
        raise DeviceError(f"no {kind} device found; {_REMEDY[kind]}, or give the user the group 'audio'")
    wanted = wanted.strip()
    if wanted.lower() in ("", "default"):
        return None
    if wanted.lstrip("-").isdigit():
        if int(wanted) in usable:
            return int(wanted)
        raise DeviceError(f"device {wanted} is not an {kind} device; {kind} devices: {listing}")
    matches = [i for i, name in usable.items() if wanted.lower() in name.lower()]
    if not matches:
        raise DeviceError(f"no {kind} device has {wanted!r} in its name; {kind} devices: {listing}")
    return matches[0]
