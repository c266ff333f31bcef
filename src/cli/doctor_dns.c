/*
 * Theory of operation
 *
 * The doctor's checks of name resolution. Names reach Tor in two ways: by
 * systemd-resolved, which TorVM tells, and by any program that asks an IPv4
 * server without binding to an interface. What asks otherwise is refused, and
 * its user sees names that do not resolve; these checks say which one it is.
 *
 * resolv.conf(5) and systemd-resolved's settings are only read. While a
 * controller runs, a real question is asked of each server as well: it leaves
 * by Tor or not at all, and it finds what no file tells, such as a dnsmasq that
 * binds its questions to an interface.
 */
#include "cli/doctor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "platform/platform.h"

#define RESOLV_CONF "/etc/resolv.conf"
#define SERVERS_MAX 3 /* MAXNS of resolv.h: the C library reads no more */
#define ANSWER_TIMEOUT_MS 10000

enum server_kind {
	SERVER_IPV4,
	SERVER_STUB,  /* systemd-resolved's */
	SERVER_LOCAL, /* another program of this computer */
	SERVER_IPV6,
	SERVER_LINK_LOCAL,
};

struct server {
	char text[64];
	enum server_kind kind;
};

struct servers {
	struct server v[SERVERS_MAX];
	size_t n;
};

static enum server_kind kind_of(const char *server)
{
	if (strcmp(server, "127.0.0.53") == 0 ||
	    strcmp(server, "127.0.0.54") == 0)
		return SERVER_STUB;
	if (strncmp(server, "127.", 4) == 0 || strcmp(server, "::1") == 0)
		return SERVER_LOCAL;
	if (!strchr(server, ':'))
		return SERVER_IPV4;
	return strncasecmp(server, "fe80:", 5) == 0 ? SERVER_LINK_LOCAL
						    : SERVER_IPV6;
}

static void read_servers(struct servers *ret)
{
	FILE *in = fopen(RESOLV_CONF, "re");
	char line[256];

	ret->n = 0;
	while (in && ret->n < SERVERS_MAX && fgets(line, sizeof(line), in)) {
		struct server *server = &ret->v[ret->n];

		if (sscanf(line, "nameserver %63s", server->text) != 1)
			continue;
		server->kind = kind_of(server->text);
		ret->n++;
	}
	if (in)
		fclose(in);
}

static const struct server *first_of(const struct servers *servers,
				     enum server_kind kind)
{
	for (size_t i = 0; i < servers->n; i++)
		if (servers->v[i].kind == kind)
			return &servers->v[i];
	return NULL;
}

static void vm_address(const struct doctor *d, char ret[INET_ADDRSTRLEN])
{
	inet_ntop(AF_INET, &d->cfg->network.vm_ip, ret, INET_ADDRSTRLEN);
}

void doctor_check_resolver(struct doctor *d, struct finding *f)
{
	char vm[INET_ADDRSTRLEN], mend[200];
	const struct server *server;
	struct servers servers;

	read_servers(&servers);
	vm_address(d, vm);
	/* A server after the third would not be read. */
	if (servers.n < SERVERS_MAX)
		snprintf(mend, sizeof(mend),
			 "echo nameserver %s >> " RESOLV_CONF, vm);
	else
		snprintf(mend, sizeof(mend),
			 "sed -i '1i nameserver %s' " RESOLV_CONF, vm);
	if (servers.n == 0) {
		found(f, RESULT_NOTE, mend,
		      RESOLV_CONF " names no server: programs will not resolve "
				  "names");
		return;
	}
	if (first_of(&servers, SERVER_IPV4) ||
	    first_of(&servers, SERVER_STUB)) {
		found(f, RESULT_OK, "",
		      "name resolution can be carried by Tor");
		return;
	}
	server = first_of(&servers, SERVER_LOCAL);
	if (server)
		found(f, RESULT_NOTE, "",
		      RESOLV_CONF
		      " names %s, a program on this computer: names resolve "
		      "only if it asks IPv4 servers by plain DNS, does not "
		      "insist on DNSSEC, and does not bind to an interface",
		      server->text);
	else
		found(f, RESULT_NOTE, mend,
		      RESOLV_CONF " names only %s servers (%s): TorVM refuses "
				  "IPv6, so programs will not resolve names",
		      servers.v[0].kind == SERVER_LINK_LOCAL ? "link-local"
							     : "IPv6",
		      servers.v[0].text);
}

