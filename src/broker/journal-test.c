#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "broker/journal.h"

static struct journal sample(void)
{
	struct net_plan plan = { .tap_name = "torvm0",
				 .vm_uid = 61101,
				 .mark = 0x5f3c8a11 };
	struct journal j;

	inet_pton(AF_INET, "10.10.10.2", &plan.host_ip);
	inet_pton(AF_INET, "10.10.10.1", &plan.vm_ip);
	assert_int_equal(journal_init(&j, &plan, NULL), 0);
	j.up = BROKER_UP_FIREWALL | BROKER_UP_TAP;
	j.vm_pid = 4711;
	j.vm_started = 123456789012ULL;
	assert_int_equal(journal_add_sysctl(&j,
					    "net/ipv4/conf/eth0.7/rp_filter",
					    "1", "2"),
			 0);
	return j;
}

static void text_survives_a_round_trip(void **state)
{
	struct journal j = sample(), back;
	char a[4096], b[4096];
	int len = journal_format(&j, a, sizeof(a));

	assert_true(len > 0);
	assert_int_equal(journal_parse(a, (size_t)len, &back, NULL), 0);
	assert_int_equal(journal_format(&back, b, sizeof(b)), len);
	assert_memory_equal(a, b, len);
	assert_int_equal(back.plan.mark, 0x5f3c8a11);
	assert_int_equal(back.plan.vm_ip.s_addr, j.plan.vm_ip.s_addr);
	assert_int_equal(back.up, BROKER_UP_FIREWALL | BROKER_UP_TAP);
	assert_int_equal(back.vm_pid, 4711);
	assert_true(back.vm_started == 123456789012ULL);
	assert_string_equal(back.sysctls[0].old_value, "1");
	assert_true(journal_is_current(&back));
	assert_int_equal(journal_format(&j, a, (size_t)len), -ENOSPC);
}

static void torn_text_is_refused_at_every_byte(void **state)
{
	struct journal j = sample(), back;
	char text[4096];
	int len = journal_format(&j, text, sizeof(text)), i;

	for (i = 0; i < len; i++)
		assert_int_equal(journal_parse(text, (size_t)i, &back, NULL),
				 -EBADMSG);
	text[len] = '\n';
	assert_int_equal(journal_parse(text, (size_t)len + 1, &back, NULL),
			 -EBADMSG);
}

/* Replaces @from by @to in a good journal; says whether it is refused. */
static int parse_with(const char *from, const char *to)
{
	struct journal j = sample(), back;
	char text[4096], changed[8192];
	char *at;

	assert_true(journal_format(&j, text, sizeof(text)) > 0);
	at = strstr(text, from);
	assert_non_null(at);
	snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text,
		 to, at + strlen(from));
	return journal_parse(changed, strlen(changed), &back, NULL);
}

static void strange_values_are_refused(void **state)
{
	assert_int_equal(parse_with("torvm0", "tap9"), 0);
	assert_int_equal(parse_with("torvm0", "a/b"), -EBADMSG);
	assert_int_equal(parse_with("torvm0", "sixteen-bytes-xx"), -EBADMSG);
	assert_int_equal(parse_with("10.10.10.1", "10.10.11.1"), -EBADMSG);
	assert_int_equal(parse_with("5f3c8a11", "0"), -EBADMSG);
	assert_int_equal(parse_with("5f3c8a11", "15f3c8a11"), -EBADMSG);
	assert_int_equal(parse_with("61101", "-1"), -EBADMSG);
	assert_int_equal(parse_with("4711", "99999999999"), -EBADMSG);
	assert_int_equal(parse_with("firewall tap", "tap firewall"), -EBADMSG);
	assert_int_equal(parse_with("firewall tap", "firewall wings"),
			 -EBADMSG);
	assert_int_equal(parse_with("net/ipv4", "kernel"), -EBADMSG);
	assert_int_equal(parse_with("eth0.7", ".."), -EBADMSG);
	assert_int_equal(parse_with("eth0.7", "a/../.."), -EBADMSG);
	assert_int_equal(parse_with("eth0.7/", "eth0//"), -EBADMSG);
	assert_int_equal(parse_with("journal 1", "journal 2"), -EBADMSG);
}

