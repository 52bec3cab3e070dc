# SPDX-License-Identifier: Apache-2.0
"""The steps of the set-up: virtual environment, torch, packages, flowact_msgs, flowact_ros. Called by scripts/setup.

Every step leaves a stamp (a hash of what it depends on) in .venv/setup.json and is skipped while the stamp fits, so a
call that has nothing to do only hashes a few files. A step that was interrupted has no stamp and is done again. Output
of the tools goes to .venv/setup.log.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from setup_checks import (
    SetupError,
    broken,
    cuda_packages,
    digest,
    disk_problem,
    explain,
    missing_tools,
    portaudio_warning,
    relocate,
    requirements,
    sourced_ros,
    torch_steps,
)

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMPS = VENV / "setup.json"
LOG = VENV / "setup.log"
PYTHON = VENV / "bin" / "python"


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(command: list[str], what: str, env: dict[str, str] | None = None) -> str:
    """Runs a tool with its output in the log; returns its stdout, raises SetupError with one line if it fails."""
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        start = log.tell()
        done = subprocess.run(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log, text=True, check=False
        )
        log.write(done.stdout)
    if done.returncode:
        with LOG.open(encoding="utf-8", errors="replace") as log:
            log.seek(start)
            text = log.read()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reason = explain(text) or next(
            (line for line in reversed(lines) if "rror" in line), lines[-1] if lines else ""
        )
        raise SetupError(f"{what} failed: {reason} (all output: {LOG.relative_to(ROOT)})")
    return done.stdout


def pip(*arguments: str, what: str) -> str:
    """pip of the environment. Ten tries of a broken connection would only delay the message."""
    return run([str(PYTHON), "-m", "pip", "--retries", "2", *arguments], what, env=clean_environment())


def clean_environment() -> dict[str, str]:
    """The caller's environment without what a build must not inherit; our own start-up hook stays out of the way."""
    mine = (
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "__PYVENV_LAUNCHER__",
        "MAKEFLAGS",
        "MFLAGS",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
    )
    env = {name: value for name, value in os.environ.items() if name not in mine}
    env["FLOWACT_ENVIRONMENT"] = "off"
    return env


