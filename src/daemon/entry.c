/*
 * Theory of operation
 * ===================
 * Automatic mode. What the configuration says comes first: directly, or the
 * user's own bridges (then Tor is never entered directly: its user may have
 * reasons). When Tor has not got on for failsafe.bootstrap_stall_s, obfs4,
 * snowflake and meek follow, each with the configuration's own bridges of that
 * kind or, if it has none, the built-in ones; then it begins anew.
 * Each change is a change of the configuration in use: from it the torrc, the
 * guest's configuration and what the firewalls let out are made at the next
 * start of the VM, so nothing else knows that a mode exists.
 *
 * Not changed for what no other way in can mend: a wrong clock, no network at
 * all, a Tor that does not answer.
 *
 * The choice is written into VM_DIR, where the next engine finds it that takes
 * over the running VM.
 *
 * While the bridge service is asked (moat.c), the bridge in use is one with
 * that service at its end. A VM that was started so is of no use to the next
 * engine, whose client is gone: it starts another.
 */
#include "daemon/entry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/log.h"
#include "config/bridge_line.h"
#include "config/builtin.h"
#include "daemon/engine.h"
#include "daemon/fds.h"

#define ENTRY_FILE "entry"
#define MOAT "moat"

const char *entry_name(const struct entry *entry)
{
	const struct config *cfg = entry->engine->cfg;

	if (entry->moat)
		return MOAT;
	if (!cfg->bridge.use_bridges)
		return "direct";
	return cfg->bridge.transport == CONFIG_TRANSPORT_NONE
		       ? "plain"
		       : config_transport_name(cfg->bridge.transport);
}

/* Frees the lines in use, if they are not the configuration's own. */
static void restore(struct entry *entry)
{
	struct config *cfg = entry->engine->cfg;
	struct config_bridge_list lines = {
		.lines = cfg->bridge.bridges,
		.n_lines = cfg->bridge.n_bridges,
	};

	if (!entry->replaced)
		return;
	config_bridge_list_deinit(&lines);
	cfg->bridge.use_bridges = entry->use_bridges;
	cfg->bridge.transport = entry->transport;
	cfg->bridge.bridges = entry->bridges;
	cfg->bridge.n_bridges = entry->n_bridges;
	entry->replaced = false;
}

/* Takes the lines over. */
static void use(struct entry *entry, enum config_transport transport,
		struct config_bridge_list *lines)
{
	struct config *cfg = entry->engine->cfg;

	restore(entry);
	entry->use_bridges = cfg->bridge.use_bridges;
	entry->transport = cfg->bridge.transport;
	entry->bridges = cfg->bridge.bridges;
	entry->n_bridges = cfg->bridge.n_bridges;
	entry->replaced = true;
	cfg->bridge.use_bridges = true;
	cfg->bridge.transport = transport;
	cfg->bridge.bridges = lines->lines;
	cfg->bridge.n_bridges = lines->n_lines;
}

/* As "torvm bridges use" takes them. */
static int choose_lines(const struct config *cfg,
			enum config_transport transport,
			struct config_bridge_list *ret, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < cfg->bridge.n_bridges && r >= 0; i++)
		if (config_bridge_line_transport(cfg->bridge.bridges[i]) ==
		    transport)
			r = config_bridge_list_add(ret, cfg->bridge.bridges[i],
						   "bridge", e);
	if (r < 0 || ret->n_lines > 0)
		return r;
	return config_builtin_bridges(transport, ret, e);
}

static int replace(struct entry *entry, enum config_transport transport)
{
	struct config_bridge_list lines = CONFIG_BRIDGE_LIST_NULL(lines);
	struct error e = ERROR_NULL(e);

	restore(entry);
	if (choose_lines(entry->engine->cfg, transport, &lines, &e) < 0) {
		log_debug("entry: %s", e.text);
		config_bridge_list_deinit(&lines);
		return -ENOENT;
	}
	use(entry, transport, &lines);
	return 0;
}

static void save(const struct entry *entry)
{
	const char *name = entry_name(entry);
	_cleanup_close_ int fd = -1;

	unlinkat(ENGINE_FD_VM_DIR, ENTRY_FILE, 0);
	if (!entry->replaced)
		return;
	fd = openat(ENGINE_FD_VM_DIR, ENTRY_FILE,
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, name, strlen(name)) < 0)
		log_debug("entry: the choice could not be noted: %s",
			  strerror(errno));
}

