#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "vm/state_disk.h"

#define SIZE (4 * 1024 * 1024) /* bytes */
#define TEXT "superblock"
#define TEXT_AT (1024 * 1024) /* with a hole on both its sides */

struct dir {
	char path[64];
	int fd;
	int pristine;
};

static int setup(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));

	*state = d;
	strcpy(d->path, "/tmp/torvm-state-XXXXXX");
	if (!mkdtemp(d->path))
		return -1;
	d->fd = open(d->path, O_RDONLY | O_DIRECTORY);
	d->pristine = open(d->path, O_TMPFILE | O_RDWR, 0600);
	if (ftruncate(d->pristine, SIZE) < 0 ||
	    pwrite(d->pristine, TEXT, strlen(TEXT), TEXT_AT) < 0)
		return -1;
	return 0;
}

static int teardown(void **state)
{
	struct dir *d = *state;

	unlinkat(d->fd, STATE_DISK_NAME, 0);
	unlinkat(d->fd, STATE_DISK_NAME STATE_DISK_BAD_SUFFIX, 0);
	close(d->fd);
	close(d->pristine);
	/* Fails if anything else, such as a .new file, was left behind. */
	assert_int_equal(rmdir(d->path), 0);
	free(d);
	return 0;
}

static int open_disk(struct dir *d, int *fd, bool *made, struct error *e)
{
	return state_disk_open(d->fd, d->path, STATE_DISK_NAME, d->pristine, fd,
			       made, e);
}

static void assert_content(int fd, const char *expected)
{
	char text[32] = "";

	assert_int_equal(pread(fd, text, strlen(expected), TEXT_AT),
			 strlen(expected));
	assert_string_equal(text, expected);
}

static void the_first_start_makes_one(void **state)
{
	struct dir *d = *state;
	struct error e = ERROR_NULL(e);
	struct stat st;
	bool made = false;
	int fd;

	if (open_disk(d, &fd, &made, &e) < 0)
		fail_msg("%s", e.text);
	assert_true(made);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* Nothing of it can be missing later. */
	assert_true(st.st_blocks * 512 >= SIZE);
	assert_content(fd, TEXT);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
}

/* A disk with holes, as earlier versions made it. */
static void an_old_disk_gets_its_space(void **state)
{
	struct dir *d = *state;
	struct stat st;
	int fd;

	assert_int_equal(open_disk(d, &fd, NULL, NULL), 0);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      2 * TEXT_AT, SIZE - 2 * TEXT_AT) < 0) {
		assert_int_equal(errno, EOPNOTSUPP);
		close(fd);
		skip();
	}
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks * 512 < SIZE);
	close(fd);
	assert_int_equal(open_disk(d, &fd, NULL, NULL), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks * 512 >= SIZE);
	assert_content(fd, TEXT);
	close(fd);
}

static void the_next_start_keeps_it(void **state)
{
	struct dir *d = *state;
	bool made;
	int fd;

	assert_int_equal(open_disk(d, &fd, NULL, NULL), 0);
	assert_int_equal(pwrite(fd, "guards", 6, TEXT_AT), 6);
	close(fd);
	assert_int_equal(open_disk(d, &fd, &made, NULL), 0);
	assert_false(made);
	assert_content(fd, "guards");
	close(fd);
}

static void two_vms_cannot_share_it(void **state)
{
	struct dir *d = *state;
	struct error e = ERROR_NULL(e);
	int fd, copy, other;

	assert_int_equal(open_disk(d, &fd, NULL, NULL), 0);
	assert_int_equal(open_disk(d, &other, NULL, &e), -EBUSY);
	assert_non_null(strstr(e.text, "in use"));
	/* As when QEMU has the fd and the engine closed its own. */
	copy = dup(fd);
	close(fd);
	assert_int_equal(open_disk(d, &other, NULL, NULL), -EBUSY);
	close(copy);
	assert_int_equal(open_disk(d, &other, NULL, NULL), 0);
	close(other);
}

