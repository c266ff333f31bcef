"""Bridges and proxies that TorVM, or another client, is pointed at.

Theory of operation

A bridge is a tor relay of the lab that no authority knows, with Debian's program of
its pluggable transport in front; each has an address of its own on the "Internet",
so that a capture tells who was contacted. What the transports speak TLS with is
nginx, with a certificate of the lab's own authority. meek has a small server of
ours, reached by domain fronting as in earnest: nginx is asked for front.lab.test and
leads on by the Host header; moat is the same with a bridge service of ours at its
end, in TLS once more, which hands out the obfs4 bridge. snowflake has a broker of ours and nothing behind it:
clients get as far as the rendezvous.

Half of the proxies stand on the LAN, half on the "Internet"; all want a user name
and a password. Each program is started in the foreground with a configuration file
of the lab's, in its machine's private /run/peers/NAME, with its log in the lab's.
"""

import json
import os
import shutil
import socket
import time

import packages
import pki
import topology as topo
import tornet
from errors import LabError

HERE = os.path.dirname(os.path.realpath(__file__))
USER = "lab"
NOBODY = 65534
TIMEOUT_S = 60
# PATH_SECRET: who does not know webtunnel's path sees a web site.
PATH_SECRET = "Kd7ohx3eiph2ne1S"
STUN_PORT, SNOWFLAKE_PORT = 3478, 3479


def password(name):
    """A peer's password; each has another, so that a leaked one is recognised."""
    return "Geheim.7-" + name


class Peer:
    """What is the same for all: folder, programs, waiting.

    machine: Namespace; site: labapi.PeerSite.
    """

    def __init__(self, name, machine, site):
        self.name = name
        self.machine = machine
        self.site = site
        self.dir = "/run/peers/" + name
        self.pids = {}

    def prepare(self):
        shutil.rmtree(self.machine.path(self.dir), ignore_errors=True)
        os.makedirs(self.machine.path(self.dir), 0o755)

    def write(self, name, text, mode=0o644):
        path = self.machine.path(os.path.join(self.dir, name))
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        os.chmod(path, mode)
        return os.path.join(self.dir, name)

    def read(self, name):
        path = self.machine.path(os.path.join(self.dir, name))
        try:
            with open(path, encoding="ascii") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def program(self, name):
        return packages.program(self.site.root, name)

    def spawn(self, part, argv):
        """Start a part; its log is peer-NAME-PART."""
        name = "peer-%s-%s" % (self.name, part)
        log = self.site.lab.log_path(name)
        if os.path.exists(log):
            os.unlink(log)
        argv = ["/usr/bin/env", *packages.environment(self.site.root), *argv]
        self.pids[name] = self.site.spawn(self.machine, name, argv)

    def wait(self, what, condition):
        """Until condition() holds; its value."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            value = condition()
            if value:
                return value
            for name, pid in self.pids.items():
                if not self.machine.alive(pid):
                    text = tornet.tail(self.site.lab.log_path(name))
                    raise LabError("%s ended: %s" % (name, text))
            if time.monotonic() > deadline:
                raise LabError("peer %s: waited in vain for %s" % (self.name, what))
            time.sleep(0.05)

    def wait_port(self, address, port):
        def answers():
            try:
                self.machine.call_net(_connect, address, port)
            except LabError:
                return False
            return True

        self.wait("%s:%d" % (address, port), answers)

    # --- parts ------------------------------------------------------------

    def bridge(self, *lines):
        """Start a bridge relay; returns its fingerprint when it can be used."""
        address = topo.BRIDGE_ADDRESSES[self.name]
        conf = self.site.client_torrc + [
            "Nickname bridge%s" % self.name,
            "DataDirectory " + self.dir + "/tor",
            "Log notice stdout",
            "Address " + address,
            "OutboundBindAddress " + address,
            "ORPort %s:%d" % (address, tornet.ORPORT),
            "SocksPort 0",
            "BridgeRelay 1",
            "PublishServerDescriptor 0",
            "AssumeReachable 1",
            "ContactInfo lab@lab.test",
            "ExitRelay 0",
            "ExitPolicy reject *:*",
            "ShutdownWaitLength 0",
            *lines,
        ]
        os.mkdir(self.machine.path(self.dir + "/tor"), 0o700)
        torrc = self.write("torrc", "\n".join(conf) + "\n")
        tor = os.path.join(self.site.tor, "tor")
        self.spawn("tor", [tor, "-f", torrc, "--defaults-torrc", "/dev/null"])
        log = self.site.lab.log_path("peer-%s-tor" % self.name)

        def bootstrapped():
            with open(log, encoding="utf-8", errors="replace") as f:
                return "Bootstrapped 100%" in f.read()

        self.wait("a bootstrapped bridge", bootstrapped)
        return self.read("tor/fingerprint").split()[1]

    def nginx(self, address, servers):
        """Start a TLS web server with `server` blocks of nginx's."""
        for name in (pki.CERTIFICATE, pki.KEY):
            with open(os.path.join(self.site.files, name), encoding="ascii") as f:
                self.write(name, f.read())
        text = """
daemon off;
user root;
worker_processes 1;
pid %(dir)s/nginx.pid;
error_log stderr notice;
events { }
http {
	access_log %(log)s;
	client_body_temp_path %(dir)s/body;
	proxy_temp_path %(dir)s/proxy;
	fastcgi_temp_path %(dir)s/fastcgi;
	uwsgi_temp_path %(dir)s/uwsgi;
	scgi_temp_path %(dir)s/scgi;
	proxy_http_version 1.1;
	proxy_set_header Host $host;
	proxy_buffering off;
	proxy_request_buffering off;
	proxy_read_timeout 1h;
	client_max_body_size 1m;
	ssl_certificate %(dir)s/%(certificate)s;
	ssl_certificate_key %(dir)s/%(key)s;
	server {
		listen %(address)s:443 ssl default_server;
		return 404;
	}
	%(servers)s
}
""" % {
            "dir": self.dir,
            "log": self.site.lab.log_path("peer-%s-access" % self.name),
            "certificate": pki.CERTIFICATE,
            "key": pki.KEY,
            "address": address,
            "servers": servers.replace("LISTEN", address + ":443 ssl"),
        }
        conf = self.write("nginx.conf", text)
        self.spawn("nginx", [self.program("nginx"), "-c", conf, "-p", self.dir])
        self.wait_port(address, 443)

    def python(self, part, script, *args):
        argv = ["/usr/bin/python3", "-B", os.path.join(HERE, script), *args]
        self.spawn(part, argv)


