# SPDX-License-Identifier: Apache-2.0
"""What `flowact doctor` looks at, and one line on what to do about each problem.

Every check is a function that takes what it judges (a version, a folder, a module), so that tests can give it a broken
one; `checks` hands it the real thing.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import struct
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from flowact_ros.kiosk.browser import find_browser
from flowact_ros.launcher import environment
from flowact_ros.launcher.environment import EnvironmentProblem, import_advice, origin_of
from flowact_ros.launcher.resources import config_file
from flowact_ros.launcher.shared_memory import leftovers

OK, WARNING, ERROR = "ok", "warning", "error"
SETUP = "run `make setup` in the repository"

SEGMENT_MB = 18  # shared memory of the one participant that sends images (config/fastdds.xml), as measured
PARTICIPANT_MB = 1  # of every other participant: the segment that Fast DDS makes by itself
PARTICIPANTS = 6  # generator, planner, page, two captures and a tool
SHM_NEEDED_MB = SEGMENT_MB + PARTICIPANT_MB * (PARTICIPANTS - 1)

# Below the weights folder; `*` stands for the preset. The cards beside them list the further shards of each.
WEIGHTS = (
    "*/renderer.safetensors",
    "*/denoiser.safetensors",
    "audio_encoder.safetensors",
    "text_encoder.safetensors",
)


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do if it is not well."""

    name: str
    level: str
    found: str
    remedy: str = ""


def check_python(version: tuple[int, ...]) -> Check:
    """`version`: as in sys.version_info[:3]."""
    text = ".".join(map(str, version))
    if version[:2] < (3, 10):
        return Check(
            "python", ERROR, f"{text}, 3.10 or later is needed", "set FLOWACT_PYTHON and run `make setup`"
        )
    if version[:2] > (3, 13):
        return Check(
            "python", WARNING, f"{text}, tested are 3.10 to 3.13", "set FLOWACT_PYTHON=python3.13 if it fails"
        )
    return Check("python", OK, text)


def check_package(name: str, version_of: Callable[[str], str] = metadata.version) -> Check:
    """A Python package that the avatar cannot do without."""
    try:
        return Check(name, OK, version_of(name))
    except metadata.PackageNotFoundError:
        return Check(name, ERROR, "not installed", SETUP)


def check_torch(load: Callable[[str], ModuleType] = importlib.import_module) -> Check:
    """torch imports, with its number of threads."""
    try:
        torch = load("torch")
    except Exception as error:  # a shared library of it is missing; another package in its place
        return _not_imported("torch", "torch", error)
    return Check("torch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads")


