/*
 * The journal.
 *
 * Theory of operation: the whole journal is a page of text, kept in memory and
 * written out as a whole (new file, fsync, rename, fsync of the directory)
 * before each change it announces. So it never grows, is never torn, and is
 * replayed without thinking about order: restoring has an order of its own
 * (restore.c), independent of the order in which things were made.
 *
 *   torvm-journal 1
 *   boot 6d1e...            everything below died with this boot,
 *   netns 4026531840        and with this network namespace
 *   plan torvm0 10.10.10.2 10.10.10.1 61101 5f3c8a11
 *   up firewall rules tap   intentions: present, or about to be
 *   vm 4711 1234567         0 0: none
 *   sysctl net/ipv4/conf/eth0/rp_filter 1 2
 *   end
 *
 * The parser accepts exactly what the writer writes. The file lies in a
 * directory that only root can write to; the strictness is for torn file
 * systems and for the fuzzer, not a defence against root.
 */
#include "broker/journal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/channel.h"

#define JOURNAL_NEW_NAME "journal.new"

static const struct {
	uint32_t bit;
	const char *name;
} up_names[] = {
	{ BROKER_UP_FIREWALL, "firewall" },
	{ BROKER_UP_RULES, "rules" },
	{ BROKER_UP_TAP, "tap" },
	{ BROKER_UP_DNS, "dns" },
};

static int read_boot_id(char ret[37])
{
	_cleanup_close_ int fd =
		open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (read(fd, ret, 36) != 36)
		return -EIO;
	ret[36] = '\0';
	return 0;
}

static int read_netns(uint64_t *ret)
{
	struct stat st;

	if (stat("/proc/self/ns/net", &st) < 0)
		return -errno;
	*ret = st.st_ino;
	return 0;
}

int journal_init(struct journal *j, const struct net_plan *plan,
		 struct error *e)
{
	int r;

	*j = (struct journal){ .plan = *plan };
	r = read_boot_id(j->boot_id);
	if (r == 0)
		r = read_netns(&j->netns);
	if (r < 0)
		return error_set(e, r,
				 "the boot id or the network namespace cannot "
				 "be read (%s); is /proc mounted?",
				 strerror(-r));
	return 0;
}

bool journal_is_current(const struct journal *j)
{
	char boot_id[37];
	uint64_t netns = 0;

	return read_boot_id(boot_id) == 0 && read_netns(&netns) == 0 &&
	       strcmp(boot_id, j->boot_id) == 0 && netns == j->netns;
}

/* A word of a line: printable, no blanks, not empty. */
static bool word_ok(const char *s, size_t size)
{
	size_t i, len = strnlen(s, size);

	for (i = 0; i < len; i++) {
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	}
	return len > 0 && len < size;
}

/* A path below /proc/sys/net that stays there. */
static bool sysctl_name_ok(const char *name)
{
	const char *p;

	if (!word_ok(name, sizeof(((struct journal_sysctl *)0)->name)) ||
	    strncmp(name, "net/", 4) != 0)
		return false;
	for (p = name; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (*p == '/' || *p == '\0' ||
		    (p[0] == '.' &&
		     (p[1] == '/' || p[1] == '\0' ||
		      (p[1] == '.' && (p[2] == '/' || p[2] == '\0')))))
			return false;
	}
	return true;
}

int journal_add_sysctl(struct journal *j, const char *name,
		       const char *old_value, const char *new_value)
{
	struct journal_sysctl *s;
	size_t i;

	if (!sysctl_name_ok(name) ||
	    !word_ok(old_value, sizeof(s->old_value)) ||
	    !word_ok(new_value, sizeof(s->new_value)))
		return -EINVAL;
	for (i = 0; i < j->n_sysctls; i++) {
		s = &j->sysctls[i];
		if (strcmp(s->name, name) == 0 &&
		    strcmp(s->old_value, old_value) == 0 &&
		    strcmp(s->new_value, new_value) == 0)
			return 0;
	}
	if (j->n_sysctls == JOURNAL_SYSCTLS_MAX)
		return -ENOSPC;
	s = &j->sysctls[j->n_sysctls++];
	str_copy(s->name, sizeof(s->name), name);
	str_copy(s->old_value, sizeof(s->old_value), old_value);
	str_copy(s->new_value, sizeof(s->new_value), new_value);
	return 0;
}