def _connect(address, port):
    socket.create_connection((address, port), 2).close()


def endpoint(ip, port):
    """As bridge lines and torrc have it."""
    return ("[%s]:%d" if ":" in ip else "%s:%d") % (ip, port)


# --- bridges -------------------------------------------------------------------


def start_plain(peer):
    ip, lines = topo.BRIDGE_ADDRESSES[peer.name], []
    if peer.name in topo.BRIDGE6_ADDRESSES:
        ip = topo.BRIDGE6_ADDRESSES[peer.name]
        lines = ["ORPort " + endpoint(ip, tornet.ORPORT)]
    address = endpoint(ip, tornet.ORPORT)
    fingerprint = peer.bridge(*lines)
    peer.wait_port(ip, tornet.ORPORT)
    return {"line": "%s %s" % (address, fingerprint), "address": address}


def start_obfs4(peer):
    program = "obfs4proxy" if peer.name == "obfs4proxy" else "lyrebird"
    ip, port = topo.BRIDGE_ADDRESSES[peer.name], 443
    ip = topo.BRIDGE6_ADDRESSES.get(peer.name, ip)
    fingerprint = peer.bridge(
        "ExtORPort auto",
        "ServerTransportPlugin obfs4 exec " + peer.program(program),
        "ServerTransportListenAddr obfs4 " + endpoint(ip, port),
    )
    peer.wait_port(ip, port)
    text = peer.wait(
        "the bridge line", lambda: peer.read("tor/pt_state/obfs4_bridgeline.txt")
    )
    (template,) = (x for x in text.splitlines() if x.startswith("Bridge obfs4 "))
    arguments = template.split("<FINGERPRINT> ")[1]
    address = endpoint(ip, port)
    return {
        "line": "obfs4 %s %s %s" % (address, fingerprint, arguments),
        "address": address,
    }


