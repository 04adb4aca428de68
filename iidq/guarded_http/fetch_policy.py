"""The hosts and networks that URLs may reach although they are not public."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Self

from iidq.errors import SettingsFault
from iidq.guarded_http.addresses import IpAddress, IpNetwork, canonical_host, special_kind


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """The addresses that URLs may reach: public ones on the scheme's own port, and opened ones on any port."""

    hosts: frozenset[str] = frozenset()
    """Opened hosts in canonical form; by default none. Such a host may resolve to any address."""
    networks: tuple[IpNetwork, ...] = ()
    """Opened networks; by default none."""

    @classmethod
    def opening(cls, items: Iterable[str]) -> Self:
        """Return the policy for ``FETCH_ALLOW_PRIVATE``: CIDRs, addresses or host names.

        Raises :class:`SettingsFault` for any other item.
        """
        hosts: set[str] = set()
        networks: list[IpNetwork] = []
        for number, item in enumerate(items, 1):
            try:
                networks.append(ip_network(item.strip("[]"), strict=False))
            except ValueError:
                try:
                    hosts.add(canonical_host(item))
                except ValueError:
                    raise SettingsFault(
                        f"FETCH_ALLOW_PRIVATE: item {number} cannot be used; expected hosts or CIDRs, without a port"
                    ) from None
        return cls(frozenset(hosts), tuple(networks))

    def opens_host(self, host: str) -> bool:
        """Return whether the host is opened by name."""
        return host in self.hosts

    def opens_address(self, address: IpAddress) -> bool:
        """Return whether the address lies in an opened network."""
        return any(address in network for network in self.networks)

    def allows(self, address: IpAddress) -> bool:
        """Return whether the address is public or opened."""
        return special_kind(address) is None or self.opens_address(address)


PUBLIC_ONLY = FetchPolicy()