struct text {
	char *buf;
	size_t size, len;
};

static void add(struct text *t, const char *fmt, ...) _printf_(2, 3);
static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->size - t->len)
		t->len = t->size; /* full; vsnprintf() gets a size of 0 */
	else
		t->len += (size_t)n;
}

int journal_format(const struct journal *j, char *buf, size_t size)
{
	struct text t = { .buf = buf, .size = size };
	char host_ip[INET_ADDRSTRLEN], vm_ip[INET_ADDRSTRLEN];
	size_t i;

	inet_ntop(AF_INET, &j->plan.host_ip, host_ip, sizeof(host_ip));
	inet_ntop(AF_INET, &j->plan.vm_ip, vm_ip, sizeof(vm_ip));
	add(&t, "torvm-journal 1\nboot %s\nnetns %" PRIu64 "\n", j->boot_id,
	    j->netns);
	add(&t, "plan %s %s %s %u %x\nup", j->plan.tap_name, host_ip, vm_ip,
	    j->plan.vm_uid, j->plan.mark);
	for (i = 0; i < ARRAY_SIZE(up_names); i++) {
		if (j->up & up_names[i].bit)
			add(&t, " %s", up_names[i].name);
	}
	add(&t, "\nvm %d %" PRIu64 "\n", j->vm_pid, j->vm_started);
	for (i = 0; i < j->n_sysctls; i++)
		add(&t, "sysctl %s %s %s\n", j->sysctls[i].name,
		    j->sysctls[i].old_value, j->sysctls[i].new_value);
	add(&t, "end\n");
	return t.len < t.size ? (int)t.len : -ENOSPC;
}

/* The text that is still to be read, line by line, word by word. */
struct scanner {
	const char *p, *end;
};

/* Takes the next word up to a blank or the line's end. */
static bool scan_word(struct scanner *s, char *ret, size_t size)
{
	size_t n = 0;

	while (s->p < s->end && *s->p > ' ' && *s->p <= '~' && n + 1 < size)
		ret[n++] = *s->p++;
	ret[n] = '\0';
	return n > 0;
}

static bool scan_text(struct scanner *s, const char *text)
{
	size_t len = strlen(text);

	if ((size_t)(s->end - s->p) < len || memcmp(s->p, text, len) != 0)
		return false;
	s->p += len;
	return true;
}

static bool scan_number(struct scanner *s, int base, uint64_t max,
			uint64_t *ret)
{
	char word[24], *end;

	if (!scan_word(s, word, sizeof(word)) || strchr("+-", word[0]))
		return false;
	errno = 0;
	*ret = strtoull(word, &end, base);
	return errno == 0 && *end == '\0' && *ret <= max;
}

static bool scan_address(struct scanner *s, struct in_addr *ret)
{
	char word[INET_ADDRSTRLEN];

	return scan_word(s, word, sizeof(word)) &&
	       inet_pton(AF_INET, word, ret) == 1;
}

static bool scan_plan(struct scanner *s, struct net_plan *plan)
{
	struct broker_net net = { 0 };
	uint64_t uid, mark;

	if (!scan_text(s, "plan ") ||
	    !scan_word(s, plan->tap_name, sizeof(plan->tap_name)) ||
	    !scan_text(s, " ") || !scan_address(s, &plan->host_ip) ||
	    !scan_text(s, " ") || !scan_address(s, &plan->vm_ip) ||
	    !scan_text(s, " ") || !scan_number(s, 10, UINT32_MAX - 1, &uid) ||
	    !scan_text(s, " ") || !scan_number(s, 16, UINT32_MAX, &mark) ||
	    !scan_text(s, "\n"))
		return false;
	plan->vm_uid = (uid_t)uid;
	plan->mark = (uint32_t)mark;
	memcpy(net.tap_name, plan->tap_name, sizeof(net.tap_name));
	net.host_ip = plan->host_ip;
	net.vm_ip = plan->vm_ip;
	return mark != 0 && broker_net_check(&net, NULL) == 0;
}

