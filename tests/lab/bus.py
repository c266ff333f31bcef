"""A D-Bus system bus of our own: its configuration and command."""

import os

SOCKET = "system_bus_socket"
CONF = "lab.conf"

_TEXT = """<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


def write_conf(directory, seen_as=None):
    """Make the bus's folder; returns the configuration's path.

    seen_as: path of the folder as dbus-daemon sees it, if another.
    """
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, CONF)
    with open(path, "w", encoding="ascii") as f:
        f.write(_TEXT % os.path.join(seen_as or directory, SOCKET))
    return path


def command(conf):
    """dbus-daemon in the foreground; it prints its address when it listens."""
    return [
        *("dbus-daemon", "--config-file=" + conf),
        *("--nofork", "--nopidfile", "--print-address"),
    ]