class Setup:
    """The state of one call: what the environment has (stamps) and what it shall have."""

    def __init__(self, extras: list[str]) -> None:
        self.ros = sourced_ros(os.environ)
        self.stamps: dict[str, str] = json.loads(STAMPS.read_text()) if STAMPS.exists() else {}
        had = self.stamps.get("extras", "")
        self.extras = sorted({*extras, *filter(None, had.split(","))})  # what is installed stays installed
        # Unset means "as it was": `make demo` must not undo what FLOWACT_TORCH asked for once.
        self.wish = os.environ.get("FLOWACT_TORCH") or self.stamps.get("FLOWACT_TORCH", "")
        self.constraints = ROOT / "constraints" / ("system-ros.txt" if self.ros else "wheels.txt")
        self.changed = 0

    def step(self, name: str, stamp: str, title: str, action: Callable[[], None]) -> bool:
        """Does `action` unless its stamp fits; True if it was done."""
        if self.stamps.get(name) == stamp:
            return False
        say(f"{title} ...")
        began = time.monotonic()
        self.stamps.pop(name, None)
        self.save()
        action()
        self.stamps[name] = stamp
        self.save()
        self.changed += 1
        say(f"{title}: done in {time.monotonic() - began:.0f} s")
        return True

    def save(self) -> None:
        if VENV.exists():
            STAMPS.write_text(json.dumps(self.stamps, indent=1) + "\n")

    def all(self) -> None:
        home = f"{platform.python_version()} {sys.base_prefix} {ROOT} ros={self.ros}"
        if self.stamps.get("environment") != home or not PYTHON.exists():
            check_machine()
            # The environment is made anew, everything in it too, but of the same kind.
            self.stamps = {name: text for name, text in self.stamps.items() if name == "FLOWACT_TORCH"}
        self.step(
            "environment",
            home,
            f"Python {platform.python_version()} environment in .venv",
            self.make_environment,
        )

        self.step("torch", f"{self.wish} {self.torch_requirement()}", "torch", self.install_torch)

        self.stamps["extras"] = ",".join(self.extras)
        files = [
            ROOT / "setup.cfg",
            self.constraints,
            ROOT / "constraints" / "build.in",
            ROOT / "constraints" / "ros_wheels.in",
        ]
        kind = f"sourced ROS 2 {self.ros}" if self.ros else "ROS 2 Jazzy as Python wheels"
        packages = digest(files, *self.extras, self.wish)
        self.step("packages", packages, f"Python packages, {kind}", self.install_packages)

        sources = [ROOT / "flowact_msgs", ROOT / "constraints" / "ros_wheels.in"]
        self.step(
            "flowact_msgs", digest(sources), "flowact_msgs (compiles for a minute)", self.build_messages
        )

        names = [
            str(p.relative_to(ROOT))
            for folder in ("launch", "config")
            for p in sorted((ROOT / folder).rglob("*"))
        ]
        files = [
            ROOT / "setup.py",
            ROOT / "setup.cfg",
            ROOT / "package.xml",
            ROOT / "scripts" / "flowact_environment.py",
        ]
        self.step("flowact_ros", digest(files, *names), "flowact_ros", self.build_package)
        built = [self.stamps[name] for name in ("environment", "torch", "packages", "flowact_msgs", "flowact_ros")]
        self.step("tried", digest([], *built), "a first try", self.try_out)
        if self.wish != "skip":
            files = [ROOT / "flowact_ros" / "weights" / "avatar_cpu" / "renderer.safetensors"]
            package = ROOT / "flowact_ros"
            files += [package / "models" / "codec", package / "engine" / "runtime" / "openvino.py"]
            self.step("graphs", digest(files, packages), "the renderer, converted for this machine", self.convert)

    # -- the steps ---------------------------------------------------------------------------------------------------

    def make_environment(self) -> None:
        # build/ and install/ were made for another interpreter or another place.
        for folder in (VENV, ROOT / "build", ROOT / "install"):
            shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "venv", *(["--system-site-packages"] if self.ros else []), str(VENV)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise SetupError(
                f"no virtual environment could be made: {explain(done.stdout) or done.stdout.strip()[-300:]}"
            )
        if (
            self.ros
            and subprocess.run(
                [str(PYTHON), "-c", "import rclpy"], stderr=subprocess.DEVNULL, check=False
            ).returncode
        ):
            shutil.rmtree(VENV)
            raise SetupError(
                f"ROS 2 {self.ros} is sourced but {sys.executable} cannot import its rclpy: "
                "set FLOWACT_PYTHON to the Python that ROS was built for (/usr/bin/python3)"
            )
        # A dry run of pip before 25.1 downloads everything it only means to look at.
        pip("install", "-q", "pip>=25.1", what="updating pip")

    def torch_requirement(self) -> str:
        return next(line for line in requirements(ROOT / "setup.cfg", []) if line.startswith("torch"))

    def install_torch(self) -> None:
        self.find_torch()
        self.stamps["FLOWACT_TORCH"] = self.wish  # only now: a wish that failed is not remembered

    def find_torch(self) -> None:
        wish, requirement = self.wish, self.torch_requirement()
        has_gpu = bool(shutil.which("nvidia-smi")) or Path("/dev/nvidiactl").exists()
        found = None
        if not wish and not has_gpu:
            found = self.cuda_packages_of(requirement)
        steps = torch_steps(wish, has_gpu, requirement, found)
        for number, (tool, argument) in enumerate(steps, 1):
            try:
                if tool == "uv":
                    pip("install", "-q", "uv", what="installing uv")
                    backend = f"--torch-backend={argument}"
                    command = [
                        str(PYTHON),
                        "-m",
                        "uv",
                        "pip",
                        "install",
                        "--python",
                        str(PYTHON),
                        backend,
                        # Every build satisfies the requirement: without this, the one that is there would stay.
                        "--reinstall-package",
                        "torch",
                        requirement,
                    ]
                    run(command, f"installing torch ({argument})", env=clean_environment())
                else:
                    if found:
                        say(
                            f"WARNING: no CPU build of torch found; the default brings {len(found)} CUDA packages"
                        )
                    pip("install", "-q", argument, "-c", str(self.constraints), what="installing torch")
                return
            except SetupError as error:
                if number == len(steps):
                    raise
                say(f"{error}; trying the next way")

    def cuda_packages_of(self, requirement: str) -> list[str] | None:
        """What pip would bring for CUDA, without bringing it."""
        try:
            text = pip(
                "install",
                "-q",
                "--dry-run",
                "--ignore-installed",
                "--report",
                "-",
                requirement,
                what="looking for torch",
            )
            return cuda_packages(json.loads(text))
        except (SetupError, json.JSONDecodeError):
            return None

    def install_packages(self) -> None:
        lines = requirements(ROOT / "setup.cfg", self.extras)
        if self.wish:  # installed as wished; the version range must not undo that
            lines = [line for line in lines if not line.startswith("torch")]
        files = [
            ROOT / "constraints" / "build.in",
            *([] if self.ros else [ROOT / "constraints" / "ros_wheels.in"]),
        ]
        if not shutil.which("cmake"):
            lines.append("cmake>=3.22")
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder, "requirements.txt")
            wanted.write_text("\n".join(lines) + "\n")
            arguments = [item for file in (wanted, *files) for item in ("-r", str(file))]
            arguments += ["-c", str(self.constraints)]
            torch = run(
                [
                    str(PYTHON),
                    "-c",
                    "from importlib.metadata import distributions as d; print(*(t.version for t in d(name='torch')))",
                ],
                "looking for torch",
                env=clean_environment(),
            ).split()
            if torch:  # no other package may replace the build that was chosen
                pinned = Path(folder, "torch.txt")
                pinned.write_text(f"torch=={torch[0]}\n")
                arguments += ["-c", str(pinned)]
            pip("install", "-q", *arguments, what="installing the packages")
        if not self.ros:
            self.relocate_wheels()

    def relocate_wheels(self) -> None:
        code = "import sysconfig; print(sysconfig.get_path('include')); print(sysconfig.get_path('purelib'))"
        include, site = run(
            [str(PYTHON), "-c", code], "asking Python for its paths", env=clean_environment()
        ).splitlines()
        for folder in (VENV / "share", VENV / "lib"):
            for file in folder.rglob("*.cmake"):
                old = file.read_text(encoding="utf-8")
                new = relocate(old, include, site)
                if new != old:
                    file.write_text(new, encoding="utf-8")

    def colcon(self, package: str, *arguments: str) -> None:
        env = clean_environment()
        env["MAKEFLAGS"] = (
            f"-j{os.cpu_count() or 1}"  # colcon's own choice, -j -l, crawls while the machine is busy
        )
        env["PATH"] = f"{VENV / 'bin'}{os.pathsep}{env.get('PATH', '')}"
        if not self.ros:
            env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(VENV)
        command = [str(PYTHON), "-m", "colcon", "build", "--packages-select", package, *arguments]
        run(command, f"building {package}", env=env)

    def build_messages(self) -> None:
        shutil.rmtree(ROOT / "build" / "flowact_msgs", ignore_errors=True)
        python = [f"-DPython3_EXECUTABLE={PYTHON}", "-DPython3_FIND_VIRTUALENV=ONLY", "-DBUILD_TESTING=OFF"]
        self.colcon("flowact_msgs", "--cmake-args", *python)

    def build_package(self) -> None:
        self.colcon("flowact_ros", "--symlink-install")
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = Path(
            run([str(PYTHON), "-c", code], "asking Python for its paths", env=clean_environment()).strip()
        )
        shutil.copy(ROOT / "scripts" / "flowact_environment.py", site / "flowact_environment.py")
        hook = f"import flowact_environment; flowact_environment.activate({str(ROOT)!r})\n"
        (site / "flowact_environment.pth").write_text(hook)
        command = VENV / "bin" / "flowact"
        command.unlink(missing_ok=True)
        command.symlink_to(ROOT / "install" / "flowact_ros" / "lib" / "flowact_ros" / "flowact")

    def convert(self) -> None:
        """Once here, or every first start would wait ten seconds for it."""
        code = "from flowact_ros.engine.pipeline import build_pipeline; build_pipeline().prepare()"
        run([str(PYTHON), "-c", code], "converting the renderer")

    def try_out(self) -> None:
        """Runs what was built, as a person would. Raises SetupError with what does not work."""
        report = VENV / "doctor.json"
        with report.open("w", encoding="utf-8") as out:
            command = [str(VENV / "bin" / "flowact"), "doctor", "--json"]
            try:
                done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
            except OSError as error:  # an interpreter line that the system does not take
                raise SetupError(f".venv/bin/flowact cannot be started: {error}") from None
        problem = broken(report.read_text(encoding="utf-8"), without_torch=self.wish == "skip")
        if problem:
            with LOG.open("a", encoding="utf-8") as log:
                log.write(f"\n$ {' '.join(command)}\n{done.stderr}")
            raise SetupError(f"what was built does not work: {problem}")


def check_machine() -> None:
    """Raises one SetupError with everything the machine lacks, so that it takes one round to mend."""
    problems = missing_tools(os.environ)
    disk = disk_problem(shutil.disk_usage(ROOT).free)
    if disk:
        problems.append(disk)
    if problems:
        raise SetupError("; ".join(problems))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/setup", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--extras", default="", help="comma-separated extras of setup.cfg: whisper, gpu, train, dev"
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        with open(__file__, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # `make demo` and `make test` at once: the second waits
            setup = Setup([extra for extra in arguments.extras.split(",") if extra])
            setup.all()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the next call goes on from here", file=sys.stderr)
        return 130
    if setup.changed:
        warning = portaudio_warning()
        if warning:
            say(f"WARNING: {warning}")
        say(f"ready in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
