"""The lab's one error type and the check for tools."""

import shutil

PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "tcpdump": "tcpdump",
    "curl": "curl",
    "dhclient": "isc-dhcp-client",
    "dbus-daemon": "dbus-daemon",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "openssl": "openssl",
}

# Debian's own folders: a user's PATH may lack sbin or shadow a tool.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LabError(Exception):
    """Something a person has to read: what happened and what to do."""


def need(*tools):
    """Refuse, naming the packages, unless every tool is installed."""
    missing = [tool for tool in tools if not shutil.which(tool, path=PATH)]
    if missing:
        packages = " ".join(sorted({PACKAGES[tool] for tool in missing}))
        raise LabError(
            "missing: %s. Nothing was changed. Install with: apt-get install %s"
            % (", ".join(missing), packages)
        )
