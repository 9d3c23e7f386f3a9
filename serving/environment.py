"""The environment variables that Ray, Serve and vLLM are started with, each with its reason.

They are read at import in many processes, so they are set once, for the process that starts the cluster; all others inherit them.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from serving.settings import ServingSettings

# What a surrounding cluster or container may have left behind: daemun's Ray is its own. And where Python may not keep compiled
# modules, each of some ten processes compiles torch and vLLM anew: 20 s of imports instead of 8.
FOREIGN = (
    "RAY_ADDRESS",
    "RAY_NAMESPACE",
    "RAY_JOB_ID",
    "RAY_RUNTIME_ENV",
    "RAY_AUTH_TOKEN",
    "RAY_TMPDIR",
    "PYTHONDONTWRITEBYTECODE",
)


def token_path(state_dir: Path) -> Path:
    """Where the token for Ray's REST API lies (`Authorization: Bearer <its content>`)."""
    return state_dir / "ray-token"


def cluster_environment(
    settings: ServingSettings, state_dir: Path, run_dir: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
    """`inherited` with everything Ray Serve and vLLM need for this run. `state_dir` outlives the run, `run_dir` does not."""
    environment = {name: value for name, value in inherited.items() if name not in FOREIGN}
    return environment | _ray(settings, state_dir) | _serve(settings) | _vllm(settings, state_dir, run_dir)


def _ray(settings: ServingSettings, state_dir: Path) -> dict[str, str]:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path(state_dir).resolve())}
    return (token if settings.token_auth else {"RAY_AUTH_MODE": "disabled"}) | {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Silences a warning about a coming default that does not concern us.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # The gateway and vLLM have their own metrics.
        "RAY_enable_metrics_collection": "0",
        # Despite its name: without it Ray replaces a loopback address by the machine's public one and listens everywhere.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if ip_address(settings.host).is_loopback else "1",
    }


def _serve(settings: ServingSettings) -> dict[str, str]:
    return {
        # Each replica listens on a port of its own.
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(settings.replica_port_min),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(settings.replica_port_max),
        # A stopping replica stays open this long even when idle, for balancers that poll. The gateway polls every second.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # A model that does not start will not start at the second attempt either. Restarts after a crash are not counted.
        "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1",
        # vLLM's server never blocks its loop. A second thread would only hand every chunk over: a quarter more CPU for streams.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }


def _vllm(settings: ServingSettings, state_dir: Path, run_dir: Path) -> dict[str, str]:
    return {
        # The sockets of killed processes go away with the run; what was compiled is kept.
        "TMPDIR": str(run_dir),
        "TORCHINDUCTOR_CACHE_DIR": str(state_dir.resolve() / "inductor"),
        "VLLM_CACHE_ROOT": str(state_dir.resolve() / "vllm"),
        # vLLM's own set-up closes every log handler in the process, Serve's too, on which Serve then stumbles when its controller
        # restarts. Without it Python's default holds: warnings and errors, on standard error.
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        # Several replicas share the cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(settings.cpu_threads),
    }
