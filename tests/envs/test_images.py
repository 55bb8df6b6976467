"""Image observations: what they show, when they are drawn, and that physics never sees how they look."""

from __future__ import annotations

import copy
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from robo_rlft import envs
from robo_rlft.envs.conformance import check
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.render import open_gl
from robo_rlft.envs.randomise import RandomiseConfig
from robo_rlft.errors import ConfigError, SpecError

pytestmark = pytest.mark.usefixtures("opengl")
SIZE = (24, 32)
WILD = RandomiseConfig(colour=1.0, light=1.0, camera=1.0)


def arm(
    num: int = 2, cameras: tuple[str, ...] = ("wrist",), look: RandomiseConfig | None = None, **params: Any
) -> MujocoEnv:
    images = ImagesConfig(list(cameras), list(SIZE))
    env = envs.make("ArmPegInsert", num, seed=0, threads=1, images=images, randomise=look, **params)
    assert isinstance(env, MujocoEnv)
    return env


def acts(env: MujocoEnv, *steps: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(env.num_envs, *steps, 6, generator=torch.Generator().manual_seed(seed)) - 1


def photograph(env: MujocoEnv, row: int, camera: str) -> np.ndarray:
    """MuJoCo's own calls, from the state alone: no shadows, no antialiasing, coarse round shapes."""
    model, (height, width) = copy.copy(env.simulation.model), SIZE
    model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
    model.vis.quality.numslices, model.vis.quality.numstacks = 12, 6
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    data = mujoco.MjData(model)
    for field in ("qpos", "mocap_pos", "mocap_quat"):
        getattr(data, field)[:] = env.simulation.field(field)[row]
    mujoco.mj_forward(model, data)
    gl = open_gl(width, height)
    gl.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    scene, view = mujoco.MjvScene(model, 1000), mujoco.MjvCamera()
    for flag in ("SHADOW", "REFLECTION", "HAZE"):
        scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
    view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, view, mujoco.mjtCatBit.mjCAT_ALL, scene)
    image, rect = np.empty((height, width, 3), np.uint8), mujoco.MjrRect(0, 0, width, height)
    mujoco.mjr_render(rect, scene, context)
    mujoco.mjr_readPixels(image, None, rect, context)
    context.free()
    gl.free()
    return image[::-1]


def test_images_are_what_mujoco_draws_of_the_same_state() -> None:
    env = arm(2, ("wrist", "closeup"))
    obs = env.step_chunk(acts(env, 3)).obs
    for camera in ("wrist", "closeup"):
        assert env.robot.observation[f"image/{camera}"].dtype == "uint8"
        assert obs[f"image/{camera}"].dtype == torch.uint8
        for row in range(2):
            np.testing.assert_array_equal(obs[f"image/{camera}"][row].numpy(), photograph(env, row, camera))


def test_the_trace_shows_every_step_and_ends_at_the_final_image() -> None:
    """Stepping one by one draws the very images of one recorded chunk, also across an episode's end."""
    whole, single = (arm(2, max_episode_steps=3) for _ in range(2))
    for env in (whole, single):
        env.reset(seed=1)
    chunk = acts(whole, 5)
    result = whole.step_chunk(chunk, "all")
    assert result.trace is not None
    seen = [single.step(chunk[:, h])[4]["final_obs"]["image/wrist"] for h in range(3)]
    for h, image in enumerate(seen):
        assert torch.equal(result.trace["image/wrist"][:, h + 1], image)
    assert torch.equal(result.trace["image/wrist"][:, -1], seen[-1])
    assert torch.equal(result.final_obs["image/wrist"], seen[-1])
    assert (result.obs["image/wrist"] != result.final_obs["image/wrist"]).flatten(1).any(1).all()


def test_images_of_a_chunk_do_not_depend_on_what_is_recorded() -> None:
    results = []
    for record in ("last", "all"):
        env = arm(2, max_episode_steps=3)
        env.reset(seed=1)
        results.append(env.step_chunk(acts(env, 5), record))
    for part in ("obs", "final_obs"):
        left, right = (getattr(r, part) for r in results)
        assert all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("look", [RandomiseConfig(), WILD], ids=["plain", "randomised"])
def test_restored_and_forked_states_look_the_same(look: RandomiseConfig) -> None:
    env = arm(3, look=look)
    env.step_chunk(acts(env, 2))
    state, before = env.get_state(), env.look_again()["image/wrist"].clone()
    env.reset(seed=50)
    assert torch.equal(env.set_state(state)["image/wrist"], before)
    forked = env.fork(1, [0, 1, 2])["image/wrist"]
    assert all(torch.equal(forked[i], before[1]) for i in range(3))


def test_randomised_looks_leave_physics_alone() -> None:
    """The same seeds give bit-equal states through resets, whatever is randomised, while the images differ."""
    plain, wild = arm(3, max_episode_steps=4), arm(3, look=WILD, max_episode_steps=4)
    for env in (plain, wild):
        env.reset(seed=7)
    for chunk in range(4):
        left, right = (env.step_chunk(acts(env, 3, seed=chunk)) for env in (plain, wild))
        np.testing.assert_array_equal(plain.simulation.state, wild.simulation.state)
        assert torch.equal(left.obs["policy"], right.obs["policy"])
        assert (left.obs["image/wrist"] != right.obs["image/wrist"]).flatten(1).any(1).all()


def test_a_look_belongs_to_its_episode() -> None:
    env = arm(2, look=WILD)
    env.reset(seed=[5, 6])
    first = env.look_again()["image/wrist"]
    env.reset(seed=[6, 5])
    assert torch.equal(env.look_again()["image/wrist"], first.flip(0))
    env.reset()
    assert (env.look_again()["image/wrist"] != first).flatten(1).any(1).all()


@pytest.mark.parametrize("part", ["colour", "light", "camera"])
def test_each_part_of_randomisation_shows(part: str) -> None:
    images = [arm(1, look=look).reset(seed=3)[0]["image/wrist"] for look in (None, RandomiseConfig(**{part: 1.0}))]
    assert not torch.equal(images[0], images[1])


def test_a_state_that_does_not_say_how_it_looks_is_refused() -> None:
    state = arm(1).get_state()
    with pytest.raises(SpecError, match="how its episodes look"):
        arm(1, look=WILD).set_state(state)


def test_an_abandoned_environment_does_not_blind_another() -> None:
    seeing, abandoned = arm(1), arm(1)
    first = seeing.reset(seed=0)[0]["image/wrist"]
    del abandoned
    second = seeing.reset(seed=1)[0]["image/wrist"]
    assert not torch.equal(first, second)
    assert torch.equal(seeing.reset(seed=0)[0]["image/wrist"], first)


def test_the_interface_holds_with_images() -> None:
    images = ImagesConfig(["closeup"], [12, 12])
    check(lambda num: envs.make("ArmPickPlace", num, threads=1, images=images, randomise=WILD))


def test_wrong_cameras_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean wrist"):
        arm(1, ("wrst",))
    with pytest.raises(ConfigError, match=r"env\.images\.size"):
        envs.make("Hopper", images=ImagesConfig([], [0, 3]))


def test_proprioception_does_not_tell_where_the_hole_is() -> None:
    names = arm(1, ()).robot.observation["proprio"].names
    assert names
    assert not [n for n in names if "hole" in n]
