/*
 * Theory of operation
 * ===================
 * "torvm bridges request" has a question for the bridge service, and Tor is not
 * connected. For as long as its call of OpenMoat stands, the VM is one without
 * Tor: in it a meek client leads to the service's front, and a port on the
 * guest's side of the TAP leads into that client (guest/init/moat.c). To the
 * lifecycle it is a VM whose Tor never connects: traffic stays blocked as in
 * WaitBootstrap.
 *
 *	moat_begin -> the VM is started anew -> WaitBootstrap, and the guest is
 *	ready -> the client is told where -> it hangs up -> the VM is started
 *	anew, with Tor
 *
 * Each start of a VM tells the broker whom its uplink may reach: the front (or
 * the proxy) and, while its name has to be looked up, this computer's
 * resolvers. So what was opened for the question is closed with its VM.
 *
 * Whatever else ends that VM, or takes longer than MOAT_LIMIT_MS, is the end of
 * it, and the client is told why.
 */
#include "daemon/moat.h"

#include <arpa/inet.h>
#include <errno.h>

#include "base/log.h"
#include "daemon/engine.h"
#include "vm/guestconfig.h"

#define MOAT_LIMIT_MS 300000

/* The VM is left to the caller. */
static void finish(struct moat *moat)
{
	moat->wanted = moat->ready = false;
	uv_timer_stop(&moat->limit);
	entry_leave_moat(&moat->engine->entry);
	engine_changed(moat->engine);
}

static void fail(struct moat *moat, const char *why)
{
	finish(moat);
	log_notice("The bridge service is not asked any more: %s", why);
	control_server_moat(&moat->engine->control, NULL, why);
}

static void on_limit(uv_timer_t *timer)
{
	struct moat *moat = timer->data;

	fail(moat, "it took longer than five minutes");
	engine_restart_vm(moat->engine);
}

/* The states in which a VM is there or on its way, and Tor not connected. */
static bool may_begin(enum lifecycle_state state)
{
	switch (state) {
	case LIFECYCLE_STATE_LAUNCH_VM:
	case LIFECYCLE_STATE_WAIT_TAP:
	case LIFECYCLE_STATE_CONFIGURE_TAP:
	case LIFECYCLE_STATE_FLUSH_DNS:
	case LIFECYCLE_STATE_WAIT_BOOTSTRAP:
	case LIFECYCLE_STATE_BLOCKED: return true;
	case LIFECYCLE_STATE_INIT:
	case LIFECYCLE_STATE_CHECK_PRIVILEGES:
	case LIFECYCLE_STATE_SAVE_NETWORK:
	case LIFECYCLE_STATE_CREATE_TAP:
	case LIFECYCLE_STATE_RUNNING:
	case LIFECYCLE_STATE_SHUTDOWN:
	case LIFECYCLE_STATE_RESTORE_NETWORK:
	case LIFECYCLE_STATE_CLEANUP:
	case LIFECYCLE_STATE_COUNT: break;
	}
	return false;
}

int moat_begin(struct moat *moat, struct error *e)
{
	struct engine *engine = moat->engine;
	int r;

	if (moat->wanted)
		return error_set(e, -EBUSY,
				 "another \"torvm bridges request\" is asking");
	if (!may_begin(engine->state))
		return error_set(e, -EAGAIN,
				 "TorVM is in the state %s; try again in a "
				 "moment",
				 lifecycle_state_name(engine->state));
	r = entry_enter_moat(&engine->entry, e);
	if (r < 0)
		return r;
	log_notice("The bridge service is asked, through meek, with a new "
		   "start of the VM. Traffic stays blocked.");
	engine_restart_vm(engine);
	if (engine->state == LIFECYCLE_STATE_BLOCKED) {
		/* It was tried again at once, so this is a second failure. */
		entry_leave_moat(&engine->entry);
		return error_set(e, -EIO, "%s", engine->last_error);
	}
	moat->wanted = true;
	uv_timer_start(&moat->limit, on_limit, MOAT_LIMIT_MS, 0);
	engine_changed(engine);
	return 0;
}

void moat_end(struct moat *moat)
{
	if (!moat->wanted)
		return;
	finish(moat);
	log_notice("The bridge service was asked; the VM is started anew.");
	engine_restart_vm(moat->engine);
}

/* Both have to be: the port, and the way to it. */
static void tell(struct moat *moat)
{
	const struct engine *e = moat->engine;
	char address[INET_ADDRSTRLEN + 8], ip[INET_ADDRSTRLEN];

	if (!moat->ready || e->state != LIFECYCLE_STATE_WAIT_BOOTSTRAP)
		return;
	inet_ntop(AF_INET, &e->cfg->network.vm_ip, ip, sizeof(ip));
	snprintf(address, sizeof(address), "%s:%d", ip, GUESTCONFIG_MOAT_PORT);
	control_server_moat(&moat->engine->control, address, NULL);
}

bool moat_ready(struct moat *moat)
{
	if (!moat->wanted)
		return false;
	moat->ready = true;
	tell(moat);
	return true;
}

bool moat_names_failed(struct moat *moat)
{
	struct engine *e = moat->engine;

	if (!moat->wanted || names_any(&e->names))
		return false;
	fail(moat, e->last_error);
	engine_restart_vm(e);
	return true;
}

void moat_entered(struct moat *moat)
{
	struct engine *e = moat->engine;

	if (!moat->wanted)
		return;
	if (e->state == LIFECYCLE_STATE_SHUTDOWN)
		fail(moat, "TorVM is being stopped");
	else if (e->state == LIFECYCLE_STATE_BLOCKED)
		fail(moat, e->last_error);
	else
		tell(moat);
}

void moat_init(struct moat *moat, struct engine *e)
{
	*moat = (struct moat){ .engine = e };
	uv_timer_init(&e->loop, &moat->limit);
	moat->limit.data = moat;
}

void moat_deinit(struct moat *moat)
{
	uv_close((uv_handle_t *)&moat->limit, NULL);
}