def start_webtunnel(peer):
    ip, inner = topo.BRIDGE_ADDRESSES["webtunnel"], 15000
    url = "https://tunnel.lab.test/" + PATH_SECRET
    fingerprint = peer.bridge(
        "ExtORPort auto",
        "ServerTransportPlugin webtunnel exec " + peer.program("webtunnel-server"),
        "ServerTransportListenAddr webtunnel 127.0.0.1:%d" % inner,
        "ServerTransportOptions webtunnel url=" + url,
    )
    peer.wait_port("127.0.0.1", inner)
    peer.nginx(
        ip,
        """
	server {
		listen LISTEN;
		listen [%s]:443 ssl;
		server_name tunnel.lab.test tunnel6.lab.test;
		location = / { return 200 "A web site.\\n"; }
		location = /%s {
			proxy_pass http://127.0.0.1:%d;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $http_connection;
		}
	}"""
        % (topo.BRIDGE6_ADDRESSES["webtunnel"], PATH_SECRET, inner),
    )
    return {
        # The address is a place-holder, as in the lines that are handed out.
        "line": "webtunnel 192.0.2.3:443 %s url=%s ver=0.0.1" % (fingerprint, url),
        "address": ip + ":443",
        "names": ["tunnel.lab.test"],
        # The same by IPv6 alone.
        "address6": endpoint(topo.BRIDGE6_ADDRESSES["webtunnel"], 443),
        "line6": "webtunnel 192.0.2.3:443 %s url=%s ver=0.0.1"
        % (fingerprint, url.replace("tunnel.", "tunnel6.")),
    }


def start_meek(peer):
    ip, inner = topo.BRIDGE_ADDRESSES["meek"], "127.0.0.1:15001"
    fingerprint = peer.bridge()
    peer.python(
        *("meek", "meek_server.py", "--listen", inner),
        *("--orport", "%s:%d" % (ip, tornet.ORPORT)),
    )
    peer.wait_port("127.0.0.1", 15001)
    peer.nginx(
        ip,
        """
	server {
		listen LISTEN;
		server_name meek.lab.test;
		location / { proxy_pass http://%s; }
	}"""
        % inner,
    )
    return {
        "line": "meek_lite 192.0.2.20:80 %s url=https://meek.lab.test/"
        " front=front.lab.test" % fingerprint,
        "address": ip + ":443",
        "names": ["front.lab.test"],
    }


def start_moat(peer):
    """What TorVM asks while Tor is not connected; the peer obfs4 has to run."""
    ip, meek, service = topo.MOAT_ADDRESS, "127.0.0.1:15003", "127.0.0.1:15004"
    settings = {
        "settings": [
            {
                "bridges": {
                    "type": "obfs4",
                    "source": "bridgedb",
                    "bridge_strings": [peer.site.lab.peer("obfs4")["line"]],
                }
            }
        ],
        "country": "xx",
    }
    peer.python("meek", "meek_server.py", "--listen", meek, "--orport", service)
    peer.wait_port("127.0.0.1", 15003)
    peer.nginx(
        ip,
        """
	server {
		listen LISTEN;
		server_name moat.lab.test;
		location / { proxy_pass http://%s; }
	}
	server {
		listen %s ssl;
		server_name %s;
		default_type application/json;
		location = /moat/circumvention/settings { return 200 '%s'; }
	}"""
        % (meek, service, topo.SERVICE, json.dumps(settings)),
    )
    return {
        "arguments": "targets=https://moat.lab.test/|moat-front.lab.test",
        "url": "https://%s/moat/circumvention" % topo.SERVICE,
        "address": ip + ":443",
        "names": ["moat-front.lab.test"],
    }