static void a_truncated_disk_is_put_aside(void **state)
{
	struct dir *d = *state;
	struct stat st;
	bool made;
	int fd;

	assert_int_equal(open_disk(d, &fd, NULL, NULL), 0);
	assert_int_equal(ftruncate(fd, 1000), 0);
	close(fd);
	assert_int_equal(open_disk(d, &fd, &made, NULL), 0);
	assert_true(made);
	assert_content(fd, TEXT);
	close(fd);
	assert_int_equal(
		fstatat(d->fd, STATE_DISK_NAME STATE_DISK_BAD_SUFFIX, &st, 0),
		0);
	assert_int_equal(st.st_size, 1000);
}

static void a_deleted_or_replaced_disk_is_noticed(void **state)
{
	struct dir *d = *state;
	struct error e = ERROR_NULL(e);
	int fd, next;

	assert_int_equal(open_disk(d, &fd, NULL, &e), 0);
	assert_true(state_disk_is_current(d->fd, STATE_DISK_NAME, fd));
	assert_int_equal(unlinkat(d->fd, STATE_DISK_NAME, 0), 0);
	assert_false(state_disk_is_current(d->fd, STATE_DISK_NAME, fd));
	assert_int_equal(open_disk(d, &next, NULL, &e), 0);
	assert_false(state_disk_is_current(d->fd, STATE_DISK_NAME, fd));
	assert_true(state_disk_is_current(d->fd, STATE_DISK_NAME, next));
	close(fd);
	close(next);
}

static void replacing_keeps_the_latest_bad_one(void **state)
{
	struct dir *d = *state;
	const char *const texts[] = { "first", "other" };
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		assert_int_equal(open_disk(d, &fd, NULL, NULL), 0);
		assert_int_equal(pwrite(fd, texts[i], 5, TEXT_AT), 5);
		close(fd);
		assert_int_equal(state_disk_replace(d->fd, d->path,
						    STATE_DISK_NAME,
						    d->pristine, NULL),
				 0);
	}
	fd = openat(d->fd, STATE_DISK_NAME STATE_DISK_BAD_SUFFIX, O_RDONLY);
	assert_content(fd, "other");
	close(fd);
	assert_int_equal(open_disk(d, &fd, NULL, NULL), 0);
	assert_content(fd, TEXT);
	close(fd);
}

static void only_a_file_is_a_disk(void **state)
{
	struct dir *d = *state;
	struct error e = ERROR_NULL(e);
	int fd;

	assert_int_equal(symlinkat("/etc/passwd", d->fd, STATE_DISK_NAME), 0);
	assert_int_equal(open_disk(d, &fd, NULL, &e), -ELOOP);
	assert_non_null(strstr(e.text, STATE_DISK_NAME));
	unlinkat(d->fd, STATE_DISK_NAME, 0);
	assert_int_equal(mkfifoat(d->fd, STATE_DISK_NAME, 0600), 0);
	assert_int_equal(open_disk(d, &fd, NULL, &e), -EINVAL);
}

static void an_unwritable_folder_is_named(void **state)
{
	struct dir *d = *state;
	struct error e = ERROR_NULL(e);
	int fd, proc = open("/proc/self", O_RDONLY | O_DIRECTORY);

	assert_true(state_disk_open(proc, "/proc/self", STATE_DISK_NAME,
				    d->pristine, &fd, NULL, &e) < 0);
	assert_non_null(strstr(e.text, "/proc/self"));
	close(proc);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		with(the_first_start_makes_one),
		with(an_old_disk_gets_its_space),
		with(the_next_start_keeps_it),
		with(two_vms_cannot_share_it),
		with(a_truncated_disk_is_put_aside),
		with(a_deleted_or_replaced_disk_is_noticed),
		with(replacing_keeps_the_latest_bad_one),
		with(only_a_file_is_a_disk),
		with(an_unwritable_folder_is_named),
	};

	return cmocka_run_group_tests_name("state-disk", tests, NULL, NULL);
}
