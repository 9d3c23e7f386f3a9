"""The gateway's part of daemun.yaml: frozen, typed, complete. Reading files and the environment is `daemun.settings`'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from gateway.policy.cost import Energy, Price, Rates
from gateway.policy.rollout import Rollout


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RayFleet(Frozen):
    """Replicas that Ray Serve places, found through its REST API."""

    kind: Literal["ray"] = "ray"
    url: str = Field("http://127.0.0.1:8265", description="Ray's dashboard address, where Serve's REST API is.")
    token_file: Path | None = Field(
        None, description="File with the cluster's token; unset means state_dir/ray-token if that exists, else no token."
    )


class StaticFleet(Frozen):
    """OpenAI-compatible servers at fixed addresses, probed before they get calls."""

    kind: Literal["static"]
    urls: tuple[Annotated[str, Field(pattern="^http://")], ...] = Field(
        min_length=1, description="Addresses without /v1, such as http://10.0.0.7:8000."
    )
    models: tuple[str, ...] | dict[str, str] = Field(
        (),
        description="Models that are expected there even before a server has answered. As a mapping, what the servers call each, "
        "such as {my-model: tiny.gguf}.",
    )
    engine: Literal["auto", "vllm", "other"] = Field(
        "auto",
        description="What the servers run; auto goes by their lists of models. Others are asked only what OpenAI's API has.",
    )


class QueueSettings(Frozen):
    """Who waits, how many, how long."""

    places_per_replica: int = Field(64, ge=1, description="Calls that one replica runs at once; the others wait here.")
    most_waiting: int = Field(1024, ge=0, description="Calls of one model that may wait; more are rejected with 503.")
    patience_s: float = Field(30.0, gt=0, description="Longest wait for a place, in seconds, while replicas are ready.")
    cold_patience_s: float = Field(120.0, gt=0, description="Longest wait, in seconds, while no replica is ready.")
    batch_patience_s: float = Field(600.0, gt=0, description="Longest wait of a batch call, with replicas or without.")
    prompt_s: float = Field(
        30.0,
        ge=0,
        description="Beyond its tier's share, a reserved or paid call waits no longer, unless it says so itself; 0 is for "
        "callers who would rather be told at once than wait.",
    )
    heartbeat_s: float = Field(2.0, gt=0, description="Seconds between two words to a streaming client that waits.")
    target_first_token_s: float = Field(2.0, gt=0, description="The time to the first token that replicas should keep to.")
    free_output_cap_tokens: int = Field(256, ge=1, description="The most output of a free call while we are overloaded.")
    reserved_share: float = Field(0.4, gt=0, le=1, description="What is kept for reserved calls where tiers compete.")
    paid_share: float = Field(0.4, gt=0, le=1, description="The same for paid calls.")
    free_share: float = Field(0.2, gt=0, le=1, description="The same for free calls; batch calls get what nobody else wants.")


class TimeoutSettings(Frozen):
    """Seconds without progress before the gateway gives up on a replica or, at shutdown, on a stream."""

    connect_s: float = Field(2.0, gt=0, description="To connect to a replica.")
    first_byte_s: float = Field(60.0, gt=0, description="From the request to the head of the answer.")
    between_chunks_s: float = Field(60.0, gt=0, description="Between two pieces of an answer.")
    call_s: float = Field(600.0, gt=0, description="For a whole call: after that it is not tried or continued elsewhere.")
    shutdown_s: float = Field(20.0, ge=0, description="For streams to end after SIGTERM; then clients are told to come again.")


class ClientLimits(Frozen):
    """What one client may ask of a gateway process's attention."""

    head_bytes: int = Field(64 * 1024, ge=1024, description="Larger request heads (address and headers) get 431.")
    head_s: float = Field(10.0, gt=0, description="For a request's head, and from connecting to its first byte.")
    body_grace_s: float = Field(20.0, gt=0, description="For a request's body, on top of its size at body_bytes_per_s.")
    body_bytes_per_s: int = Field(16 * 1024, ge=1, description="The slowest upload that is put up with for long.")
    idle_s: float = Field(65.0, gt=0, description="Between two requests; load balancers should close before that.")
    stall_s: float = Field(60.0, gt=0, description="For a client to take another 48 KiB of its answer.")
    connections: int = Field(
        16_384, ge=1, description="More than this, and those that have waited longest without a whole request are closed."
    )


