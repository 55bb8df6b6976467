"""The ros2_control package as far as it can be checked without ROS 2: files, names, and the controller's own code.

The controller is compiled against as much of ros2_control's API as it uses (`api/`, written for these tests), and run
with the real C++ runtime. Whether a controller manager loads the plugin is not tested here.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from importlib import util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
import yaml

from robo_rlft.envs.registry import make
from robo_rlft.export.native import onnxruntime_library
from robo_rlft.export.robot.description import read_description
from robo_rlft.export.robot.observation import ObservationBuilder, Readings, gravity_of
from robo_rlft.export.robot.topics import Topics
from robo_rlft.export.robot.urdf import _rpy, urdf

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PACKAGE = ROOT / "deploy" / "ros2" / "robo_rlft_controller"
RUNTIME = ROOT / "deploy" / "runtime"
LIBRARY = ROOT / "build" / "runtime" / "librobo_rlft.a"
COMPILER = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


def _fixtures() -> ModuleType:
    place = ROOT / "tests" / "export" / "robot" / "conftest.py"
    spec = util.spec_from_file_location("robot_bundles", place)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def quadruped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "quadruped"
    return _fixtures().write_robot_bundle(folder, "QuadrupedFlat")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to compile into."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return tmp_path_factory.mktemp("compiled")


def _compile(target: Path, *sources: Path, more: tuple[str, ...] = ()) -> None:
    includes = [f"-I{HERE / 'api'}", f"-I{PACKAGE / 'include'}", f"-I{RUNTIME / 'include'}"]
    command = [str(COMPILER), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", *includes, *map(str, sources)]
    done = subprocess.run([*command, *more, "-o", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_names_what_its_code_includes() -> None:
    root = ElementTree.parse(PACKAGE / "package.xml").getroot()
    assert root.attrib["format"] == "3"
    depends = {e.text for e in root if e.tag == "depend"}
    sources = [*PACKAGE.glob("src/*.cpp"), *PACKAGE.glob("include/*/*.hpp")]
    included = {m for f in sources for m in re.findall(r'#include "(\w+)/', f.read_text())}
    assert included - {"robo_rlft", "robo_rlft_controller"} <= depends
    cmake = (PACKAGE / "CMakeLists.txt").read_text()
    found = re.search(r"set\(DEPENDENCIES ([^)]*)\)", cmake)
    assert found is not None
    assert set(found[1].split()) == depends
    for tag in ("name", "version", "description", "maintainer", "license"):
        assert root.find(tag) is not None
    assert root.findtext("export/build_type") == "ament_cmake"


def test_the_plugin_is_the_class_that_the_code_exports_and_the_config_names() -> None:
    library = ElementTree.parse(PACKAGE / "robo_rlft_controller.xml").getroot()
    found = library.find("class")
    assert found is not None
    source = (PACKAGE / "src" / "policy_controller.cpp").read_text()
    assert f"PLUGINLIB_EXPORT_CLASS({found.attrib['type']}, {found.attrib['base_class_type']})" in source
    config = yaml.safe_load((PACKAGE / "config" / "quadruped.yaml").read_text())
    assert config["controller_manager"]["ros__parameters"]["policy_controller"]["type"] == found.attrib["name"]
    assert library.attrib["path"] in (PACKAGE / "CMakeLists.txt").read_text()
    declared = set(re.findall(r'auto_declare<[^>]+>\("(\w+)"', source))
    assert set(config["policy_controller"]["ros__parameters"]) <= declared


def test_the_nodes_config_names_its_parameters_and_topics() -> None:
    config = yaml.safe_load((PACKAGE / "config" / "arm.yaml").read_text())["policy"]["ros__parameters"]
    node = (ROOT / "robo_rlft" / "export" / "robot" / "ros_node.py").read_text()
    topics = vars(Topics())
    for name, value in config.items():
        if name.startswith("topics."):
            assert topics[name.removeprefix("topics.")] == value
        else:
            assert f'"{name}":' in node


def test_the_launch_file_is_python_that_names_files_of_the_package() -> None:
    tree = ast.parse((PACKAGE / "launch" / "quadruped.launch.py").read_text())
    words = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert (PACKAGE / "urdf" / "quadruped.urdf").is_file()
    assert {"quadruped.urdf", "quadruped.yaml", "policy_controller"} <= words


@pytest.mark.parametrize(
    ("file", "env_id", "velocity"), [("quadruped", "QuadrupedFlat", None), ("arm", "ArmPegInsert", 2.175)]
)
def test_the_urdf_is_the_robots(file: str, env_id: str, velocity: float | None) -> None:
    text = (PACKAGE / "urdf" / f"{file}.urdf").read_text()
    assert text == urdf(env_id, velocity)
    root = ElementTree.fromstring(text)
    links = {link.attrib["name"] for link in root.iter("link")}
    children = [c.attrib["link"] for c in root.iter("child")]
    assert len(children) == len(set(children)) == len(links) - 1  # a tree with one root
    assert {p.attrib["link"] for p in root.iter("parent")} <= links
    env = make(env_id, num_envs=1, threads=1)
    limits = {j.attrib["name"]: j.find("limit") for j in root.findall("joint") if j.find("limit") is not None}
    for joint in env.robot.joints:
        found = limits[joint.name]
        assert found is not None
        told = [float(found.attrib[k]) for k in ("lower", "upper", "velocity", "effort")]
        assert told == pytest.approx([joint.position_low, joint.position_high, joint.velocity, joint.effort])
    env.close()


@pytest.mark.parametrize("angles", [(0.3, -0.4, 1.2), (0.5, np.pi / 2, 0.0), (-0.7, -np.pi / 2, 0.0), (3.0, 0.0, -3.0)])
def test_angles_of_the_urdf_turn_as_the_engine_does(angles: tuple[float, float, float]) -> None:
    quat, back = np.zeros(4), np.zeros(4)
    mujoco.mju_euler2Quat(quat, np.array(angles), "XYZ")
    told = np.array([float(x) for x in _rpy(quat).split()])
    mujoco.mju_euler2Quat(back, told, "XYZ")
    assert abs(float(quat @ back)) == pytest.approx(1.0, abs=1e-7)


def test_frames_are_those_of_the_package(compiled: Path, quadruped: Path) -> None:
    """The two tables of terms, in C++ and in Python, on random readings."""
    _compile(compiled / "frame", HERE / "frame_main.cpp", PACKAGE / "src/terms.cpp", RUNTIME / "src/json.cpp")
    description, rng = read_description(quadruped), np.random.default_rng(0)
    assert description.joints is not None
    names, lines, expected = description.joints.names, [], []
    builder = ObservationBuilder(description)
    for _ in range(5):
        q = rng.normal(size=4)
        q /= np.linalg.norm(q)
        w, command, position, rate, action = (rng.normal(size=n) for n in (3, 3, 12, 12, 12))
        lines.append(" ".join(f"{x:.17g}" for x in (*q, *w, *command, *position, *rate, *action)))
        told = {"position": position, "velocity": rate}
        joints = {k: dict(zip(names, v, strict=True)) for k, v in told.items()}
        readings = Readings(ang_vel=w, gravity=gravity_of(*q), command=command, action=action, **joints)
        expected.append(builder.rows(readings)["policy"])
    command_line = [str(compiled / "frame"), str(quadruped / "runtime.json"), *names]
    done = subprocess.run(command_line, input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-12)


def test_an_unknown_joint_is_named(compiled: Path, quadruped: Path) -> None:
    program = compiled / "frame"
    if not program.exists():
        _compile(program, HERE / "frame_main.cpp", PACKAGE / "src/terms.cpp", RUNTIME / "src/json.cpp")
    done = subprocess.run([str(program), str(quadruped / "runtime.json"), "a", "b"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "joint 'FL_hip_joint', which the bundle does not list" in done.stderr


def test_the_controller_moves_within_limits_and_stops(compiled: Path, quadruped: Path) -> None:
    if not LIBRARY.is_file():
        pytest.skip(f"the C++ runtime is not built ({LIBRARY}): make runtime")
    sources = (HERE / "controller_main.cpp", PACKAGE / "src/terms.cpp", PACKAGE / "src/policy_controller.cpp")
    _compile(compiled / "controller", *sources, more=(str(LIBRARY), "-ldl", "-lpthread"))
    joints = read_description(quadruped).joints
    assert joints is not None
    start = [f"{x}" for x in joints.default]
    words = [str(compiled / "controller"), str(quadruped), onnxruntime_library(), "40", "30", *start]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = np.array([[float(x) for x in line.split()] for line in done.stdout.splitlines()])
    assert rows.shape == (40, 12)
    assert np.isfinite(rows).all()
    steps = np.abs(np.diff(np.vstack([joints.default, rows]), axis=0))
    assert (steps <= joints.velocity / 50.0 + 1e-9).all()
    assert steps[:28].max() > 0
    np.testing.assert_array_equal(rows[30:], np.tile(rows[30], (10, 1)))
    assert "3 references, first policy_controller/velocity_x" in done.stderr


def test_a_wrong_bundle_is_refused_in_one_sentence(compiled: Path, tmp_path: Path) -> None:
    program = compiled / "controller"
    if not program.exists():
        pytest.skip("the controller was not compiled")
    done = subprocess.run([str(program), str(tmp_path), "", "1", "1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR ")


def test_the_service_runs_the_node_and_does_not_restart_it(tmp_path: Path) -> None:
    unit = ROOT / "deploy" / "ros2" / "systemd" / "robo-rlft-policy.service"
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if re.match(r"^\w+=", line))
    assert "-m robo_rlft.export.robot.node " in lines["ExecStart"]
    assert lines["Restart"] == "no"
    if (verify := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not here: the unit was not verified")
    done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True)
    assert "Unknown" not in done.stderr, done.stderr


def test_the_container_copies_what_is_there() -> None:
    text = (ROOT / "deploy" / "ros2" / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (ROOT / source).is_dir()
