/* Changes of a configuration file that lose nothing of it. */
#pragma once

#include <jansson.h>

#include "config/config.h"

/**
 * typedef config_edit_fn - What is to be changed
 * @root:	The file's object, {} if there is no file; to be changed in
 * place
 * @cfg:	The same, parsed
 *
 * Return: 1 when @root was changed, 0 when nothing is to be written, or a
 * negative errno with a sentence
 */
typedef int (*config_edit_fn)(json_t *root, const struct config *cfg,
			      void *userdata, struct error *e);

/**
 * config_edit() - Change a configuration file in one step
 * @path:	Need not exist; its folder must
 *
 * The file is read and checked as config_load() does, changed, checked again as
 * a whole and put in place of the old one by rename(2), so that a reader or a
 * power cut sees either. Owner, group and order of the keys stay, and the mode,
 * except that others lose what they may once the file holds secrets. A new file
 * has mode 0600. Two such changes at once wait for each other; blocks for at
 * most a few seconds.
 *
 * Return: as @fn, or a negative errno with a sentence that begins with the
 * file's name: nothing was changed
 */
int config_edit(const char *path, config_edit_fn fn, void *userdata,
		struct error *e);

/* The object of a section, made if it is not there; NULL: out of memory. */
json_t *config_edit_section(json_t *root, const char *section);
