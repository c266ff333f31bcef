"""A certificate authority of the lab's own, and one certificate of its servers."""

import os
import shutil
import time

import topology as topo
from errors import need
from packages import tool

CA = "ca.pem"
CERTIFICATE, KEY = "server.pem", "server.key"
LIFE_DAYS = 400
RENEW_S = 90 * 24 * 3600

# openssl's own file is not read.
_CONF = "[req]\ndistinguished_name=dn\n[dn]\n"


def certificates(cache):
    """Folder with CA, CERTIFICATE and KEY, made or reused.

    cache: the lab's cache folder, locked by the caller.
    """
    names = sorted({*topo.PEER_NAMES, *topo.FRONTED, topo.SERVICE})
    alternatives = ",".join(
        ["DNS:" + n for n in names]
        + ["IP:%s" % a for a in (topo.PROXY_ADDRESS, topo.PROXY6_ADDRESS, topo.NEIGHBOUR4)]
    )
    folder = os.path.join(cache, "pki")
    stamp = os.path.join(folder, "names")
    try:
        with open(stamp, encoding="ascii") as f:
            age_s = time.time() - os.fstat(f.fileno()).st_mtime
            if f.read() == alternatives and age_s < RENEW_S:
                return folder
    except FileNotFoundError:
        pass
    need("openssl")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(folder, "conf"), "w", encoding="ascii") as f:
        f.write(_CONF)
    common = ["openssl", "req", "-config", "conf", "-x509", "-days", str(LIFE_DAYS)]
    common += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    tool(
        *(*common, "-subj", "/CN=TorVM lab CA", "-keyout", "ca.key", "-out", CA),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        cwd=folder,
    )
    tool(
        *(*common, "-subj", "/CN=lab.test", "-keyout", KEY, "-out", CERTIFICATE),
        *("-CA", CA, "-CAkey", "ca.key"),
        *("-addext", "subjectAltName=" + alternatives),
        *("-addext", "basicConstraints=CA:FALSE"),
        cwd=folder,
    )
    with open(stamp, "w", encoding="ascii") as f:
        f.write(alternatives)
    return folder