static void sysctls_are_noted_once_and_bounded(void **state)
{
	struct journal j = sample();
	char name[64];
	int i, r = 0;

	assert_int_equal(journal_add_sysctl(&j,
					    "net/ipv4/conf/eth0.7/rp_filter",
					    "1", "2"),
			 0);
	assert_int_equal(j.n_sysctls, 1);
	assert_int_equal(journal_add_sysctl(&j, "net/a", "1 2", "2"), -EINVAL);
	assert_int_equal(journal_add_sysctl(&j, "net/a", "", "2"), -EINVAL);
	assert_int_equal(journal_add_sysctl(&j, "kernel/panic", "1", "2"),
			 -EINVAL);
	for (i = 0; r == 0 && i < 2 * JOURNAL_SYSCTLS_MAX; i++) {
		snprintf(name, sizeof(name), "net/x%d", i);
		r = journal_add_sysctl(&j, name, "1", "2");
	}
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(j.n_sysctls, JOURNAL_SYSCTLS_MAX);
}

static void a_full_journal_fits_its_file(void **state)
{
	struct journal j = sample();
	char *text = malloc(JOURNAL_SIZE_MAX);
	size_t i;

	j.n_sysctls = JOURNAL_SYSCTLS_MAX;
	for (i = 0; i < j.n_sysctls; i++) {
		struct journal_sysctl *s = &j.sysctls[i];

		memset(s, 'x', sizeof(*s));
		s->name[sizeof(s->name) - 1] = '\0';
		s->old_value[sizeof(s->old_value) - 1] = '\0';
		s->new_value[sizeof(s->new_value) - 1] = '\0';
	}
	assert_true(journal_format(&j, text, JOURNAL_SIZE_MAX) > 0);
	free(text);
}

static void the_file_is_replaced_and_removed(void **state)
{
	char path[] = "/tmp/torvm-journal-XXXXXX";
	struct journal j = sample(), back;
	struct stat st;
	int dir_fd;

	assert_non_null(mkdtemp(path));
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(journal_read(dir_fd, &back, NULL), -ENOENT);
	assert_int_equal(journal_write(dir_fd, &j, NULL), 0);
	j.up = 0;
	assert_int_equal(journal_write(dir_fd, &j, NULL), 0);
	assert_int_equal(journal_read(dir_fd, &back, NULL), 0);
	assert_int_equal(back.up, 0);
	assert_int_equal(fstatat(dir_fd, JOURNAL_NAME, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(journal_remove(dir_fd), 0);
	assert_int_equal(journal_remove(dir_fd), 0);
	/* Nothing is left, not even the new file on its way. */
	assert_int_equal(rmdir(path), 0);
	/* In a directory that is gone nothing can be promised. */
	assert_true(journal_write(dir_fd, &j, NULL) < 0);
	close(dir_fd);
}

static void a_link_in_its_place_is_not_followed(void **state)
{
	char path[] = "/tmp/torvm-journal-XXXXXX";
	struct journal back;
	int dir_fd;

	assert_non_null(mkdtemp(path));
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(symlinkat("/etc/passwd", dir_fd, JOURNAL_NAME), 0);
	assert_int_equal(journal_read(dir_fd, &back, NULL), -ELOOP);
	assert_int_equal(journal_remove(dir_fd), 0);
	assert_int_equal(rmdir(path), 0);
	close(dir_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_survives_a_round_trip),
		cmocka_unit_test(torn_text_is_refused_at_every_byte),
		cmocka_unit_test(strange_values_are_refused),
		cmocka_unit_test(sysctls_are_noted_once_and_bounded),
		cmocka_unit_test(a_full_journal_fits_its_file),
		cmocka_unit_test(the_file_is_replaced_and_removed),
		cmocka_unit_test(a_link_in_its_place_is_not_followed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
