/*
 * Theory of operation
 *
 * A list of checks, each a function that looks and changes nothing. It fills
 * one line: what was found and, if something is missing, the command that mends
 * it. The same functions that a start uses judge (vm/image.h, vm/qemu.h,
 * net_precheck()), so that the doctor cannot be of another opinion. A check
 * that is missing something is `bad`; what works, but less well or not without
 * a word to the user, is a `note`.
 */
#include "cli/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <pwd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "config/countries.h"
#include "platform/platform.h"
#include "vm/image.h"
#include "vm/qemu.h"

/* In place of users that are not installed; docs/ARCHITECTURE.md. */
#define RESERVED_UID_VM 61101

#define KVM_API_VERSION_NEEDED 12

static const char *const result_names[] = {
	[RESULT_OK] = "ok",
	[RESULT_NOTE] = "note",
	[RESULT_BAD] = "missing",
};
_Static_assert(ARRAY_SIZE(result_names) == RESULT_COUNT, "names");

void found(struct finding *f, enum result result, const char *mend,
	   const char *fmt, ...)
{
	va_list ap;

	f->result = result;
	str_copy(f->mend, sizeof(f->mend), mend);
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
}

static void check_privileges(struct doctor *d, struct finding *f)
{
	if (geteuid() == 0)
		found(f, RESULT_OK, "", "this is root");
	else
		found(f, RESULT_NOTE, "sudo torvm doctor",
		      "this is not root: the kernel's features cannot be "
		      "checked, and a start needs root");
}

static void check_config(struct doctor *d, struct finding *f)
{
	const char *path = d->args->config;
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;
	int r;

	if (!path) {
		found(f, RESULT_OK, "",
		      "no " CLI_CONFIG_FILE "; the defaults apply");
		return;
	}
	r = config_load(path, &cfg, &e);
	if (r == 0) {
		config_free(d->cfg);
		d->cfg = cfg;
		found(f, RESULT_OK, "", "%s is good", path);
	} else if (r == -EACCES && geteuid() != 0) {
		found(f, RESULT_NOTE, "sudo torvm doctor", "%s", e.text);
	} else {
		found(f, RESULT_BAD, "", "%s", e.text);
	}
}

static void check_programs(struct doctor *d, struct finding *f)
{
	static const char *const programs[] = { "torvm-broker", "torvmd" };
	struct error e = ERROR_NULL(e);
	char path[1200];

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		if (cli_find_program(programs[i], path, sizeof(path), &e) < 0) {
			found(f, RESULT_BAD, "make", "%s", e.text);
			return;
		}
	found(f, RESULT_OK, "", "torvm-broker and torvmd are there");
}

static void check_qemu(struct doctor *d, struct finding *f)
{
	struct error e = ERROR_NULL(e);
	char path[1024];

	if (qemu_find(d->cfg->vm.qemu_path, vm_arch_host(), path, sizeof(path),
		      &e) == 0)
		found(f, RESULT_OK, "", "%s", path);
	else
		found(f, RESULT_BAD,
		      vm_arch_host() == VM_ARCH_ARM64
			      ? "apt-get install qemu-system-arm"
			      : "apt-get install qemu-system-x86",
		      "%s", e.text);
}

static void check_image(struct doctor *d, struct finding *f)
{
	_cleanup_(image_deinit) struct image image = IMAGE_NULL(image);
	struct error e = ERROR_NULL(e);
	bool geoip = config_needs_geoip(d->cfg);
	_cleanup_close_ int fd = -1;
	char path[CLI_IMAGE_DIR_SIZE];

	fd = cli_open_image_dir(d->args->image_dir, d->cfg, path, sizeof(path));
	if (fd < 0)
		found(f, RESULT_BAD, "make vm",
		      "no image, neither in dist/vm of the checkout nor in %.400s",
		      path);
	else if (image_open(fd, path, geoip ? IMAGE_WITH(IMAGE_FILE_GEOIP) : 0,
			    &image, &e) < 0)
		found(f, RESULT_BAD, "make vm", "%s", e.text);
	else if (geoip && image_check_countries(fd, path, d->cfg, &e) < 0)
		found(f, RESULT_BAD, "", "%s", e.text);
	else
		found(f, RESULT_OK, "", "%.400s is complete and unchanged",
		      path);
}

static void check_tun(struct doctor *d, struct finding *f)
{
	struct stat st;

	if (stat("/dev/net/tun", &st) == 0 && S_ISCHR(st.st_mode))
		found(f, RESULT_OK, "", "/dev/net/tun is there");
	else
		found(f, RESULT_BAD, "modprobe tun",
		      "/dev/net/tun is not there: no network interface for the "
		      "virtual machine can be made");
}

