/*
 * Theory of operation
 * ===================
 * The broker starts and kills QEMU; this file decides with what and when, and
 * turns what is seen of it into lifecycle events:
 *
 *	launch -> START_VM -> reply -> QMP greeting -> VM_STARTED
 *	hello in time or VM_SILENT; ready in time or VM_SILENT
 *	the broker's VM_EXITED -> VM_EXITED, unless KILL_VM was asked
 *	stop -> system_powerdown and the agent's poweroff, quit, KILL_VM, each
 *		with its time, whichever ends it -> VM_EXITED
 *
 * Requests are answered in order, so whatever arrives before the reply to the
 * latest START_VM belongs to an earlier VM and is dropped.
 *
 * An accelerator proves itself by the guest's hello. One that fails before is
 * replaced by the next at once (guard `relaunch`), which is no failure of the
 * start; so is a state disk that the guest cannot use, once.
 */
#include "daemon/vm_supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/log.h"
#include "config/countries.h"
#include "daemon/engine.h"
#include "daemon/fds.h"
#include "tor/torrc.h"
#include "vm/args.h"
#include "vm/authorities.h"
#include "vm/fds.h"
#include "vm/guestconfig.h"
#include "vm/qemu.h"
#include "vm/state_disk.h"

/* A VM that was too slow to boot gets up to so many times its timeout: a busy
 * machine must not restart it for ever. */
#define PATIENCE_MAX 8
/* From QMP's quit to KILL_VM, in ms. */
#define QUIT_TIMEOUT_MS 3000

/* QEMU's own output: a pipe whose libuv handle outlives our interest. */
struct vm_output {
	uv_pipe_t pipe;
	struct vm_supervisor *vm;
	struct lines lines;
	char buf[1024];
};

/* ------------------------------------------------------------- output */

static void on_output_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void drop_output(struct vm_supervisor *vm)
{
	if (!vm->output)
		return;
	vm->output->vm = NULL;
	uv_close((uv_handle_t *)&vm->output->pipe, on_output_closed);
	vm->output = NULL;
}

static void on_output_line(void *userdata, const char *text)
{
	struct vm_supervisor *vm = userdata;

	str_copy(vm->output_tail, sizeof(vm->output_tail), text);
	engine_log_guest(vm->engine, LOG_LEVEL_INFO, "qemu", text);
}

static void on_output_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	struct vm_output *o = handle->data;

	*buf = uv_buf_init(o->buf, sizeof(o->buf));
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct vm_output *o = stream->data;

	if (!o->vm)
		return;
	if (n < 0)
		drop_output(o->vm);
	else
		lines_push(&o->lines, buf->base, (size_t)n, on_output_line,
			   o->vm);
}

static int watch_output(struct vm_supervisor *vm, int fd)
{
	struct vm_output *o = calloc(1, sizeof(*o));
	int ret;

	drop_output(vm);
	if (!o)
		return -ENOMEM;
	ret = uv_pipe_init(&vm->engine->loop, &o->pipe, 0);
	if (ret < 0) {
		free(o);
		return ret;
	}
	o->pipe.data = o;
	o->vm = vm;
	vm->output = o;
	ret = uv_pipe_open(&o->pipe, fd);
	if (ret < 0) {
		drop_output(vm);
		return ret;
	}
	return uv_read_start((uv_stream_t *)&o->pipe, on_output_alloc,
			     on_output);
}

static void on_console_line(void *userdata, const char *text)
{
	struct vm_supervisor *vm = userdata;

	str_copy(vm->console_tail[vm->n_console++ % VM_CONSOLE_LINES],
		 sizeof(vm->console_tail[0]), text);
	if (vm->engine->opt.verbose)
		engine_log_guest(vm->engine, LOG_LEVEL_DEBUG, "console", text);
}

static void on_console_data(void *userdata, const char *data, size_t len)
{
	struct vm_supervisor *vm = userdata;

	lines_push(&vm->console, data, len, on_console_line, vm);
}

static const struct stream_ops console_ops = { .data = on_console_data };

static void show_console_tail(struct vm_supervisor *vm)
{
	unsigned int n = vm->n_console;
	unsigned int first = n > VM_CONSOLE_LINES ? n - VM_CONSOLE_LINES : 0;

	for (unsigned int i = first; i < n; i++)
		log_info("console: %s", vm->console_tail[i % VM_CONSOLE_LINES]);
}