static bool scan_up(struct scanner *s, uint32_t *up)
{
	size_t i;

	if (!scan_text(s, "up"))
		return false;
	for (i = 0; i < ARRAY_SIZE(up_names); i++) {
		struct scanner before = *s;

		if (scan_text(s, " ") && scan_text(s, up_names[i].name))
			*up |= up_names[i].bit;
		else
			*s = before;
	}
	return scan_text(s, "\n");
}

static bool scan_sysctl(struct scanner *s, struct journal *j)
{
	struct journal_sysctl v;
	size_t n = j->n_sysctls;

	return scan_word(s, v.name, sizeof(v.name)) && scan_text(s, " ") &&
	       scan_word(s, v.old_value, sizeof(v.old_value)) &&
	       scan_text(s, " ") &&
	       scan_word(s, v.new_value, sizeof(v.new_value)) &&
	       scan_text(s, "\n") &&
	       journal_add_sysctl(j, v.name, v.old_value, v.new_value) == 0 &&
	       j->n_sysctls == n + 1;
}

static bool scan_journal(struct scanner *s, struct journal *j)
{
	uint64_t pid;

	if (!scan_text(s, "torvm-journal 1\nboot ") ||
	    !scan_word(s, j->boot_id, sizeof(j->boot_id)) ||
	    !scan_text(s, "\nnetns ") ||
	    !scan_number(s, 10, UINT64_MAX, &j->netns) || !scan_text(s, "\n") ||
	    !scan_plan(s, &j->plan) || !scan_up(s, &j->up) ||
	    !scan_text(s, "vm ") || !scan_number(s, 10, INT32_MAX, &pid) ||
	    !scan_text(s, " ") ||
	    !scan_number(s, 10, UINT64_MAX, &j->vm_started) ||
	    !scan_text(s, "\n"))
		return false;
	j->vm_pid = (int32_t)pid;
	while (scan_text(s, "sysctl ")) {
		if (!scan_sysctl(s, j))
			return false;
	}
	return scan_text(s, "end\n") && s->p == s->end;
}

int journal_parse(const char *text, size_t len, struct journal *ret,
		  struct error *e)
{
	struct scanner s = { .p = text, .end = text + len };

	*ret = (struct journal){ 0 };
	if (!scan_journal(&s, ret))
		return error_set(e, -EBADMSG,
				 "the journal is not one that this version "
				 "of TorVM writes (at byte %zu)",
				 (size_t)(s.p - text));
	return 0;
}

int journal_read(int dir_fd, struct journal *ret, struct error *e)
{
	_cleanup_close_ int fd = -1;
	char text[JOURNAL_SIZE_MAX];
	size_t len = 0;
	ssize_t n;

	fd = openat(dir_fd, JOURNAL_NAME,
		    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return error_set(e, -errno, "the journal cannot be opened: %s",
				 strerror(errno));
	while ((n = read(fd, text + len, sizeof(text) - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return error_set(e, -errno, "the journal cannot be read: %s",
				 strerror(errno));
	return journal_parse(text, len, ret, e);
}

int journal_write(int dir_fd, const struct journal *j, struct error *e)
{
	char text[JOURNAL_SIZE_MAX];
	_cleanup_close_ int fd = -1;
	int len;

	len = journal_format(j, text, sizeof(text));
	if (len < 0)
		return error_set(e, len, "the journal is full");
	errno = 0;
	fd = openat(dir_fd, JOURNAL_NEW_NAME,
		    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		    0600);
	if (fd < 0 || write(fd, text, (size_t)len) != len || fsync(fd) < 0 ||
	    renameat(dir_fd, JOURNAL_NEW_NAME, dir_fd, JOURNAL_NAME) < 0 ||
	    fsync(dir_fd) < 0) {
		/* A short write has no errno: the disk is full. */
		int r = errno ? -errno : -ENOSPC;

		/* It would stand in the way of what could free space. */
		unlinkat(dir_fd, JOURNAL_NEW_NAME, 0);
		return error_set(e, r,
				 "the journal cannot be written (%s); nothing "
				 "is changed without it",
				 strerror(-r));
	}
	return 0;
}

int journal_remove(int dir_fd)
{
	/* What a crash in the midst of writing left. */
	unlinkat(dir_fd, JOURNAL_NEW_NAME, 0);
	if (unlinkat(dir_fd, JOURNAL_NAME, 0) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}
