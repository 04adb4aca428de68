"""What the operator opened: hosts and networks that URLs may reach although they are not public."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Self

from iidq.errors import SettingsFault
from iidq.guarded_http.host import canonical_host
from iidq.guarded_http.ip_addresses import IpAddress, IpNetwork, special_kind


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Public addresses on the scheme's own port, plus what is opened here, on any port."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IpNetwork, ...] = ()

    @classmethod
    def opening(cls, items: Iterable[str]) -> Self:
        """Read ``FETCH_ALLOW_PRIVATE``'s items: CIDRs, addresses or host names.

        Raises :class:`SettingsFault` for an item that is none of these.
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
        """Whether this host may be reached whatever it resolves to."""
        return host in self.hosts

    def opens_address(self, address: IpAddress) -> bool:
        """Whether this address lies in an opened network."""
        return any(address in network for network in self.networks)

    def allows(self, address: IpAddress) -> bool:
        """Whether this address is public or opened."""
        return special_kind(address) is None or self.opens_address(address)


PUBLIC_ONLY = FetchPolicy()
