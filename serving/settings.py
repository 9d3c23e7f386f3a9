"""The settings of `daemun serve`: what runs, where it listens, where it keeps its files.

Only the shape is here. Reading daemun.yaml and the environment is the command line's work; nothing below touches a file.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# A Unix socket's path has at most 107 bytes. Below the root, the longest that Ray and vLLM make is about 80 long.
LONGEST_TEMP_ROOT = 24


class AutoscalingSettings(BaseModel):
    """How the number of replicas follows what is asked, between a spec's least and most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="Let the number of replicas follow what is asked.")
    demand_url: str | None = Field(
        None, description="The gateway's /internal/demand; if not given, that of the gateway of this machine."
    )
    least: dict[str, int] = Field(
        default_factory=dict, description="Fewest replicas by model id, where not what the catalogue says."
    )
    most: dict[str, int] = Field(
        default_factory=dict, description="Most replicas by model id, where not what the catalogue says."
    )
    use: float = Field(0.8, gt=0, le=1, description="Share of a replica's speed that is planned with; the rest is for bursts.")
    spreads: float = Field(1.0, ge=0, le=10, description="Standard deviations of the forecast's error that are planned for.")
    clear_s: float = Field(20.0, gt=0, description="Within which what waits should be worked off, once replicas are ready.")
    hold_s: float = Field(120.0, ge=0, description="How long a replica stays after it was last wanted.")
    idle_s: float = Field(300.0, gt=0, description="Without any call, before the last replica goes; only where the least is 0.")
    stale_s: float = Field(15.0, gt=0, description="Age at which what the gateway said is not believed any more.")


class ServingSettings(BaseModel):
    """One local Ray head with Ray Serve and one Serve app a model. All addresses are loopback unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="What the models run on; auto takes GPUs where vLLM can use them."
    )
    catalog_dir: Path | None = Field(
        None, description="Folder with catalogue entries of one's own, beside the built-in ones and before them."
    )
    models: tuple[str, ...] = Field(("daemun-demo",), min_length=1, description="Catalogue ids of the models to serve.")
    replicas: dict[str, int] = Field(default_factory=dict, description="Replicas by model id, where not what the catalogue says.")
    simulated_accelerators: int = Field(
        0, ge=0, description="Accelerators that a machine without GPUs stands in for; 0: its models share the CPUs freely."
    )
    simulated_memory_gib: float = Field(4.0, gt=0, description="Memory of each simulated accelerator, for KV caches.")
    surge_percent: int = Field(
        25,
        ge=0,
        le=100,
        description="In a reload, replicas of the new version beyond the usual number, rounded up; 0: old ones end first.",
    )
    cpu_threads: int = Field(1, ge=1, description="Compute threads of one replica on a CPU.")
    drain_s: float = Field(
        20.0, ge=5.0, description="How long running answers may take to finish when a replica or everything is stopped."
    )

    autoscaling: AutoscalingSettings = Field(AutoscalingSettings(), description="Whether and how replicas follow what is asked.")

    host: str = Field("127.0.0.1", description="The one address of this machine that Ray and the replicas listen on.")
    replica_port_min: int = Field(30000, ge=1024, le=65535, description="First port for replicas.")
    replica_port_max: int = Field(31000, ge=1024, le=65535, description="Last port for replicas.")
    proxy_port: int = Field(8000, ge=1, le=65535, description="Port of Serve's own proxy; daemun's gateway does not use it.")
    dashboard_host: str = Field("127.0.0.1", description="Address of Ray's REST API, where the gateway learns of the replicas.")
    dashboard_port: int = Field(8265, ge=1, le=65535, description="Port of Ray's REST API.")
    token_auth: bool = Field(True, description="Let only clients with the token in state_dir/ray-token use Ray and its REST API.")

    temp_root: Path = Field(Path("/tmp"), description="Under it each run has one directory, removed at its end. Must be short.")  # noqa: S108 - mkdtemp below it

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if ip_address(self.host).is_unspecified:
            raise ValueError(f"host is announced to the gateway, so it must be one address of this machine, not {self.host}")
        if self.replica_port_min > self.replica_port_max:
            raise ValueError(f"replica_port_min ({self.replica_port_min}) is above replica_port_max ({self.replica_port_max})")
        if len(set(self.models)) != len(self.models):
            raise ValueError("models names one model twice")
        if strangers := self.replicas.keys() - set(self.models):
            raise ValueError(f"replicas speaks of {', '.join(sorted(strangers))}, which models does not list")
        for name, counts in (("least", self.autoscaling.least), ("most", self.autoscaling.most)):
            if strangers := counts.keys() - set(self.models):
                raise ValueError(f"autoscaling.{name} speaks of {', '.join(sorted(strangers))}, which models does not list")
        if len(str(self.temp_root)) > LONGEST_TEMP_ROOT:
            raise ValueError(
                f"temp_root is longer than {LONGEST_TEMP_ROOT} characters, and a Unix socket's path may have only 107"
            )
        return self