/* ---------------------------------------------------------- QMP session */

static void on_qmp_message(struct vm_supervisor *vm,
			   const struct qmp_message *m)
{
	switch (m->kind) {
	case QMP_KIND_READY:
		log_debug("QEMU %s answers", m->version);
		vm->qmp_ready = true;
		if (vm->phase == VM_PHASE_UP)
			engine_feed(vm->engine, LIFECYCLE_EVENT_VM_STARTED);
		break;
	case QMP_KIND_RETURN: break;
	case QMP_KIND_ERROR:
		log_warning("QEMU refused %s: %s",
			    m->id ? qmp_command_name(m->command) : "a command",
			    m->error_text);
		break;
	case QMP_KIND_EVENT:
		switch (m->event) {
		case QMP_EVENT_SHUTDOWN:
			log_debug("QEMU shuts down: %s", m->reason);
			break;
		case QMP_EVENT_GUEST_PANICKED:
			log_error("The VM's kernel has crashed.");
			break;
		case QMP_EVENT_OTHER:
		case QMP_EVENT_POWERDOWN:
		case QMP_EVENT_RESET:
		case QMP_EVENT_STOP:
		case QMP_EVENT_RESUME:
		case QMP_EVENT_COUNT: break;
		}
		break;
	}
}

static void on_qmp_data(void *userdata, const char *data, size_t len)
{
	struct vm_supervisor *vm = userdata;
	struct error e = ERROR_NULL(e);
	struct qmp_message m;
	int ret = qmp_push(vm->qmp, data, len);

	while (ret >= 0 && (ret = qmp_next(vm->qmp, &m, &e)) > 0)
		on_qmp_message(vm, &m);
	if (ret < 0) {
		log_warning("QMP: %s; connecting anew.", e.text);
		qmp_reset(vm->qmp);
		stream_reopen(&vm->qmp_stream);
		return;
	}
	stream_write(&vm->qmp_stream, qmp_output(vm->qmp));
}

static void on_qmp_connected(void *userdata)
{
	struct vm_supervisor *vm = userdata;

	qmp_reset(vm->qmp);
}

static const struct stream_ops qmp_ops = {
	.connected = on_qmp_connected,
	.data = on_qmp_data,
};

static void qmp_command(struct vm_supervisor *vm, enum qmp_command command)
{
	qmp_send(vm->qmp, command, NULL);
	stream_write(&vm->qmp_stream, qmp_output(vm->qmp));
}

/* ------------------------------------------------------------- timeouts */

static enum config_accel wanted_accel(const struct vm_supervisor *vm)
{
	const struct engine *e = vm->engine;

	return e->opt.accel >= 0 ? (enum config_accel)e->opt.accel
				 : e->cfg->vm.accel;
}

static uint64_t boot_timeout_ms(const struct vm_supervisor *vm)
{
	return vm->engine->cfg->failsafe.boot_timeout_s * 1000ull *
	       vm->patience;
}

static void on_silent(uv_timer_t *timer)
{
	struct vm_supervisor *vm = timer->data;
	unsigned int s =
		(unsigned int)((uv_now(&vm->engine->loop) - vm->started_ms) /
			       1000);

	if (vm->phase != VM_PHASE_UP)
		return;
	if (names_fail(&vm->engine->names)) {
		/* Tor is started when its names are known. What failed has
		 * been said; more patience would not help. */
		entry_change(&vm->engine->entry, TOR_OBSTACLE_NAMES);
		engine_feed(vm->engine, LIFECYCLE_EVENT_VM_SILENT);
		return;
	}
	show_console_tail(vm);
	if (vm->patience < PATIENCE_MAX && !vm->accel.fallback)
		vm->patience *= 2;
	if (vm->hello) {
		engine_failure(vm->engine,
			       "The VM has not finished booting after %u s; it "
			       "is started again. Nothing leaves this machine.",
			       s);
	} else {
		char why[64];

		snprintf(why, sizeof(why), "no sign of life within %u s", s);
		vm->relaunch = accel_failed(&vm->accel, why);
		if (vm->relaunch)
			log_warning("%s", vm->accel.reason);
		else
			engine_failure(vm->engine,
				       "The VM gave no sign of life within %u "
				       "s; it is started again. Nothing leaves "
				       "this machine.",
				       s);
	}
	engine_feed(vm->engine, LIFECYCLE_EVENT_VM_SILENT);
}