def start_snowflake(peer):
    ip, inner = topo.BRIDGE_ADDRESSES["snowflake"], "127.0.0.1:15002"
    log = peer.site.lab.log_path("snowflake-events")
    peer.python(
        *("broker", "snowflake_broker.py", "--listen", inner),
        *("--stun", "%s:%d" % (topo.STUN_ADDRESS, STUN_PORT)),
        *("--proxy", "%s:%d" % (topo.STUN_ADDRESS, SNOWFLAKE_PORT)),
        *("--log", log),
    )
    peer.wait_port("127.0.0.1", 15002)
    peer.nginx(
        ip,
        """
	server {
		listen LISTEN;
		server_name broker.lab.test;
		location / { proxy_pass http://%s; }
	}"""
        % inner,
    )
    fingerprint = "2B280B23E1107BB62ABFC40DDCC8824814F80A72"
    return {
        "line": "snowflake 192.0.2.4:80 %s fingerprint=%s"
        " url=https://broker.lab.test/ ice=stun:stun.lab.test:%d"
        % (fingerprint, fingerprint, STUN_PORT),
        "address": ip + ":443",
        "names": ["broker.lab.test", "stun.lab.test"],
    }


# --- proxies -------------------------------------------------------------------


def _squid(peer, listen):
    hashed = packages.tool("openssl", "passwd", "-apr1", password(peer.name)).strip()
    share = os.path.join(peer.site.root, "usr", "share")
    values = {
        "dir": peer.dir,
        "listen": listen,
        "helper": peer.program("squid-password-helper"),
        "passwords": peer.write("passwords", "%s:%s\n" % (USER, hashed)),
        "errors": os.path.join(share, "squid-langpack", "templates"),
        "share": os.path.join(share, "squid"),
        "lib": os.path.dirname(peer.program("squid-password-helper")),
    }
    # squid refuses to run as root.
    os.chown(peer.machine.path(peer.dir), NOBODY, NOBODY)
    conf = peer.write(
        "squid.conf",
        """%(listen)s
auth_param basic program %(helper)s %(passwords)s
auth_param basic children 2 startup=1
auth_param basic realm lab
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
cache deny all
cache_mem 1 MB
pid_filename %(dir)s/pid
coredump_dir %(dir)s
cache_log %(dir)s/cache.log
access_log stdio:%(dir)s/access.log
cache_store_log none
netdb_filename none
pinger_enable off
unlinkd_program %(lib)s/unlinkd
shutdown_lifetime 0
visible_hostname lab
error_directory %(errors)s
icon_directory %(share)s/icons
mime_table %(share)s/mime.conf
max_filedescriptors 1024
"""
        % values,
    )
    # Shared memory is the machine's, its names the same for every squid.
    own_memory = 'mount -n -t tmpfs tmpfs /dev/shm && exec "$@"'
    peer.spawn(
        "squid",
        ["unshare", "-m", "sh", "-c", own_memory, "sh"]
        + ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        + [peer.program("squid"), "-N", "-f", conf, "-d", "1"],
    )


def _proxy(peer, kind, port, ip=None):
    if ip is None:
        ip = topo.NEIGHBOUR4 if peer.machine.name == "lan" else topo.PROXY_ADDRESS
    peer.wait_port(ip, port)
    return {
        "type": kind,
        "address": endpoint(ip, port),
        "username": USER,
        "password": password(peer.name),
        "names": [],
    }


def start_squid(peer):
    _squid(peer, "http_port %s:3128" % topo.NEIGHBOUR4)
    return _proxy(peer, "http", 3128)


def start_squid_tls(peer):
    ip = topo.PROXY6_ADDRESS if peer.name == "squid-tls6" else topo.PROXY_ADDRESS
    for name in (pki.CERTIFICATE, pki.KEY):
        with open(os.path.join(peer.site.files, name), encoding="ascii") as f:
            peer.write(name, f.read())
    _squid(
        peer,
        "https_port %s tls-cert=%s/%s tls-key=%s/%s"
        % (endpoint(ip, 3129), peer.dir, pki.CERTIFICATE, peer.dir, pki.KEY),
    )
    return _proxy(peer, "https", 3129, ip)


def start_tinyproxy(peer):
    ip = topo.PROXY6_ADDRESS if peer.name == "tinyproxy6" else topo.PROXY_ADDRESS
    conf = peer.write(
        "tinyproxy.conf",
        "\n".join(
            [
                "User root",
                "Group root",
                "Port 8888",
                "Listen " + ip,
                "Timeout 600",
                'PidFile "%s/pid"' % peer.dir,
                "LogLevel Connect",
                "MaxClients 100",
                "BasicAuth %s %s" % (USER, password(peer.name)),
                "DisableViaHeader Yes",
            ]
        )
        + "\n",
    )
    peer.spawn("tinyproxy", [peer.program("tinyproxy"), "-d", "-c", conf])
    return _proxy(peer, "http", 8888, ip)