class StoreSettings(Frozen):
    """Where tenants, projects and keys are kept."""

    url: SecretStr | None = Field(
        None, description="postgresql://user:password@host:port/database; unset means a SQLite file in state_dir."
    )
    believe_s: float = Field(
        60.0, ge=0, description="For so long a known key goes on working while the store does not answer; then its calls get 503."
    )

    @property
    def address(self) -> str | None:
        return None if self.url is None else self.url.get_secret_value()


class AdminSettings(Frozen):
    """The admin API's own address, which should not be reachable from outside. Its token is in state_dir/admin-token."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int | None = Field(8081, ge=1, le=65535, description="Port to listen on; null for no admin API.")


class PriceSettings(Frozen):
    """KRW per million tokens, net, in whole KRW: calls then cost whole millionths of a KRW, and sums are exact."""

    prompt: int = Field(0, ge=0, le=10**9, description="For tokens of the prompt.")
    cached: int | None = Field(
        None, ge=0, le=10**9, description="For those of them that the engine had in its cache; null: as others."
    )
    completion: int = Field(0, ge=0, le=10**9, description="For tokens that are generated.")
    reasoning: int | None = Field(None, ge=0, le=10**9, description="For those of them that are reasoning; null: as others.")

    def price(self) -> Price:
        cached = self.prompt if self.cached is None else self.cached
        return Price(self.prompt, cached, self.completion, self.completion if self.reasoning is None else self.reasoning)


class PriceTable(Frozen):
    """What calls cost."""

    default: PriceSettings = PriceSettings()
    models: dict[str, PriceSettings] = Field({}, description="By model, where not the default.")


class EnergySettings(Frozen):
    """Wh per 1,000 tokens: estimates."""

    prompt: float = Field(0.0, ge=0, le=1000, description="For 1,000 tokens of a prompt that are computed.")
    completion: float = Field(0.0, ge=0, le=1000, description="For 1,000 tokens that are generated.")


class EnergyTable(Frozen):
    """Estimates of what calls consume."""

    default: EnergySettings = EnergySettings()
    models: dict[str, EnergySettings] = Field(
        {}, description="By model; those of the catalogue have the figures of their specs unless others are given here."
    )


class EventsSettings(Frozen):
    """Where each call's entry is sent, besides the ledger."""

    url: Annotated[str, Field(pattern="^https?://")] | None = Field(
        None, description="Endpoint for events, such as http://openmeter:8888/api/v1/events; null: none are sent."
    )
    format: Literal["cloudevents", "lago"] = Field(
        "cloudevents", description="CloudEvents 1.0 in batches, or Lago's own batches."
    )
    source: str = Field("daemun", min_length=1, description="The events' source, in CloudEvents.")
    token_file: Path | None = Field(None, description="File with the token that is sent as Authorization: Bearer.")


class LimitSettings(Frozen):
    """How the limits of tenants, projects and keys are held. The limits themselves are in the store."""

    redis: SecretStr | None = Field(
        None,
        description="Address of the Redis that several gateway workers share, such as redis://10.0.0.7:6379/0; "
        "unset means that there is one worker.",
    )
    without_redis: Literal["hold", "share"] = Field(
        "hold",
        description="While Redis is gone: hold spends what is leased and then refuses; "
        "share gives each worker limit / most_workers from the next window on.",
    )
    most_workers: int | None = Field(None, ge=1, description="How many workers there are at most; needed for share.")
    utc_offset_hours: float = Field(9.0, ge=-12, le=14, description="The zone whose days and months limits go by; 9 is Korea's.")

    @field_validator("redis")
    @classmethod
    def _is_an_address(cls, redis: SecretStr | None) -> SecretStr | None:
        if redis is not None and not redis.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("give an address such as redis://10.0.0.7:6379/0")
        return redis

    @property
    def address(self) -> str | None:
        return None if self.redis is None else self.redis.get_secret_value()

    @model_validator(mode="after")
    def _share_needs_workers(self) -> Self:
        if self.without_redis == "share" and self.most_workers is None:
            raise ValueError("share needs most_workers")
        return self


