"""A run's policy computed by torch, for devices that ONNX Runtime's processor build does not reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from robo_rlft.errors import BundleError, ConfigError, SpecError
from robo_rlft.export.bundle import export
from robo_rlft.export.graph import CorrectedAction, DeterministicPolicy, ExportedModel
from robo_rlft.export.manifest import MANIFEST_FILE, NORMALISED, RESIDUAL
from robo_rlft.export.runtime import Controller, golden_error
from robo_rlft.export.serving.contract import POLICY
from robo_rlft.policies.residual import ResidualPolicy
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose
from robo_rlft.training.paths import acting_path, run_folder
from robo_rlft.training.policies import adapted_policy


def exported(run: Path) -> tuple[Config, Path]:
    """The settings of a run and its bundle, written as `robo-rlft export RUN` does; the same one is left alone.

    Raises:
        CheckpointError: the run has no readable checkpoint.
        BundleError: the run's folder `bundle` holds another bundle.
    """
    settings = run_folder(run) / "config.yaml"
    config = compose([], verb="export", base=settings if settings.is_file() else None)
    config.run.checkpoint = str(run)
    return config, export(config)


class TorchBackend:
    """The policy of a run on a device, checked against the golden actions of its bundle.

    Args:
        config: the run's settings.
        bundle: the run's bundle.
        device: torch's name of it.

    Raises:
        ConfigError: torch has no such device here.
        BundleError: the golden actions are not reproduced on the device.
    """

    text: tuple[str, ...] = ()

    def __init__(self, config: Config, bundle: Path, device: str) -> None:
        self.device = _device(device)
        policy, _ = adapted_policy(config, acting_path(config), "last")
        if isinstance(policy, ResidualPolicy):
            self._models = {POLICY: DeterministicPolicy(policy.base, NORMALISED), RESIDUAL: CorrectedAction(policy)}
        else:
            self._models: dict[str, ExportedModel] = {POLICY: DeterministicPolicy(policy)}
        self._models = {name: model.to(self.device) for name, model in self._models.items()}
        controller = Controller(bundle)
        self.manifest, self.description = controller.manifest, (bundle / MANIFEST_FILE).read_bytes()
        self.golden_error = self._checked(controller, bundle)

    def infer(self, stage: str, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> np.ndarray:
        """See `Backend.infer`."""
        model = self._models[stage]
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise SpecError("a value of the observation is not finite; the controller acts on finite numbers only")
        with torch.no_grad():
            action = model(*(torch.tensor(arrays[name], device=self.device) for name in model.examples))
        if not bool(torch.isfinite(action).all()):
            raise BundleError("the policy returned an action that is not finite")
        return action.cpu().numpy()

    def _checked(self, controller: Controller, bundle: Path) -> float:
        action = self.infer(POLICY, controller.golden, {})
        error = golden_error(action, controller.golden["action"], controller.manifest, controller.manifest.stage.units)
        if not error <= controller.manifest.tolerance:
            raise BundleError(
                f"run and bundle {bundle} give other golden actions on {self.device}: the error is {error:.2g}, "
                f"allowed is {controller.manifest.tolerance:g}; export the run again, or serve the bundle itself"
            )
        return error


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: torch {torch.__version__} has no such device here") from error
    return device
