"""What the admin API and the command line need of the store of tenants, projects and keys, as a Protocol."""

from __future__ import annotations

from typing import Protocol

from gateway.policy.tenancy import Key, Project, Tenant, Values


class TenantAdmin(Protocol):
    """Makes, shows and changes tenants, projects and keys. Gateways notice within 2 s.

    `values` are fields by name, as `gateway.policy.tenancy` has them; what is left out stays. Raises its errors (InvalidValue,
    Missing, and what is a Conflict), and StoreUnavailable.
    """

    async def create_tenant(self, name: str, values: Values) -> Tenant: ...

    async def tenants(self) -> list[Tenant]: ...

    async def tenant(self, name: str) -> Tenant: ...

    async def change_tenant(self, name: str, values: Values) -> Tenant: ...

    async def delete_tenant(self, name: str) -> None:
        """With its projects and revoked keys. Raises StillUsed while it has keys that work."""
        ...

    async def create_project(self, tenant: str, name: str, values: Values) -> Project: ...

    async def projects(self, tenant: str) -> list[Project]: ...

    async def project(self, tenant: str, name: str) -> Project: ...

    async def change_project(self, tenant: str, name: str, values: Values) -> Project: ...

    async def delete_project(self, tenant: str, name: str) -> None:
        """With its revoked keys. Raises StillUsed while it has keys that work."""
        ...

    async def create_key(self, tenant: str, project: str, values: Values) -> tuple[str, Key]:
        """The secret, which is kept nowhere and cannot be had again, and the key."""
        ...

    async def keys(self, tenant: str | None = None, project: str | None = None) -> list[Key]: ...

    async def key(self, key_id: str) -> Key: ...

    async def change_key(self, key_id: str, values: Values) -> Key: ...

    async def revoke_key(self, key_id: str) -> Key:
        """For good."""
        ...