void doctor_check_resolved(struct doctor *d, struct finding *f)
{
	struct net_dns_survey survey;
	struct error e = ERROR_NULL(e);
	char mend[200];
	int r;

	r = net_dns_survey(d->cfg->network.tap_name, &survey, &e);
	if (r < 0) {
		found(f, r == -EOPNOTSUPP ? RESULT_OK : RESULT_NOTE, "",
		      r == -EOPNOTSUPP ? "%s: " RESOLV_CONF " alone decides"
				       : "%s",
		      e.text);
		return;
	}
	if (d->running && !survey.tap_all) {
		found(f, RESULT_NOTE,
		      "ln -s /usr/lib/systemd/network/10-torvm.network "
		      "/etc/systemd/network/00-torvm.network; "
		      "networkctl reload",
		      "systemd-resolved does not ask TorVM: it is not up yet, or "
		      "systemd-networkd holds %s by a .network file that "
		      "matches it",
		      d->cfg->network.tap_name);
		return;
	}
	snprintf(mend, sizeof(mend), "resolvectl domain %s ''", survey.link);
	if (survey.link[0] && strcmp(survey.domain, ".") != 0)
		found(f, RESULT_NOTE, mend,
		      "systemd-resolved asks the servers of %s alone for names "
		      "below %.100s; TorVM refuses that",
		      survey.link, survey.domain);
	else if (survey.link[0])
		found(f, RESULT_NOTE, mend,
		      "systemd-resolved asks the servers of %s, too, for every "
		      "name; TorVM refuses that, and it costs time",
		      survey.link);
	else if (survey.global_all && strcmp(survey.over_tls, "yes") == 0)
		found(f, RESULT_NOTE, "",
		      "systemd-resolved has DNSOverTLS=yes and Domains=~.: its "
		      "own servers are asked by TLS through Tor as well, which "
		      "costs time");
	else if (strcmp(survey.dnssec, "yes") == 0)
		found(f, RESULT_NOTE, "",
		      "systemd-resolved has DNSSEC=yes: while TorVM is up names "
		      "are not validated, because Tor does not carry DNSSEC");
	else
		found(f, RESULT_OK, "",
		      "systemd-resolved can be pointed at TorVM");
}

/* A question for the address of a name that exists, RFC 1035 4.1. */
static const uint8_t question[] =
	"\x54\x56\x01\0\0\1\0\0\0\0\0\0\x0atorproject\3org\0\0\1\0";

/* Asks one server. Return: 0: it works, or a negative errno; -EREMOTEIO: it
 * answers, but to say that it cannot. */
static int ask(const struct server *server)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
				  .ai_socktype = SOCK_DGRAM };
	_cleanup_close_ int fd = -1;
	struct addrinfo *address;
	uint8_t answer[512];
	struct pollfd p;
	ssize_t n = -1;
	int r;

	r = getaddrinfo(server->text, "53", &hints, &address);
	if (r)
		return -EINVAL;
	fd = socket(address->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		n = connect(fd, address->ai_addr, address->ai_addrlen);
	freeaddrinfo(address);
	if (n == 0)
		n = send(fd, question, sizeof(question), 0);
	if (n < 0)
		return -errno;
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	r = poll(&p, 1, ANSWER_TIMEOUT_MS);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	n = recv(fd, answer, sizeof(answer), 0);
	if (n < 0)
		return -errno;
	/* RCODE: no error, or the name does not exist. Of an address that is
	 * not on this computer the VM answers, so Tor itself has said it. */
	if (n < 12 || (server->kind != SERVER_IPV4 && (answer[3] & 15) != 0 &&
		       (answer[3] & 15) != 3))
		return -EREMOTEIO;
	return 0;
}

void doctor_check_names(struct doctor *d, struct finding *f)
{
	const struct server *failed = NULL;
	char vm[INET_ADDRSTRLEN], mend[200];
	struct servers servers;
	int r, error = 0;

	if (!d->running) {
		/* A question would leave in clear. */
		found(f, RESULT_OK, "", "asked only while TorVM is up");
		return;
	}
	read_servers(&servers);
	for (size_t i = 0; i < servers.n; i++) {
		r = ask(&servers.v[i]);
		if (r == 0) {
			found(f, RESULT_OK, "", "%s answers through Tor",
			      servers.v[i].text);
			return;
		}
		if (!failed) {
			failed = &servers.v[i];
			error = r;
		}
	}
	vm_address(d, vm);
	snprintf(mend, sizeof(mend),
		 "sed -i 's/^nameserver.*/nameserver %s/' " RESOLV_CONF, vm);
	/* The question was Tor's already; another server's would be no other,
	 * and after the stop nobody would answer it. */
	if (failed && failed->kind == SERVER_IPV4)
		str_copy(mend, sizeof(mend), "torvm doctor --connection");
	if (!failed)
		found(f, RESULT_NOTE, "", RESOLV_CONF " names no server");
	else
		found(f, RESULT_NOTE, mend, "%s does not resolve names (%s)%s",
		      failed->text,
		      error == -EREMOTEIO ? "its answer is an error"
					  : strerror(-error),
		      failed->kind == SERVER_LOCAL
			      ? ": it binds its own questions to an interface, "
				"insists on DNSSEC, or Tor is not connected"
			      : "; is Tor connected (torvm status)?");
}

void doctor_check_firewalld(struct doctor *d, struct finding *f)
{
	if (net_firewalld_panics())
		found(f, RESULT_NOTE, "firewall-cmd --panic-off",
		      "firewalld is in panic mode and drops every packet, "
		      "TorVM's too");
	else
		found(f, RESULT_OK, "", "firewalld is not in panic mode");
}
