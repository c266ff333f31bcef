/* What keeps Tor from connecting, in plain words, and what to try next. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "proto/torctl.h"

enum tor_obstacle {
	TOR_OBSTACLE_TOR,         /* Tor itself does not answer in the VM */
	TOR_OBSTACLE_NO_ROUTE,    /* no way to the Internet */
	TOR_OBSTACLE_NAMES,       /* a transport's names are not resolved */
	TOR_OBSTACLE_FALSE_NAMES, /* or they may be resolved falsely */
	TOR_OBSTACLE_REFUSED,     /* connections are refused */
	TOR_OBSTACLE_TIMEOUT,     /* nobody answers */
	TOR_OBSTACLE_CUT, /* connections are cut, the TLS handshake fails */
	TOR_OBSTACLE_IDENTITY,  /* somebody else answers */
	TOR_OBSTACLE_CLOCK,     /* this computer's clock is wrong */
	TOR_OBSTACLE_DIRECTORY, /* connected, but the directory does not come */
	TOR_OBSTACLE_TRANSPORT, /* the transport does not work */
	TOR_OBSTACLE_PROXY_LOGIN,   /* the proxy wants other credentials */
	TOR_OBSTACLE_PROXY_REFUSES, /* it does not connect to our peers */
	TOR_OBSTACLE_BEHIND_PROXY,  /* it, or what lies behind: not known */
	TOR_OBSTACLE_CERTIFICATE,   /* a transport does not believe one */
	/* By its TLS, the proxy: */
	TOR_OBSTACLE_PROXY_CERTIFICATE, /* is vouched for by nobody we trust */
	TOR_OBSTACLE_PROXY_NAME,        /* is another one */
	TOR_OBSTACLE_PROXY_EXPIRED,     /* is none now, or the clock is wrong */
	TOR_OBSTACLE_PROXY_TLS,         /* does not speak it as we do */
	TOR_OBSTACLE_RELAYS,            /* none is left that Tor may use */
	TOR_OBSTACLE_UNKNOWN,
	TOR_OBSTACLE_COUNT,
};

struct tor_obstacle_facts {
	const struct torctl_bootstrap *bootstrap;
	bool tor_answers; /* its control port */
	bool clock_wrong; /* as Tor has said */
	bool names_fail;  /* a name that is needed was not resolved */
	bool names_asked; /* one that is needed was */
	bool use_bridges;
	bool use_proxy;
	bool chooses_relays; /* the configuration says which ones Tor may use */
	enum config_transport transport;
	enum tor_obstacle heard; /* in the log; TOR_OBSTACLE_UNKNOWN: nothing */
};

/**
 * tor_obstacle_hear() - What a line of Tor's or a transport's log says
 * @facts:	use_proxy and transport count
 *
 * For what neither the bootstrap's reason nor its stage tells apart. Return:
 * TOR_OBSTACLE_UNKNOWN for nearly every line.
 */
enum tor_obstacle tor_obstacle_hear(const struct tor_obstacle_facts *facts,
				    const char *line);

/* The same for a line of the TLS client for the proxy, stunnel 5.74. */
enum tor_obstacle tor_obstacle_hear_tls(const char *line);

enum tor_obstacle tor_obstacle_judge(const struct tor_obstacle_facts *facts);

/* "no-route", "refused", ... */
const char *tor_obstacle_name(enum tor_obstacle obstacle);

/* A sentence or two. */
const char *tor_obstacle_text(enum tor_obstacle obstacle);

/* What to do: a sentence with a command. @buf is always terminated. */
void tor_obstacle_next(enum tor_obstacle obstacle,
		       const struct tor_obstacle_facts *facts, char *buf,
		       size_t size);

/**
 * tor_next_transport() - By what to enter Tor after this has failed
 * @use_bridges, @transport:	What has failed
 *
 * The order is direct, obfs4, snowflake, meek: from the fastest to the one that
 * is hardest to block. Return: a transport, or -1: all were tried.
 */
int tor_next_transport(bool use_bridges, enum config_transport transport);
