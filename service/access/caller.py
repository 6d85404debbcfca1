"""Who asks: a tenant's key with its role, and what that role may do."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from calibration.errors import InvalidConfigError

DEFAULT_TENANT = "default"  # whose jobs of a server without keys are, and those from before there were tenants
MAX_TENANT_CHARACTERS = 63


class Role(enum.StrEnum):
    """What a key may do; each role may do what those before it may."""

    READ = "read"  # look at jobs of the own tenant, download what they left
    SUBMIT = "submit"  # upload, submit, cancel, delete
    ADMIN = "admin"  # jobs of all tenants, figures of the server, the audit log

    def includes(self, other: Role) -> bool:
        """Whether this role may do what the other may."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        key_id: Of the key, or one of the names below.
        tenant: Whose jobs and files the caller has.
        role: What the caller may do.
        name: The label that the operator gave the key; "" where there is none.
    """

    key_id: str
    tenant: str
    role: Role
    name: str = ""

    @property
    def sees(self) -> str | None:
        """The tenant whose jobs the caller sees; None: those of all."""
        return None if self.role is Role.ADMIN else self.tenant


def check_tenant(name: str) -> str:
    """Return the name of a tenant, which is a plain word.

    Raises:
        InvalidConfigError: It is none.
    """
    if not _TENANT.fullmatch(name):
        raise InvalidConfigError(
            f"tenant {name!r}: expected 1 to {MAX_TENANT_CHARACTERS} letters, digits, '.', '_' and '-', the first a letter or digit",
            fix="Choose another name.",
        )
    return name


ENVIRONMENT = Caller("environment", DEFAULT_TENANT, Role.ADMIN)  # sent the key of the server's own settings
THIS_MACHINE = Caller("this-machine", DEFAULT_TENANT, Role.ADMIN)  # asked a server without keys, which answers its own machine alone
_TENANT = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_TENANT_CHARACTERS - 1}}}")
