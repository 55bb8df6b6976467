"""The physics of N environments: one Genesis scene, its fields as live arrays, and its state as rows.

Fields are views of Genesis' own memory: reading one costs nothing, and each is the newest after every step.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from robo_rlft.envs.genesis.arrays import Array, Arrays
from robo_rlft.envs.genesis.task import GenesisTask, Params
from robo_rlft.errors import ConfigError, SpecError

Ids = Int64[np.ndarray, " row"]

_LEAST = 2
"""Genesis detects contacts of a single environment by another piece of code, with other rounding, than those of
several. A batch of one so gets an idle second row, and its episodes are those of a larger batch bit for bit."""
_PARAMETERS = ("dyn_info.links.", "dyn_info.dofs.", "dyn_state.")
"""Model parameters with a row per environment begin like this, after the name of the solver."""
_SHARED = ("rigid_info.links_T", "dyn_state.fixed_verts.pos")
"""Derived arrays without a row per environment."""
_REMADE = (
    "collider_state.contact_data.",
    "collider_state.contact_sort_idx",
    "constraint_state.efc_force",
    "constraint_state.active",
    "dyn_state.free_verts.",
    "dyn_state.vverts.",
    "dyn_state.vgeoms.",
)
"""Large derived arrays that every step writes before it reads them, left out of states: contact points, constraint
rows, and the vertices of moving geoms, which `_VERTICES_DONE` asks for anew."""
_VERTICES_DONE = "RigidSolver.dyn_state.geoms.verts_updated"
_built: set[tuple[str, int]] = set()


class World:
    """One scene of N equal environments.

    Args:
        gs: Genesis, started.
        task: the task's table.
        params: all of its parameters.
        num: environments.
        arrays: the library of the fields.

    Attributes:
        fields: by name, [N, ...]; see `GenesisTask`. Those ending in `.target` are written, the others read.
    """

    def __init__(self, gs: ModuleType, task: GenesisTask, params: Params, num: int, arrays: Arrays) -> None:
        self.num, self._arrays = num, arrays
        self.scene = new_scene(gs, task)
        self.entities = dict(task.scene(gs, self.scene, params))
        _announce(task, num)
        self.scene.build(n_envs=max(num, _LEAST))
        task.prepare(self.entities, params)
        self._solver = self.scene.rigid_solver
        self.fields: dict[str, Array] = {}
        self._joints: dict[str, tuple[int, ...]] = {}
        for name, entity in self.entities.items():
            self.fields |= self._entity_fields(name, entity)
            if name in task.targets:
                self.fields[f"{name}.target"] = self._targets(task, name, entity)
        self._errno = _live(self._solver._errno)
        self._rows = self._state_arrays()
        self._bodies = {
            name: tuple(link.idx for link in entity.links if not link.is_fixed)
            for name, entity in self.entities.items()
        }
        self._first = {name: rows[:1].clone() for name, rows in self._rows.items()}

    def step(self) -> Bool[Array, " env"]:
        """One control step; True where the physics broke. What broke must be reset or set."""
        self.scene.step(update_visualizer=False)
        broken = self._errno[: self.num] > 0
        # Genesis stops every environment once it finds a flag: the environment's own end takes its place.
        self._errno.zero_()
        return self._arrays.view(broken)

    def reset(self, ids: Ids, values: Mapping[str, np.ndarray]) -> None:
        """Put environments into the scene's first state with these fields of their own, one row each.

        Args:
            ids: environments.
            values: `<entity>.qpos`, `<entity>.qvel` and `<entity>.target`; what is left out is as the scene began.
        """
        at = self._at(ids)
        for name, rows in self._rows.items():
            rows[at] = self._first[name]
        self.place(at, values)
        for name, rows in values.items():
            if name.endswith(".target"):
                self.fields[name][self._arrays.rows(ids)] = self._arrays.own(rows)

    def place(self, at: Tensor, values: Mapping[str, np.ndarray]) -> None:
        """Move the entities of environments to `<entity>.qpos` with `<entity>.qvel`, and all that follows from them."""
        for name, entity in self.entities.items():
            rows = [values.get(f"{name}.{kind}") for kind in ("qpos", "qvel")]
            poses, rates = (None if r is None else self._own(r) for r in rows)
            if poses is not None:
                entity.set_qpos(poses, envs_idx=at, zero_velocity=rates is None, skip_forward=rates is not None)
            if rates is not None:
                entity.set_dofs_velocity(rates, envs_idx=at)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the fields that are written."""
        return tuple(name for name in self.fields if name.endswith(".target"))

    @property
    def num_bodies(self) -> int:
        """Links that move."""
        return sum(len(links) for links in self._bodies.values())

    @property
    def num_joints(self) -> int:
        """Joints under position control."""
        return sum(len(dofs) for dofs in self._joints.values())

    def scale_masses(self, factors: Float[np.ndarray, "row body"], ids: Ids) -> None:
        """Give every link that moves a multiple of the mass and inertia that it has."""
        at, links = self._at(ids), [link for group in self._bodies.values() for link in group]
        masses = self._solver.get_links_mass(links, at) * self._own(factors)
        self._solver.set_links_mass(masses, links, at, scale_inertia=True)

    def scale_friction(self, factors: Float[np.ndarray, " row"], ids: Ids) -> None:
        """Give all geoms a multiple of their friction."""
        ratios = self._own(factors)[:, None].expand(-1, self._solver.n_geoms)
        self._solver.set_geoms_friction_ratio(ratios.contiguous(), None, self._at(ids))

    def scale_gains(self, factors: Float[np.ndarray, "row joint"], ids: Ids) -> None:
        """Give every joint under position control a multiple of its stiffness and damping."""
        at, dofs = self._at(ids), [dof for group in self._joints.values() for dof in group]
        scale = self._own(factors)
        stiffness, damping = (get(dofs, at) for get in (self._solver.get_dofs_kp, self._solver.get_dofs_kv))
        self._solver.set_dofs_kp(stiffness * scale, dofs, at)
        self._solver.set_dofs_kv(damping * scale, dofs, at)

    def push(self, name: str, kick: Float[np.ndarray, "row 2"], ids: Ids) -> None:
        """Change the horizontal velocity of an entity's floating base, m/s."""
        at, entity = self._at(ids), self.entities[name]
        now = entity.get_dofs_velocity([0, 1], at)
        entity.set_dofs_velocity(now + self._own(kick), [0, 1], at)

    def save(self, ids: Ids) -> UInt8[np.ndarray, "row byte"]:
        """The full physics of environments: configuration, velocities, commands, parameters and warm starts."""
        at = self._at(ids)
        rows = [values[at].reshape(len(ids), -1).view(torch.uint8) for values in self._rows.values()]
        return torch.cat(rows, 1).cpu().numpy()

    def load(self, saved: UInt8[np.ndarray, "row byte"], ids: Ids) -> None:
        """Inverse of `save`; the future is the same bit for bit.

        Raises:
            SpecError: the rows come from another scene.
        """
        width = sum(values[0].numel() * values.element_size() for values in self._rows.values())
        if saved.shape != (len(ids), width):
            raise SpecError(
                f"the saved physics has shape {saved.shape} where this scene needs {(len(ids), width)}: "
                "save it from the same task with the same version of Genesis"
            )
        at, start = self._at(ids), 0
        data = torch.from_numpy(np.ascontiguousarray(saved)).to(at.device)
        for values in self._rows.values():
            size = values[0].numel() * values.element_size()
            part = data[:, start : start + size].clone().view(values.dtype)
            values[at] = part.reshape(len(ids), *values.shape[1:])
            start += size
        self._rows[_VERTICES_DONE][at] = False

    def close(self) -> None:
        """Free the scene."""
        self.fields, self._rows, self._first = {}, {}, {}
        self.scene.destroy()

    def _at(self, ids: Ids) -> Tensor:
        return torch.from_numpy(ids).to(self._errno.device)

    def _own(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._errno.device, self._arrays.dtype)

    def _entity_fields(self, name: str, entity: Any) -> dict[str, Array]:
        solver, dofs = self._solver, slice(entity.dof_start, entity.dof_end)
        links = slice(entity.link_start, entity.link_end)
        state = solver.dyn_state
        sources = {
            "qpos": (solver.rigid_info.qpos, slice(entity.q_start, entity.q_end)),
            "qvel": (state.dofs.vel, dofs),
            "torque": (state.dofs.qf_applied, dofs),
            "pos": (state.links.pos, links),
            "quat": (state.links.quat, links),
            "com": (state.links.root_COM, links),
            "com_vel": (state.links.cd_vel, links),
            "com_ang": (state.links.cd_ang, links),
            "contact": (state.links.contact_force, links),
            "friction": (state.geoms.friction_ratio, slice(entity.geom_start, entity.geom_end)),
        }
        return {
            f"{name}.{kind}": self._arrays.view(_live(source)[: self.num, part])
            for kind, (source, part) in sources.items()
        }

    def _targets(self, task: GenesisTask, name: str, entity: Any) -> Array:
        """The position targets of the task's joints, which go under position control here."""
        dofs = [dof for joint in task.targets[name] for dof in entity.get_joint(joint).dofs_idx]
        if dofs != list(range(dofs[0], dofs[0] + len(dofs))):
            raise ConfigError(f"{task.id}: the joints {task.targets[name]} are not in the order that Genesis has them")
        self._joints[name] = tuple(dofs)
        part = slice(dofs[0], dofs[-1] + 1)
        here = entity.get_dofs_position()[:, dofs[0] - entity.dof_start : dofs[-1] + 1 - entity.dof_start]
        entity.control_dofs_position(here, [dof - entity.dof_start for dof in dofs])
        return self._arrays.view(_live(self._solver.dyn_state.dofs.ctrl_pos)[: self.num, part])

    def _state_arrays(self) -> dict[str, Tensor]:
        """Every array with a row per environment that decides the future, or follows from what does."""
        from genesis.utils.array_class import DataKind

        found = {}
        for item in self.scene.sim.data(frozenset((DataKind.STATE, DataKind.INFO, DataKind.DERIVED))):
            array = getattr(item, "array", None)
            short = item.name.partition(".")[2]
            owned = item.kind != DataKind.INFO or short.startswith(_PARAMETERS)
            if array is None or not array.shape or short in _SHARED or short.startswith(_REMADE) or not owned:
                continue
            if array.shape[-1] == self.scene.n_envs and (len(array.shape) > 1 or item.kind != DataKind.INFO):
                found[item.name] = array if isinstance(array, Tensor) else _live(array)
        return found


def new_scene(gs: ModuleType, task: GenesisTask, **kwargs: Any) -> Any:
    """An empty scene with the task's timing."""
    return gs.Scene(
        sim_options=gs.options.SimOptions(dt=task.period_s, substeps=task.substeps),
        rigid_options=gs.options.RigidOptions(batch_links_info=True, batch_dofs_info=True, **task.options),
        profiling_options=gs.options.ProfilingOptions(show_FPS=False),
        show_viewer=False,
        **kwargs,
    )


def _live(array: Any) -> Tensor:
    """A Quadrants array's own memory, environment first."""
    from genesis.utils.misc import qd_to_torch

    return qd_to_torch(array, transpose=True, copy=False)


def _announce(task: GenesisTask, num: int) -> None:
    """Say once per task and process what the wait is for."""
    if not any(name == task.id for name, _ in _built):
        wait = "the first time on this machine about a minute or two, then about ten seconds"
        print(f"building the Genesis scene {task.id} x {num} ({wait})", file=sys.stderr, flush=True)
    _built.add((task.id, num))