void vm_supervisor_guest_hello(struct vm_supervisor *vm)
{
	if (vm->hello)
		return;
	vm->hello = true;
	if (vm->accel_known && !vm->accel.proven) {
		accel_proved(&vm->accel);
		/* TCG that the user asked for says nothing about KVM. */
		if (wanted_accel(vm) == CONFIG_ACCEL_AUTO)
			accel_store(ENGINE_FD_STATE_DIR, vm->accel.current);
	}
	if (!vm->ready && vm->phase == VM_PHASE_UP)
		uv_timer_start(&vm->deadline, on_silent, boot_timeout_ms(vm),
			       0);
	engine_changed(vm->engine);
}

void vm_supervisor_guest_ready(struct vm_supervisor *vm)
{
	vm->ready = true;
	vm->patience = 1;
	uv_timer_stop(&vm->deadline);
}

void vm_supervisor_guest_error(struct vm_supervisor *vm, const char *text)
{
	str_copy(vm->guest_error, sizeof(vm->guest_error), text);
	log_error("The VM: %s", text);
}

void vm_supervisor_disk_unusable(struct vm_supervisor *vm, const char *reason)
{
	vm->disk_bad = true;
	snprintf(vm->guest_error, sizeof(vm->guest_error),
		 "it cannot use its state disk (%s)", reason);
	log_warning("The state disk cannot be used (%s). It is kept as %s%s "
		    "and replaced by an empty one; Tor chooses new guards.",
		    reason, vm->state_name, STATE_DISK_BAD_SUFFIX);
}

/* ---------------------------------------------------------- preparation */

static int choose_accel(struct vm_supervisor *vm, struct error *e)
{
	enum config_accel wanted = wanted_accel(vm);
	struct error why = ERROR_NULL(why);
	bool usable = accel_kvm_probe(&why) == 0;

	if (vm->accel_known)
		return 0;
	if (wanted == CONFIG_ACCEL_KVM && !usable)
		return error_set(e, -ENOENT,
				 "KVM was asked for, but %s; use --accel auto "
				 "or tcg",
				 why.text);
	accel_first(wanted, usable, accel_load(ENGINE_FD_STATE_DIR),
		    &vm->accel);
	vm->accel_known = true;
	if (vm->accel.reason[0])
		log_info("%s", vm->accel.reason);
	return 0;
}