def start_microsocks(peer):
    peer.spawn(
        "microsocks",
        [peer.program("microsocks"), "-i", topo.NEIGHBOUR4, "-p", "1080"]
        + ["-u", USER, "-P", password(peer.name)],
    )
    return _proxy(peer, "socks5", 1080)


def start_dante(peer):
    """danted asks the machine's own passwd and shadow: it gets others."""
    hashed = packages.tool("openssl", "passwd", "-6", password(peer.name)).strip()
    nobody = "nobody:x:65534:65534::/:/bin/false\n"
    files = {
        "passwd": "root:x:0:0::/:/bin/false\n%s:x:1000:65534::/:/bin/false\n" % USER
        + nobody,
        "shadow": "root:*:1::::::\nnobody:*:1::::::\n%s:%s:19000::::::\n"
        % (USER, hashed),
        "nsswitch.conf": "passwd: files\nshadow: files\ngroup: files\n"
        "hosts: files dns\n",
    }
    mounts = []
    for name, text in files.items():
        path = peer.write(name, text, 0o600)
        mounts.append("mount -n --bind %s /etc/%s" % (path, name))
    conf = peer.write(
        "danted.conf",
        """logoutput: stderr
internal: %(ip)s port = 1081
external: %(ip)s
clientmethod: none
socksmethod: username
user.privileged: root
user.unprivileged: root
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 log: error }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 log: connect error }
"""
        % {"ip": topo.PROXY_ADDRESS},
    )
    script = " && ".join([*mounts, 'exec "$@"'])
    peer.spawn(
        "danted",
        ["unshare", "-m", "sh", "-c", script, "sh", peer.program("danted")]
        + ["-f", conf, "-p", peer.dir + "/pid", "-N", "1"],
    )
    return _proxy(peer, "socks5", 1081)


# name: (kind, machine, function, what it is)
PEERS = {
    "plain": ("bridge", "net", start_plain, "bridge without a transport"),
    "obfs4": ("bridge", "net", start_obfs4, "obfs4 bridge, lyrebird"),
    "obfs4proxy": ("bridge", "net", start_obfs4, "obfs4 bridge, obfs4proxy"),
    "plain6": ("bridge", "net", start_plain, "the first by IPv6"),
    "obfs4v6": ("bridge", "net", start_obfs4, "obfs4 bridge by IPv6"),
    "webtunnel": ("bridge", "net", start_webtunnel, "webtunnel bridge behind nginx"),
    "meek": ("bridge", "net", start_meek, "meek bridge behind a front"),
    "moat": ("service", "net", start_moat, "bridge service behind a front"),
    "snowflake": ("bridge", "net", start_snowflake, "snowflake broker and STUN only"),
    "squid": ("proxy", "lan", start_squid, "HTTP CONNECT, refuses with 407"),
    "squid-tls": ("proxy", "net", start_squid_tls, "the same inside TLS"),
    "squid-tls6": ("proxy", "net", start_squid_tls, "the same by IPv6"),
    "tinyproxy": ("proxy", "net", start_tinyproxy, "HTTP CONNECT, refuses with 401"),
    "tinyproxy6": ("proxy", "net", start_tinyproxy, "the same by IPv6"),
    "microsocks": ("proxy", "lan", start_microsocks, "SOCKS5"),
    "dante": ("proxy", "net", start_dante, "SOCKS5"),
}


def of_kind(kind):
    return [name for name, (its, *_) in PEERS.items() if its == kind]


def start(name, machine, site):
    """Start a peer; returns what a client needs to know, and its daemons' names.

    For the service: {"arguments", "url", "address", "names"}; arguments are those of
    meek that lead to url.
    For a bridge: {"line", "address", "names"}; address is where the client connects,
    names what it has to look up. For a proxy: {"type", "address", "username",
    "password", "names"}.
    """
    kind, _, function, _ = PEERS[name]
    peer = Peer(name, machine, site)
    peer.prepare()
    return {"kind": kind, "names": [], **function(peer)}, list(peer.pids)