class RolloutSettings(Frozen):
    """A candidate on trial for a model: clients ask for the model, and some of them are answered by the candidate."""

    model: str = Field(min_length=1, description="The model that clients ask for.")
    candidate: str = Field(min_length=1, description="The model that may take its place.")
    canary: float = Field(0.0, ge=0, le=1, description="Share of the callers that the candidate answers, from 0 to 1.")
    shadow: float = Field(0.0, ge=0, le=1, description="Share of the other callers' calls that it gets a copy of, unseen.")
    sticky: Literal["conversation", "key"] = Field(
        "conversation", description="What stays with one version: a conversation, or a key with all of them."
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.model == self.candidate:
            raise ValueError(f"{self.model} cannot be its own candidate; name the model that is to be tried for it")
        if self.canary + self.shadow > 1:
            raise ValueError(
                f"canary and shadow are shares of the same callers, so {self.canary:g} and {self.shadow:g} are too much: "
                "together they may be 1 at most"
            )
        return self

    def rollout(self) -> Rollout:
        return Rollout(self.model, self.candidate, self.canary, self.shadow, self.sticky == "key")


class GatewaySettings(Frozen):
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8080, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(
        1, ge=1, le=256, description="Processes that serve it together; more than one need limits.redis, which all of them share."
    )
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024, description="Larger request bodies get 413.")
    max_media_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="The same for requests that carry images, sound or video."
    )
    fleets: tuple[Annotated[RayFleet | StaticFleet, Field(discriminator="kind")], ...] = Field(
        (RayFleet(),), min_length=1, description="Where the replicas are."
    )
    look_s: float = Field(0.5, gt=0, le=2, description="Seconds between two looks at the fleet's list and health.")
    probe_timeout_s: float = Field(2.0, gt=0, description="Seconds a replica may take to answer a probe.")
    queue: QueueSettings = QueueSettings()
    limits: LimitSettings = LimitSettings()
    rollouts: tuple[RolloutSettings, ...] = Field((), description="Candidates on trial, one a model at most.")
    timeouts: TimeoutSettings = TimeoutSettings()
    clients: ClientLimits = ClientLimits()
    store: StoreSettings = StoreSettings()
    admin: AdminSettings = AdminSettings()
    prices: PriceTable = PriceTable()
    energy: EnergyTable = EnergyTable()
    events: EventsSettings = EventsSettings()
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much the gateway says.")

    @model_validator(mode="after")
    def _workers_share_limits(self) -> Self:
        if self.workers > 1 and self.limits.redis is None:
            raise ValueError(f"{self.workers} workers need limits.redis, the Redis that holds their limits together")
        return self

    @model_validator(mode="after")
    def _rollouts_fit(self) -> Self:
        """Where every fleet is a list that names its models, those of the rollouts are to be among them."""
        models = [rollout.model for rollout in self.rollouts]
        for rollout in self.rollouts:
            if models.count(rollout.model) > 1:
                raise ValueError(f"rollouts has {rollout.model} more than once; try one candidate after the other")
            if rollout.candidate in models:
                raise ValueError(
                    f"{rollout.candidate} is a candidate in rollouts and has one of its own; end one of the two, for calls go no "
                    "further than to one candidate"
                )
        known = [name for fleet in self.fleets for name in (fleet.models if isinstance(fleet, StaticFleet) else ())]
        if all(isinstance(fleet, StaticFleet) and fleet.models for fleet in self.fleets):
            for name in (name for rollout in self.rollouts for name in (rollout.model, rollout.candidate)):
                if name not in known:
                    raise ValueError(f"rollouts names {name}, which no fleet has; there are {', '.join(known)}")
        return self

    def rates(self) -> Rates:
        default = self.energy.default
        return Rates(
            {model: prices.price() for model, prices in self.prices.models.items()},
            {model: Energy(figures.prompt, figures.completion) for model, figures in self.energy.models.items()},
            price=self.prices.default.price(),
            energy=Energy(default.prompt, default.completion),
        )