/* Splits vm.state_disk, or names STATE_DIR's own. */
static int locate_disk(struct vm_supervisor *vm, struct error *e)
{
	const char *path = vm->engine->cfg->vm.state_disk;
	const char *slash = strrchr(path, '/');

	if (vm->state_dirfd >= 0)
		return 0;
	if (!*path) {
		vm->state_dirfd =
			fcntl(ENGINE_FD_STATE_DIR, F_DUPFD_CLOEXEC, 10);
		str_copy(vm->state_dir, sizeof(vm->state_dir),
			 vm->engine->opt.state_dir);
		str_copy(vm->state_name, sizeof(vm->state_name),
			 STATE_DISK_NAME);
	} else {
		snprintf(vm->state_dir, sizeof(vm->state_dir), "%.*s",
			 slash == path ? 1 : (int)(slash - path), path);
		if (str_copy(vm->state_name, sizeof(vm->state_name),
			     slash + 1) < 0 ||
		    !slash[1])
			return error_set(e, -EINVAL,
					 "vm.state_disk %s names no usable "
					 "file",
					 path);
		vm->state_dirfd =
			open(vm->state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	if (vm->state_dirfd < 0)
		return error_set(e, -errno,
				 "the folder of the state disk, %s, cannot be "
				 "opened: %s",
				 vm->state_dir, strerror(errno));
	return 0;
}

/* The archives that the next VM gets besides its first one. */
static unsigned int archives(const struct config *cfg)
{
	bool transports =
		torrc_transport(cfg) || cfg->proxy.type == CONFIG_PROXY_HTTPS;

	return (transports ? IMAGE_WITH(IMAGE_FILE_TRANSPORTS) : 0) |
	       (config_needs_geoip(cfg) ? IMAGE_WITH(IMAGE_FILE_GEOIP) : 0);
}

static bool has_archives(const struct image *image, unsigned int with)
{
	for (int i = 0; i < IMAGE_FILE_COUNT; i++)
		if ((with & IMAGE_WITH(i)) && image->fd[i] < 0)
			return false;
	return true;
}

static int add_authorities(const struct config *cfg, struct buffer *ret,
			   struct error *e)
{
	int r = 0;

	if (*cfg->bridge.ca_file)
		r = authorities_archive(AUTHORITIES_BRIDGE, cfg->bridge.ca_file,
					ret, e);
	if (r == 0 && *cfg->proxy.ca_file)
		r = authorities_archive(AUTHORITIES_PROXY, cfg->proxy.ca_file,
					ret, e);
	return r;
}

static int open_image(struct vm_supervisor *vm, struct error *e)
{
	struct engine *engine = vm->engine;
	const char *dir = engine->cfg->vm.image_dir;
	unsigned int with = archives(engine->cfg);
	_cleanup_close_ int opened = -1;
	int fd = ENGINE_FD_IMAGE_DIR;
	int ret;

	if (engine->cfg->bridge.automatic) /* may come to want them */
		with |= IMAGE_WITH(IMAGE_FILE_TRANSPORTS);
	if (vm->image_opened && has_archives(&vm->image, with))
		return 0;
	image_deinit(&vm->image);
	vm->image_opened = false;
	if (!*dir || engine->opt.image_dir_fixed) {
		dir = engine->opt.image_dir;
	} else {
		opened = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (opened < 0)
			return error_set(e, -errno,
					 "the VM's image folder %s cannot be "
					 "opened: %s",
					 dir, strerror(errno));
		fd = opened;
	}
	ret = image_open(fd, dir, with, &vm->image, e);
	if (ret == 0 && (with & IMAGE_WITH(IMAGE_FILE_GEOIP)))
		ret = image_check_countries(fd, dir, engine->cfg, e);
	if (ret == 0 && (with & IMAGE_WITH(IMAGE_FILE_TRANSPORTS)))
		ret = add_authorities(engine->cfg, &vm->image.authorities, e);
	vm->image_opened = ret == 0;
	if (ret < 0)
		image_deinit(&vm->image);
	return ret;
}

static int open_disk(struct vm_supervisor *vm, struct error *e)
{
	bool made = false;
	int ret;

	if (vm->disk_bad) {
		if (vm->disk_fd >= 0)
			close(steal_fd(&vm->disk_fd));
		ret = state_disk_replace(vm->state_dirfd, vm->state_dir,
					 vm->state_name,
					 vm->image.fd[IMAGE_FILE_STATE], e);
		if (ret < 0)
			return ret;
		vm->disk_bad = false;
		vm->disk_replaced = true;
	}
	if (vm->disk_fd >= 0 &&
	    !state_disk_is_current(vm->state_dirfd, vm->state_name,
				   vm->disk_fd)) {
		log_warning(
			"The state disk %s/%s was deleted or replaced while "
			"TorVM ran",
			vm->state_dir, vm->state_name);
		close(steal_fd(&vm->disk_fd));
	}
	if (vm->disk_fd >= 0)
		return 0;
	ret = state_disk_open(vm->state_dirfd, vm->state_dir, vm->state_name,
			      vm->image.fd[IMAGE_FILE_STATE], &vm->disk_fd,
			      &made, e);
	if (ret == 0 && made)
		log_info("A new state disk was made: %s/%s", vm->state_dir,
			 vm->state_name);
	return ret;
}

int vm_supervisor_prepare(struct vm_supervisor *vm, struct error *e)
{
	struct engine *engine = vm->engine;
	_cleanup_free_ char *torrc = NULL;
	int ret;

	if (!vm->qemu[0]) {
		ret = qemu_find(engine->cfg->vm.qemu_path, vm_arch_host(),
				vm->qemu, sizeof(vm->qemu), e);
		if (ret < 0) {
			vm->qemu[0] = '\0';
			return ret;
		}
	}
	ret = open_image(vm, e);
	if (ret < 0)
		return ret;
	if (vm->image.arch != vm_arch_host())
		return error_set(e, -ENOEXEC,
				 "the VM's image is for %s, this computer is "
				 "%s; build it with `make vm`",
				 vm_arch_name(vm->image.arch),
				 vm_arch_name(vm_arch_host()));
	ret = choose_accel(vm, e);
	if (ret < 0)
		return ret;
	ret = torrc_render(engine->cfg, true, &torrc, e);
	if (ret < 0)
		return ret;
	ret = names_prepare(&engine->names, e);
	if (ret < 0)
		return ret;
	ret = locate_disk(vm, e);
	if (ret < 0)
		return ret;
	/* While a VM that is to be adopted runs, the disk is its own. */
	if (vm->phase == VM_PHASE_NONE)
		return open_disk(vm, e);
	return 0;
}

/* ---------------------------------------------------------------- start */

static int tap_address(const char *name, uint8_t ret[6], struct error *e)
{
	/* netdevice(7): any family does. */
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { 0 };

	str_copy(ifr.ifr_name, sizeof(ifr.ifr_name), name);
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
		return error_set(e, -errno,
				 "the TAP %s has no address to be read: %s",
				 name, strerror(errno));
	memcpy(ret, ifr.ifr_hwaddr.sa_data, 6);
	return 0;
}

static int argv_memfd(struct vm_supervisor *vm, struct error *e)
{
	const struct config *cfg = vm->engine->cfg;
	struct vm_args_input in = {
		.qemu_path = vm->qemu,
		.arch = vm->image.arch,
		.accel = vm->accel.current,
		.memory_mb =
			cfg->vm.memory_mb +
			(config_needs_geoip(cfg) ? CONFIG_GEOIP_MEMORY_MB : 0),
		.cpus = cfg->vm.cpus,
		.state_disk = true,
		.ipv6 = vm->engine->names.plan.ipv6,
		.console = vm->engine->opt.verbose,
	};
	char argv[BROKER_ARGV_MAX];
	_cleanup_close_ int fd = -1;
	size_t len;
	int ret = vm_args_build(&in, argv, sizeof(argv), &len, e);

	if (ret < 0)
		return ret;
	fd = memfd_create("torvm-argv", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || write(fd, argv, len) != (ssize_t)len ||
	    lseek(fd, 0, SEEK_SET) < 0)
		return error_set(e, -errno, "QEMU's arguments: %s",
				 strerror(errno));
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return error_set(e, -errno, "QEMU's arguments: %s",
				 strerror(errno));
	return steal_fd(&fd);
}

static int dup_rewound(int fd)
{
	/* A dup shares its offset with the VM that was. */
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -1;
	return fcntl(fd, F_DUPFD_CLOEXEC, 10);
}

/* Where START_VM carries what becomes QEMU's fd `n`, enum vm_fd. */
static int *start_fd(int *fds, int n)
{
	return &fds[1 + n - VM_FD_FROM_ENGINE];
}

/* Fills what START_VM carries: the argument vector, then VM_FD_FROM_ENGINE and
 * on. @ret_output: our end of QEMU's output. */
static int collect_fds(struct vm_supervisor *vm, int *fds, int *ret_output,
		       struct error *e)
{
	const struct config *cfg = vm->engine->cfg;
	struct guestconfig guest = {
		.state_disk = true,
		.host_ip = cfg->network.host_ip,
		.vm_ip = cfg->network.vm_ip,
		.uplink = &vm->engine->names.plan,
		.resolvers = vm->engine->names.resolvers,
		.n_resolvers = vm->engine->names.n_resolvers,
		.transport = torrc_transport(cfg),
		.config = cfg,
		.moat = vm->engine->entry.moat,
	};
	_cleanup_free_ char *config = NULL, *torrc = NULL;
	int output[2];
	int ret;

	ret = tap_address(cfg->network.tap_name, guest.host_mac, e);
	if (ret < 0)
		return ret;
	guest.time = time(NULL);
	ret = guestconfig_render(&guest, &config, e);
	if (ret < 0)
		return ret;
	ret = torrc_render(cfg, true, &torrc, e);
	if (ret < 0)
		return ret;

	ret = fds[0] = argv_memfd(vm, e);
	if (ret < 0)
		return ret;
	ret = *start_fd(fds, VM_FD_CONFIG) =
		guestconfig_memfd("torvm-config", config, e);
	if (ret < 0)
		return ret;
	ret = *start_fd(fds, VM_FD_TORRC) =
		guestconfig_memfd("torvm-torrc", torrc, e);
	if (ret < 0)
		return ret;
	if (pipe2(output, O_CLOEXEC) < 0)
		return error_set(e, -errno, "a pipe for QEMU: %s",
				 strerror(errno));
	*ret_output = output[0];
	*start_fd(fds, VM_FD_OUTPUT) = output[1];
	*start_fd(fds, VM_FD_KERNEL) =
		dup_rewound(vm->image.fd[IMAGE_FILE_KERNEL]);
	ret = *start_fd(fds, VM_FD_INITRD) =
		image_initrd(&vm->image, archives(cfg), e);
	if (ret < 0)
		return ret;
	*start_fd(fds, VM_FD_STATE_DISK) = dup_rewound(vm->disk_fd);
	for (int i = VM_FD_FROM_ENGINE; i < VM_FD_COUNT; i++)
		if (*start_fd(fds, i) < 0)
			return error_set(e, -EMFILE,
					 "no descriptor for the VM: %s",
					 strerror(errno));
	return 0;
}

static void forget_guest(struct vm_supervisor *vm)
{
	vm->qmp_ready = vm->hello = vm->ready = false;
	vm->guest_error[0] = vm->output_tail[0] = '\0';
	vm->n_console = 0;
	vm->console.len = 0;
}

static void open_channels(struct vm_supervisor *vm)
{
	stream_open(&vm->qmp_stream);
	stream_open(&vm->console_stream);
	agent_link_open(&vm->engine->agent);
}

static void close_channels(struct vm_supervisor *vm)
{
	uv_timer_stop(&vm->deadline);
	uv_timer_stop(&vm->ladder);
	stream_close(&vm->qmp_stream);
	stream_close(&vm->console_stream);
	agent_link_close(&vm->engine->agent);
	tor_link_close(&vm->engine->tor);
	drop_output(vm);
}

static void gone(struct vm_supervisor *vm)
{
	close_channels(vm);
	vm->phase = VM_PHASE_NONE;
	vm->pid = -1;
	engine_changed(vm->engine);
}

static void owe_exit(struct vm_supervisor *vm)
{
	bool asked = vm->stop_asked;

	vm->stop_asked = false;
	if (asked)
		engine_feed(vm->engine, LIFECYCLE_EVENT_VM_EXITED);
}

static void on_started(struct engine *e, const struct broker_message *reply,
		       int *fds, size_t n_fds, void *userdata)
{
	struct vm_supervisor *vm = &e->vm;

	/* The pidfd: the broker tells of the end. */
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if ((unsigned int)(uintptr_t)userdata != vm->generation)
		return;
	if (reply->status < 0) {
		gone(vm);
		if (vm->stop_asked) {
			owe_exit(vm);
			return;
		}
		engine_failed(e, "The VM could not be started", reply->text,
			      "Nothing leaves this machine.");
		engine_feed(e, LIFECYCLE_EVENT_VM_FAILED);
		return;
	}
	vm->pid = reply->u.vm.pid;
	vm->started_ms = uv_now(&e->loop);
	vm->phase = VM_PHASE_UP;
	if (vm->stop_asked) {
		vm->phase = VM_PHASE_STOPPING;
		vm_supervisor_kill(vm);
		return;
	}
	log_info("QEMU runs (pid %d, %s).", vm->pid,
		 vm_accel_name(vm->accel.current));
	open_channels(vm);
	uv_timer_start(&vm->deadline, on_silent,
		       vm->accel.fallback && !vm->accel.proven
			       ? ACCEL_PROOF_TIMEOUT_MS
			       : boot_timeout_ms(vm),
		       0);
	engine_changed(e);
}

void vm_supervisor_launch(struct vm_supervisor *vm)
{
	struct broker_message m = { .type = BROKER_REQUEST_START_VM };
	int fds[1 + VM_FD_COUNT - VM_FD_FROM_ENGINE];
	struct error e = ERROR_NULL(e);
	int output = -1;
	int ret;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = -1;
	vm->relaunch = false;
	vm->generation++;
	close_channels(vm);
	forget_guest(vm);
	vm->phase = VM_PHASE_NONE;

	ret = vm_supervisor_prepare(vm, &e);
	if (ret == 0)
		ret = collect_fds(vm, fds, &output, &e);
	if (ret == 0) {
		ret = watch_output(vm, output);
		if (ret < 0)
			error_set(&e, ret, "QEMU's output: %s", strerror(-ret));
		else
			output = -1;
	}
	if (ret < 0) {
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
			closep(&fds[i]);
		closep(&output);
		drop_output(vm);
		engine_failed(vm->engine, "The VM could not be started", e.text,
			      "Nothing leaves this machine.");
		engine_feed(vm->engine, LIFECYCLE_EVENT_VM_FAILED);
		return;
	}
	vm->phase = VM_PHASE_STARTING;
	names_uplink(&vm->engine->names, &m.u.start_vm.uplink);
	m.u.start_vm.present = (1u << (VM_FD_COUNT - VM_FD_FROM_ENGINE)) - 1;
	broker_link_request(&vm->engine->broker, &m, fds, ARRAY_SIZE(fds),
			    on_started, (void *)(uintptr_t)vm->generation);
}

void vm_supervisor_found(struct vm_supervisor *vm, int pid)
{
	enum config_accel wanted = wanted_accel(vm);
	/* What auto ended in was written down at the guest's hello; without
	 * one there is nothing to fall back from either. */
	int used = wanted == CONFIG_ACCEL_KVM ? VM_ACCEL_KVM
		   : wanted == CONFIG_ACCEL_TCG
			   ? VM_ACCEL_TCG
			   : accel_load(ENGINE_FD_STATE_DIR);

	forget_guest(vm);
	vm->phase = VM_PHASE_UP;
	vm->pid = pid;
	vm->started_ms = uv_now(&vm->engine->loop);
	vm->accel = (struct accel){
		.current = used >= 0 ? (enum vm_accel)used : VM_ACCEL_TCG,
		.proven = used >= 0,
	};
}

void vm_supervisor_adopt(struct vm_supervisor *vm)
{
	log_notice("Taking over the running VM (pid %d).", vm->pid);
	names_adopt(&vm->engine->names);
	open_channels(vm);
	uv_timer_start(&vm->deadline, on_silent, boot_timeout_ms(vm), 0);
}

/* ------------------------------------------------------------------ end */

static void on_killed(struct engine *e, const struct broker_message *reply,
		      int *fds, size_t n_fds, void *userdata)
{
	struct vm_supervisor *vm = &e->vm;

	if (reply->status < 0)
		log_error("The VM could not be ended: %s", reply->text);
	if ((unsigned int)(uintptr_t)userdata != vm->generation)
		return;
	gone(vm);
	owe_exit(vm);
}

void vm_supervisor_kill(struct vm_supervisor *vm)
{
	const struct broker_message m = { .type = BROKER_REQUEST_KILL_VM };

	vm->generation++;
	close_channels(vm);
	vm->phase = VM_PHASE_KILLING;
	broker_link_request(&vm->engine->broker, &m, NULL, 0, on_killed,
			    (void *)(uintptr_t)vm->generation);
}

static void on_quit_timeout(uv_timer_t *timer)
{
	struct vm_supervisor *vm = timer->data;

	log_warning("QEMU does not quit; it is killed.");
	vm_supervisor_kill(vm);
}

static void quit(struct vm_supervisor *vm)
{
	if (!vm->qmp_ready) {
		vm_supervisor_kill(vm);
		return;
	}
	qmp_command(vm, QMP_COMMAND_QUIT);
	uv_timer_start(&vm->ladder, on_quit_timeout, QUIT_TIMEOUT_MS, 0);
}

static void on_powerdown_timeout(uv_timer_t *timer)
{
	struct vm_supervisor *vm = timer->data;

	log_warning("The VM does not power off; QEMU is told to quit.");
	quit(vm);
}

void vm_supervisor_stop(struct vm_supervisor *vm)
{
	struct engine *e = vm->engine;

	vm->stop_asked = true;
	switch (vm->phase) {
	case VM_PHASE_NONE: owe_exit(vm); return;
	case VM_PHASE_STARTING: /* on_started() goes on */
	case VM_PHASE_KILLING:  /* on_killed() does */
	case VM_PHASE_STOPPING: return;
	case VM_PHASE_UP: break;
	}
	vm->phase = VM_PHASE_STOPPING;
	uv_timer_stop(&vm->deadline);
	if (!vm->hello) {
		/* Nobody in there to power off. */
		quit(vm);
		return;
	}
	if (vm->qmp_ready)
		qmp_command(vm, QMP_COMMAND_SYSTEM_POWERDOWN);
	agent_link_poweroff(&e->agent);
	uv_timer_start(&vm->ladder, on_powerdown_timeout,
		       e->cfg->failsafe.shutdown_timeout_s * 1000ull, 0);
}

static void describe_end(struct vm_supervisor *vm, int wait_status, char *ret,
			 size_t size)
{
	const char *said =
		vm->guest_error[0] ? vm->guest_error : vm->output_tail;

	if (WIFSIGNALED(wait_status))
		snprintf(ret, size, "QEMU was killed by signal %d (%s)%s%s",
			 WTERMSIG(wait_status),
			 strsignal(WTERMSIG(wait_status)), *said ? ": " : "",
			 said);
	else
		snprintf(ret, size, "QEMU ended with status %d%s%s",
			 WEXITSTATUS(wait_status), *said ? ": " : "", said);
}

/* What QEMU itself said, without the program's name before it. */
static const char *qemu_said(const struct vm_supervisor *vm)
{
	const char *colon = strstr(vm->output_tail, ": ");

	if (!strncmp(vm->output_tail, "qemu-system-", 12) && colon)
		return colon + 2;
	return vm->output_tail;
}

void vm_supervisor_exited(struct vm_supervisor *vm, int wait_status)
{
	char why[400];
	bool early = !vm->hello;

	/* NONE, STARTING, KILLING: the end of one that was given up. */
	if (vm->phase == VM_PHASE_STOPPING) {
		gone(vm);
		owe_exit(vm);
		return;
	}
	if (vm->phase != VM_PHASE_UP)
		return;

	describe_end(vm, wait_status, why, sizeof(why));
	gone(vm);
	if (early) {
		show_console_tail(vm);
		vm->relaunch = accel_failed(
			&vm->accel, vm->output_tail[0] ? qemu_said(vm) : why);
		if (vm->relaunch)
			log_warning("%s", vm->accel.reason);
	} else if (vm->disk_bad && !vm->disk_replaced) {
		vm->relaunch = true;
	}
	if (!vm->relaunch)
		engine_failed(
			vm->engine, "The VM has ended", why,
			"Nothing leaves this machine; it is started again.");
	engine_feed(vm->engine, LIFECYCLE_EVENT_VM_EXITED);
}

int vm_supervisor_init(struct vm_supervisor *vm, struct engine *e)
{
	char path[64];

	*vm = (struct vm_supervisor){
		.engine = e,
		.pid = -1,
		.patience = 1,
		.image = IMAGE_NULL(image),
		.state_dirfd = -1,
		.disk_fd = -1,
	};
	vm->qmp = qmp_new();
	if (!vm->qmp)
		return -ENOMEM;
	uv_timer_init(&e->loop, &vm->deadline);
	vm->deadline.data = vm;
	uv_timer_init(&e->loop, &vm->ladder);
	vm->ladder.data = vm;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/" VM_SOCKET_QMP,
		 ENGINE_FD_VM_DIR);
	stream_init(&vm->qmp_stream, &e->loop, path, &qmp_ops, vm);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/" VM_SOCKET_CONSOLE,
		 ENGINE_FD_VM_DIR);
	stream_init(&vm->console_stream, &e->loop, path, &console_ops, vm);
	return 0;
}

void vm_supervisor_deinit(struct vm_supervisor *vm)
{
	close_channels(vm);
	stream_deinit(&vm->qmp_stream);
	stream_deinit(&vm->console_stream);
	uv_close((uv_handle_t *)&vm->deadline, NULL);
	uv_close((uv_handle_t *)&vm->ladder, NULL);
	qmp_freep(&vm->qmp);
	image_deinit(&vm->image);
	closep(&vm->state_dirfd);
	vm->state_dirfd = -1;
	closep(&vm->disk_fd);
	vm->disk_fd = -1;
}