def check_gpu(
    load: Callable[[str], ModuleType] = importlib.import_module,
    which: Callable[[str], str | None] = shutil.which,
) -> Check:
    """A GPU that torch can use; none at all is well, too."""
    try:
        cuda = load("torch").cuda
    except Exception:  # told by the check of torch
        return Check("gpu", WARNING, "not looked for without torch", "see torch")
    if cuda.is_available():
        free, total = cuda.mem_get_info()
        return Check(
            "gpu", OK, f"{cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        )
    if which("nvidia-smi"):
        return Check(
            "gpu",
            WARNING,
            "there is an NVIDIA driver, but torch cannot use it: the avatar runs on the CPU",
            "FLOWACT_TORCH=auto make setup installs a CUDA build; check `nvidia-smi`",
        )
    return Check("gpu", OK, "none: the avatar runs on the CPU")


def check_environment(environ: Mapping[str, str]) -> Check:
    """What every node reads from the environment; see environment.py."""
    copy = dict(environ)
    try:
        environment.check(copy)
    except EnvironmentProblem as problem:
        return Check("environment", ERROR, problem.found, problem.remedy)
    folders = ("ROS_LOG_DIR", "XDG_CACHE_HOME")
    moved = [f"{name}={copy[name]}" for name in folders if copy.get(name) != environ.get(name)]
    if moved:
        home = environ.get("HOME") or "not set"
        found = f"HOME is {home}, where nothing can be written: {', '.join(moved)} instead"
        return Check("environment", WARNING, found, "set HOME to a folder of this user, or these variables yourself")
    domain = environ.get("ROS_DOMAIN_ID") or "0"
    return Check("environment", OK, f"domain {domain}, logs in {environment.log_folder(copy)}")


def check_ros(
    environ: Mapping[str, str], load: Callable[[str], ModuleType] = importlib.import_module
) -> Check:
    """rclpy imports; from where."""
    try:
        load("rclpy")
    except Exception as error:  # one of another ROS or another Python raises anything
        return _not_imported("ros", "rclpy", error)
    distro = environ.get("ROS_DISTRO")
    kind = f"ROS 2 {distro}, sourced" if distro else "ROS 2 Jazzy from Python wheels"
    return Check("ros", OK, f"{kind}, rclpy {_version('rclpy')}")


def check_rmw(identifier: Callable[[], str] | None = None) -> Check:
    """The middleware; our profile for large images is one for Fast DDS."""
    try:
        name = (identifier or _rmw_identifier)()
    except ImportError:
        return Check("rmw", WARNING, "not looked for without rclpy", "see ros")
    except Exception as error:
        remedy = "unset RMW_IMPLEMENTATION, or install what it names"
        return Check("rmw", ERROR, f"no middleware can be loaded: {_line(error)}", remedy)
    if name.startswith("rmw_fastrtps"):
        return Check("rmw", OK, name)
    return Check(
        "rmw",
        WARNING,
        f"{name}: the shipped profile for large images is one for Fast DDS",
        "give it a large-message configuration of its own, or set RMW_IMPLEMENTATION=rmw_fastrtps_cpp",
    )


def check_interfaces(load: Callable[[str], ModuleType] = importlib.import_module) -> Check:
    """flowact_msgs is built and its libraries load."""
    wanted = {"msg": "AudioChunk", "srv": "SetReference", "action": "Say"}
    try:
        for module, name in wanted.items():
            interface = getattr(load(f"flowact_msgs.{module}"), name)
            interface.__class__.__import_type_support__()
    # Beside the repository's root, an unbuilt flowact_msgs imports as an empty namespace: AttributeError.
    except Exception as error:
        return Check("flowact_msgs", ERROR, f"not usable: {_line(error)}", import_advice("flowact_msgs", os.environ))
    return Check("flowact_msgs", OK, "messages, services and actions load")


def check_shared_memory(
    folder: Path,
    usage: Callable[[Path], Any] = shutil.disk_usage,
    left: Callable[[Path], int] = leftovers,
) -> Check:
    """Room for the segments of Fast DDS. Without it the images go through UDP: ten times the delay, some are lost."""
    if not folder.is_dir():
        return Check("shared memory", OK, f"no {folder} on this system: images go through UDP")
    space = usage(folder)
    total, free, dead = space.total / 1e6, space.free / 1e6, left(folder) / 1e6
    found = f"{free:.0f} of {total:.0f} MB free in {folder}"
    if dead >= 1:
        found += f", {dead:.0f} MB left by processes that ended (the next start removes them)"
    if free + dead >= SHM_NEEDED_MB:
        return Check("shared memory", OK, found)
    found += f", {SHM_NEEDED_MB} MB are needed"
    if total >= SHM_NEEDED_MB:
        remedy = f"end other programs that use it: ls -lS {folder}, lsof {folder}"
        return Check("shared memory", WARNING, found, remedy)
    remedy = (
        f"give it more: docker run --shm-size=256m (or --ipc=host), else mount -o remount,size=256m {folder}"
    )
    return Check("shared memory", WARNING, found, remedy)


def check_profile(environ: Mapping[str, str], shipped: Callable[[str], Path] = config_file) -> Check:
    """The Fast DDS profile that the generator uses is a readable XML file."""
    own = environ.get("FASTRTPS_DEFAULT_PROFILES_FILE") or environ.get("FASTDDS_DEFAULT_PROFILES_FILE")
    try:
        path = Path(own) if own else shipped("fastdds.xml")
        ElementTree.parse(path)
    except (OSError, ElementTree.ParseError) as error:
        remedy = "unset FASTRTPS_DEFAULT_PROFILES_FILE or correct the file" if own else SETUP
        return Check("dds profile", WARNING, f"not readable: {_line(error)}", remedy)
    return Check("dds profile", OK, f"{path}{' (set by you)' if own else ''}")


def check_audio(load: Callable[[str], ModuleType] = importlib.import_module) -> Check:
    """Microphones through PortAudio. None is a warning: sound files can be spoken without."""
    try:
        sounddevice = load("sounddevice")
        devices = list(sounddevice.query_devices())
    except ImportError as error:
        remedy = import_advice("sounddevice", os.environ)
        return Check("microphone", WARNING, f"sounddevice cannot be imported: {_line(error)}", remedy)
    except OSError:
        remedy = "sudo apt-get install libportaudio2"
        return Check("microphone", WARNING, "the PortAudio library is missing; sound files work", remedy)
    except Exception as error:  # PortAudioError is no OSError; its class is only there when PortAudio is
        return Check(
            "microphone",
            WARNING,
            f"PortAudio failed: {_line(error)}",
            "check the sound system; sound files work",
        )
    inputs = [device["name"] for device in devices if device["max_input_channels"] > 0]
    if not inputs:
        remedy = "plug one in; in a container: --device /dev/snd; sound files work without"
        return Check("microphone", WARNING, "none is connected", remedy)
    return Check(
        "microphone", OK, f"{len(inputs)}: {', '.join(inputs[:4])}{', …' if len(inputs) > 4 else ''}"
    )


def check_weights(
    folder: Path, preset: str = "avatar_cpu", load: Callable[[str], ModuleType] = importlib.import_module
) -> Check:
    """The shipped weights are there, whole, with all shards that their cards list."""
    try:
        checkpoint = load("flowact_ros.models.checkpoint")  # the loader's own module, which needs torch
    except Exception:  # told by the check of torch
        return Check("weights", WARNING, "not looked at without torch", "see torch")
    remedy = "git checkout -- flowact_ros/weights (or `flowact train`)"
    files: list[Path] = []
    for pattern in WEIGHTS:
        path = folder / pattern.replace("*", preset)
        name = path.relative_to(folder)
        try:  # of weights that are gone with their card, the weights are named
            shards = checkpoint.shard_paths(path, checkpoint.read_card(path) if path.is_file() else {})
        except (checkpoint.CheckpointError, OSError):
            return Check("weights", ERROR, f"{name} has no readable card (.json) beside it", remedy)
        for shard in shards:
            problem = safetensors_problem(shard)
            if problem:
                return Check("weights", ERROR, f"{shard.relative_to(folder)} {problem}", remedy)
        files += shards
    size = sum(file.stat().st_size for file in files)
    return Check("weights", OK, f"{preset}: {len(files)} files, {size / 1e6:.1f} MB")


def safetensors_problem(path: Path) -> str:
    """Why a safetensors file cannot be used; "" if it can. Reads the header only."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if 8 + length > size:
            return f"is damaged: {size} bytes, less than its header says"
        try:
            tensors = json.loads(file.read(length))
            end = max(
                (entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"),
                default=0,
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return "is damaged: its header cannot be read"
    if 8 + length + end != size:
        return f"is damaged: {size} bytes instead of {8 + length + end} (is it a pointer of git-lfs, or cut short?)"
    return ""


def check_browser(find: Callable[[], str | None] = find_browser) -> Check:
    """A browser that can be opened with sound; any browser can open the page by hand."""
    path = find()
    if path:
        return Check("browser", OK, path)
    remedy = "sudo apt-get install chromium, or open the page's address in any browser and tap it for sound"
    return Check("browser", WARNING, "no Chromium: the page does not open by itself", remedy)


def check_disk(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Check:
    """Room for logs and recordings."""
    free = usage(folder).free / 1e9
    if free < 1.0:
        return Check(
            "disk",
            WARNING,
            f"{free:.2f} GB free in {folder}",
            "free some space: recordings take 0.2 GB an hour",
        )
    return Check("disk", OK, f"{free:.0f} GB free")


def check_cpu(cores: int | None, flags: str) -> Check:
    """`flags`: of the processor as Linux names them; "" if unknown (another system or another architecture)."""
    found = f"{cores or '?'} cores, {platform.machine()}"
    if cores is not None and cores < 2:
        return Check("cpu", WARNING, found, "the default preset is made for two cores: frames will repeat")
    if flags and platform.machine() == "x86_64" and "avx2" not in flags.split():
        return Check(
            "cpu", WARNING, f"{found}, no AVX2", "frames will repeat: use a processor with AVX2, or a GPU"
        )
    return Check("cpu", OK, found)


def checks() -> list[tuple[str, Callable[[], Check]]]:
    """All checks of this machine with their names, to be made one after the other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("numpy", "safetensors", "aiohttp", "av", "soxr", "soundfile", "simplejpeg", "hibari-tts")
    return [
        ("cpu", lambda: check_cpu(cores, _cpu_flags())),
        ("python", lambda: check_python(sys.version_info[:3])),
        ("environment", lambda: check_environment(os.environ)),
        ("torch", lambda: check_torch()),
        *((name, lambda name=name: check_package(name)) for name in packages),
        ("gpu", lambda: check_gpu()),
        ("ros", lambda: check_ros(os.environ)),
        ("rmw", lambda: check_rmw()),
        ("flowact_msgs", lambda: check_interfaces()),
        ("dds profile", lambda: check_profile(os.environ)),
        ("shared memory", lambda: check_shared_memory(Path("/dev/shm"))),
        ("microphone", lambda: check_audio()),
        ("browser", lambda: check_browser()),
        ("weights", lambda: check_weights(Path(__file__).resolve().parents[1] / "weights")),
        ("disk", lambda: check_disk(Path.cwd())),
    ]


def _not_imported(name: str, package: str, error: Exception) -> Check:
    """Another one in its place is named, since that is what must go."""
    origin = origin_of(package)
    found = f"{package}{f' of {origin}' if origin else ''} cannot be imported: {_line(error)}"
    return Check(name, ERROR, found, import_advice(package, os.environ))


def _rmw_identifier() -> str:
    """Of a middleware that has been started and ended once. Raises ImportError if rclpy is broken."""
    try:
        rclpy = importlib.import_module("rclpy")
    except Exception as error:  # told by the check of ROS
        raise ImportError(str(error)) from error
    environment.put_right(os.environ)
    rclpy.init(args=[])
    rclpy.shutdown()
    return importlib.import_module("rclpy.utilities").get_rmw_implementation_identifier()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _line(error: BaseException) -> str:
    """An error in one line that is short enough; its kind is told where its text alone says little."""
    kind = "" if isinstance(error, (ImportError, OSError, RuntimeError)) else f"{type(error).__name__}: "
    text = kind + (" ".join(str(error).split()) or type(error).__name__)
    return text if len(text) <= 160 else text[:157] + "..."


def _cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