static void check_kvm(struct doctor *d, struct finding *f)
{
	_cleanup_close_ int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	enum result bad =
		d->cfg->vm.accel == CONFIG_ACCEL_KVM ? RESULT_BAD : RESULT_NOTE;

	if (fd >= 0 &&
	    ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION_NEEDED)
		found(f, RESULT_OK, "",
		      "/dev/kvm answers; a start proves that it works");
	else if (fd < 0 && errno == EACCES)
		found(f, bad, "sudo torvm doctor",
		      "/dev/kvm may not be opened by this user");
	else
		found(f, bad,
		      bad == RESULT_BAD ? "set vm.accel to \"auto\"" : "",
		      "no working /dev/kvm: the virtual machine runs by tcg, "
		      "which is slower");
}

static void check_kernel(struct doctor *d, struct finding *f)
{
	struct net_plan plan = {
		.host_ip = d->cfg->network.host_ip,
		.vm_ip = d->cfg->network.vm_ip,
		.vm_uid = RESERVED_UID_VM,
		.mark = 1,
	};
	const struct passwd *pw = getpwnam("torvm-vm");
	struct error e = ERROR_NULL(e);
	struct net *net = NULL;
	int r;

	if (d->running) {
		found(f, RESULT_OK, "", "a controller runs with it");
		return;
	}
	if (geteuid() != 0) {
		found(f, RESULT_NOTE, "sudo torvm doctor",
		      "only root can ask for nftables, policy rules and TAP");
		return;
	}
	if (pw)
		plan.vm_uid = pw->pw_uid;
	str_copy(plan.tap_name, sizeof(plan.tap_name),
		 d->cfg->network.tap_name);
	plan.lan_access = d->cfg->network.lan_access;
	r = net_open(&net, &e);
	if (r == 0)
		r = net_precheck(net, &plan, &e);
	net_close(net);
	if (r < 0)
		found(f, RESULT_BAD, "", "%s", e.text);
	else
		found(f, RESULT_OK, "",
		      "nftables, policy rules, TAP and the addresses are free "
		      "and usable");
}

static void check_users(struct doctor *d, struct finding *f)
{
	if (getpwnam("torvm") && getpwnam("torvm-vm") && getgrnam("torvm"))
		found(f, RESULT_OK, "", "users torvm and torvm-vm exist");
	else
		found(f, RESULT_NOTE, "make install",
		      "users torvm and torvm-vm do not exist: reserved numbers "
		      "are used, and only root may use the control socket");
}

static void check_state(struct doctor *d, struct finding *f)
{
	const char *dir = cli_runtime_dir(d->args);

	if (d->running)
		found(f, RESULT_OK, "", "a controller runs");
	else if (cli_leftovers(dir))
		found(f, RESULT_BAD, "torvm up, or torvm recover",
		      "a controller ended without restoring the network: "
		      "traffic may be blocked");
	else
		found(f, RESULT_OK, "",
		      "no controller runs, nothing is left "
		      "of one");
}

static const struct {
	const char *name;
	void (*check)(struct doctor *d, struct finding *f);
} checks[] = {
	{ "privileges", check_privileges },
	{ "configuration", check_config }, /* before those that use it */
	{ "state", check_state },
	{ "programs", check_programs },
	{ "qemu", check_qemu },
	{ "image", check_image },
	{ "tun", check_tun },
	{ "kvm", check_kvm },
	{ "kernel", check_kernel },
	{ "users", check_users },
	{ "resolver", doctor_check_resolver },
	{ "resolved", doctor_check_resolved },
	{ "names", doctor_check_names },
	{ "firewalld", doctor_check_firewalld },
};

static void print_finding(const char *name, const struct finding *f)
{
	static const enum cli_colour colours[] = {
		[RESULT_OK] = CLI_GREEN,
		[RESULT_NOTE] = CLI_YELLOW,
		[RESULT_BAD] = CLI_RED,
	};

	printf("%s%-7s%s  %-13s  %s%s%s\n",
	       cli_colour(stdout, colours[f->result]), result_names[f->result],
	       cli_colour(stdout, CLI_PLAIN), name, f->text,
	       f->mend[0] ? "; run: " : "", f->mend);
}

int cli_doctor(const struct cli_args *args)
{
	struct doctor d = { .args = args, .cfg = config_new_default() };
	bool json = args->given & CLI_BIT(JSON);
	struct client *client = NULL;
	json_t *list = json_array();
	bool good = true;

	if (args->given & CLI_BIT(CONNECTION)) {
		json_decref(list);
		config_free(d.cfg);
		return cli_connection(args);
	}
	if (!d.cfg)
		return cli_fail(EXIT_CODE_FAILED, "out of memory");
	d.running = client_connect(cli_runtime_dir(args), &client, NULL) == 0;
	client_free(client);
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		struct finding f = { .result = RESULT_BAD };

		checks[i].check(&d, &f);
		good = good && f.result != RESULT_BAD;
		if (json)
			json_array_append_new(
				list, json_pack("{s:s, s:s, s:s, s:s}", "check",
						checks[i].name, "result",
						result_names[f.result], "text",
						f.text, "mend", f.mend));
		else
			print_finding(checks[i].name, &f);
	}
	if (json) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(list);
	config_free(d.cfg);
	return good ? EXIT_CODE_OK : EXIT_CODE_FAILED;
}
