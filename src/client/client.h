/*
 * Talks to the controller of this machine by its control socket
 * (org.torvm.Controller.varlink). Blocking; one call at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"

#define CLIENT_RUNTIME_DIR "/run/torvm"

/* A controller that does not answer a call within this is stuck. */
#define CLIENT_TIMEOUT_MS 10000

#define CLIENT_STATE_STOPPED "Stopped"
#define CLIENT_STAGES_MAX 48
#define CLIENT_ALARMS_MAX 8
#define CLIENT_TRIED_MAX 8
#define CLIENT_REFUSED_MAX 16

/* Type Status of the interface. Texts are cut where they do not fit. */
#define CLIENT_RESOLVERS_MAX 3
#define CLIENT_NAMES_MAX 32
#define CLIENT_NAME_ADDRESSES_MAX 8

struct client_status {
	char state[24];
	char since[40]; /* RFC 3339; "": unknown */
	bool blocked;
	bool lockdown;
	bool lan_access;
	int bootstrap_percent;
	char bootstrap_tag[64];
	char bootstrap_summary[128];
	char accel[16];    /* "": not known yet */
	int64_t vm_pid;    /* 0: none */
	int64_t vm_uptime; /* seconds; -1: none */
	char tor_version[64];
	bool circuit_established;
	char entry[24]; /* "": no controller */
	char tried[CLIENT_TRIED_MAX][64];
	size_t n_tried;
	struct {
		bool known;
		int64_t read, written;           /* bytes */
		int64_t read_rate, written_rate; /* bytes/s */
	} traffic;
	struct {
		char kind[24]; /* "": Tor is not stuck */
		char text[256];
		char next[256];
	} obstacle;
	/* How Tor gets out where it does not connect directly. */
	struct {
		bool known;
		char transport[16]; /* "": no bridges */
		char proxy[16];     /* "": none */
		char resolvers[CLIENT_RESOLVERS_MAX][16];
		size_t n_resolvers;
		struct client_name {
			char name[254];
			char addresses[CLIENT_NAME_ADDRESSES_MAX][16];
			size_t n_addresses;
			char error[100]; /* "": none */
		} names[CLIENT_NAMES_MAX];
		size_t n_names;
	} uplink;
	char last_error[512];
	char alarms[CLIENT_ALARMS_MAX][192];
	size_t n_alarms;
	int64_t confirm_left; /* seconds; -1: nothing to confirm */
	int64_t refused;      /* packets */
	struct {
		int64_t uid, packets;
	} refused_by[CLIENT_REFUSED_MAX];
	size_t n_refused_by;
	struct {
		char name[32];
		int64_t ms;
	} stages[CLIENT_STAGES_MAX];
	size_t n_stages;
	char version[32];
};

struct client_log_line {
	const char *time; /* RFC 3339 */
	const char *level;
	const char *text;
};

struct client;

/**
 * client_connect() - Connect to the controller
 * @runtime_dir:	Of the controller; any length
 * @ret:		Freed by client_free()
 *
 * Return: 0; -ESRCH: no controller runs; -EACCES: the caller is neither root
 * nor in group torvm; another negative errno. With a sentence.
 */
int client_connect(const char *runtime_dir, struct client **ret,
		   struct error *e);
void client_free(struct client *c);
void client_freep(struct client **c);

/**
 * client_set_deadline() - Bound how long the following calls may take
 * @timeout_ms:	From now; negative: streams never end by themselves, single
 *		calls after CLIENT_TIMEOUT_MS (the default)
 *
 * A call that is cut short returns -ETIMEDOUT; the connection is then of no
 * further use.
 */
void client_set_deadline(struct client *c, int64_t timeout_ms);

/* Return: 0 to go on, another value to end the call, which then returns it. */
typedef int (*client_status_fn)(void *userdata,
				const struct client_status *status);
typedef int (*client_log_fn)(void *userdata,
			     const struct client_log_line *line);

/* All calls: -ESRCH: the controller has ended; -EACCES: it refuses the caller;
 * -ENOENT (client_confirm() only): there is nothing to confirm; -EBADMSG,
 * -ETIMEDOUT and others. With a sentence. */
int client_get_status(struct client *c, struct client_status *ret,
		      struct error *e);
/* Now and at every change, until the controller ends (0). */
int client_watch_status(struct client *c, client_status_fn fn, void *userdata,
			struct error *e);
/* Ends TorVM; @fn (NULL: nobody cares) sees each step. Return: 0 when the
 * controller has said that the network is restored, -ESRCH when it has ended
 * without saying so. */
int client_stop(struct client *c, client_status_fn fn, void *userdata,
		struct error *e);
int client_get_log(struct client *c, bool follow, client_log_fn fn,
		   void *userdata, struct error *e);
int client_confirm(struct client *c, struct error *e);

/* The reply's parameters as the interface has them, checked; freed by
 * json_decref(). -EAGAIN: Tor does not run, or does not answer. */
int client_get_circuits(struct client *c, json_t **ret, struct error *e);
int client_get_entries(struct client *c, json_t **ret, struct error *e);

/* New circuits for what begins from now on; @ret_wait: seconds until Tor does
 * so. -EAGAIN: as above. */
int client_new_identity(struct client *c, int64_t *ret_wait, struct error *e);

/**
 * client_open_moat() - Have a way to the bridge service opened, while Tor is
 *			not connected
 * @ret_address:	HOST:PORT; at least CLIENT_MOAT_ADDRESS_SIZE bytes
 *
 * It stays open until client_free(); no further call can be made on @c. Blocks
 * for up to CLIENT_MOAT_TIMEOUT_MS: the VM is started anew.
 * Return: as above; -EHOSTUNREACH: there is none, with the reason
 */
#define CLIENT_MOAT_ADDRESS_SIZE 32
#define CLIENT_MOAT_TIMEOUT_MS 300000
int client_open_moat(struct client *c, char *ret_address, struct error *e);

/* Type Status as the interface has it. Return: 0, or -EBADMSG. */
int client_status_from_json(const json_t *json, struct client_status *ret,
			    struct error *e);

/* Every field of the interface, null where unknown; NULL: out of memory. */
json_t *client_status_to_json(const struct client_status *status);

/**
 * client_status_stopped() - The status when no controller answers
 *
 * A journal in @runtime_dir means that a controller did not get to clean up:
 * blocked is then true and last_error names the way out. Lockdown means
 * blocked, too.
 */
void client_status_stopped(const char *runtime_dir, struct client_status *ret);

/* Whether lockdown was turned on, as far as @runtime_dir tells. */
bool client_lockdown(const char *runtime_dir);

/* Whether a dead controller left its journal, and so maybe its block. */
bool client_leftovers(const char *runtime_dir);
