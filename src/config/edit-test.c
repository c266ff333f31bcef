#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "config/edit.h"

struct folder {
	char dir[64];
	char file[96];
};

static int make_folder(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));

	*state = f;
	strcpy(f->dir, "/tmp/torvm-edit-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->file, sizeof(f->file), "%s/torvm.json", f->dir);
	return 0;
}

static int remove_folder(void **state)
{
	struct folder *f = *state;

	unlink(f->file);
	/* Nothing else is left there. */
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static void put(const char *path, const char *text, mode_t mode)
{
	FILE *out = fopen(path, "we");

	assert_non_null(out);
	fputs(text, out);
	fclose(out);
	assert_int_equal(chmod(path, mode), 0);
}

static void holds(const char *path, const char *text)
{
	char buf[1000] = "";
	FILE *in = fopen(path, "re");

	assert_non_null(in);
	assert_true(fread(buf, 1, sizeof(buf) - 1, in) > 0);
	fclose(in);
	assert_string_equal(buf, text);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static int set_cpus(json_t *root, const struct config *cfg, void *userdata,
		    struct error *e)
{
	int cpus = *(const int *)userdata;

	if (cpus == (int)cfg->vm.cpus)
		return 0;
	json_object_set_new(config_edit_section(root, "vm"), "cpus",
			    json_integer(cpus));
	return 1;
}

static int edit_cpus(const struct folder *f, int cpus, struct error *e)
{
	*e = ERROR_NULL(*e);
	return config_edit(f->file, set_cpus, &cpus, e);
}

static void order_and_other_keys_stay(void **state)
{
	const struct folder *f = *state;
	struct error e;

	put(f->file,
	    "{\"log\": {\"file\": \"/a/\xc3\xa9\"},\n\"vm\": {\"accel\": "
	    "\"tcg\",\"cpus\":1, \"memory_mb\": 200}, \"tor\": {}}",
	    0640);
	assert_int_equal(edit_cpus(f, 2, &e), 1);
	holds(f->file,
	      "{\n  \"log\": {\n    \"file\": \"/a/\xc3\xa9\"\n  },\n"
	      "  \"vm\": {\n    \"accel\": \"tcg\",\n    \"cpus\": 2,\n"
	      "    \"memory_mb\": 200\n  },\n  \"tor\": {}\n}\n");
	assert_int_equal(mode_of(f->file), 0640);
	/* Nothing to do: not even the white space changes. */
	put(f->file, "{ }", 0600);
	assert_int_equal(edit_cpus(f, 1, &e), 0);
	holds(f->file, "{ }");
}

static void a_file_is_made(void **state)
{
	const struct folder *f = *state;
	struct error e;

	assert_int_equal(edit_cpus(f, 2, &e), 1);
	holds(f->file, "{\n  \"vm\": {\n    \"cpus\": 2\n  }\n}\n");
	assert_int_equal(mode_of(f->file), 0600);
}

static void a_bad_result_changes_nothing(void **state)
{
	const struct folder *f = *state;
	struct error e;

	put(f->file, "{ }", 0600);
	assert_int_equal(edit_cpus(f, 99, &e), -EINVAL);
	assert_non_null(strstr(e.text, "key vm.cpus: is 99"));
	assert_non_null(strstr(e.text, f->file));
	holds(f->file, "{ }");
}

static void a_bad_file_is_not_touched(void **state)
{
	const struct folder *f = *state;
	char link[128];
	struct error e;

	put(f->file, "{\"vm\": {\"cpu\": 1}}", 0600);
	assert_int_equal(edit_cpus(f, 2, &e), -EINVAL);
	holds(f->file, "{\"vm\": {\"cpu\": 1}}");
	put(f->file, "{}", 0666);
	assert_int_equal(edit_cpus(f, 2, &e), -EPERM);
	unlink(f->file);
	snprintf(link, sizeof(link), "%s/link", f->dir);
	put(link, "{}", 0600);
	assert_int_equal(symlink(link, f->file), 0);
	assert_int_equal(edit_cpus(f, 2, &e), -ELOOP);
	holds(link, "{}");
	unlink(link);
	unlink(f->file);
	snprintf(link, sizeof(link), "%s/none/torvm.json", f->dir);
	assert_int_equal(config_edit(link, set_cpus, &(int){ 2 }, &e), -ENOENT);
}

static int add_bridge(json_t *root, const struct config *cfg, void *userdata,
		      struct error *e)
{
	json_object_set_new(config_edit_section(root, "bridge"), "bridges",
			    json_pack("[s]", "192.0.2.1:443"));
	return 1;
}

static void secrets_are_not_for_everybody(void **state)
{
	const struct folder *f = *state;
	struct error e = ERROR_NULL(e);

	put(f->file, "{}", 0644);
	assert_int_equal(config_edit(f->file, add_bridge, NULL, &e), 1);
	assert_int_equal(mode_of(f->file), 0640);
}

static void a_lock_is_not_waited_for_for_ever(void **state)
{
	const struct folder *f = *state;
	int dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct error e;

	assert_int_equal(flock(dir, LOCK_EX), 0);
	assert_int_equal(edit_cpus(f, 2, &e), -EBUSY);
	close(dir);
	assert_int_equal(edit_cpus(f, 2, &e), 1);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(order_and_other_keys_stay),
		TEST(a_file_is_made),
		TEST(a_bad_result_changes_nothing),
		TEST(a_bad_file_is_not_touched),
		TEST(secrets_are_not_for_everybody),
		TEST(a_lock_is_not_waited_for_for_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
