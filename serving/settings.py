"""The settings of `daemun serve`: what runs, where it listens, where it keeps its files.

Only the shape is here. Reading daemun.yaml and the environment is the command line's work; nothing below touches a file.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# A Unix socket's path has at most 107 bytes. Below the root, the longest that Ray and vLLM make is about 80 long.
LONGEST_TEMP_ROOT = 24


class ServingSettings(BaseModel):
    """One local Ray head with Ray Serve and one Serve app a model. All addresses are loopback unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="What the models run on; auto takes GPUs where vLLM can use them."
    )
    models: tuple[str, ...] = Field(("daemun-demo",), min_length=1, description="Catalogue ids of the models to serve.")
    replicas: dict[str, int] = Field(default_factory=dict, description="Replicas by model id, where not what the catalogue says.")
    cpu_threads: int = Field(1, ge=1, description="Compute threads of one replica on a CPU.")
    drain_s: float = Field(
        20.0, ge=5.0, description="How long running answers may take to finish when a replica or everything is stopped."
    )

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
        if len(str(self.temp_root)) > LONGEST_TEMP_ROOT:
            raise ValueError(
                f"temp_root is longer than {LONGEST_TEMP_ROOT} characters, and a Unix socket's path may have only 107"
            )
        return self