static void resume(struct entry *entry)
{
	_cleanup_close_ int fd = openat(ENGINE_FD_VM_DIR, ENTRY_FILE,
					O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char name[24] = "";

	if (fd < 0 || read(fd, name, sizeof(name) - 1) <= 0)
		return;
	entry->moat_left = !strcmp(name, MOAT);
	for (int t = CONFIG_TRANSPORT_OBFS4;
	     entry->engine->cfg->bridge.automatic && t < CONFIG_TRANSPORT_COUNT;
	     t++)
		if (!strcmp(config_transport_name(t), name))
			replace(entry, (enum config_transport)t);
}

void entry_init(struct entry *entry, struct engine *e)
{
	*entry = (struct entry){ .engine = e, .before_moat = -1 };
	if (e->opt.resume)
		resume(entry);
	if (!entry->moat_left)
		save(entry);
}

void entry_deinit(struct entry *entry)
{
	restore(entry);
}

int entry_enter_moat(struct entry *entry, struct error *e)
{
	struct config_bridge_list lines = CONFIG_BRIDGE_LIST_NULL(lines);
	struct engine *engine = entry->engine;
	int r;

	if (engine->cfg->vm.memory_mb < CONFIG_TRANSPORT_MEMORY_MB)
		return error_set(e, -ENOMEM,
				 "a transport needs vm.memory_mb to be %d",
				 CONFIG_TRANSPORT_MEMORY_MB);
	r = config_moat_bridge(engine->cfg->bridge.moat, &lines, e);
	if (r < 0) {
		config_bridge_list_deinit(&lines);
		return r;
	}
	entry->before_moat =
		entry->replaced ? (int)engine->cfg->bridge.transport : -1;
	use(entry, CONFIG_TRANSPORT_MEEK_LITE, &lines);
	entry->moat = true;
	r = vm_supervisor_prepare(&engine->vm, e);
	if (r < 0)
		entry_leave_moat(entry);
	else
		save(entry);
	return r;
}

void entry_leave_moat(struct entry *entry)
{
	struct error e = ERROR_NULL(e);

	if (!entry->moat && !entry->moat_left)
		return;
	entry->moat = entry->moat_left = false;
	restore(entry);
	if (entry->before_moat >= 0)
		replace(entry, (enum config_transport)entry->before_moat);
	save(entry);
	/* The names to look up and whom to let out are others again. */
	if (vm_supervisor_prepare(&entry->engine->vm, &e) < 0)
		log_warning("%s", e.text);
}

void entry_worked(struct entry *entry)
{
	const char *name = entry_name(entry);

	if (entry->replaced)
		log_notice("Tor was entered by %s bridges. To begin with them "
			   "from now on: sudo torvm bridges use %s",
			   name, name);
}

static void note_failure(struct entry *entry, enum tor_obstacle obstacle)
{
	if (entry->n_tried == ENTRY_TRIED_MAX)
		memmove(entry->tried, entry->tried + 1,
			--entry->n_tried * sizeof(entry->tried[0]));
	snprintf(entry->tried[entry->n_tried++], sizeof(entry->tried[0]),
		 "%s: %s", entry_name(entry), tor_obstacle_name(obstacle));
}

/* Whether a start with the configuration in use can be made at all. */
static bool is_possible(const struct entry *entry)
{
	struct engine *e = entry->engine;
	struct error why = ERROR_NULL(why);

	/* As src/config/combine.c has it. */
	if (e->cfg->bridge.transport == CONFIG_TRANSPORT_SNOWFLAKE &&
	    e->cfg->proxy.type != CONFIG_PROXY_NONE)
		return false;
	if (vm_supervisor_prepare(&e->vm, &why) == 0)
		return true;
	log_info("%s is left out: %s", entry_name(entry), why.text);
	return false;
}

/* To the next way in that is possible; after the last one the first. */
static void advance(struct entry *entry)
{
	struct config *cfg = entry->engine->cfg;
	bool use_bridges = cfg->bridge.use_bridges;
	enum config_transport now = cfg->bridge.transport;

	for (;;) {
		int next = tor_next_transport(use_bridges, now);

		if (next < 0)
			break;
		use_bridges = true;
		now = (enum config_transport)next;
		if (replace(entry, now) == 0 && is_possible(entry))
			return;
	}
	restore(entry);
}

static bool may_help(enum tor_obstacle obstacle)
{
	switch (obstacle) {
	case TOR_OBSTACLE_NAMES:
	case TOR_OBSTACLE_FALSE_NAMES:
	case TOR_OBSTACLE_REFUSED:
	case TOR_OBSTACLE_TIMEOUT:
	case TOR_OBSTACLE_CUT:
	case TOR_OBSTACLE_IDENTITY:
	case TOR_OBSTACLE_DIRECTORY:
	case TOR_OBSTACLE_TRANSPORT:
	case TOR_OBSTACLE_CERTIFICATE:
	case TOR_OBSTACLE_PROXY_REFUSES:
	case TOR_OBSTACLE_BEHIND_PROXY:
	case TOR_OBSTACLE_UNKNOWN: return true;
	case TOR_OBSTACLE_PROXY_LOGIN:
	case TOR_OBSTACLE_PROXY_CERTIFICATE:
	case TOR_OBSTACLE_PROXY_NAME:
	case TOR_OBSTACLE_PROXY_EXPIRED:
	case TOR_OBSTACLE_PROXY_TLS:
	case TOR_OBSTACLE_TOR:
	case TOR_OBSTACLE_NO_ROUTE:
	case TOR_OBSTACLE_CLOCK:
	case TOR_OBSTACLE_RELAYS:
	case TOR_OBSTACLE_COUNT: break;
	}
	return false;
}

bool entry_change(struct entry *entry, enum tor_obstacle obstacle)
{
	struct engine *e = entry->engine;
	const char *was = entry_name(entry);

	if (!e->cfg->bridge.automatic || entry->moat || !may_help(obstacle))
		return false;
	note_failure(entry, obstacle);
	advance(entry);
	save(entry);
	log_notice("Tor is not entered by the way \"%s\" (%s); \"%s\" is tried "
		   "next, with a new start of the VM. Traffic stays blocked.",
		   was, tor_obstacle_name(obstacle), entry_name(entry));
	return true;
}

void entry_failed(struct entry *entry, enum tor_obstacle obstacle)
{
	struct engine *e = entry->engine;

	if ((e->state == LIFECYCLE_STATE_WAIT_BOOTSTRAP ||
	     e->state == LIFECYCLE_STATE_BLOCKED) &&
	    entry_change(entry, obstacle))
		engine_feed(e, LIFECYCLE_EVENT_VM_FAILED);
}
