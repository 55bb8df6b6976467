"""From a policy to a controller. `runtime`, `server` and `manifest` import no torch: they are what runs on a robot."""
